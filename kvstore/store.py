"""The store: :class:`Store`, the facade over the log, the memtable and the tables."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar, overload

from kvstore.batch import Mutations
from kvstore.codecs import Codec, check_codec
from kvstore.commit import PUT_BYTES, SEAL_EVERY, Commits, read_only
from kvstore.keyspaces import ESCAPE, ROOT, Keyspace
from kvstore.mutations import (
    MAX_KEY,
    MAX_VALUE,
    PUT,
    VERSION,
    Buffer,
    as_bytes,
    as_key,
    as_value,
    now,
    pack_single,
)
from kvstore.names import Key, Names, Place
from kvstore.namespaces import HasNamespaces, Namespace
from kvstore.parts import Parts
from kvstore.snapshot import Snapshot
from kvstore.sources import Source
from kvstore.statistics import StoreStats
from kvstore.transactions import Transaction, transact
from kvstore.writing import Sink, Writes
from wal import WalError

if TYPE_CHECKING:
    from types import TracebackType

    from kvstore.change_feed import ChangeFeed
    from kvstore.engine import Engine
    from kvstore.upkeep.verification import Report
    from wal import Durability

T = TypeVar("T")
W = TypeVar("W")

SMALL_TAIL: Final = 256 << 10
"""A log with fewer bytes to replay is not checkpointed at close."""

_ENTRY_OVERHEAD: Final = 24


class Store(Writes[bytes, Buffer], HasNamespaces):
    """An ordered map from bytes to bytes in a directory. Made by :func:`kvstore.open`.

    Keys have up to 65,535 bytes and are ordered as bytes; values are smaller than 4 GiB. Any buffer
    will do for either; bytes come back. All methods may be called from any thread.

    A write returns once it has its durability, and only then anyone sees it; writes become visible
    in the order of their log entries. ``durability=`` chooses for one call what
    :func:`kvstore.open` was told for all: see :class:`kvstore.Durability`.

    Recent writes are in memory, up to about ``memtable_bytes``; everything else is in tables on the
    disk, of which up to ``cache_bytes`` are kept in memory. Reading a recent key costs a look into
    a few dicts; any other one O(log n), with at most a few tables to ask.

    >>> import kvstore, wal
    >>> db = kvstore.open("db", file_system=wal.files.MemoryFileSystem())
    >>> db.put(b"b", b"2")
    >>> db[b"a"] = b"1"
    >>> db.get(b"a"), db.get(b"x"), b"b" in db
    (b'1', None, True)
    >>> list(db.scan())
    [(b'a', b'1'), (b'b', b'2')]
    >>> db.close()
    """

    _claimed: set[Key] | None = None  # what is written here is not dropped

    def __init__(self, parts: Parts) -> None:
        """Take over the parts of an open store. Use :func:`kvstore.open`."""
        self.path = parts.path
        """The directory, as it was given."""
        self._parts = parts
        self._engine = parts.engine
        self._names = Names(parts.engine)
        self._commits: Commits | None = None
        self._append: Callable[..., int] = partial(_refuse_to_write, parts.engine)
        if not parts.engine.read_only:
            self._commits = Commits(parts.engine)
            self._append = parts.engine.log.append_ready
            self._seal_if_due = self._commits.seal_if_due
        self._large = parts.engine.options.large_value_bytes
        self._closing = threading.Lock()
        _open.add(self)

    # -- one key -----------------------------------------------------------------------------------

    @overload
    def get(self, key: Buffer) -> bytes | None: ...
    @overload
    def get(self, key: Buffer, default: T) -> bytes | T: ...
    def get(self, key: Buffer, default: object = None) -> object:
        """The value of a key, or ``default``. Takes no lock.

        O(1) for a recent key or a cached row, else O(log n).
        """
        # A value of the active layer is returned with as few steps as there can be: measured
        # 0.14 us, 0.23 with the checks of the slower way (CPython 3.11, ten thousand keys). What is
        # not bytes cannot be looked up or compared, or is not found.
        try:
            value = self._engine.memtable.recent.get(key)  # type: ignore[call-overload]
            if type(value) is bytes and key < ESCAPE:  # type: ignore[operator]
                return value
        except (TypeError, ValueError, BytesWarning):
            pass
        return self._look_up(key, default)

    def _look_up(self, key: Buffer, default: object) -> object:
        if type(key) is not bytes or key >= ESCAPE:
            key = ROOT.stored(as_bytes(key, "key"))
        engine = self._engine
        if engine.ended is not None:
            raise engine.refusal()
        value = engine.find(key)
        if type(value) is bytes:
            return value
        loaded = None if value is None else engine.load(key, value)
        return default if loaded is None else loaded

    def put(self, key: Buffer, value: Buffer, *, durability: Durability | None = None) -> None:
        """Set a key.

        Raises KeyTooLongError and ValueTooLongError, StoreFailedError (``latched``: in doubt, and
        no later write succeeds; else nothing was written), ReadOnlyError, StoreClosedError.
        """
        # What Commits.commit would do, in one frame.
        if type(key) is not bytes or len(key) > MAX_KEY:
            key = as_key(key)
        if type(value) is not bytes or len(value) > MAX_VALUE:
            value = as_value(value)
        length = len(value)
        if length >= self._large or key >= ESCAPE:
            self._sink().commit({ROOT.stored(key): value}, durability)
            return
        try:
            chunks = (pack_single(VERSION, now(), PUT), key, value)
            entry_id = self._append(chunks, len(key) + length + PUT_BYTES, durability)
        except WalError as error:
            raise self._engine.failure(error) from error
        if not entry_id % SEAL_EVERY:
            self._seal_if_due()

    def delete(self, key: Buffer, *, durability: Durability | None = None) -> None:
        """Delete a key, there or not. Raises what :meth:`put` does."""
        self._sink().commit({ROOT.stored(as_key(key)): None}, durability)

    # -- several keys ------------------------------------------------------------------------------

    def snapshot(self) -> Snapshot:
        """The store as it is at this moment, to be read for as long as it is held. O(1)."""
        return Snapshot(self._engine.pinned(), self._names)

    def transaction(
        self, *, durability: Durability | None = None, read_only: bool = False
    ) -> Transaction:
        """Reads and writes as one step: ``with db.transaction() as tx:``. See there.

        With ``read_only`` a write in it is a ReadOnlyError.
        """
        self._engine.check()
        commits = None if read_only else self._commits
        return Transaction(self._engine, commits, self._names, durability)

    def transact(
        self,
        function: Callable[[Transaction], T],
        attempts: int = 10,
        *,
        durability: Durability | None = None,
    ) -> T:
        """Call ``function(tx)`` in a transaction and return what it returns.

        After a conflict it is called again in a new one, ``attempts`` times in all, with growing
        random pauses; then the last ConflictError is raised. What else it raises ends it.

        >>> import kvstore, wal
        >>> def increment(tx):
        ...     tx[b"n"] = b"%d" % (int(tx.get(b"n", b"0")) + 1)
        ...     return tx[b"n"]
        >>> with kvstore.open("db", file_system=wal.files.MemoryFileSystem()) as db:
        ...     db.transact(increment), db.transact(increment)
        (b'1', b'2')
        """
        return transact(lambda: self.transaction(durability=durability), function, attempts)

    def namespace(self, name: Buffer, codec: Codec[W] | None = None) -> Namespace[W]:
        """A part of the store with keys of its own; see :class:`kvstore.Namespace`.

        It exists once it is first written to. ``codec`` makes its values something else than bytes;
        it is recorded then, and CodecMismatchError is raised for any other one.
        """
        self._engine.check()
        return Namespace(self, self._names.child((), name, check_codec(codec)))

    def changes(self, after: int | None = None, *, follow: bool = False) -> ChangeFeed:
        """What was committed, in the order of the log: see :class:`kvstore.Change`.

        Args:
            after: Begin behind this log entry; None: with the oldest that is kept.
            follow: At the end wait for more, until the store is closed or the iterator is. In a
                store opened with flag ``"r"`` that refreshes it, some times a second.

        Changes are kept until their part of the log is checkpointed, and beyond that as
        ``retain_bytes`` and ``retain_seconds`` of :func:`kvstore.open` say. ChangesLostError, at
        the start or midway, where some after ``after`` are no longer kept.
        """
        self._engine.check()
        return self._parts.changes(self._names, after, follow)

    # -- what the reads and writes rest on ---------------------------------------------------------

    @property
    def _root(self) -> Store:
        return self

    def _reader(self) -> tuple[Source, Keyspace]:
        self._engine.check()
        return self._engine, ROOT

    def _source(self) -> Source:
        self._engine.check()
        return self._engine

    def _sink(self) -> Sink:
        self._engine.check()
        if self._commits is None:
            raise _read_only()
        return self._commits

    def _writer(self) -> tuple[Sink, Keyspace, Mutations]:
        return self._sink(), ROOT, {}

    def _place(self) -> tuple[Sink, Names, Place]:
        return self._sink(), self._names, ()

    def _writable(self) -> Commits:
        self._sink()
        assert self._commits is not None
        return self._commits

    # -- durability --------------------------------------------------------------------------------

    def sync(self) -> None:
        """Make all that was written before survive a power loss, whatever its durability."""
        self._engine.check()
        if self._commits is not None:
            self._commits.sync()

    def checkpoint(self) -> None:
        """Move all that was written before from the log to tables. Waits until it is done."""
        self._writable().checkpoint()

    def compact(self) -> None:
        """Merge everything into as few tables as can be, without what is deleted or replaced.

        Waits until it is done; then the disk has room again, but for what open snapshots and
        iterators still read. It happens by itself as well, a part at a time: see the limits in the
        documentation.
        """
        self._writable().checkpoint()
        self._parts.compact()

    def backup(self, path: str | os.PathLike[str]) -> None:
        """Copy the store, as it is at this moment, to a directory that can be opened as a store.

        Nobody has to wait for it. Tables are linked where the file system can, else copied, and
        read once more; what an earlier backup in the same directory has already stays as it is.
        """
        self._writable().checkpoint()
        self._parts.backup(os.fspath(path))

    def verify(self) -> Report:
        """Read everything on the disk, check it, and report; changes nothing."""
        self._engine.check()
        return self._parts.verify()

    def refresh(self) -> None:
        """For a store opened with flag ``"r"``: show what its writer has made durable since.

        Snapshots and iterators keep what they have. Does nothing for a writer.
        """
        self._engine.check()
        self._parts.refresh()
        if self.read_only:
            self._names.forget()

    @property
    def last_entry_id(self) -> int:
        """The id of the last log entry that is visible; 0 before the first."""
        return self._engine.memtable.last_id

    def stats(self) -> StoreStats:
        """Where the store stands, as an immutable snapshot."""
        self._engine.check()
        return self._parts.stats()

    # -- the end -----------------------------------------------------------------------------------

    @property
    def closed(self) -> bool:
        """Whether the store was closed."""
        return self._engine.ended is not None

    @property
    def read_only(self) -> bool:
        """Whether it was opened with flag ``"r"``."""
        return self._engine.read_only

    def close(self) -> None:
        """Sync, checkpoint unless the log is short, and let go. Idempotent.

        Everything is released even where that fails; the failure is raised then.
        """
        with self._closing:
            if self._engine.ended is not None:
                return
            try:
                self._parts.shut_down(self._tail_is_long)
            except Exception:
                self._end()
                raise
            self._end()  # not after an interrupt: the log may still be at work; close again then

    def _end(self) -> None:
        self._engine.end("the store was closed")
        _open.discard(self)

    def _tail_is_long(self) -> bool:
        """Whether there is more to replay than a quick opening should have to."""
        memtable = self._engine.memtable
        entries = memtable.last_id - self._parts.checkpointed_id()
        size = entries * _ENTRY_OVERHEAD
        return size + memtable.bytes(enough=SMALL_TAIL) >= SMALL_TAIL

    def __enter__(self) -> Store:
        self._engine.check()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __bool__(self) -> bool:
        """A store is true, also an empty one."""
        return True

    def __repr__(self) -> str:
        state = " (closed)" if self.closed else " (read-only)" if self.read_only else ""
        return f"<kvstore.Store in {os.fspath(self.path)!r}{state}>"


def _refuse_to_write(engine: Engine, *_: object) -> int:
    engine.check()
    raise _read_only()


_read_only = read_only

# ------------------------------------------------------------------ forks

_open: weakref.WeakSet[Store] = weakref.WeakSet()


def _forked() -> None:
    """In the child of a fork the stores are the parent's. No lock may be taken here."""
    for store in list(_open):
        store._engine.end("the store was opened by the parent of this forked process")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
