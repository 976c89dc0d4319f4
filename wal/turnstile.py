"""A mutex that is fair, who came first goes first, and that an interrupt cannot leave locked."""

from __future__ import annotations

import threading
from collections import deque
from contextlib import suppress


class Turnstile:
    """The right to open an entry, given in the order of arrival.

    A plain lock goes to whichever thread runs when it is let go, most often the one that had it:
    with 16 threads committing entries of 1 MiB, the 99th percentile was 14 medians.

    The turn has an owner (any object), so letting go of it can be repeated: it does nothing for who
    does not have it. Any thread may do it. A wake-up comes before the change of owner: a thread
    woken in vain waits again, one that has the turn and sleeps would stop everybody.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._owner: object = None
        self._queue: deque[tuple[object, threading.Lock]] = deque()

    def acquire(self, owner: object, timeout: float | None = None) -> bool:
        """Wait for one's turn; False if it does not come within ``timeout`` seconds.

        Whatever is raised here, the caller has to :meth:`release` in a ``finally``.
        """
        woken = threading.Lock()
        woken.acquire()
        limit = -1 if timeout is None else min(max(0.0, timeout), threading.TIMEOUT_MAX)
        while True:
            with self._lock:
                if self._owner is None or self._owner is owner:
                    self._owner = owner
                    self._forget(owner)
                    return True
                if not any(waiting is owner for waiting, _ in self._queue):
                    self._queue.append((owner, woken))
            if not woken.acquire(timeout=limit):
                with self._lock:
                    if self._owner is not owner:
                        self._forget(owner)
                        return False

    def release(self, owner: object) -> None:
        """Let the next one go; of who does not have the turn, take back the place in the queue."""
        with self._lock:
            if self._owner is not owner:
                self._forget(owner)
            elif self._queue:
                following, woken = self._queue[0]
                with suppress(RuntimeError):  # woken before, and then came an interrupt
                    woken.release()
                self._owner = following
                self._queue.popleft()
            else:
                self._owner = None

    def wait(self) -> None:
        """Wait until everyone who is here now has had the turn."""
        me = object()
        try:
            self.acquire(me)
        finally:
            self.release(me)

    def _forget(self, owner: object) -> None:
        for place in self._queue:
            if place[0] is owner:
                self._queue.remove(place)
                return
