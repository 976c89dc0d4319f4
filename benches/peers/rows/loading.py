"""Loading sorted items into an empty store, each engine's fastest way, until all is durable."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Final

from benches.measuring import timed
from benches.peers.data import batches, items
from benches.peers.processes import Session
from benches.peers.rows import Done, Group, Measured, Row, Task


def _measure(session: Session, task: Task) -> Iterator[Measured]:
    chunks = batches(items(range(task.keys), seed=task.turn))
    path = os.path.join(task.place, "store")
    session.open(path, memtable_bytes=task.sizes.memtable_bytes)
    taken = timed(lambda: session.opened.load(chunks))
    yield Done(task.keys, taken).measured("load")


GROUPS: Final = [
    Group("load", "write", [Row("load", "bulk load of sorted items")], _measure),
]
