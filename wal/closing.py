"""How a log ends: in order, dropped, at the interpreter's exit, or as a copy in a forked child."""

from __future__ import annotations

import atexit
import os
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import ExitStack, suppress

from wal.checkpoint_marker import CleanMark
from wal.errors import LogClosedError, LogFailedError, WalError
from wal.opening import Parts
from wal.turnstile import Turnstile


class Closing:
    """The end of one log. The log itself may be gone when it comes: hence an object of its own."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._closed = False
        self._forked = False
        self._turn = Turnstile()  # one shutdown at a time
        _open.add(self)

    def shutdown(self, timeout: float | None) -> None:
        """See :meth:`wal.WriteAheadLog.shutdown`."""
        if self._forked:
            raise _forked()
        deadline = None if timeout is None else time.monotonic() + timeout
        buffer = self._parts.commits.buffer
        with buffer.lock:
            if buffer.refusal is None:
                buffer.refusal = LogClosedError("the log was shut down")
            buffer.room = 0
        me = object()
        try:
            if not self._turn.acquire(me, _left(deadline)):
                raise TimeoutError("another thread's shutdown takes longer than the timeout")
            # Once the entry turn has been free no entry is open, and who waited for it finds the
            # log closed. It is not kept: a checkpoint_to may be among those.
            try:
                if not buffer.entry_turn.acquire(me, _left(deadline)):
                    raise TimeoutError("an entry is still open")
            finally:
                buffer.entry_turn.release(me)
            if not self._closed:
                self._shutdown(deadline)
        finally:
            try:
                buffer.entry_turn.release(me)  # again: an interrupt may have kept it from the first
            finally:
                self._turn.release(me)

    def _shutdown(self, deadline: float | None) -> None:
        parts = self._parts
        failure: WalError | None = None
        try:
            parts.commits.sync()
        except LogFailedError as error:
            failure = error
        failed_checkpoint = parts.checkpointer.stop(deadline)
        self._release(clean=parts.commits.buffer.failure is None)
        failure = failure or failed_checkpoint
        if failure is not None:
            raise failure

    def _release(self, *, clean: bool) -> None:
        """Let go of everything, whatever goes wrong with a part of it; may be called again."""
        parts = self._parts
        parts.reader.closed = LogClosedError("the log was shut down")
        with ExitStack() as last_first:
            last_first.callback(parts.checkpointer.manager_closed)
            last_first.callback(self._ended)
            for part in (parts.lock.release, parts.marker.close, parts.checkpointer.close):
                last_first.callback(_surely, part)
            last_first.callback(parts.registry.close)
            last_first.callback(parts.pool.close)
            if clean:
                last_first.callback(self._mark_clean)
            last_first.callback(parts.flusher.stop)

    def _ended(self) -> None:
        self._closed = True
        _open.discard(self)

    def _mark_clean(self) -> None:
        """Say in the marker where the log ends, so that the next opening can go on there.

        Not where a rolled-back entry left bytes behind the end: they must not be written over. Nor
        after an interrupt that came until the marker was closed: the next opening does without.
        """
        parts = self._parts
        if parts.marker.closed:
            return
        buffer, writer = parts.commits.buffer, parts.commits.buffer.writer
        segment = writer.segment
        mark = CleanMark(segment.id, segment.committed_end, buffer.last_id)
        try:
            parts.marker.write(
                durable_id=buffer.durable_id,
                highest_id=buffer.next_id - 1,
                newest_nonempty=parts.registry.newest_nonempty(),
                clean=None if writer.must_seal else mark,
            )
        except OSError as error:
            message = f"everything is durable, but the marker could not say so: {error}"
            raise LogFailedError(message, error.errno) from error

    def drop(self) -> None:
        """The last reference to the log went: write what is acknowledged, and let go.

        A finalizer that runs on a thread of the log's own must not wait for that thread.
        """
        parts = self._parts
        if self._closed or self._forked:
            return
        threads = (parts.flusher, parts.checkpointer, parts.pool)
        if any(thread.is_current() for thread in threads):
            parts.flusher.defer(self._drop)
        else:
            self._drop()

    def _drop(self) -> None:
        parts, buffer = self._parts, self._parts.commits.buffer
        with buffer.lock:
            buffer.refusal = LogClosedError("the log was dropped")
            buffer.room = 0
        try:
            with suppress(WalError):
                parts.commits.sync()
        finally:  # nobody can call again: whatever was raised, leave no thread and no lock behind
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
        commits, buffer = self._parts.commits, self._parts.commits.buffer
        # Another thread of the parent may hold them: it is not here to let go of them.
        commits.leadership.lock = threading.Lock()
        buffer.lock, buffer.entry_turn = threading.Lock(), Turnstile()
        self._parts.reader.closed = buffer.refusal = _forked()
        buffer.failure = buffer.refusal
        buffer.room = 0

    def check_process(self) -> None:
        """Raise in the child of a fork, where a lock may be held for ever."""
        if self._forked:
            raise _forked()


def _surely(step: Callable[[], object]) -> None:
    """Take a step that may be repeated, also if an interrupt comes in the middle of it."""
    try:
        step()
    except Exception:
        raise
    except BaseException:
        step()
        raise


def _left(deadline: float | None) -> float | None:
    return None if deadline is None else deadline - time.monotonic()


def _forked() -> LogClosedError:
    return LogClosedError("the log was opened by the parent of this forked process")


_open: weakref.WeakSet[Closing] = weakref.WeakSet()


def _flush_all() -> None:
    for closing in list(_open):
        closing.flush()


def _mark_forked() -> None:
    for closing in list(_open):
        closing.forked()


atexit.register(_flush_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_mark_forked)
