"""The background thread of the write path.

It leads for tickets that nobody waits for, syncs what BUFFER and WRITE commits leave behind within
``flush_interval``, bears witness once the log falls idle, and does what finalizers must not do
themselves (a finalizer may run inside any lock). It sleeps while there is nothing to look after.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from typing import Final

from wal.errors import WalError
from wal.group_commit import GroupCommit
from wal.telling import tell
from wal.threads import JoinableThread

logger = logging.getLogger("wal.flusher")

_LEAD: Final = "lead"
_ARM: Final = "arm"
_STOP: Final = "stop"
Task = str | Callable[[], object]


class Flusher:
    """One thread and its queue. ``wake``, ``arm``, ``defer``: with any lock held."""

    def __init__(self, interval: float) -> None:
        self._interval = min(interval, threading.TIMEOUT_MAX / 2)
        self._tasks: queue.SimpleQueue[Task] = queue.SimpleQueue()
        self._commits: GroupCommit | None = None
        self._seen_id = -1
        self._witnessed_id = 0
        self._thread = JoinableThread(target=self._run, name="wal-flusher", daemon=True)

    def start(self, commits: GroupCommit) -> None:
        """Begin to look after a log's commits."""
        self._commits = commits
        self._witnessed_id = commits.buffer.durable_id
        self._thread.start()

    def wake(self) -> None:
        """Have it lead."""
        self._tasks.put(_LEAD)

    def arm(self) -> None:
        """Tell it that something was accepted: it looks again after ``flush_interval``."""
        self._tasks.put(_ARM)

    def defer(self, task: Callable[[], object]) -> None:
        """Have a function called on its thread."""
        self._tasks.put(task)

    def stop(self) -> None:
        """Let it finish what is queued, and wait for its end."""
        self._tasks.put(_STOP)
        if self.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join()

    def is_alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def is_current(self) -> bool:
        """Whether this is the calling thread."""
        return threading.current_thread() is self._thread

    def _run(self) -> None:
        assert self._commits is not None
        self._commits.leadership.flusher_thread = threading.get_ident()
        deadline: float | None = None
        while True:
            task = self._next(deadline)
            if task is _STOP:
                return
            try:
                if task is _LEAD:
                    self._commits.lead_as_flusher()
                elif task is _ARM:
                    deadline = deadline or time.monotonic() + self._interval
                elif callable(task):
                    task()
                if deadline is not None and time.monotonic() >= deadline:
                    deadline = time.monotonic() + self._interval if self._tick() else None
            except WalError:
                deadline = None  # latched: whoever waits has been told
            except BaseException:  # noqa: BLE001 - SystemExit too: dropped entries need the thread
                deadline = time.monotonic() + self._interval
                tell(logger.exception, "the flusher failed; it goes on")
            del task  # it may hold the last reference to the log

    def _next(self, deadline: float | None) -> Task | None:
        timeout = None if deadline is None else max(0.0, deadline - time.monotonic())
        try:
            return self._tasks.get(timeout=timeout)
        except queue.Empty:
            return None

    def _tick(self) -> bool:
        """Look after the log once; whether to look again."""
        commits = self._commits
        assert commits is not None
        buffer = commits.buffer
        if buffer.failure is not None:
            return False
        if buffer.last_committed() > buffer.durable_id:
            commits.sync()
        with buffer.lock:
            if buffer.next_id != self._seen_id:
                self._seen_id = buffer.next_id
                return True
            buffer.disarm_locked()
        if buffer.durable_id > self._witnessed_id:
            commits.witness()
            self._witnessed_id = buffer.durable_id
        return False
