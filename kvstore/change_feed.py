"""The change feed: what was committed, read from the log.

An entry of the log is one commit. The feed hands out those that are visible *and* durable, in the
order of their ids: a change that was seen is never undone by a crash. Whoever remembers the last id
goes on behind it later, in another process too, as long as the log is kept.

While a follower waits it holds nothing: no segment of the log, no lock of the store. A
:class:`Pulse` wakes it; the commit path pays one look at a number for that.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kvstore.errors import ChangesLostError, CorruptStoreError, StoreClosedError, StoreError
from kvstore.keyspaces import ESCAPE, split_stored
from kvstore.mutations import decode, time_of
from kvstore.pulse import Pulse
from wal import Entry, LogClosedError, PositionNotFoundError, WalError, WriteAheadLog

if TYPE_CHECKING:
    from types import TracebackType

Names = Callable[[int], "tuple[bytes, ...] | None"]
"""From a namespace's id to its names, from the outermost on; None if there is no such id."""


@dataclass(frozen=True, slots=True)
class Change:
    """What one commit changed in one namespace.

    A commit that touched several namespaces is as many changes, one after the other and with the
    same ``entry_id``. The feed goes on behind a whole commit: ``changes(after=change.entry_id)``
    misses nothing once a change with ``completes`` was dealt with.

    >>> import kvstore, wal
    >>> with kvstore.open("db", file_system=wal.files.MemoryFileSystem()) as db:
    ...     db.write({b"a": b"1", b"b": None})
    ...     [change.items for change in db.changes()]
    [((b'a', b'1'), (b'b', None))]
    """

    entry_id: int
    """The commit's place in the order of all commits. Ids grow, and have gaps."""
    time: float
    """When it was committed: seconds since 1970, by the clock of then. It may repeat or go back."""
    namespace: tuple[bytes, ...]
    """The names on the way to the namespace, ``()`` for the store itself."""
    items: tuple[tuple[bytes, bytes | None], ...]
    """Each key that was written, with its value as stored; None where it was deleted."""
    completes: bool
    """Whether it is the last change of its commit."""


class ChangeFeed(Iterator[Change]):
    """The changes behind an entry, oldest first. Threads may share it: each change goes to one.

    It ends with what is there, or, if it follows, with :meth:`close` or the store's own end.
    """

    def __init__(
        self,
        log: Callable[[], WriteAheadLog],
        visible: Callable[[], int],
        names: Names,
        pulse: Pulse,
        failure: Callable[[WalError], StoreError],
        *,
        after: int | None = None,
        follow: bool = False,
    ) -> None:
        """Read ``log()`` up to the entry ``visible()``, which takes no lock.

        ``names`` is asked once for each namespace; ``failure`` tells what to raise for an error of
        the log.
        """
        if after is not None and (not isinstance(after, int) or isinstance(after, bool)):
            raise TypeError(f"after must be an entry id or None, not {type(after).__name__}")
        if after is not None and after < 0:
            raise ValueError(f"after must be an entry id, not {after}")
        self._log = log
        self._visible = visible
        self._names = names
        self._pulse = pulse
        self._failure = failure
        self._follow = follow
        self._turn = threading.Lock()  # one thread reads at a time
        self._from: WriteAheadLog | None = None
        self._entries: Iterator[Entry] | None = None
        self._ready: deque[Change] = deque()
        self._known: dict[int, tuple[bytes, ...]] = {}
        self._ended = False
        # From now on what it has not handed out is missed if it goes, also where that is nothing.
        self._cursor = self._oldest_id() - 1 if after is None else after
        self._seen = self._cursor  # the log has nothing more up to here

    def __iter__(self) -> ChangeFeed:
        return self

    def __next__(self) -> Change:
        """The next change.

        Raises ChangesLostError where it is no longer kept, CorruptStoreError where it is damaged,
        StoreClosedError after the store was closed (unless it follows: then it ends).
        """
        try:
            with self._turn:
                return self._next()
        finally:
            if self._ended:
                self._let_go()

    def close(self) -> None:
        """End it, also for a thread that waits in it. Idempotent."""
        self._ended = True
        self._pulse.beat()
        self._let_go()

    def __enter__(self) -> ChangeFeed:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _let_go(self) -> None:
        """Let go of the log, unless a thread reads: it does so itself when it finds the end."""
        if self._turn.acquire(blocking=False):
            try:
                self._stop_reading()
            finally:
                self._turn.release()

    # -- one change --------------------------------------------------------------------------------

    def _next(self) -> Change:
        while not self._ended:
            if self._pulse.closed:
                self._stop_reading()
                if not self._follow:
                    raise StoreClosedError("the store was closed")
                break
            if self._ready:
                return self._ready.popleft()
            try:
                more = self._read_on()
            except BaseException:
                self._stop_reading()  # the next call begins again behind the last whole commit
                raise
            if not more and not self._follow:
                break
            if not more:
                self._pulse.wait(self._has_more, self._may_have_more_soon)
        self._ended = True
        raise StopIteration

    def _has_more(self) -> bool:
        return self._ended or self._horizon() > self._seen

    def _may_have_more_soon(self) -> bool:
        """Whether something is visible that is still to become durable."""
        return self._visible() > self._seen

    def _horizon(self) -> int:
        """The last entry that may be handed out."""
        return min(self._visible(), self._log().durable_entry_id)

    # -- reading the log ---------------------------------------------------------------------------

    def _read_on(self) -> bool:
        """Take in one more entry; False if there is none at present: then nothing is held."""
        try:
            entry = self._entry()
            if entry is None:
                self._stop_reading()
                return False
            self._ready.extend(self._changes(entry))
        except PositionNotFoundError as error:
            raise ChangesLostError(self._oldest_id()) from error
        except LogClosedError as error:
            self._stop_reading()
            if self._log() is not self._from:  # a reader beside a writer has a fresh one
                return self._read_on()
            if not self._follow:
                raise self._failure(error) from error
            self._ended = True
            return False
        except WalError as error:
            raise self._failure(error) from error
        self._cursor = self._seen = entry.id
        return True

    def _entry(self) -> Entry | None:
        horizon = self._horizon()
        if horizon <= self._seen:
            return None
        if self._entries is None:
            self._from = self._log()
            self._entries = self._from.entries(after=self._cursor)
        entry = next(self._entries, None)
        if entry is None or entry.id > horizon:
            self._seen = horizon
            return None
        return entry

    def _oldest_id(self) -> int:
        try:
            return self._log().oldest_entry_id
        except WalError as error:
            raise self._failure(error) from error

    def _stop_reading(self) -> None:
        entries, self._entries = self._entries, None
        if entries is not None:
            entries.close()  # type: ignore[attr-defined]  # it is a generator

    # -- what an entry says ------------------------------------------------------------------------

    def _changes(self, entry: Entry) -> list[Change]:
        """The changes of a commit: one for each namespace, in the order of their first keys."""
        chunks = entry.read_all()
        try:
            parts = self._divided(decode(chunks))
        except ValueError as error:  # also a MalformedEntryError
            reason = f"entry {entry.id} is not the store's: {error}"
            raise CorruptStoreError(f"log segment {entry.segment_id}", 0, reason) from error
        time = time_of(chunks) / 1_000_000_000
        last = len(parts) - 1
        return [
            Change(entry.id, time, names, items, n == last)
            for n, (names, items) in enumerate(parts)
        ]

    def _divided(
        self, mutations: dict[bytes, bytes | None]
    ) -> list[tuple[tuple[bytes, ...], tuple[tuple[bytes, bytes | None], ...]]]:
        if mutations and max(mutations) < ESCAPE:  # all are the root's, as they are
            return [((), tuple(mutations.items()))]
        found: dict[int, list[tuple[bytes, bytes | None]]] = {}
        for stored, value in mutations.items():
            place = split_stored(stored)
            if place is not None:
                found.setdefault(place[0], []).append((place[1], value))
        return [(self._name(number), tuple(items)) for number, items in found.items()]

    def _name(self, number: int) -> tuple[bytes, ...]:
        names = self._known.get(number)
        if names is None:
            found = self._names(number)
            if found is None:
                raise ValueError(f"the namespace {number} is not in the directory")
            names = self._known[number] = found
        return names
