"""Buffered appends of 128 bytes from one thread: bare, with a hook each, with the manager's one."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from statistics import median

import wal
from benches.goals import Figure
from benches.measuring import Work, spread, timed
from benches.settings import Settings

SIZE = 128


class Following(wal.LogVoid):
    """A manager that is told of every appended entry."""

    def __init__(self) -> None:
        self.last_id = 0

    def committed(self, entry_id: wal.EntryId, segment_id: int, chunks: Sequence[bytes]) -> None:
        self.last_id = entry_id


def _bare(log: wal.WriteAheadLog, count: int) -> None:
    data = os.urandom(SIZE)
    for _ in range(count):
        log.append([data])


def _hooked(log: wal.WriteAheadLog, count: int) -> None:
    data = os.urandom(SIZE)
    seen: dict[int, bytes] = {}

    def on_commit(entry_id: wal.EntryId, segment_id: int) -> None:
        seen[segment_id] = data

    for _ in range(count):
        log.append([data], on_commit)


def run(settings: Settings, directory: str) -> Iterator[Figure]:
    count = settings.appends
    with ExitStack() as stack:

        def opened(name: str, manager: wal.LogManager) -> wal.WriteAheadLog:
            path = os.path.join(directory, f"buffered-{name}")
            configuration = wal.Configuration(path, durability=wal.Durability.BUFFER)
            return stack.enter_context(configuration.open(manager))

        bare, hooked = opened("bare", wal.LogVoid()), opened("hooked", wal.LogVoid())
        following = opened("following", Following())
        cells: dict[str, Work] = {
            "": lambda: _bare(bare, count),
            "/on_commit": lambda: _hooked(hooked, count),
            "/committed": lambda: _bare(following, count),
        }
        rates: dict[str, list[float]] = {name: [] for name in cells}
        for _ in range(settings.repeats):
            for name, work in cells.items():
                rates[name].append(count / timed(work))
    for name, found in rates.items():
        yield Figure(f"buffered appends/{SIZE} B{name}", median(found), "/s", spread(found))
