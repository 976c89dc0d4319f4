"""Single puts each of which survives a power loss, from many threads, beside the disk's speed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from itertools import cycle
from typing import Final

from benches.log.floor import floor_of
from benches.measuring import Sample, sample
from benches.peers.data import items, shuffled
from benches.peers.processes import Session
from benches.peers.rows import Group, Measured, Row, Task
from benches.settings import FULL

ENTRY: Final = 128
"""About what a put of a 16-byte key takes in a log: the floor writes so much."""
WARM_UP: Final = 0.1
PREPARED: Final = 100_000
THREADS: Final = {f"fillsync-{count}": count for count in (1, 8, 32)}
SCALING: Final = {f"scaling-{count}": count for count in (1, 2, 4, 8, 16, 32, 64)}


def _singles(session: Session, task: Task) -> Iterator[Measured]:
    yield from _puts(session, task, THREADS)


def _scaling(session: Session, task: Task) -> Iterator[Measured]:
    yield from _puts(session, task, SCALING)


def _puts(session: Session, task: Task, threads: dict[str, int]) -> Iterator[Measured]:
    """Random keys; the floor is measured right before each cell."""
    session.open(os.path.join(task.place, "store"), durable=True)
    put = session.opened.putter()
    following = cycle(items(shuffled(min(PREPARED, task.keys), task.turn)))

    def work() -> None:
        put(*next(following))

    sample(work, WARM_UP)
    for name in task.rows:
        floor = floor_sample(task)
        cell = sample(work, task.sizes.sync_seconds, threads[name])
        yield Measured(name, cell.rate, beside(cell, floor))


def floor_sample(task: Task) -> Sample:
    settings = replace(FULL, floor_seconds=task.sizes.floor_seconds)
    with floor_of(task.place, ENTRY, settings) as floor:
        return floor.sample()


def beside(cell: Sample, floor: Sample) -> dict[str, float]:
    """What is told of a cell, and of the floor right before it."""
    return {
        "count": len(cell.latencies),
        **{f"p{percent:g}_ms": 1000 * cell.percentile(percent) for percent in (50, 99, 99.9)},
        "floor": floor.rate,
        "to_floor": cell.rate / floor.rate,
    }


def _rows(threads: dict[str, int], what: str) -> list[Row]:
    return [
        Row(name, f"{what}, {count} thread{'s' if count > 1 else ''}")
        for name, count in threads.items()
    ]


GROUPS: Final = [
    Group("fillsync", "durable", _rows(THREADS, "durable single puts"), _singles),
    Group("scaling", "durable", _rows(SCALING, "durable single puts"), _scaling, plotted=True),
]
