"""The store: :class:`Store`, the facade over the log, the memtable and the tables."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar, overload

from kvstore.batch import Batch
from kvstore.checkpointing import Checkpoint
from kvstore.config import Options
from kvstore.errors import ReadOnlyError, StoreClosedError, StoreError, translate
from kvstore.mutations import (
    MAX_KEY,
    MAX_VALUE,
    Buffer,
    as_batch,
    as_bytes,
    as_key,
    as_value,
    encode,
    encode_delete,
    encode_put,
)
from kvstore.ranges import Range
from kvstore.reading import OrderedReads
from kvstore.runs import FIRST_PAGE, Item, Values, pages
from kvstore.state import MISSING
from kvstore.statistics import StoreStats
from wal import Durability, WalError, WriteAheadLog
from wal.files import Lock

if TYPE_CHECKING:
    from types import TracebackType

K = TypeVar("K", bound=Buffer)
T = TypeVar("T")

SMALL_TAIL: Final = 256 << 10
"""A log with fewer bytes to replay is not checkpointed at close."""

_ENTRY_OVERHEAD: Final = 24


class Parts(NamedTuple):
    """What an open store is made of; a read-only one has neither log nor lock."""

    options: Options
    checkpoint: Checkpoint
    log: WriteAheadLog | None
    lock: Lock | None


class Store(OrderedReads):
    """An ordered map from bytes to bytes in a directory. Made by :func:`kvstore.open`.

    Keys have up to 65,535 bytes and are ordered as bytes; values are smaller than 4 GiB. Any buffer
    will do for either; bytes come back. All methods may be called from any thread.

    Everything in a store is held in memory while it is open. What is deleted or replaced leaves the
    disk when tables are merged: at the latest when a third of what they hold are deletions.

    A write returns once it has its durability, and only then anyone sees it; writes become visible
    in the order of their log entries. ``durability=`` chooses for one call what
    :func:`kvstore.open` was told for all: see :class:`kvstore.Durability`.

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

    def __init__(self, path: str, parts: Parts) -> None:
        """Take over the parts of an open store. Use :func:`kvstore.open`."""
        self.path = path
        """The directory, as it was given."""
        self._checkpoint = parts.checkpoint
        self._memtable = parts.checkpoint.memtable
        self._log = parts.log
        self._lock = parts.lock
        self._append = parts.log.append if parts.log is not None else _refuse_to_write
        self._segment_items = parts.options.segment_items
        self._sealed_segment = 0
        self._closing = threading.Lock()
        self._ended: str | None = None  # why it cannot be used any more
        _open.add(self)

    # -- one key -----------------------------------------------------------------------------------

    @overload
    def get(self, key: Buffer) -> bytes | None: ...
    @overload
    def get(self, key: Buffer, default: T) -> bytes | T: ...
    def get(self, key: Buffer, default: object = None) -> object:
        """The value of a key, or ``default``. Takes no lock."""
        if type(key) is not bytes:
            key = as_bytes(key, "key")
        if self._ended is not None:
            raise self._refusal()
        for values in self._memtable.state.maps:
            value = values.get(key, MISSING)
            if value is not MISSING:
                return default if value is None else value
        return default

    def put(self, key: Buffer, value: Buffer, *, durability: Durability | None = None) -> None:
        """Set a key.

        Raises KeyTooLongError and ValueTooLongError, StoreFailedError (``latched``: in doubt, and
        no later write succeeds; else nothing was written), ReadOnlyError, StoreClosedError.
        """
        if type(key) is not bytes or len(key) > MAX_KEY:
            key = as_key(key)
        if type(value) is not bytes or len(value) > MAX_VALUE:
            value = as_value(value)
        try:
            self._append(encode_put(key, value), None, durability)
        except WalError as error:
            raise self._failure(error) from error
        if self._memtable.count >= self._segment_items:
            self._seal()

    def __setitem__(self, key: Buffer, value: Buffer) -> None:
        self.put(key, value)

    def delete(self, key: Buffer, *, durability: Durability | None = None) -> None:
        """Delete a key, there or not. Raises what :meth:`put` does."""
        self._commit_chunks(encode_delete(as_key(key)), durability)

    def __delitem__(self, key: Buffer) -> None:
        """Delete a key that is there. Two threads that delete one at once may both succeed."""
        self._check_writable()
        if key not in self:
            raise KeyError(key)
        self.delete(key)

    # -- several keys ------------------------------------------------------------------------------

    def get_many(self, keys: Iterable[Buffer]) -> list[bytes | None]:
        """The values of keys, in the order of the keys, None where absent; all of one state.

        >>> import kvstore, wal
        >>> with kvstore.open("db", file_system=wal.files.MemoryFileSystem()) as db:
        ...     db.put(b"a", b"1")
        ...     db.get_many([b"x", b"a"])
        [None, b'1']
        """
        wanted = [as_bytes(key, "key") for key in keys]
        self._check_usable()
        return self._memtable.get_many(wanted)

    def batch(self, *, durability: Durability | None = None) -> Batch:
        """Several mutations at once, all or nothing; see :class:`kvstore.Batch`."""
        self._check_writable()
        return Batch(self._commit, durability)

    def write(
        self, items: Mapping[K, Buffer | None], *, durability: Durability | None = None
    ) -> None:
        """Put every item of a mapping, and delete the keys whose value is None: all or nothing.

        >>> import kvstore, wal
        >>> with kvstore.open("db", file_system=wal.files.MemoryFileSystem()) as db:
        ...     db.write({b"a": b"1", b"b": b"2"})
        ...     db.write({b"a": None, b"c": b"3"})
        ...     list(db)
        [b'b', b'c']
        """
        mutations = as_batch(items)
        self._check_writable()
        if mutations:
            self._commit(mutations, durability)

    # -- durability --------------------------------------------------------------------------------

    def sync(self) -> None:
        """Make all that was written before survive a power loss, whatever its durability."""
        self._check_usable()
        if self._log is not None:
            try:
                self._log.sync()
            except WalError as error:
                raise self._failure(error) from error

    def checkpoint(self) -> None:
        """Move all that was written before from the log to tables. Waits until it is done."""
        self._check_writable()
        assert self._log is not None
        try:
            self._log.checkpoint_active(wait=True)
        except WalError as error:
            raise self._failure(error) from error

    @property
    def last_entry_id(self) -> int:
        """The id of the last log entry that is visible; 0 before the first."""
        return self._memtable.last_id

    def stats(self) -> StoreStats:
        """Where the store stands, as an immutable snapshot."""
        self._check_usable()
        manifest, tables = self._checkpoint.manifest, self._memtable.state.tables
        last_id = self._memtable.last_id
        return StoreStats(
            last_entry_id=last_id,
            durable_entry_id=self._log.durable_entry_id if self._log is not None else last_id,
            checkpoint_entry_id=manifest.last_entry_id,
            replayed_entries=self._checkpoint.replayed,
            memtable_items=self._memtable.recent_items(),
            tables=len(tables),
            table_items=sum(len(table.run) for table in tables),
            table_bytes=sum(table.record.size for table in tables),
        )

    # -- the end -----------------------------------------------------------------------------------

    @property
    def closed(self) -> bool:
        """Whether the store was closed."""
        return self._ended is not None

    @property
    def read_only(self) -> bool:
        """Whether it was opened with flag ``"r"``."""
        return self._append is _refuse_to_write

    def close(self) -> None:
        """Sync, checkpoint unless the log is short, and let go. Idempotent.

        Everything is released even where that fails; the failure is raised then.
        """
        with self._closing:
            if self._ended is not None:
                return
            try:
                self._shut_down()
            except Exception:
                self._end()
                raise
            self._end()  # not after an interrupt: the log may still be at work; close again then

    def _end(self) -> None:
        self._ended = "the store was closed"
        _open.discard(self)
        if self._lock is not None:
            self._lock.release()

    def _shut_down(self) -> None:
        log = self._log
        if log is None:
            return
        try:
            try:
                if self._tail_is_long():
                    log.checkpoint_active()  # which shutdown waits for
            finally:
                log.shutdown()
        except WalError as error:
            raise self._failure(error) from error

    def _tail_is_long(self) -> bool:
        """Whether there is more to replay than a quick opening should have to."""
        entries = self._memtable.last_id - self._checkpoint.manifest.last_entry_id
        size = entries * _ENTRY_OVERHEAD
        return size + self._memtable.recent_bytes(SMALL_TAIL) >= SMALL_TAIL

    def __enter__(self) -> Store:
        self._check_usable()
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

    # -- helpers -----------------------------------------------------------------------------------

    def _pages(self, wanted: Range, most: int | None, reverse: bool) -> Iterator[list[Item]]:
        """What is in a range at this moment; nothing where nothing is asked for."""
        self._check_usable()
        if most == 0:
            return iter(())
        runs = self._memtable.pin()
        first_page = FIRST_PAGE if most is None else most
        low, high = wanted
        return pages(runs, low, high, reverse=reverse, first_page=first_page)

    def _commit(self, mutations: Values, durability: Durability | None) -> int:
        return self._commit_chunks(encode(mutations), durability)

    def _commit_chunks(self, chunks: list[bytes], durability: Durability | None) -> int:
        try:
            entry_id = self._append(chunks, None, durability)
        except WalError as error:
            raise self._failure(error) from error
        if self._memtable.count >= self._segment_items:
            self._seal()
        return entry_id

    def _seal(self) -> None:
        """The recent mutations are many: have them moved to a table, once for each segment."""
        segment_id = self._memtable.segment_id
        if self._sealed_segment != segment_id and self._log is not None:
            self._sealed_segment = segment_id
            try:
                self._log.checkpoint_active()
            except WalError:
                # The write that came here is committed; whatever is wrong, the next one is told.
                self._sealed_segment = 0

    def _check_usable(self) -> None:
        if self._ended is not None:
            raise self._refusal()

    def _check_writable(self) -> None:
        self._check_usable()
        if self.read_only:
            raise _read_only()

    def _failure(self, error: WalError) -> StoreError:
        """What to raise for an error of the log. In a forked child the log calls itself failed."""
        return translate(error) if self._ended is None else self._refusal()

    def _refusal(self) -> StoreError:
        return StoreClosedError(f"{self.path}: {self._ended}")


def _refuse_to_write(*_: object) -> int:
    raise _read_only()


def _read_only() -> StoreError:
    return ReadOnlyError('the store is open for reading: open it with flag "w"')


# ------------------------------------------------------------------ forks

_open: weakref.WeakSet[Store] = weakref.WeakSet()


def _forked() -> None:
    """In the child of a fork the stores are the parent's. No lock may be taken here."""
    for store in list(_open):
        store._ended = "the store was opened by the parent of this forked process"


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
