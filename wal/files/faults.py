"""What a faulty file system was asked: the calls it saw, and the faults it is to show."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import contextmanager
from errno import EIO
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

from wal.files.memory import os_error

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

T = TypeVar("T")

#: The calls that change something, or promise that it lasts: what is counted unless told otherwise.
CHANGES: Final = frozenset(
    {
        "allocate",
        "create",
        "link",
        "lock",
        "make_directory",
        "remove",
        "rename",
        "sync",
        "sync_directory",
        "truncate",
        "write_at",
    }
)
#: Every kind of call there is.
KINDS: Final = CHANGES | {"close", "exists", "list", "open", "read_at", "size"}

#: A pattern for the last part of the path (``"wal-*"``), or a function of the whole of it.
PathFilter = str | Callable[[str], bool]


class PowerLoss(BaseException):
    """The machine has stopped. Not an Exception: no code under test may take it for an error."""


class Call(NamedTuple):
    """A call, numbered from 1 if it counts, else 0; ``detail`` is what matters of its arguments."""

    number: int
    kind: str
    path: str
    detail: str = ""

    def __str__(self) -> str:
        what = " ".join(filter(None, (self.kind, self.path, self.detail)))
        return f"call {self.number} ({what})" if self.number else what


class Fault:
    """A fault in waiting. ``hits`` counts how often it has struck."""

    def __init__(
        self,
        error: int,
        nth: int,
        kinds: frozenset[str],
        path: PathFilter | None,
        *,
        forever: bool,
        written: int | None,
        after: bool,
    ) -> None:
        self.hits = 0
        self.written = written
        self.after = after
        self._error = error
        self._wait = nth
        self._kinds = kinds
        self._path = path
        self._forever = forever

    def strikes(self, kind: str, path: str) -> bool:
        """Count a call, and tell whether it is to fail."""
        if kind not in self._kinds or not self._concerns(path):
            return False
        self._wait -= 1
        hit = self._wait == 0 or (self._forever and self._wait < 0)
        self.hits += hit
        return hit

    def error(self, path: str) -> OSError:
        """The error to raise."""
        return os_error(self._error, path)

    def _concerns(self, path: str) -> bool:
        if isinstance(self._path, str):
            return fnmatchcase(os.path.basename(path), self._path)
        return self._path is None or self._path(path)


def known_kinds(kinds: str | Iterable[str]) -> frozenset[str]:
    """One kind or several; ValueError for one that does not exist, which would never come."""
    chosen = frozenset([kinds] if isinstance(kinds, str) else kinds)
    if not chosen <= KINDS:
        raise ValueError(f"no such kind of call: {', '.join(sorted(chosen - KINDS))}")
    return chosen


class Faults:
    """Numbers calls, and fails or stops some of them."""

    def __init__(self, count: str | Iterable[str]) -> None:
        self.counted = known_kinds(count)
        self.calls: list[Call] = []
        self.on_call: Callable[[str, str, int], None] | None = None
        #: Guards what is below, and whatever of a subclass changes with the calls.
        self.lock_calls = threading.RLock()
        self.lost_power = False
        self._faults: list[Fault] = []
        self._stop_at = 0
        self._labels = [""]

    def fail(
        self,
        error: int = EIO,
        *,
        nth: int = 1,
        kinds: str | Iterable[str] | None = None,
        path: PathFilter | None = None,
        forever: bool = False,
        written: int | None = None,
        after: bool = False,
    ) -> Fault:
        """Let the ``nth`` matching call from now on raise an OSError with this errno.

        Args:
            error: The errno.
            nth: Which of the calls that match; 1 is the next.
            kinds: The kinds of call that match; by default all that are counted.
            path: A pattern for the last part of the path, or a function of the whole path.
            forever: Whether every later matching call fails too.
            written: How many bytes a ``write_at`` writes, or an ``allocate`` adds, before it fails.
            after: Whether the call does all its work before it fails.

        Returns:
            The fault, which counts how often it has struck.
        """
        chosen = self.counted if kinds is None else known_kinds(kinds)
        fault = Fault(error, nth, chosen, path, forever=forever, written=written, after=after)
        with self.lock_calls:
            self._faults.append(fault)
        return fault

    def stop_at(self, number: int) -> None:
        """Lose power before counted call ``number``: it and every later call raise PowerLoss.

        Only ``close`` and the release of a lock do not, so that the code under test can unwind.
        """
        with self.lock_calls:
            self._stop_at = number

    def heal(self) -> None:
        """Forget all faults and the call to stop at. What a failed sync left stays not durable."""
        with self.lock_calls:
            self._faults.clear()
            self._stop_at = 0

    def call(
        self,
        kind: str,
        path: str,
        detail: str,
        act: Callable[[str], T],
        *,
        partly: Callable[[str, int], object] | None = None,
        failed: Callable[[], object] | None = None,
        discard: Callable[[T], object] | None = None,
    ) -> T:
        """Make a call of the file system, given its label, unless a fault or power loss is due.

        Args:
            kind: The kind of call.
            path: What it concerns.
            detail: What matters of its other arguments.
            act: Does it.
            partly: Does it in part, given a number of bytes.
            failed: Notes that it was asked for in vain.
            discard: Gives back what ``act`` returned.
        """
        call, fault = self._note(kind, path, detail)
        if self.on_call is not None:
            self.on_call(kind, path, call.number)
        if fault is None:
            return act(str(call))
        if fault.after:
            result = act(str(call))
            if discard is not None:
                discard(result)
        elif fault.written is not None and partly is not None:
            partly(str(call), fault.written)
        elif failed is not None:
            failed()
        raise fault.error(path)

    @contextmanager
    def powered(self) -> Iterator[None]:
        """Hold the lock for a change, which needs power."""
        with self.lock_calls:
            if self.lost_power:
                raise PowerLoss("the power is gone")
            yield

    def tick(self, label: str) -> int:
        """A number for a change, greater than all before. The lock is held."""
        self._labels.append(label)
        return self.last_tick

    @property
    def last_tick(self) -> int:
        """The number of the newest change. The lock is held."""
        return len(self._labels) - 1

    def labels(self) -> list[str]:
        """Of each change the label, by its number."""
        return [*self._labels]

    def continue_from(self, other: Faults) -> None:
        """Go on with another one's numbers of changes, to share its histories."""
        self._labels = other.labels()

    def _note(self, kind: str, path: str, detail: str) -> tuple[Call, Fault | None]:
        with self.powered():
            counts = kind in self.counted
            call = Call(len(self.calls) + 1 if counts else 0, kind, path, detail)
            if counts and 0 < self._stop_at <= call.number:
                self.lost_power = True
                raise PowerLoss(f"before {call}")
            if counts:
                self.calls.append(call)
            struck = [fault for fault in self._faults if fault.strikes(kind, path)]
            return call, struck[0] if struck else None
