"""Single puts, with checkpoints and compactions going on and without.

Two stores get the same puts in turns. In one the memtable and the log's files are so large that
nothing becomes a table while puts are timed; in the other they are as usual, and the puts take long
enough for many tables. All but the first puts overwrite, so that the stores stay as large as they
are; both are compacted in between.
"""

from __future__ import annotations

import gc
import os
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from statistics import median
from time import perf_counter

import kvstore
from benches.goals import Figure
from benches.measuring import Pair, Sample, settle, spread
from benches.settings import MIB, Settings
from benches.store.items import BLOCK, Items, items

TIMES = 2
"""Every item is put so many times in a round."""
MOST_LOGGED = 256
"""No put takes so many bytes in the log."""
WARM_UP = 6
"""One in so many puts comes before those that are timed: until files are there, tables are due."""


@dataclass(frozen=True)
class Way:
    """How a store is opened, and what its puts took, round for round."""

    name: str
    memtable_bytes: int
    log_segment_bytes: int | None
    samples: list[Sample] = field(default_factory=list)
    checkpointed: list[float] = field(default_factory=list)
    """How many of the puts were in tables when they ended, of one."""


def run(settings: Settings, directory: str) -> Iterator[Figure]:
    puts = [item for block in range(settings.timed_puts // BLOCK) for item in items(block)]
    calm = Way("without", 4096 * MIB, max(TIMES * len(puts) * MOST_LOGGED, 8 * MIB))
    busy = Way("with", 64 * MIB, None)
    for turn in range(1 + settings.store_repeats):
        random.Random(turn).shuffle(puts)
        for way in (calm, busy):
            _round(way, os.path.join(directory, f"put-latency-{way.name}"), puts)
    for way in (calm, busy):
        del way.samples[0], way.checkpointed[0]  # they filled the stores
        yield _figure(way)
    pairs = [Pair(*both) for both in zip(calm.samples, busy.samples, strict=True)]
    tails = [pair.cell.percentile(99.9) / pair.floor.percentile(99.9) for pair in pairs]
    yield Figure("store put latency/p99.9", median(tails), "x", spread(tails))
    ratios = [pair.ratio for pair in pairs]
    yield Figure("store put latency/throughput", median(ratios), "x", spread(ratios))


def _round(way: Way, path: str, puts: Items) -> None:
    with kvstore.open(
        path,
        durability=kvstore.Durability.BUFFER,
        memtable_bytes=way.memtable_bytes,
        log_segment_bytes=way.log_segment_bytes,
    ) as db:
        db.compact()
        settle()
        first = db.last_entry_id
        warm_up = TIMES * len(puts) // WARM_UP
        _put(db, chain(puts[:warm_up]))
        way.samples.append(_put(db, chain(puts[warm_up:], *[puts] * (TIMES - 1))))
        stats = db.stats()
        done = max(stats.checkpoint_entry_id - first, 0)
        way.checkpointed.append(done / (stats.last_entry_id - first))


def _put(db: kvstore.Store, items: Iterable[tuple[bytes, bytes]]) -> Sample:
    gc.collect()
    latencies = []
    started = before = perf_counter()
    for key, value in items:
        db.put(key, value)
        now = perf_counter()
        latencies.append(now - before)
        before = now
    return Sample(before - started, sorted(latencies))


def _figure(way: Way) -> Figure:
    details = {
        f"p{percent:g}_us": 1e6 * median(each.percentile(percent) for each in way.samples)
        for percent in (50, 99, 99.9, 100)
    }
    details["checkpointed"] = median(way.checkpointed)
    rate = median(each.rate for each in way.samples)
    return Figure(f"store put latency/{way.name} checkpoints", rate, "/s", details)
