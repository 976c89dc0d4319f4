"""The log itself: :class:`WriteAheadLog`, the facade over what ``opening`` puts together."""

from __future__ import annotations

import atexit
import logging
import os
import time
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from wal.checkpoint_marker import CleanMark
from wal.config import Configuration, Durability
from wal.entry_writer import EntryWriter
from wal.errors import EntryStateError, LogClosedError, LogFailedError, WalError
from wal.log_manager import LogManager
from wal.opening import Parts, open_for_writing
from wal.positions import EntryId, LogPosition
from wal.segments.chunks import ChunkReader
from wal.segments.frames import Entry
from wal.segments.lifecycle import State
from wal.statistics import LogStats, make_stats
from wal.tickets import OnCommit, Ticket

if TYPE_CHECKING:
    from types import TracebackType

logger = logging.getLogger("wal")


class WriteAheadLog:
    """A durable sequence of entries, written by many threads of one process.

    Open one with :meth:`recover` or :meth:`Configuration.open`, close it with :meth:`shutdown` or
    as a context manager. All methods may be called from any thread.

    >>> import wal
    >>> log = wal.Configuration("d", file_system=wal.files.MemoryFileSystem()).open(wal.LogVoid())
    >>> with log.begin_entry() as entry:
    ...     record = entry.write_chunk(b"hello")
    >>> with log.read_at(record.position) as chunk:
    ...     chunk.read()
    b'hello'
    >>> log.append([b"one", b"two"])
    2
    >>> [(entry.id, entry.read_all()) for entry in log.entries()]
    [(1, [b'hello']), (2, [b'one', b'two'])]
    >>> log.shutdown()
    """

    def __init__(self, parts: Parts) -> None:
        """Take over the parts of an open log. Use :meth:`recover` or :meth:`Configuration.open`."""
        self.configuration = parts.configuration
        self._commits = parts.commits
        self._buffer = parts.commits.buffer
        self._checkpointer = parts.checkpointer
        self._registry = parts.registry
        self._reader = parts.reader
        self._closing = _Closing(parts)
        self._finalizer = weakref.finalize(self, self._closing.drop)
        self._finalizer.atexit = False
        _open.add(self._closing)
        parts.flusher.start(parts.commits)
        parts.checkpointer.start(self._buffer, weakref.ref(self))

    @classmethod
    def recover(cls, directory: str | os.PathLike[str], manager: LogManager) -> WriteAheadLog:
        """Open the log in a directory, creating it if missing, with the default configuration.

        The manager's ``recover`` gets every committed entry that no checkpoint covers, before this
        returns. Raises LogLockedError while another writer has it open, CorruptLogError for damage
        to anything acknowledged, FormatVersionError for files of a newer version.
        """
        return cls.open(Configuration(directory), manager)

    @classmethod
    def open(cls, configuration: Configuration, manager: LogManager) -> WriteAheadLog:
        """Open a log as configured; see :meth:`recover`."""
        if not isinstance(manager, LogManager):
            raise TypeError(f"manager must be a wal.LogManager, not {type(manager).__name__}")
        if configuration.read_only:
            from wal.read_only import open_read_only  # a subclass of this class

            return open_read_only(configuration, manager)
        return cls(open_for_writing(configuration, manager))

    # -- writing -----------------------------------------------------------------------------------

    def begin_entry(self) -> EntryWriter:
        """Open an entry of several chunks, an :class:`EntryWriter`; others wait for its end."""
        return EntryWriter(self._commits, log=self)

    def append(
        self,
        chunks: Iterable[bytes],
        on_commit: OnCommit | None = None,
        durability: Durability | None = None,
    ) -> EntryId:
        """Commit an entry of the given chunks and return its id: the fast path.

        ``on_commit(entry_id, segment_id)`` runs once, in EntryId order over all threads, after the
        entry has its durability and before this returns. ``durability`` is the configuration's
        unless given. ``bytes`` are kept by reference until they are written, any other buffer is
        copied.

        Raises LogFailedError once the log has latched (the entry is then in doubt), LogClosedError
        after shutdown, CallbackError if ``on_commit`` raised (the entry is committed),
        SegmentAllocationError and CheckpointError before the entry is accepted (it is not in the
        log).
        """
        return self._commits.append(chunks, on_commit, durability)

    def submit(
        self,
        chunks: Iterable[bytes],
        on_commit: OnCommit | None = None,
        durability: Durability | None = None,
    ) -> Ticket:
        """Like :meth:`append`, but returns a :class:`Ticket` as soon as the entry has its id."""
        return self._commits.submit(chunks, on_commit, durability)

    def sync(self) -> None:
        """Make everything committed before this call durable, whatever its durability."""
        self._check_usable()
        self._commits.sync()

    # -- reading -----------------------------------------------------------------------------------

    def read_at(self, position: LogPosition) -> ChunkReader:
        """The chunk at a position, also before it is synced. The reader pins its segment: close it.

        Raises PositionNotFoundError where the segment was recycled or no chunk begins there, and
        CorruptLogError for damage. The position of an entry that was rolled back is void.
        """
        return self._reader.read_at(position)

    def entries(self, after: int | None = None) -> Iterator[Entry]:
        """The durable entries that the log still holds, oldest first, those above ``after``.

        Goes on to what is durable as of each step, and ends there. Raises PositionNotFoundError
        where an entry above ``after`` is gone, at the start or midway (not for ``after=None``, at
        the start).
        """
        return self._reader.entries(after)

    @contextmanager
    def pin(self, segment_id: int) -> Iterator[None]:
        """Keep a segment from being recycled. Delays neither its checkpoint nor any writer."""
        self._reader.check_usable()
        segment = self._registry.pin(segment_id)
        try:
            yield
        finally:
            self._registry.unpin(segment)

    @property
    def last_entry_id(self) -> EntryId:
        """The id of the last committed entry, whatever its durability; 0 before the first."""
        return EntryId(self._buffer.last_committed())

    @property
    def durable_entry_id(self) -> EntryId:
        """The id up to which every committed entry is known to survive a power loss."""
        return EntryId(self._buffer.durable_id)

    def stats(self) -> LogStats:
        """What the log has done since it was opened, as an immutable snapshot."""
        return self._closing.stats()

    # -- checkpoints -------------------------------------------------------------------------------

    def checkpoint_active(self, wait: bool = False) -> None:
        """Seal the active segment and have it checkpointed; does nothing if it has no entry.

        ``wait=True`` returns once everything committed before the call is checkpointed, and raises
        CheckpointError after a failed attempt (which is repeated all the same).
        """
        self._commits.check_barred()
        if wait and self._checkpointer.is_current():
            raise EntryStateError("a checkpoint cannot wait for itself")
        segment_id = self._commits.seal_active()
        if wait:
            self._checkpointer.wait_for(segment_id)

    # -- the end -----------------------------------------------------------------------------------

    def shutdown(self, timeout: float | None = None) -> None:
        """Close the log: refuse new entries, finish open ones and checkpoints, sync, let go.

        Idempotent. Does not wait for readers. Raises the latch or a failed checkpoint after
        everything is released, and TimeoutError after ``timeout`` seconds (then it can be called
        again).
        """
        self._commits.check_barred()
        if self._checkpointer.is_current():
            raise EntryStateError(
                "checkpoint_to cannot shut the log down: it would wait for itself"
            )
        self._closing.shutdown(timeout)
        self._finalizer.detach()

    def __enter__(self) -> WriteAheadLog:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.shutdown()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} in {os.fspath(self.configuration.directory)!r}>"

    def _check_usable(self) -> None:
        with self._buffer.lock:
            self._buffer.check_open_locked()


class _Closing:
    """How a log ends: in order, dropped, at the interpreter's exit, or as a forked copy."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._closed = False
        self._forked = False

    def shutdown(self, timeout: float | None) -> None:
        if self._forked:
            raise _forked()
        if self._closed:
            return
        deadline = None if timeout is None else time.monotonic() + timeout
        parts, buffer = self._parts, self._parts.commits.buffer
        with buffer.lock:
            if buffer.refusal is None:
                buffer.refusal = LogClosedError("the log was shut down")
            buffer.room = 0
        # The turn is kept: an entry that waited for it finds the log closed.
        if not buffer.entry_turn.acquire(timeout=-1 if timeout is None else timeout):
            raise TimeoutError("an entry is still open")
        try:
            failure: WalError | None = None
            try:
                parts.commits.sync()
            except LogFailedError as error:
                failure = error
            failed_checkpoint = parts.checkpointer.stop(deadline)
        finally:
            buffer.entry_turn.release()
        failure = failure or failed_checkpoint
        self._release(clean=buffer.failure is None)
        if failure is not None:
            raise failure

    def _release(self, *, clean: bool) -> None:
        parts = self._parts
        self._closed = True
        parts.reader.closed = LogClosedError("the log was shut down")
        _open.discard(self)
        parts.flusher.stop()
        try:
            if clean:
                self._mark_clean()
        except OSError as error:
            message = f"everything is durable, but the marker could not say so: {error}"
            raise LogFailedError(message, error.errno) from error
        finally:
            parts.pool.close()
            parts.registry.close()
            parts.checkpointer.close()
            parts.marker.close()
            parts.lock.release()

    def _mark_clean(self) -> None:
        """Say in the marker where the log ends, so that the next opening can go on there.

        Not where a rolled-back entry left bytes behind the end: they must not be written over.
        """
        parts = self._parts
        buffer, writer = parts.commits.buffer, parts.commits.buffer.writer
        segment = writer.segment
        mark = CleanMark(segment.id, segment.committed_end, buffer.last_id)
        parts.marker.write(
            durable_id=buffer.durable_id,
            highest_id=buffer.next_id - 1,
            newest_nonempty=parts.registry.newest_nonempty(),
            clean=None if writer.must_seal else mark,
        )

    def drop(self) -> None:
        """The last reference to the log went: write what is acknowledged, and let go.

        A finalizer that runs on a thread of the log's own must not wait for that thread.
        """
        parts = self._parts
        if self._closed or self._forked:
            return
        if parts.flusher.is_current() or parts.checkpointer.is_current():
            parts.flusher.defer(self.drop)
            return
        with suppress(WalError), parts.commits.buffer.lock:
            parts.commits.buffer.refusal = LogClosedError("the log was dropped")
            parts.commits.buffer.room = 0
        with suppress(WalError):
            parts.commits.sync()
        parts.checkpointer.stop(None, drain=False)
        self._release(clean=False)

    def flush(self) -> None:
        """At the interpreter's exit: BUFFER commits are written and synced."""
        if not self._closed and not self._forked:
            with suppress(WalError):
                self._parts.commits.sync()

    def forked(self) -> None:
        """In the child of a fork: the log is the parent's. No lock may be taken here."""
        self._forked = True
        buffer = self._parts.commits.buffer
        self._parts.reader.closed = buffer.refusal = _forked()
        buffer.failure = buffer.refusal
        buffer.room = 0

    def stats(self) -> LogStats:
        if self._forked:
            raise _forked()
        parts, counters = self._parts, self._parts.commits.counters
        states = parts.registry.count()
        return make_stats(
            counters,
            segments_active=1,
            segments_sealed=parts.checkpointer.backlog(),
            segments_pinned=states[State.CHECKPOINTED],
            segments_spare=parts.pool.count(),
            checkpoints=parts.checkpointer.checkpoints,
            last_entry_id=parts.commits.buffer.last_committed(),
            durable_entry_id=parts.commits.buffer.durable_id,
            checkpointed_entry_id=parts.marker.current.checkpointed_id,
        )


def _forked() -> LogClosedError:
    return LogClosedError("the log was opened by the parent of this forked process")


_open: weakref.WeakSet[_Closing] = weakref.WeakSet()


def _flush_all() -> None:
    for closing in list(_open):
        closing.flush()


def _mark_forked() -> None:
    for closing in list(_open):
        closing.forked()


atexit.register(_flush_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_mark_forked)
