"""Writing into a store that begins empty; reading what was just written; changing it again."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Final

from benches.peers.data import VALUE_BYTES, batches, items, key, picked, shuffled
from benches.peers.engines import Items
from benches.peers.processes import Session
from benches.peers.rows import Done, Group, Measured, Row, Task, bounded, check, seconds


def _open(session: Session, task: Task, *, durable: bool = False) -> None:
    path = os.path.join(task.place, "store")
    session.open(path, durable=durable, memtable_bytes=task.sizes.memtable_bytes)


def _in_order(session: Session, task: Task) -> Iterator[Measured]:
    everything = items(range(task.keys), seed=task.turn)
    _open(session, task)
    yield bounded(session.opened.put_each, everything, seconds(session, task)).measured("fillseq")


def _at_random(session: Session, task: Task) -> Iterator[Measured]:
    """Every row needs that the first was there: it is done even if it was not asked for."""
    order = shuffled(task.keys, task.turn)
    everything = items(order, seed=task.turn)
    _open(session, task)
    opened, less = session.opened, min(task.sizes.short_seconds, seconds(session, task))
    filled = bounded(opened.put_each, everything, seconds(session, task))
    del everything
    yield filled.measured("fillrandom")
    there = order[: filled.count]
    if "readhot" in task.rows:
        yield _read_hot(session, task, there)
    if "overwrite" in task.rows:
        again = items([there[n] for n in picked(task.keys, len(there), task.turn)], seed=1)
        yield bounded(opened.put_each, again, less).measured("overwrite")
    if "deleterandom" in task.rows:
        gone = [key(there[n]) for n in shuffled(len(there), 1)]
        yield bounded(opened.delete_each, gone, less).measured("deleterandom")


def _read_hot(session: Session, task: Task, there: Sequence[int]) -> Measured:
    hot = there[-task.sizes.hot_keys :]
    wanted = [key(hot[n]) for n in picked(task.sizes.reads, len(hot), task.turn)]
    return read(session, task, wanted).measured("readhot")


def read(session: Session, task: Task, wanted: Sequence[bytes]) -> Done:
    """Get keys all of which are there."""
    sizes: list[int] = []
    get_each = session.opened.get_each
    done = bounded(lambda some: sizes.append(get_each(some)), wanted, seconds(session, task))
    check(sum(sizes) == VALUE_BYTES * done.count)
    return done


def _in_batches(session: Session, task: Task) -> Iterator[Measured]:
    yield _fill_batches(session, task, "fillbatch")


def _in_durable_batches(session: Session, task: Task) -> Iterator[Measured]:
    yield _fill_batches(session, task, "fillbatch-durable", durable=True)


def _fill_batches(session: Session, task: Task, row: str, *, durable: bool = False) -> Measured:
    everything = items(shuffled(task.keys, task.turn), seed=task.turn)
    _open(session, task, durable=durable)
    write = session.opened.write

    def work(some: Items) -> None:
        for batch in batches(some):
            write(batch)

    return bounded(work, everything, seconds(session, task), first=1000).measured(row)


GROUPS: Final = [
    Group("fillbatch", "write", [Row("fillbatch", "batches of 1,000, items")], _in_batches),
    Group(
        "fillbatch-durable",
        "durable",
        [Row("fillbatch-durable", "durable batches of 1,000, items")],
        _in_durable_batches,
    ),
    Group("fillseq", "write", [Row("fillseq", "single puts, in order")], _in_order),
    Group(
        "fillrandom",
        "write",
        [
            Row("fillrandom", "single puts, at random"),
            Row("readhot", "gets of the last 10,000 keys put"),
            Row("overwrite", "single puts over others"),
            Row("deleterandom", "single deletes"),
        ],
        _at_random,
    ),
]
