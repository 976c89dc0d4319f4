"""Reading a large store after reopening it: its file is in the page cache, the engine begins cold.

The store is loaded in random order, in batches, then each engine compacts it, and it is closed.
Two rows read a copy of one that was not compacted, while the engine may still be about it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from time import perf_counter
from typing import Final

from benches.memory import memory_mib
from benches.peers.data import ITEM_BYTES, absent, batches, items, key, picked, shuffled
from benches.peers.engines import Items
from benches.peers.processes import Session
from benches.peers.rows import Done, Group, Measured, Row, Task, bounded, check, seconds
from benches.peers.rows.filling import read

RANGE: Final = 100
AT_ONCE: Final = 100
CACHED_PART: Final = 4
WRITTEN_BESIDE: Final = 5
"""One in so many keys is there while others are written."""


def _open(session: Session, task: Task, cache_bytes: int = 0) -> None:
    cache = cache_bytes or task.sizes.cache_bytes
    session.open(task.stock, cache_bytes=cache, memtable_bytes=task.sizes.memtable_bytes)


def _keys(task: Task, seed: int = 0) -> list[bytes]:
    return list(map(key, picked(task.sizes.reads, task.keys, task.turn + seed)))


def _holds_all(task: Task) -> bool:
    """Slow engines hold fewer keys: what these take is not to be compared."""
    return task.keys == task.sizes.keys


def _reopened(session: Session, task: Task) -> Iterator[Measured]:
    wanted = _keys(task)
    before = memory_mib("VmRSS")
    _open(session, task)
    yield read(session, task, wanted).measured("readcold")
    yield read(session, task, wanted).measured("readwarm")
    peak = memory_mib("VmHWM")
    if peak is not None and before is not None and _holds_all(task):
        yield Measured("memory", peak - before)
    if "multiget" in task.rows:
        yield _multiget(session, task, wanted)


def _multiget(session: Session, task: Task, wanted: list[bytes]) -> Measured:
    get_many = session.opened.get_many
    check(len(get_many(wanted[:1])) == 1)
    groups = [wanted[at : at + AT_ONCE] for at in range(0, len(wanted), AT_ONCE)]

    def work(some: Sequence[list[bytes]]) -> None:
        for group in some:
            get_many(group)

    return bounded(work, groups, seconds(session, task), first=1).measured("multiget", AT_ONCE)


def _as_loaded(session: Session, task: Task) -> Iterator[Measured]:
    wanted = _keys(task)
    _open(session, task)
    read(session, task, wanted)
    yield read(session, task, wanted).measured("readloaded")
    yield _miss(session, task).measured("missloaded")


def _larger_than_cache(session: Session, task: Task) -> Iterator[Measured]:
    wanted, others = _keys(task), _keys(task, seed=1000)
    _open(session, task, cache_bytes=max(task.keys * ITEM_BYTES // CACHED_PART, 1 << 16))
    read(session, task, others)  # until the cache is full
    yield read(session, task, wanted).measured("readlarger")


def _missing(session: Session, task: Task) -> Iterator[Measured]:
    _open(session, task)
    yield _miss(session, task).measured("readmissing")


def _miss(session: Session, task: Task) -> Done:
    wanted = list(map(absent, picked(task.sizes.reads, task.keys, task.turn)))
    found: list[bool] = []
    miss_each = session.opened.miss_each
    done = bounded(lambda some: found.append(miss_each(some)), wanted, seconds(session, task))
    check(not any(found))
    return done


def _in_order(session: Session, task: Task) -> Iterator[Measured]:
    _open(session, task)
    scan, found = session.opened.scan, []
    done = bounded(lambda some: found.append(scan()), range(3), seconds(session, task), first=1)
    check(set(found) == {task.keys})
    yield done.measured("readseq", task.keys)


def _ranges(session: Session, task: Task) -> Iterator[Measured]:
    last = max(task.keys - RANGE, 1)
    numbers = picked(2 * task.sizes.scans, last, task.turn)
    starts = list(map(key, numbers))
    _open(session, task)
    scan_from = session.opened.scan_from
    found: list[int] = []

    def walk(count: int, among: list[bytes]) -> Done:
        found.clear()
        most = seconds(session, task)
        return bounded(lambda some: found.append(scan_from(some, RANGE)), among, most, count)

    walk(16, starts[task.sizes.scans :])  # from cold to warm
    done = walk(16, starts[: task.sizes.scans])
    check(sum(found) == RANGE * done.count)
    yield done.measured("scan100")


def _opening(session: Session, task: Task) -> Iterator[Measured]:
    """Up to the first get that was answered, in a process that did nothing else."""
    wanted = [key(picked(1, task.keys, task.turn)[0])]
    before = memory_mib("VmRSS")
    started = perf_counter()
    _open(session, task)
    found = session.opened.get_each(wanted)
    taken = perf_counter() - started
    check(found > 0)
    yield Measured("open", 1000 * taken, {"keys": task.keys})
    after = memory_mib("VmRSS")
    if before is not None and after is not None and _holds_all(task):
        yield Measured("open-memory", after - before, {"keys": task.keys})
    if _holds_all(task):
        yield Measured("disk", _disk_mib(task.stock), {"keys": task.keys})


def _disk_mib(path: str) -> float:
    """What the files take: of sparse ones what is in them."""
    paths = (os.path.join(top, name) for top, _, names in os.walk(path) for name in names)
    return sum(_taken(os.stat(file)) for file in paths) / (1 << 20)


def _taken(stat: os.stat_result) -> int:
    return stat.st_blocks * 512 if hasattr(stat, "st_blocks") else stat.st_size


def _while_writing(session: Session, task: Task) -> Iterator[Measured]:
    """One thread reads at random while another writes over everything as fast as it can."""
    there = items(shuffled(max(task.keys // WRITTEN_BESIDE, 1), task.turn))
    wanted = [there[n][0] for n in picked(task.sizes.reads, len(there), task.turn)]
    path = os.path.join(task.place, "store")
    session.open(path, memtable_bytes=task.sizes.memtable_bytes)
    for batch in batches(there):
        session.opened.write(batch)
    writer = Writer(session, there)
    with writer:
        done = read(session, task, wanted)
    measured = done.measured("readwhilewriting")
    writes = {"writes_per_second": writer.written / done.seconds}
    yield Measured(measured.row, measured.value, {**measured.details, **writes})


class Writer:
    """A thread that puts items over and over, as long as the context lasts."""

    AT_ONCE: Final = 256

    def __init__(self, session: Session, there: Items) -> None:
        self._session = session
        self._there = there
        self._ended = False
        self._thread = threading.Thread(target=self._run)
        self.written = 0

    def _run(self) -> None:
        put_each, there = self._session.opened.put_each, self._there
        while not self._ended:
            at = self.written % len(there)
            part = there[at : at + self.AT_ONCE]
            put_each(part)
            self.written += len(part)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._ended = True
        self._thread.join()


GROUPS: Final = [
    Group(
        "reopened",
        "read",
        [
            Row("readcold", "gets after reopening, first time"),
            Row("readwarm", "gets after reopening, warm"),
            Row("multiget", "gets in calls of 100, warm, keys"),
            Row("memory", "memory for these reads", "MiB"),
        ],
        _reopened,
        stock="keys",
    ),
    Group(
        "larger",
        "read",
        [Row("readlarger", "gets, keys four times the cache")],
        _larger_than_cache,
        stock="keys",
    ),
    Group("missing", "read", [Row("readmissing", "gets of absent keys")], _missing, stock="keys"),
    Group(
        "loaded",
        "read",
        [
            Row("readloaded", "gets, warm, not compacted"),
            Row("missloaded", "gets of absent keys, not compacted"),
        ],
        _as_loaded,
        stock="loaded",
        copies=True,
    ),
    Group("readseq", "read", [Row("readseq", "walk over everything, items")], _in_order, "keys"),
    Group("scans", "read", [Row("scan100", "scans of 100 items, warm")], _ranges, stock="keys"),
    Group(
        "readwhilewriting",
        "read",
        [Row("readwhilewriting", "gets while a thread writes")],
        _while_writing,
    ),
    Group(
        "opening",
        "read",
        [
            Row("open", "opening after a clean close, to the first get", "ms"),
            Row("open-memory", "memory after opening", "MiB"),
            Row("disk", "on disk", "MiB"),
        ],
        _opening,
        stock="keys",
    ),
]
