"""Transactions: serializable, optimistic.

A transaction reads from a snapshot and keeps its writes to itself. When it commits, everything that
it has read must still be as it was: each key, each key that it found absent, each interval that it
walked. That is checked in memory, in the append lock, against all that was written since: what the
snapshot's epochs have saved, the layers that came after, and what is in flight. Layers are followed
from one to the next, never from the present state: a checkpoint that drops a layer hides nothing.
This is the backward validation of Kung and Robinson, "On Optimistic Methods for Concurrency
Control" (1981); intervals make it safe against phantoms.

Whoever has written nothing has read one consistent state, and needs no check.
"""

from __future__ import annotations

import random
import time
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterator
from operator import itemgetter
from typing import TYPE_CHECKING, Final, TypeVar, overload

from kvstore.batch import Mutations
from kvstore.codecs import Codec, check_codec
from kvstore.commit import Commits, read_only
from kvstore.config import check_durability
from kvstore.errors import ConflictError, ReadOnlyError, StoreError, TransactionTooOldError
from kvstore.keyspaces import ESCAPE, ROOT, Keyspace, split_stored
from kvstore.memory.pinned import Pinned
from kvstore.mutations import Buffer, as_bytes, as_key, as_value
from kvstore.names import Key, Names, Place
from kvstore.namespaces import HasNamespaces, Namespace
from kvstore.pages import merge_pages
from kvstore.ranges import Range
from kvstore.sources import Source
from kvstore.values import MISSING, Found, Page, Value
from kvstore.writing import Sink, Writes

if TYPE_CHECKING:
    from types import TracebackType

    from kvstore.engine import Engine
    from wal import Durability

W = TypeVar("W")
T = TypeVar("T")

_FIRST_PAUSE: Final = 0.0005
_LONGEST_PAUSE: Final = 0.5


class Observed:
    """What a transaction has read, by stored key.

    >>> seen = Observed()
    >>> seen.keys.add(b"k")
    >>> seen.intervals += [[b"a", b"c"], [b"b", b"d"]]
    >>> seen.settle()
    >>> seen.touched_by([b"k"]), seen.touched_by([b"c"]), seen.touched_by([b"d", b"x"])
    (b'k', b'c', None)
    """

    def __init__(self) -> None:
        self.keys: set[bytes] = set()
        self.intervals: list[list[bytes | None]] = []
        self._lows: list[bytes] = []
        self._highs: list[bytes | None] = []

    def settle(self) -> None:
        """Nothing more is read: order the intervals and join them, for quick look-ups of keys."""
        lows, highs = self._lows, self._highs
        walked = [(low, high) for low, high in self.intervals if low is not None and low != high]
        for low, high in sorted(walked, key=itemgetter(0)):
            last = highs[-1] if highs else b""
            if not lows or (last is not None and last < low):
                lows.append(low)
                highs.append(high)
            elif last is not None:
                highs[-1] = None if high is None else max(last, high)

    def touched_by(self, keys: Collection[bytes]) -> bytes | None:
        """One of these keys that was read, or lies in an interval that was walked; None if none is.

        O(log n) for each key, in the n intervals: the append lock is held meanwhile.
        """
        if not self.keys.isdisjoint(keys):
            return next(iter(self.keys.intersection(keys)))
        lows, highs = self._lows, self._highs
        if lows:
            for key in keys:
                at = bisect_right(lows, key) - 1
                if at >= 0 and ((high := highs[at]) is None or key < high):
                    return key
        return None


class _ObservedWalk:
    """A walk that notes how far its user has come; a :class:`~kvstore.sources.Walk`."""

    observed = True

    def __init__(self, pages: Iterator[Page], seen: Observed, wanted: Range, reverse: bool) -> None:
        self._pages = pages
        self._wanted = wanted
        self._reverse = reverse
        low, high = wanted
        self._interval: list[bytes | None] = [high, high] if reverse else [low, low]
        seen.intervals.append(self._interval)

    def __iter__(self) -> Iterator[Page]:
        return self

    def __next__(self) -> Page:
        page = next(self._pages, None)
        if page is None:
            self._interval[:] = self._wanted
            raise StopIteration
        return page

    def reached(self, key: bytes) -> None:
        """Everything up to this key is what the transaction rests on."""
        low, high = self._interval
        if self._reverse:
            self._interval[0] = key if low is None else min(low, key)
        else:
            assert high is not None
            self._interval[1] = max(high, key + b"\0")

    def close(self) -> None:
        """Nothing to let go of."""


class _TransactionSource:
    """A snapshot with the transaction's own writes in front; notes what is read."""

    def __init__(self, pinned: Pinned, own: Mutations, seen: Observed) -> None:
        self._pinned = pinned
        self._own = own
        self._seen = seen

    def find(self, key: bytes) -> Value:
        if key in self._own:
            return self._own[key]
        self._seen.keys.add(key)
        return self._pinned.find(key)

    def find_many(self, keys: list[bytes]) -> list[Value]:
        return list(map(self.find, keys))

    def walk(self, wanted: Range, most: int | None, *, reverse: bool) -> _ObservedWalk:
        self._pinned.check()
        own = self._own_page(wanted)  # as it is now: the walk is lazy
        pages = self._pages(own, wanted, most, reverse)
        return _ObservedWalk(pages, self._seen, wanted, reverse)

    def _pages(self, own: Page, wanted: Range, most: int | None, reverse: bool) -> Iterator[Page]:
        sources = self._pinned.sources(wanted, most, reverse)
        for page in merge_pages([iter([own] if own[0] else []), *sources], reverse=reverse):
            self._pinned.check()
            yield page
        self._pinned.check()  # that there is no more was found out in time

    def _own_page(self, wanted: Range) -> Page:
        low, high = wanted
        keys = sorted(key for key in self._own if low <= key and (high is None or key < high))
        return keys, [self._own[key] for key in keys]

    def load(self, key: bytes, value: Value) -> bytes | None:
        return value if isinstance(value, bytes) else self._pinned.load(key, value)

    def pinned(self) -> _TransactionSource:
        return _TransactionSource(self._pinned, dict(self._own), self._seen)

    def check(self) -> None:
        self._pinned.check()

    def release(self) -> None:
        """Nothing to let go of: the transaction does."""


class Transaction(Writes[bytes, Buffer], HasNamespaces):
    """Reads and writes that happen as if nothing else happened meanwhile, or not at all.

    It begins with its ``with`` block and commits at the end of it; an exception drops it. It reads
    the store as it was at its beginning, and its own writes. If something that it has read was
    changed before it committed, the end of the block raises ConflictError and nothing is written;
    :meth:`kvstore.Store.transact` tries again. One that has written nothing never fails. Outside of
    the block everything raises StoreError. For one thread at a time.

    >>> import kvstore, wal
    >>> with kvstore.open("db", file_system=wal.files.MemoryFileSystem()) as db:
    ...     db.put(b"n", b"1")
    ...     with db.transaction() as tx:
    ...         tx[b"n"] = b"%d" % (int(tx[b"n"]) + 1)
    ...     db[b"n"], tx.entry_id == db.last_entry_id
    (b'2', True)
    """

    def __init__(
        self,
        engine: Engine,
        commits: Commits | None,
        names: Names,
        durability: Durability | None,
    ) -> None:
        """Use :meth:`kvstore.Store.transaction`. Without ``commits`` it can only read."""
        self._engine = engine
        self._commits = commits
        self._names = names
        if durability is not None:
            check_durability(durability)
        self._durability = durability
        self._state: _TransactionSource | None = None  # None before and after the block
        self._claimed: set[Key] | None = set()
        self._over = False
        self.entry_id: int | None = None
        """The id of the log entry, once it is committed; None if nothing was written."""

    # -- one key -----------------------------------------------------------------------------------

    # The same as what is inherited; in one frame each they are twice as fast.

    @overload
    def get(self, key: Buffer) -> bytes | None: ...
    @overload
    def get(self, key: Buffer, default: T) -> bytes | T: ...
    def get(self, key: Buffer, default: object = None) -> object:
        """The value of a key, or ``default``: as of the transaction's beginning, or its own."""
        if type(key) is not bytes:
            key = as_bytes(key, "key")
        if key >= ESCAPE:
            key = ROOT.stored(key)
        source = self._source()
        value = source.find(key)
        if type(value) is bytes:
            return value
        return default if value is None else source.load(key, value)

    def put(self, key: Buffer, value: Buffer, *, durability: Durability | None = None) -> None:
        """Set a key, once the transaction has committed."""
        key, value = as_key(key), as_value(value)
        self._sink().commit({ROOT.stored(key): value}, durability)

    # -- what reads and writes rest on -------------------------------------------------------------

    @property
    def _root(self) -> Transaction:
        return self

    def _source(self) -> _TransactionSource:
        if self._state is None:
            raise self._refusal()
        self._engine.check()
        return self._state

    def _reader(self) -> tuple[Source, Keyspace]:
        return self._source(), ROOT

    def _sink(self) -> Sink:
        self._source()
        if self._commits is None:
            if self._engine.read_only:
                raise read_only()
            raise ReadOnlyError("the transaction is read-only: nothing can be written in it")
        return self

    def _writer(self) -> tuple[Sink, Keyspace, Mutations]:
        return self._sink(), ROOT, {}

    def _place(self) -> tuple[Sink, Names, Place]:
        return self._sink(), self._names, ()

    def commit(self, mutations: Mutations, durability: Durability | None) -> None:
        """Keep mutations of stored keys until the end of the block."""
        if durability is not None:
            raise StoreError("a transaction has one durability: give it to transaction()")
        self._own.update(mutations)

    def change(
        self,
        key: bytes,
        choose: Callable[[bytes | None], Found],
        durability: Durability | None,
        extra: Mutations,
    ) -> tuple[bytes | None, bool]:
        """Read a stored key and keep what follows from it."""
        source = self._source()
        old = source.load(key, source.find(key))
        new = choose(old)
        if new is MISSING:
            return old, False
        self.commit({**extra, key: new}, durability)  # type: ignore[dict-item]
        return old, True

    def namespace(self, name: Buffer, codec: Codec[W] | None = None) -> Namespace[W]:
        """A namespace, whose reads and writes are the transaction's."""
        return Namespace(self, self._names.child((), name, check_codec(codec)))

    # -- the block ---------------------------------------------------------------------------------

    def __enter__(self) -> Transaction:
        if self._state is not None or self._over:
            raise self._refusal()
        self._pinned = self._engine.pinned()
        self._own: Mutations = {}
        self._seen = Observed()
        self._state = _TransactionSource(self._pinned, self._own, self._seen)
        return self

    def rollback(self) -> None:
        """Drop everything that was written in it, and end it. Idempotent."""
        if not self._over:
            self._source()
            self._drop()

    def _drop(self) -> None:
        self._end()
        if self._claimed:
            self._names.release(self._claimed)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._over:
            return
        if kind is not None:
            self._drop()
            return
        try:
            if self._own:
                assert self._commits is not None
                self._seen.settle()
                self.entry_id = self._commits.commit(self._own, self._durability, self._decide)
        finally:
            self._end()

    def _end(self) -> None:
        self._over = True
        self._state = None
        self._pinned.release()

    def _decide(self) -> None:
        """In the append lock: raise ConflictError if anything that was read has changed."""
        memtable = self._engine.memtable
        with memtable.visibility:
            for keys in memtable.changed_since_locked(self._pinned.layer, self._pinned.epoch):
                if keys is None:
                    raise TransactionTooOldError(
                        "too much was written since the transaction began to tell what changed"
                    )
                touched = self._seen.touched_by(keys)
                if touched is not None:
                    shown = split_stored(touched) or (0, touched)
                    raise ConflictError(
                        f"{shown[1]!r}, which the transaction read, was changed since"
                    )

    def _refusal(self) -> StoreError:
        if self._over:
            return StoreError("the transaction has ended: begin another one")
        if self._state is not None:
            return StoreError("the transaction has begun already")
        return StoreError("a transaction is its block: use `with db.transaction() as tx:`")

    def __bool__(self) -> bool:
        """Always true."""
        return True

    def __repr__(self) -> str:
        state = "ended" if self._over else "open" if self._state is not None else "not begun"
        return f"<kvstore.Transaction, {state}>"


def transact(
    begin: Callable[[], Transaction], function: Callable[[Transaction], T], attempts: int
) -> T:
    """Run a function in a transaction, again after a conflict, with growing random pauses."""
    for attempt in range(check_attempts(attempts)):
        try:
            with begin() as tx:
                result = function(tx)
        except ConflictError:
            if attempt == attempts - 1:
                raise
            time.sleep(pause_after(attempt))
        else:
            return result
    raise AssertionError("unreachable")


def check_attempts(attempts: int) -> int:
    """How often to try; an error if that is no number of attempts."""
    if not isinstance(attempts, int) or isinstance(attempts, bool):
        raise TypeError(f"attempts must be an int, not {type(attempts).__name__}")
    if attempts < 1:
        raise ValueError(f"attempts must be at least 1, not {attempts}")
    return attempts


def pause_after(attempt: int) -> float:
    """Seconds to wait after an attempt, the first being 0; random: who met shall not meet again."""
    longest: float = min(_FIRST_PAUSE * 3**attempt, _LONGEST_PAUSE)
    return longest * random.random()
