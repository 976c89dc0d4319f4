"""Durable commits of one chunk by 1 to 64 threads, as a ratio to the floor of their size.

Segments are recycled: the manager keeps nothing. Chunks of 1 MiB go into segments of 64 MiB, which
are full after 63 commits; smaller ones into segments of the default length.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from statistics import median

import wal
from benches.goals import TAIL, Figure
from benches.log.floor import Floor, floor_of
from benches.measuring import Pair, sample, summary
from benches.settings import MIB, Settings, label

LARGE_SEGMENT_BYTES = 64 * MIB


def run(settings: Settings, directory: str) -> Iterator[Figure]:
    long_tails = 0
    for size in settings.sizes:
        cells = _measure(settings, directory, size)
        for threads, pairs in cells.items():
            details = summary(pairs)
            long_tails += _has_long_tail(details)
            ratio = median(pair.ratio for pair in pairs)
            yield Figure(f"fsync commits/{label(size)}/{threads} threads", ratio, "x", details)
    yield Figure("fsync commits/long tails", long_tails, "cells")


def _measure(settings: Settings, directory: str, size: int) -> dict[int, list[Pair]]:
    cells: dict[int, list[Pair]] = {threads: [] for threads in settings.threads}
    with _open(directory, size) as log, floor_of(directory, size, settings) as floor:
        data = os.urandom(size)
        _warm_up(log, data, settings)
        for _ in range(settings.rounds):
            for threads, pairs in cells.items():
                pairs.append(_round(log, data, floor, threads, settings))
    return cells


def _round(
    log: wal.WriteAheadLog, data: bytes, floor: Floor, threads: int, settings: Settings
) -> Pair:
    below = floor.sample()
    return Pair(below, sample(lambda: log.append([data]), settings.cell_seconds, threads))


def _open(directory: str, size: int) -> wal.WriteAheadLog:
    path = os.path.join(directory, f"fsync-{size}")
    if size < MIB:
        return wal.recover(path, wal.LogVoid())
    return wal.Configuration(path, preallocate_bytes=LARGE_SEGMENT_BYTES).open(wal.LogVoid())


def _warm_up(log: wal.WriteAheadLog, data: bytes, settings: Settings) -> None:
    """Commit for a while; large chunks until the segments that come next are recycled ones."""
    sample(lambda: log.append([data]), settings.floor_seconds)
    if len(data) >= MIB and settings.rounds > 1:
        for _ in range(4 * LARGE_SEGMENT_BYTES // len(data)):
            log.append([data])


def _has_long_tail(details: dict[str, float]) -> bool:
    floor_has = details["floor_p99_ms"] > TAIL * details["floor_p50_ms"]
    return details["p99_ms"] > TAIL * details["p50_ms"] and not floor_has
