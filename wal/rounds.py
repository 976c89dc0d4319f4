"""What a leader does: one round of writing, syncing and completing for all.

It takes all that has gathered, writes it, syncs if any of it asks for that, runs the hooks of what
has reached its durability, in EntryId order, and wakes the waiters. A commit completes only after
every earlier one.

The first failed write or sync, and an interrupt inside a round, *latch*: every commit in flight
fails with that cause, and so does every later one, until the log is reopened.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from threading import get_ident
from typing import Final

from wal.append_buffer import AppendBuffer
from wal.config import Durability
from wal.errors import copy_of_interrupt, without_frames
from wal.files import FileSystem
from wal.leadership import Leadership
from wal.positions import MAX_ID
from wal.segments.lifecycle import Segment
from wal.segments.writer import SegmentWriter, Taken
from wal.statistics import CommitCounters
from wal.telling import tell
from wal.tickets import Committed, Ticket

logger = logging.getLogger("wal.commit")

FSYNC: Final = Durability.FSYNC.rank
IN_CALLBACK: Final = "inside a callback of a commit"


class Rounds:
    """The commits in flight and the leader's work on them.

    ``in_flight`` is appended to under the append lock and popped by the leader alone; so are the
    private attributes the leader's alone.
    """

    def __init__(
        self,
        buffer: AppendBuffer,
        file_system: FileSystem,
        directory: str,
        committed: Committed | None,
        accepted: Committed | None,
        on_sealed: Callable[[Segment], object],
        wake_flusher: Callable[[], object],
    ) -> None:
        self.buffer = buffer
        self.in_flight: deque[Ticket] = deque()
        self.leadership = Leadership(self.in_flight, wake_flusher)
        self.barred: dict[int, str] = {}  # threads that may not commit now, and why
        self.counters = CommitCounters()
        self.committed = committed
        self.accepted = accepted
        self._files = file_system
        self._directory = directory
        self._on_sealed = on_sealed
        self._written_id = buffer.last_id
        self._reached: deque[Ticket] = deque()
        self._sealing: list[Segment] = []  # left behind by a rotation, their hooks may still run
        self._dirty = False  # written since the last sync

    def lead(self, owner: object, force: bool = False) -> None:
        """One round, and the leadership handed on whatever happens."""
        try:
            if self.buffer.failure is None:
                self._round(force)
            elif self.in_flight:
                self._fail_in_flight(self.buffer.failure)
        except BaseException as error:
            tell(logger.error, "the log failed: it must be reopened", exc_info=error)
            interrupt = not isinstance(error, Exception)
            failure = copy_of_interrupt(error) if interrupt else without_frames(error)
            with self.buffer.lock:
                self.buffer.latch_locked(failure)
            self._fail_in_flight(failure)
            if interrupt:
                raise
        finally:
            self.leadership.hand_on(owner)

    # -- one round ---------------------------------------------------------------------------------

    def _round(self, force: bool) -> None:
        buffer = self.buffer
        with buffer.lock:
            buffer.close_group_locked()
            upto = buffer.last_id
            active = buffer.writer
            durable_end = active.committed_end
            work = [*map(SegmentWriter.take, buffer.unwritten)]
            if len(work) > 1:
                buffer.unwritten = [active]
            buffer.gathered = 0
            entries, buffer.entries = buffer.entries, 0
            chunks, chunk_bytes = buffer.chunks_framed, buffer.chunk_bytes_framed
            sync = force or buffer.sync_wanted_id > buffer.durable_id
        for taken in work:
            self._write(taken)
        self.counters.group(entries)
        self.counters.chunks, self.counters.chunk_bytes = chunks, chunk_bytes
        self._written_id = upto
        if sync and (self._dirty or buffer.durable_id < upto):
            if self.in_flight and self.in_flight[0].rank != FSYNC:
                self._complete()  # WRITE commits need not wait for the sync
            self._sync(active.segment)
            active.segment.durable_end = durable_end
            buffer.durable_id = upto
        self._complete()

    def _write(self, taken: Taken) -> None:
        writer, offset, end, buffers, chunk_offsets = taken
        if not writer.activated:
            self._activate(writer)
        if buffers:
            segment = writer.segment
            segment.file.write_at(offset, buffers)
            self._dirty = True
            self.counters.bytes += end - offset
            for chunk_offset in chunk_offsets:  # from now on they are read from the file
                segment.unwritten.pop(chunk_offset, None)

    def _activate(self, writer: SegmentWriter) -> None:
        """Rotate: the old segment is synced whole before anything of its successor exists."""
        old, writer.predecessor = writer.predecessor, None
        assert old is not None
        self._sync(old)
        old.durable_end = old.committed_end
        self.buffer.durable_id = old.last_id
        writer.activate(self._files, self._directory)
        self.counters.rotations += 1
        self._sealing.append(old)

    def _sync(self, segment: Segment) -> None:
        started = time.perf_counter()
        segment.file.sync()
        self._dirty = False
        self.counters.synced(time.perf_counter() - started)

    def _complete(self) -> None:
        """Run the hooks of what has reached its durability, in order, and wake who waits for it."""
        reach = (MAX_ID, self._written_id, self.buffer.durable_id)  # by rank
        in_flight, reached = self.in_flight, self._reached
        if in_flight and in_flight[0].entry_id <= reach[in_flight[0].rank]:
            me = get_ident()
            before = self.barred.get(me)  # a leader may have an entry open
            self.barred[me] = IN_CALLBACK
            try:
                while in_flight:
                    ticket = in_flight[0]
                    if ticket.entry_id > reach[ticket.rank]:
                        break
                    if ticket.item is not None or ticket.on_commit is not None:
                        ticket.run_hooks(self.committed)
                    reached.append(in_flight.popleft())
                self.leadership.finish(reached)
            finally:
                self._unbar(me, before)
        if self._sealing:
            self._hand_over_sealed()

    def _unbar(self, me: int, before: str | None) -> None:
        if before is None:
            del self.barred[me]
        else:
            self.barred[me] = before

    def _hand_over_sealed(self) -> None:
        """Give segments whose hooks have all returned to the checkpointer."""
        while self._sealing:
            segment = self._sealing[0]
            if self.in_flight and self.in_flight[0].entry_id <= segment.last_id:
                return
            self._on_sealed(self._sealing.pop(0))

    # -- failing -----------------------------------------------------------------------------------

    def _fail_in_flight(self, error: BaseException) -> None:
        """Wake everybody: the complete ones with their result, the others with the failure."""
        me = get_ident()
        before = self.barred.get(me)
        self.barred[me] = IN_CALLBACK  # done callbacks are called
        try:
            self.leadership.finish(self._reached)
            with self.buffer.lock:
                failed = deque(self.in_flight)
                self.in_flight.clear()
            self.leadership.finish(failed, error)
        finally:
            self._unbar(me, before)
