"""The background thread that checkpoints sealed segments, in order.

For each: ``checkpoint_to``, then the marker, then ``archive``, then its file is kept for reading as
long as the configuration asks for, or (once no reader holds it) leaves its name and may be used
again. A crash between any two of these steps is harmless: ``docs/durability.md`` has the table.
What raises is kept, logged, and tried again with growing pauses. On a full disk the spare segments
go first: a checkpoint is what lets segments go, and so what makes room.
"""

from __future__ import annotations

import errno
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from wal.append_buffer import AppendBuffer, Wait
from wal.checkpoint_marker import CheckpointMarker
from wal.errors import CheckpointError, EntryStateError, LogClosedError, without_frames
from wal.log_manager import LogManager, SealedSegment
from wal.positions import EntryId
from wal.segments.lifecycle import Segment, SegmentRegistry, State
from wal.segments.pool import SparePool
from wal.segments.retention import Retention
from wal.segments.sealed import SegmentReader
from wal.telling import tell
from wal.threads import JoinableThread

if TYPE_CHECKING:
    from wal.log import WriteAheadLog

logger = logging.getLogger("wal.checkpointer")

FIRST_PAUSE: Final = 0.05
LONGEST_PAUSE: Final = 5.0
NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT)
WARNED_EVERY: Final = 60.0
"""Seconds without a wait of writers after which the next one is worth a warning again."""


class Checkpointer:
    """One thread and its queue. The condition is never held in a callback or in I/O."""

    def __init__(
        self,
        manager: LogManager,
        marker: CheckpointMarker,
        registry: SegmentRegistry,
        pool: SparePool,
        retention: Retention,
        max_sealed: int,
    ) -> None:
        self._manager = manager
        self._marker = marker
        self._registry = registry
        self._pool = pool
        self._retention = retention
        self._max_sealed = max_sealed
        self._mutex = threading.RLock()  # taken as such: a Condition is left by Python code
        self._changed = threading.Condition(self._mutex)
        self._queue: deque[Segment] = deque()
        self._aside: list[Segment] = []  # not needed any more, waiting for readers
        self._archived: Segment | None = None
        self._stopping = False
        self._hurry = False
        self._attempts = 0  # that failed, in a row
        self._warn_from = 0.0  # the next wait of writers is told from this time on
        self._failures = 0  # in all
        self.error: BaseException | None = None  # of the last attempt
        self.checkpoints = 0
        self.waits = 0
        self.wait_seconds = 0.0
        self._buffer: AppendBuffer | None = None
        self._log: Callable[[], WriteAheadLog | None] = lambda: None
        self._thread = JoinableThread(target=self._run, name="wal-checkpointer", daemon=True)
        registry.on_unpinned = self._notify

    def start(self, buffer: AppendBuffer, log: Callable[[], WriteAheadLog | None]) -> None:
        """Begin to work. ``log`` gives the log as long as it is in use."""
        self._buffer = buffer
        self._log = log
        self._thread.start()

    # -- asked by writers --------------------------------------------------------------------------

    def enqueue(self, segment: Segment) -> None:
        """Take over a sealed segment, of which every hook has returned."""
        if segment.state is State.ACTIVE:
            self._registry.become(segment, State.SEALED)
        with self._mutex:
            self._queue.append(segment)
            self._changed.notify_all()

    def full(self) -> bool:
        """Whether so many segments wait that writers have to."""
        return len(self._queue) > self._max_sealed and not self.is_current()

    def admit(self) -> Wait | None:
        """None if one more segment may be sealed, else what to wait for."""
        if not self.full():
            return None
        if self.error is not None:
            raise self._failed() from self.error
        return self._wait_for_room

    def _wait_for_room(self) -> None:
        started = time.monotonic()
        with self._mutex:
            self.waits += 1
            told, self._warn_from = started < self._warn_from, started + WARNED_EVERY
        if not told:  # a load that is faster than checkpoints would say it a hundred times
            message = "%d segments await their checkpoint (max_sealed_segments is %d): writers wait"
            tell(logger.warning, message, len(self._queue), self._max_sealed)
        with self._mutex:
            try:
                self._changed.wait_for(lambda: not self.full() or self.error or self._stopping)
            finally:
                self.wait_seconds += time.monotonic() - started

    def wait_for(self, segment_id: int, since: int | None = None) -> None:
        """Wait until a segment is checkpointed; CheckpointError after an attempt that failed.

        ``since`` is what :meth:`retry` returned: failures from then on count.
        """
        if self.is_current():
            raise EntryStateError("a checkpoint cannot wait for itself")
        with self._mutex:
            failures = self._failures if since is None else since
            hurried = False
            while any(segment.id <= segment_id for segment in self._queue):
                if self.error is not None and self._failures > failures:
                    raise self._failed() from self.error
                if not hurried:
                    hurried = self._hurry = True
                    self._changed.notify_all()
                if self._stopping or not self._thread.is_alive():
                    raise LogClosedError("the log was shut down before the checkpoint was made")
                self._changed.wait()

    def retry(self) -> int:
        """Where the last attempt failed, wait for one more, now; CheckpointError if in vain.

        Returns how many had failed before.
        """
        with self._mutex:
            failures = self._failures
            failed = self._queue[0].id if self.error is not None and self._queue else None
        if failed is not None:
            self.wait_for(failed, failures)
        return failures

    def _wait_until(self, deadline: float | None) -> None:
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and left <= 0:
            raise TimeoutError("the checkpoint takes longer than the timeout")
        self._changed.wait(None if left is None else min(left, threading.TIMEOUT_MAX))

    def _failed(self) -> CheckpointError:
        error = self.error
        told = str(error) if isinstance(error, OSError) else repr(error)  # with the file's name
        return CheckpointError(f"the last attempt to checkpoint failed: {told}")

    def stop(self, deadline: float | None, *, drain: bool = True) -> CheckpointError | None:
        """Checkpoint what is sealed (one last attempt), end the thread, and return what failed."""
        with self._mutex:
            failures = self._failures
            self._hurry = True
            self._changed.notify_all()
            while drain and self._queue and self._thread.is_alive():
                if self.error is not None and self._failures > failures:
                    break
                self._wait_until(deadline)
            self._stopping = True
            self._changed.notify_all()
        if self._thread.is_alive() and not self.is_current():
            self._thread.join()
        if self.error is None:
            return None
        failed = self._failed()
        failed.__cause__ = self.error
        return failed

    def close(self) -> None:
        """Close the files of segments that the registry does not hold; after the registry's."""
        for segment in [*self._queue, *self._aside]:
            if not segment.pins:
                segment.file.close()
        self._retention.drop_held(self._aside)

    def manager_closed(self) -> None:
        """Tell the manager that the log has let go of everything."""
        self._manager.closed()

    def is_current(self) -> bool:
        """Whether this is the calling thread."""
        return threading.current_thread() is self._thread

    def backlog(self) -> int:
        """How many segments await their checkpoint."""
        return len(self._queue)

    def _notify(self) -> None:
        with self._mutex:
            self._changed.notify_all()

    # -- the thread --------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            pause = self._pause()
            with self._mutex:
                self._changed.wait_for(self._has_work, pause)
                if self._stopping:
                    return
                segment = self._queue[0] if self._queue else None
            try:
                self._expire()
                if segment is not None and self._log() is None:
                    with self._mutex:  # the log was dropped: its end is on the way
                        self._changed.wait_for(lambda: self._stopping)
                elif segment is not None:
                    self._checkpoint(segment)
                    self._succeeded(segment)
                    self._expire()
                elif self.error is not None:
                    self._succeeded(None)
            except BaseException as error:  # noqa: BLE001 - it is kept, and raised to who asks
                # SystemExit too: others would wait for ever for a thread that is gone.
                if not self._made_room(error):
                    self._pause_after(error)

    def _made_room(self, error: BaseException) -> bool:
        """Whether the disk was full, and spare segments were there to be given up for it."""
        try:
            return _is_full(error) and self._pool.give_up()
        except BaseException as failed:  # noqa: BLE001 - what matters is the first error
            tell(logger.warning, "could not remove a spare segment: %s", failed)
            return False

    def _pause(self) -> float | None:
        """How long to wait at most: until a kept segment's time is over."""
        pause = self._retention.pause()
        return None if pause is None else min(pause, threading.TIMEOUT_MAX)

    def _has_work(self) -> bool:
        return self._stopping or bool(self._queue) or any(not s.pins for s in self._aside)

    def _succeeded(self, segment: Segment | None) -> None:
        with self._mutex:
            if segment is not None:
                self._queue.popleft()
            self.error = None
            self._attempts = 0
            self._changed.notify_all()

    def _pause_after(self, error: BaseException) -> None:
        pause = min(FIRST_PAUSE * 2**self._attempts, LONGEST_PAUSE)
        traceback = error.__traceback__
        with self._mutex:
            self.error = without_frames(error)
            self._attempts += 1
            self._failures += 1
            self._hurry = False
            self._changed.notify_all()
        if _is_full(error):
            message = "no room to checkpoint, next try in %.2f s: %s"
            tell(logger.error, message, pause, error)
        else:
            told = (type(error), error, traceback)
            tell(logger.error, "checkpointing failed, next try in %.2f s", pause, exc_info=told)
            del told
        del traceback
        with self._mutex:
            self._changed.wait_for(lambda: self._stopping or self._hurry, pause)

    def _checkpoint(self, segment: Segment) -> None:
        """Every step once, in order; a repeated attempt goes on at the step that failed."""
        shown = segment.has_entries and not segment.abandoned
        if segment.state is State.SEALED:
            if shown:
                log = self._log()
                if log is None:
                    raise LogClosedError("the log was dropped")
                reader = SegmentReader(segment)
                self._manager.checkpoint_to(EntryId(segment.last_id), reader, log)
            self._advance_marker(segment)
            self._registry.become(segment, State.CHECKPOINTED)
            self.checkpoints += shown
        if shown and self._archived is not segment:
            self._manager.archive(
                SealedSegment(
                    segment.id,
                    segment.path,
                    EntryId(segment.last_id),
                    segment.header.version_info,
                    segment.committed_end,
                )
            )
        self._archived = segment
        self._release(segment)

    def _advance_marker(self, segment: Segment) -> None:
        assert self._buffer is not None
        following = self._registry.successor(segment)
        assert following is not None  # the active one at least
        self._marker.write(
            checkpointed_id=max(segment.last_id, self._marker.current.checkpointed_id),
            durable_id=self._buffer.durable_id,
            highest_id=self._buffer.next_id - 1,
            oldest_live=following.id,
            newest_nonempty=self._registry.newest_nonempty(),
            clean=None,
        )

    def _release(self, segment: Segment) -> None:
        """Keep a segment's file, or recycle it, or set it aside while readers hold it."""
        if segment.state is State.CHECKPOINTED and self._retention.wants(segment):
            self._retention.keep(segment)
        elif segment.state is not State.RELEASED and not self._registry.release(segment):
            self._aside.append(segment)
        else:
            self._pool.recycle(segment)

    def _expire(self) -> None:
        """Recycle what need not be kept any longer, and what readers have let go of."""
        self._aside += self._retention.expired()
        for segment in [segment for segment in self._aside if not segment.pins]:
            if segment.state is State.RELEASED or self._registry.release(segment):
                if self._retention.reopen(segment):
                    self._pool.recycle(segment)
                self._aside.remove(segment)


def _is_full(error: BaseException) -> bool:
    """Whether it says that the disk is full."""
    return isinstance(error, OSError) and error.errno in NO_ROOM
