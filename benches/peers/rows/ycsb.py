"""The core workloads of YCSB, by one thread, not durable. Records of 1 KB, read and written whole.

Each runs in the order that YCSB recommends, A B C F D E, on one store; before the first, every
record is read once.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from benches.peers.data import shuffled, values
from benches.peers.distributions import Latest, ScrambledZipfian, fnv64
from benches.peers.engines import Items, Mixed
from benches.peers.processes import Session
from benches.peers.rows import Group, Measured, Row, Task, bounded, seconds

LONGEST_SCAN: Final = 100
READ, WRITE, SCAN, MODIFY = range(4)

Operation = tuple[int, bytes, bytes | int]


@dataclass(frozen=True)
class Workload:
    """Shares of the operations; ``latest`` instead of zipfian."""

    title: str
    reads: float = 0.0
    updates: float = 0.0
    inserts: float = 0.0
    scans: float = 0.0
    modifications: float = 0.0
    latest: bool = False


WORKLOADS: Final = {
    "ycsb-a": Workload("YCSB A: half reads, half updates", reads=0.5, updates=0.5),
    "ycsb-b": Workload("YCSB B: 95 % reads, 5 % updates", reads=0.95, updates=0.05),
    "ycsb-c": Workload("YCSB C: reads", reads=1.0),
    "ycsb-f": Workload("YCSB F: half reads, half modifications", reads=0.5, modifications=0.5),
    "ycsb-d": Workload("YCSB D: 95 % of the latest, 5 % inserts", 0.95, inserts=0.05, latest=True),
    "ycsb-e": Workload("YCSB E: 95 % scans of 1 to 100, 5 % inserts", scans=0.95, inserts=0.05),
}


def key(number: int) -> bytes:
    """The key of a record: records are spread over the keys by a hash, as in YCSB."""
    return b"%016x" % fnv64(number)


def records(count: int, length: int) -> Items:
    numbers = shuffled(count, 0)
    return list(zip(map(key, numbers), values(count, length), strict=True))


class Operations:
    """Draws the operations of one workload after the other; records that it inserts stay."""

    def __init__(self, count: int, length: int, seed: int) -> None:
        self.count = count
        self._length = length
        self._source = random.Random(seed)

    def draw(self, workload: Workload, amount: int) -> list[Operation]:
        source = self._source
        kinds = [READ, WRITE, SCAN, MODIFY, None]
        shares = [workload.reads, workload.updates, workload.scans, workload.modifications]
        drawn = source.choices(kinds, [*shares, workload.inserts], k=amount)
        fresh = iter(values(amount, self._length, source.randrange(1000)))
        choose = (Latest if workload.latest else ScrambledZipfian)(self.count, source)
        return [self._one(kind, choose, fresh) for kind in drawn]

    def _one(
        self, kind: int | None, choose: Latest | ScrambledZipfian, fresh: Iterator[bytes]
    ) -> Operation:
        if kind is None:
            self.count += 1
            if isinstance(choose, Latest):
                choose.grow()
            return WRITE, key(self.count - 1), next(fresh)
        chosen = key(choose.next())
        if kind == SCAN:
            return SCAN, chosen, self._source.randint(1, LONGEST_SCAN)
        return kind, chosen, b"" if kind == READ else next(fresh)


def perform(mixed: Mixed, operations: Sequence[Operation]) -> None:
    get, put, read_range = mixed.get, mixed.put, mixed.read_range
    for kind, chosen, argument in operations:
        if kind == READ:
            if get(chosen) is None:
                raise ValueError("the store is not whole")
        elif kind == WRITE:
            put(chosen, argument)  # type: ignore[arg-type]
            get = mixed.get
        elif kind == SCAN:
            read_range(chosen, argument)  # type: ignore[arg-type]
        else:
            get(chosen)
            put(chosen, argument)  # type: ignore[arg-type]
            get = mixed.get


def _measure(session: Session, task: Task) -> Iterator[Measured]:
    sizes = task.sizes
    session.open(task.stock, cache_bytes=sizes.cache_bytes, memtable_bytes=sizes.memtable_bytes)
    everything = [key(number) for number in shuffled(task.keys, task.turn)]
    bounded(session.opened.get_each, everything, seconds(session, task))
    del everything
    mixed = session.opened.mixed()
    draw = Operations(task.keys, sizes.record_bytes, task.turn).draw
    for name, workload in WORKLOADS.items():
        if name in task.rows:
            operations = draw(workload, sizes.operations)
            work = partial(perform, mixed)
            yield bounded(work, operations, seconds(session, task), first=64).measured(name)


def _group(name: str, workloads: Iterable[str]) -> Group:
    return Group(
        name,
        "mixed",
        [Row(workload, WORKLOADS[workload].title) for workload in workloads],
        _measure,
        stock="records",
        copies=True,
        size=lambda sizes: sizes.records,
    )


# YCSB's own order: A, B, C, F and D over the same records, then E over fresh ones.
GROUPS: Final = [
    _group("ycsb", [name for name in WORKLOADS if name != "ycsb-e"]),
    _group("ycsb-scans", ["ycsb-e"]),
]
