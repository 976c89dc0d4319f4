"""What is accepted and not yet written: ids, the open group, framed bytes, the next segment.

Everything here is guarded by ``lock``, the *append lock*, which is held for moments only: framing
is done under it (a group of 64 KiB: 25 us), I/O never. A method whose name ends in ``_locked``
must be called with it held. What has to wait (for an open entry, for a spare segment, for
checkpoints) is handed back as a function for the caller to call without the lock, before it tries
again.

The open group is kept in plain attributes, and ``room`` is the one number that an append compares:
it is what the group can still take, and 0 whenever anything at all has to be looked at first.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from wal.config import Configuration
from wal.errors import LogClosedError, LogFailedError, WalError, copy_of_interrupt
from wal.segments import format as fmt
from wal.segments.format import Appended
from wal.segments.lifecycle import SegmentRegistry, segment_name
from wal.segments.pool import SparePool
from wal.segments.writer import GROUP_TARGET, SegmentWriter, plan_segment
from wal.turnstile import Turnstile

if TYPE_CHECKING:
    from types import TracebackType

Wait = Callable[[], object]

_LEAST_ENTRY: Final = fmt.ENTRY_BYTES + fmt.END_BYTES


def again() -> None:
    """Nothing to wait for: something changed, so try again."""


@dataclass(frozen=True, slots=True)
class ForCheckpoint:
    """A wait for a checkpoint. Not to be waited for in the entry turn: it may write an entry."""

    wait: Wait

    def __call__(self) -> None:
        self.wait()


class Whole:
    """Makes a step under the append lock whole: ``with buffer.lock, buffer.whole:``.

    An interrupt (a BaseException that is no Exception) may come between any two instructions, and
    leave ids, offsets and bytes out of step. It latches the log: nothing is acknowledged after it.
    """

    __slots__ = ("_buffer",)

    def __init__(self, buffer: AppendBuffer) -> None:
        self._buffer = buffer

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is not None and not isinstance(error, Exception):
            self._buffer.latch_locked(copy_of_interrupt(error))


class Backlog(Protocol):
    """What the append buffer asks of the checkpointer, with the append lock held."""

    def full(self) -> bool:
        """Whether too many segments await their checkpoint."""

    def admit(self) -> Wait | None:
        """None if one more may be sealed, else what to wait for; CheckpointError if in vain."""


class AppendBuffer:
    """The mutable heart of the write path. See the module's docstring for the rule of its lock."""

    def __init__(
        self,
        configuration: Configuration,
        directory: str,
        registry: SegmentRegistry,
        pool: SparePool,
        backlog: Backlog,
        writer: SegmentWriter,
        next_id: int,
        last_id: int,
    ) -> None:
        self.lock = threading.Lock()
        self.whole = Whole(self)
        self.entry_turn = Turnstile()  # held by the open entry; taken before the append lock
        self.room = 0
        self.items: list[Appended] = []
        self.chunks = 0
        self.next_id = next_id
        self.last_id = last_id  # the last committed one, but for the open group's
        self.durable_id = last_id  # written by the leader alone
        self.sync_wanted_id = last_id  # the last entry whose commit waits for a sync
        self.writer = writer
        self.unwritten = [writer]  # those with something to write; the last is the active one
        self.gathered = 0  # bytes framed and not yet taken
        self.entries = 0  # entries framed and not yet taken
        self.chunks_framed = 0  # since the opening
        self.chunk_bytes_framed = 0  # of data in them, about
        self.entry_open = False
        self.refusal: Exception | None = None  # why new entries are refused
        self.failure: BaseException | None = None  # the latch
        self.hook_thread = 0  # runs the hooks of a buffered commit, and holds the lock
        self.armed = False  # the flusher knows that there is something to look after
        self.arm: Wait = lambda: None
        self.write_out: Wait = lambda: None
        self.buffer_bytes = configuration.buffer_bytes
        self._seal_bytes = configuration.seal_bytes
        self._version_info = configuration.version_info
        self._directory = directory
        self._registry = registry
        self._pool = pool
        self._backlog = backlog

    # -- accepting ---------------------------------------------------------------------------------

    def make_room_locked(self, size: int, extra: int = 0) -> Wait | None:
        """Open a group with room for ``size`` bytes of items and ``extra`` bytes of framing.

        None once it is open; otherwise what to wait for before the next try. Raises the refusal.
        """
        if self.failure is not None or self.refusal is not None:
            self.check_open_locked()
        if self.entry_open:
            return self.entry_turn.wait
        if self.items:
            self.close_group_locked()
        if self.gathered >= self.buffer_bytes:
            return self.write_out
        writer = self.writer
        end = writer.segment.end
        needed = size + extra + fmt.GROUP_OVERHEAD
        left = writer.file_size - end - fmt.GROUP_OVERHEAD - extra
        used = end > writer.first_frame
        room = (writer.id_limit - self.next_id) * fmt.ITEM_OVERHEAD  # each entry takes so much
        full = used and (end >= self._seal_bytes or size > left)
        if room <= 0 and not writer.activated:
            return self.write_out  # which activates it: no header allows for the next id yet
        if full or writer.must_seal or room < size or room <= 0:
            return self.rotate_locked(writer.first_frame + needed, self.next_id)
        if size > left:
            return lambda: self.grow(writer, end + needed)
        self.room = min(left, max(size, GROUP_TARGET), room)
        if not writer.successor_requested and end > writer.file_size // 2:
            writer.successor_requested = True
            self._pool.request()
        if not self.armed:
            self.arm_locked()
        return None

    def arm_locked(self) -> None:
        """Have the flusher look after what is accepted, until it is durable."""
        if not self.armed:
            self.armed = True
            self.arm()

    def disarm_locked(self) -> None:
        """The flusher goes to sleep: whoever adds to the open group has to arm it first."""
        self.armed = False
        self.room = 0

    def check_open_locked(self) -> None:
        """Raise the latch, or why new entries are refused."""
        if self.failure is not None:
            raise self.failed()
        if self.refusal is not None:
            raise self.refusal

    def failed(self) -> WalError:
        """A fresh error for each that is refused: exceptions collect tracebacks."""
        cause = self.failure
        if isinstance(cause, LogClosedError):  # in the child of a fork
            return LogClosedError(*cause.args)
        message = f"the log failed and must be reopened: {str(cause) or repr(cause)}"
        error = LogFailedError(message, getattr(cause, "errno", None))
        error.__cause__ = cause
        return error

    def latch_locked(self, error: BaseException) -> None:
        """Keep the first failure; nothing is accepted after it."""
        if self.failure is None:
            self.failure = error
            self.room = 0

    def grow(self, writer: SegmentWriter, length: int) -> None:
        """Make the active segment's file longer; called without the lock.

        Only for the first frame of a segment and for the open entry: nobody else writes behind its
        end.
        """
        self._pool.grow(writer.segment.file, writer.segment.path, length)
        with self.lock:
            writer.file_size = max(writer.file_size, length)

    # -- groups and segments -----------------------------------------------------------------------

    def close_group_locked(self) -> None:
        """Frame the open group, so that its bytes have their place."""
        self.room = 0
        items = self.items
        if items:
            first_id = self.next_id - len(items)
            size = self.writer.add_group(first_id, self.durable_id, items, self.chunks)
            self.gathered += size
            self.entries += len(items)
            self.chunks_framed += self.chunks
            self.chunk_bytes_framed += fmt.data_in_group(size, len(items), self.chunks)
            self.last_id = self.next_id - 1
            self.items = []
            self.chunks = 0

    def witness_locked(self) -> bool:
        """Frame an empty group, a witness of what is durable; False where it has no place."""
        writer = self.writer
        self.close_group_locked()
        room = writer.file_size - writer.end
        blocked = self.entry_open or self.refusal or self.failure or writer.must_seal
        if blocked or room < fmt.GROUP_OVERHEAD or self.next_id >= writer.id_limit:
            return False
        self.gathered += writer.add_group(self.last_id + 1, self.durable_id, [], 0)
        return True

    def rotate_locked(self, length: int, first_id: int) -> Wait:
        """Plan the next segment, for ``length`` bytes or more; entries may gather for it at once.

        It is activated by the leader that writes its first bytes. Where no spare is ready, or too
        many segments await their checkpoint, nothing has changed. Returns what to wait for.
        """
        old = self.writer
        wait = self._backlog.admit()
        if wait is not None:
            return ForCheckpoint(wait)
        spare = self._pool.take(length)
        if spare is None:
            return lambda: self._pool.ensure(length)
        segment_id = max(first_id, old.header.segment_id + 1)
        self.next_id = max(self.next_id, segment_id)
        path = os.path.join(self._directory, segment_name(segment_id))
        writer = plan_segment(path, spare, segment_id, self.last_id, self._version_info)
        writer.predecessor = old.segment
        writer.id_limit = min(writer.id_limit, old.id_limit)  # until it is activated
        self._registry.add(writer.segment)
        self.writer = writer
        self.unwritten.append(writer)
        return again

    def seal_locked(self) -> Wait | int:
        """Rotate if the active segment has entries. A wait, or the id below which all is sealed."""
        self.check_open_locked()
        if self.entry_open:
            return self.entry_turn.wait
        self.close_group_locked()
        old = self.writer.segment
        if old.has_entries:
            wait = self.rotate_locked(0, self.next_id)
            if self.writer.segment is old:
                return wait
        return self.writer.header.segment_id - 1

    def last_committed(self) -> int:
        """The id of the last committed entry. A buffered commit's hook may ask, under the lock."""
        if self.hook_thread == threading.get_ident():
            return self._last_committed_locked()
        with self.lock:
            return self._last_committed_locked()

    def _last_committed_locked(self) -> int:
        return self.next_id - 1 if self.items else self.last_id

    # -- entries -----------------------------------------------------------------------------------

    def begin_entry_locked(self) -> Wait | int:
        """Give out an id and close the door behind the entry, or say what to wait for."""
        wait = self.make_room_locked(0, _LEAST_ENTRY)
        if wait is not None:
            return wait
        self.room = 0
        self.entry_open = True
        self.next_id += 1
        return self.next_id - 1

    def make_place_locked(self, size: int, entry_id: int) -> SegmentWriter:
        """The writer for the open entry's first ``size`` bytes: a fresh one if they fit better.

        Only a spare that is ready is taken: otherwise the active segment grows.
        """
        writer = self.writer
        used = writer.end > writer.header.size
        crowded = writer.end + size > writer.file_size
        if used and crowded and writer.header.segment_id < entry_id and not self._backlog.full():
            self.rotate_locked(size, entry_id)
        return self.writer
