"""The log itself: :class:`WriteAheadLog`, the facade over what ``opening`` puts together."""

from __future__ import annotations

import logging
import os
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, overload

from wal.closing import Closing
from wal.config import Configuration, Durability
from wal.entry_writer import EntryWriter
from wal.errors import CorruptLogError, EntryStateError
from wal.group_commit import Decide
from wal.log_manager import LogManager
from wal.opening import Parts, begin, open_for_writing
from wal.positions import EntryId, LogPosition
from wal.segments.chunks import ChunkReader
from wal.segments.frames import Entry
from wal.segments.lifecycle import State
from wal.statistics import LogStats, make_stats
from wal.tickets import Entries, OnCommit, Ticket

if TYPE_CHECKING:
    from types import TracebackType

AppendReady = Callable[..., EntryId]

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
        self._parts = parts
        self._commits = parts.commits
        self._buffer = parts.commits.buffer
        self._checkpointer = parts.checkpointer
        self._registry = parts.registry
        self._reader = parts.reader
        self.append_ready: AppendReady = parts.commits.append_ready
        """``append_ready(chunks, size, durability=None, decide=None)``: as :meth:`append`, for who
        knows the chunks. They are not looked at or copied: ``chunks`` has to be a tuple of bytes,
        and ``size`` what :func:`wal.framed_size` says of it. ``committed`` and ``accepted`` get the
        very tuple, also if it is of a subclass. An attribute, since a method would be one more
        frame (of 2 us for all of a buffered put, 60 ns)."""
        self._closing = Closing(parts)
        self._finalizer = weakref.finalize(self, self._closing.drop)
        self._finalizer.atexit = False
        parts.flusher.start(parts.commits)
        parts.checkpointer.start(self._buffer, weakref.ref(self))

    kept_damage: CorruptLogError | None = None
    """Of a log that was opened read-only: why no more of what is kept for reading can be read.

    None where nothing is wrong with it, and for the writer, who has dropped what it could not read.
    """

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
        for name in ("recover", "checkpoint_to"):
            if getattr(type(manager), name) is getattr(LogManager, name):
                raise TypeError(f"{type(manager).__name__} must have a method {name}")
        if configuration.read_only:
            from wal.read_only import open_read_only  # a subclass of this class

            return open_read_only(configuration, manager)
        return cls(open_for_writing(configuration, manager))

    @staticmethod
    def begin(configuration: Configuration, after: int = 0) -> None:
        """Make an empty log of which every entry's id will be above ``after``, and leave it closed.

        For whoever goes on with a state that another log led up to there. It is durable when this
        returns. Raises WalError where there is a log already, and LogLockedError.

        >>> import wal
        >>> configuration = wal.Configuration("d", file_system=wal.files.MemoryFileSystem())
        >>> wal.WriteAheadLog.begin(configuration, after=1000)
        >>> with configuration.open(wal.LogVoid()) as log:
        ...     log.append([b"on it goes"])
        1001
        """
        begin(configuration, after)

    # -- writing -----------------------------------------------------------------------------------

    def begin_entry(self) -> EntryWriter:
        """Open an entry of several chunks, an :class:`EntryWriter`; others wait for its end."""
        return EntryWriter(self._commits, log=self)

    def append(
        self,
        chunks: Iterable[bytes],
        on_commit: OnCommit | None = None,
        durability: Durability | None = None,
        decide: Decide | None = None,
    ) -> EntryId:
        """Commit an entry of the given chunks and return its id: the fast path.

        ``on_commit(entry_id, segment_id)`` runs once, in EntryId order over all threads, after the
        entry has its durability and before this returns. ``durability`` is the configuration's
        unless given. ``bytes`` are kept by reference until they are written, any other buffer is
        copied.

        ``decide()`` has the last word: it is called once, when the entry is next in the log's
        order and has no id yet, with no other entry before its id is given. What it raises is
        raised here, and nothing was written. The append lock is held: it must be quick, and must
        call nothing of the log.

        Raises LogFailedError once the log has latched (the entry is then in doubt), LogClosedError
        after shutdown, CallbackError if ``on_commit`` raised (the entry is committed),
        SegmentAllocationError and CheckpointError before the entry is accepted (it is not in the
        log).
        """
        return self._commits.append(chunks, on_commit, durability, decide)

    @overload
    def submit(
        self,
        chunks: Iterable[bytes],
        on_commit: OnCommit | None = None,
        durability: Durability | None = None,
        decide: Decide | None = None,
    ) -> Ticket: ...
    @overload
    def submit(
        self,
        chunks: Iterable[bytes],
        on_commit: OnCommit | None = None,
        durability: Durability | None = None,
        decide: Decide | None = None,
        *,
        wait: bool,
    ) -> Ticket | None: ...
    def submit(
        self,
        chunks: Iterable[bytes],
        on_commit: OnCommit | None = None,
        durability: Durability | None = None,
        decide: Decide | None = None,
        *,
        wait: bool = True,
    ) -> Ticket | None:
        """Like :meth:`append`, but returns a :class:`Ticket` as soon as the entry has its id.

        Even so it may have to wait: for a full buffer, for another's open entry, for a segment, for
        checkpoints; and an entry of more than 256 KiB is written at once. With ``wait=False`` it
        returns None then, and nothing has happened: no entry, no call of ``decide``. An event loop
        can call it so, and have a thread wait where it must.
        """
        return self._commits.submit(chunks, on_commit, durability, decide, wait)

    def submit_ready(
        self,
        entries: Entries,
        size: int,
        count: int,
        durability: Durability | None = None,
        *,
        wait: bool = True,
    ) -> Ticket | None:
        """Like :meth:`submit`, of some entries in one step, for who knows their chunks.

        Each is an entry of its own, with an id of its own, and no other comes between. The chunks
        are not looked at or copied: each entry has to be a tuple of bytes, ``size`` the sum of what
        :func:`wal.framed_size` says of them, at most 256 KiB, and ``count`` their number. The hooks
        ``committed`` and ``accepted`` of the manager are called once for all of them, with the id
        of the last and with the very ``entries``: of a subclass, if that is to tell more.
        ValueError if there is none, or they are too large.
        """
        return self._commits.submit_ready(entries, size, count, durability, wait)

    def sync(self) -> None:
        """Make everything committed before this call durable, whatever its durability."""
        self._commits.check_barred()
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

        Goes on to what is durable as of each step, and ends there. Checkpointed entries are there
        as long as ``retain_bytes`` or ``retain_seconds`` asks for. Raises PositionNotFoundError
        where an entry above ``after`` is gone, at the start or midway (not for ``after=None``, at
        the start); :attr:`oldest_entry_id` tells where to begin then.
        """
        return self._reader.entries(after)

    @property
    def oldest_entry_id(self) -> EntryId:
        """No entry below this id can be read any more, every one from it on can.

        So ``entries(after=log.oldest_entry_id - 1)`` misses nothing that there is. Where the log
        holds no entry it is the last one's id + 1.
        """
        durable = self.durable_entry_id  # first: what comes meanwhile is not passed over
        return EntryId(self._reader.oldest_id() or durable + 1)

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
        self._closing.check_process()
        parts, buffer = self._parts, self._buffer
        return make_stats(
            parts.rounds.counters,
            segments_active=1,
            segments_sealed=parts.checkpointer.backlog(),
            segments_pinned=parts.registry.count()[State.CHECKPOINTED],
            segments_spare=parts.pool.count(),
            segments_kept=len(parts.retention),
            bytes_live=parts.registry.live_bytes(),
            waits=parts.checkpointer.waits,
            wait_seconds=parts.checkpointer.wait_seconds,
            checkpoints=parts.checkpointer.checkpoints,
            last_entry_id=buffer.last_committed(),
            durable_entry_id=buffer.durable_id,
            checkpointed_entry_id=parts.marker.current.checkpointed_id,
        )

    # -- checkpoints -------------------------------------------------------------------------------

    def checkpoint_active(self, wait: bool = False) -> None:
        """Seal the active segment and have it checkpointed; does nothing if it has no entry.

        ``wait=True`` returns once everything committed before the call is checkpointed, and raises
        CheckpointError after a failed attempt (which is repeated all the same).
        """
        self._commits.check_barred()
        if wait and self._checkpointer.is_current():
            raise EntryStateError("a checkpoint cannot wait for itself")
        # First, for sealing might meet an error that is out of date.
        failures = self._checkpointer.retry() if wait else 0
        segment_id = self._commits.seal_active()
        if wait:
            self._checkpointer.wait_for(segment_id, failures)

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
