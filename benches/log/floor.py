"""The floor: one thread that writes and syncs, over and over, into a preallocated zero-filled file.

No log can commit faster from one thread. Where the system lets us, these are the bare system calls.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median

from benches.goals import Figure
from benches.measuring import Sample, Work, sample, spread
from benches.settings import MIB, Settings, label
from wal.files.standard import StandardFileSystem

FILE_BYTES = 64 * MIB


class Floor:
    """Writes of one size, each synced, that wrap around in one file."""

    def __init__(self, write: Work, seconds: float) -> None:
        self._write = write
        self._seconds = seconds

    def sample(self) -> Sample:
        return sample(self._write, self._seconds)


@contextmanager
def floor_of(directory: str, size: int, settings: Settings) -> Iterator[Floor]:
    """The floor of one size; its file lives as long as the context."""
    path = os.path.join(directory, "floor")
    file = StandardFileSystem().create(path)
    try:
        file.allocate(FILE_BYTES)
        file.sync()
        with _writer(path, size) as write:
            yield Floor(write, settings.floor_seconds)
    finally:
        file.close()
        os.remove(path)


@contextmanager
def _writer(path: str, size: int) -> Iterator[Work]:
    data = os.urandom(size)
    at = -size

    def advance() -> int:
        nonlocal at
        at = at + size if at + 2 * size <= FILE_BYTES else 0
        return at

    if sys.platform == "linux":
        descriptor = os.open(path, os.O_RDWR)

        def write() -> None:
            os.pwrite(descriptor, data, advance())
            os.fdatasync(descriptor)

        try:
            yield write
        finally:
            os.close(descriptor)
    else:  # what a synced write is differs between systems: ask the log's own files
        file = StandardFileSystem().open(path)

        def write_and_sync() -> None:
            file.write_at(advance(), [data])
            file.sync()

        try:
            yield write_and_sync
        finally:
            file.close()


def run(settings: Settings, directory: str) -> Iterator[Figure]:
    """The floor by itself, for every size."""
    for size in settings.sizes:
        with floor_of(directory, size, settings) as floor:
            samples = [floor.sample() for _ in range(settings.rounds)]
        rates = [each.rate for each in samples]
        latencies = {
            f"p{p}_ms": 1000 * median(each.percentile(p) for each in samples) for p in (50, 95, 99)
        }
        yield Figure(f"floor/{label(size)}", median(rates), "/s", {**latencies, **spread(rates)})
