"""Recovery with a warm page cache: from the call that opens the log until it returns.

Every log is one segment, and no checkpoint has taken anything from it. After a clean close the log
goes on in that segment. After a crash its tail is written again and a fresh segment is zero-filled,
which may take longer than the replay: so the time up to the last entry is told beside.
"""

from __future__ import annotations

import gc
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from statistics import median
from time import perf_counter

import wal
from benches.goals import Figure
from benches.measuring import spread
from benches.settings import MIB, Settings

MARKER = "CHECKPOINT"


class Counting(wal.LogManager):
    """Counts what it recovers, keeps it in the log, and notes when it met the last entry."""

    def __init__(self, last_id: int) -> None:
        self.entries = 0
        self.met_last = 0.0
        self._last_id = last_id

    def recover(self, entry: wal.Entry) -> None:
        self.entries += 1
        if entry.id == self._last_id:
            self.met_last = perf_counter()

    def checkpoint_to(
        self, last_id: wal.EntryId, entries: wal.SegmentReader, log: wal.WriteAheadLog
    ) -> None:
        raise RuntimeError("this log is to be recovered again")


class Reading(Counting):
    """Reads every chunk as well."""

    def recover(self, entry: wal.Entry) -> None:
        entry.read_all()
        super().recover(entry)


MANAGERS: dict[str, type[Counting]] = {"count": Counting, "read_all": Reading}

Write = Callable[[wal.WriteAheadLog, bytes], object]


def _append(log: wal.WriteAheadLog, data: bytes) -> None:
    log.append([data])


def _stream(log: wal.WriteAheadLog, data: bytes) -> None:
    with log.begin_entry() as entry:
        entry.write_chunk(data)


@dataclass(frozen=True)
class Content:
    """What a log holds, and in what its recovery is counted: entries, or GB."""

    name: str
    size: int
    count: int
    write: Write
    in_bytes: bool = False

    def rate(self, seconds: float) -> float:
        return self.count * (self.size / 1e9 if self.in_bytes else 1) / seconds

    @property
    def unit(self) -> str:
        return "GB/s" if self.in_bytes else "/s"


def _contents(settings: Settings) -> list[Content]:
    return [
        Content("128 B", 128, settings.recovered_small, _append),
        Content("256 B", 256, settings.recovered_medium, _append),
        Content("1 MiB", MIB, settings.recovered_large, _append, in_bytes=True),
        Content("streamed 128 B", 128, settings.recovered_streamed, _stream),
    ]


def run(settings: Settings, directory: str) -> Iterator[Figure]:
    logger = logging.getLogger("wal")
    level = logger.level
    logger.setLevel(logging.CRITICAL)  # checkpoints are refused on purpose
    try:
        for content in _contents(settings):
            path = os.path.join(directory, "recovery")
            yield from _measure(content, path, settings)
            shutil.rmtree(path)
    finally:
        logger.setLevel(level)


def _measure(content: Content, path: str, settings: Settings) -> Iterator[Figure]:
    configuration = _configuration(path, settings)
    marker = _build(content, configuration)
    _reopen(configuration, Counting(content.count))  # warms up the page cache
    clean: dict[str, list[float]] = {name: [] for name in MANAGERS}
    crashed: list[tuple[float, float]] = []
    for _ in range(settings.repeats):
        for name, manager in MANAGERS.items():
            clean[name].append(content.rate(_reopen(configuration, manager(content.count))[0]))
        crashed.append(_reopen_crashed(content, path, marker, settings))
    for name, rates in clean.items():
        figure = f"recovery/{content.name}/{name}"
        yield Figure(figure, median(rates), content.unit, spread(rates))
    for index, what in enumerate(("in all", "to the last entry")):
        rates = [content.rate(times[index]) for times in crashed]
        figure = f"recovery/{content.name}/after a crash, {what}"
        yield Figure(figure, median(rates), content.unit, spread(rates))


def _configuration(path: str, settings: Settings) -> wal.Configuration:
    return wal.Configuration(
        path,
        preallocate_bytes=settings.recovery_segment_bytes,
        durability=wal.Durability.BUFFER,
    )


def _build(content: Content, configuration: wal.Configuration) -> bytes:
    """Fill the log and close it; the marker as a crash right before the close would leave it."""
    data = os.urandom(content.size)
    with configuration.open(Counting(0)) as log:
        for _ in range(content.count):
            content.write(log, data)
        log.sync()
        with open(os.path.join(configuration.directory, MARKER), "rb") as file:
            return file.read()


def _reopen(configuration: wal.Configuration, manager: Counting) -> tuple[float, float]:
    """Seconds until the log was open, and until its last entry was met."""
    gc.collect()
    started = perf_counter()
    log = configuration.open(manager)
    seconds = perf_counter() - started
    with suppress(wal.CheckpointError):
        log.shutdown()
    return seconds, manager.met_last - started


def _reopen_crashed(
    content: Content, path: str, marker: bytes, settings: Settings
) -> tuple[float, float]:
    """The same for a copy of the log that was never closed. Segments are linked, not copied."""
    copy = f"{path}-crashed"
    os.mkdir(copy)
    try:
        for name in os.listdir(path):
            if name.startswith("wal-"):
                os.link(os.path.join(path, name), os.path.join(copy, name))
        with open(os.path.join(copy, MARKER), "wb") as file:
            file.write(marker)
            os.fsync(file.fileno())
        return _reopen(_configuration(copy, settings), Counting(content.count))
    finally:
        shutil.rmtree(copy)
