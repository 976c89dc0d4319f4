"""Histories: what concurrent callers asked of a store, when, and what they were told.

An operation is described by what it *saw* and what it *left*: a ``get`` saw one key, a ``put`` left
one, an ``add`` that succeeded saw the key absent and left it with a value, a transaction saw all
that it read and left all that it wrote. That is the whole sequential specification of the store: an
operation may take effect in a state in which everything that it saw is so.

The times of a history are numbers drawn from one counter, one before a call begins and one after it
has returned. So the recorded interval contains the real one, and an order that the record shows was
one in reality: nothing is ever accused falsely. The counter is drawn from under a lock:
``next(itertools.count())`` is one step only where there is a global interpreter lock, and two calls
with the same number, or with numbers in the wrong order, would make a record of what never was. The
lock is taken outside of the call, so it orders nothing in the store.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field, replace


@dataclass(frozen=True)
class Other:
    """Seen: anything but this value."""

    than: bytes | None


@dataclass(eq=False)
class Operation:
    """A call. ``ended`` is None where its caller was never told: it may have happened, or not."""

    what: str
    caller: object
    begun: int
    ended: int | None = None
    seen: dict[bytes, bytes | Other | None] = field(default_factory=dict)
    left: dict[bytes, bytes | None] = field(default_factory=dict)
    durability: str = ""  # of a write, or of a promise that all before it lasts

    @property
    def keys(self):
        return self.seen.keys() | self.left.keys()

    def shift(self, by):
        """The same, so much later."""
        ended = None if self.ended is None else self.ended + by
        return replace(self, begun=self.begun + by, ended=ended)

    def __str__(self):
        saw = ", ".join(f"{_short(key)}={_short(value)}" for key, value in self.seen.items())
        left = ", ".join(f"{_short(key)}:={_short(value)}" for key, value in self.left.items())
        when = f"[{self.begun}, {'...' if self.ended is None else self.ended}]"
        told = "; ".join(filter(None, (saw and f"saw {saw}", left and f"left {left}")))
        lasting = f" ({self.durability})" if self.durability else ""
        return f"{when} {self.caller}: {self.what}{lasting}{': ' if told else ''}{told}"


def _short(value):
    if value is None:
        return "nothing"
    if isinstance(value, Other):
        return f"other than {_short(value.than)}"
    return value[:12].decode("latin-1") + ("..." if len(value) > 12 else "")


class History:
    """The operations of many callers on one clock."""

    def __init__(self):
        self.operations = []
        self._lock = threading.Lock()
        self._now = 0

    def begin(self, caller, what, seen=(), left=(), durability=""):
        """A call that begins now. Until it is told otherwise nobody knows whether it happened."""
        operation = Operation(what, caller, 0, None, dict(seen), dict(left), durability)
        with self._lock:
            self._now += 1
            operation.begun = self._now
            self.operations.append(operation)
        return operation

    def end(self, operation):
        """Its caller has been told, just now."""
        with self._lock:
            self._now += 1
            operation.ended = self._now
