"""For plots: what a get and a put cost against the number of keys that are there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Final

from benches.peers.data import batches, items, key, picked, shuffled
from benches.peers.engines import Engine, Items
from benches.peers.processes import Session
from benches.peers.rows import Group, Measured, Row, Task, bounded, seconds
from benches.peers.rows.filling import read

COUNTS: Final = {f"growth-{10**power}": 10**power for power in (4, 5, 6)}
LARGE: Final = {"growth-10000000": 10**7}
ALL: Final = {**COUNTS, **LARGE}
MADE_AT_ONCE: Final = 100_000


def _measure(session: Session, task: Task) -> Iterator[Measured]:
    for name in task.rows:
        yield _at(session, task, name, min(ALL[name], task.sizes.most_growth))


def _at(session: Session, task: Task, name: str, keys: int) -> Measured:
    """Gets after reopening, warm; then puts over what is there."""
    path = os.path.join(task.place, name)
    session.open(path)
    session.opened.fill(_made(shuffled(keys, 0)))
    session.close()
    session.open(path, cache_bytes=task.sizes.cache_bytes)
    wanted = list(map(key, picked(task.sizes.reads, keys, task.turn)))
    read(session, task, wanted)
    gets = read(session, task, wanted).measured(name)
    puts = items(picked(task.sizes.reads, keys, task.turn))
    most = min(task.sizes.short_seconds, seconds(session, task))
    done = bounded(session.opened.put_each, puts, most)
    session.close()
    return Measured(name, gets.value, {"keys": keys, "puts": done.count / done.seconds})


def _made(numbers: list[int]) -> Iterator[Items]:
    """Batches, of which not many are in memory at the same time."""
    for at in range(0, len(numbers), MADE_AT_ONCE):
        yield from batches(items(numbers[at : at + MADE_AT_ONCE]))


def _fast(engine: type[Engine]) -> bool:
    return engine.most_keys is None


def _rows(counts: dict[str, int]) -> list[Row]:
    return [Row(name, f"gets from {count:,} keys, warm") for name, count in counts.items()]


GROUPS: Final = [
    Group("growth", "write", _rows(COUNTS), _measure, plotted=True, engines=_fast),
    Group("growth-large", "write", _rows(LARGE), _measure, plotted=True, engines=_fast),
]
