"""Opening after ``kill -9`` with everything in the log, up to the first get that is answered.

The puts were single ones, in random order; the engine was told to keep them all in its log. SQLite
gets a tenth of them: its log holds a whole page for each. What the kill left is copied for every
turn.
"""

from __future__ import annotations

from collections.abc import Iterator
from time import perf_counter
from typing import Any, Final

from benches.peers.data import ITEM_BYTES, key
from benches.peers.engines import MIB
from benches.peers.processes import Session
from benches.peers.rows import Group, Measured, Row, Task, check

OVERHEAD: Final = 48
"""No engine's log takes more for a put, beside its key and value."""


def tuning(puts: int) -> dict[str, Any]:
    """How a store is opened whose log must hold so many."""
    log_bytes = max(puts * (ITEM_BYTES + OVERHEAD), MIB)
    return {"memtable_bytes": 1024 * MIB, "log_bytes": log_bytes}


def _measure(session: Session, task: Task) -> Iterator[Measured]:
    wanted = [key(0)]
    started = perf_counter()
    session.open(task.stock, **tuning(task.sizes.logged_puts))
    found = session.opened.get_each(wanted)
    taken = perf_counter() - started
    check(found > 0)
    yield Measured("recovery", task.keys / taken, {"count": task.keys, "seconds": taken})


GROUPS: Final = [
    Group(
        "recovery",
        "read",
        [Row("recovery", "recovery after a kill, puts in the log")],
        _measure,
        stock="unclean",
        copies=True,
        engines=lambda engine: engine.has_log,
        size=lambda sizes: sizes.logged_puts,
    )
]
