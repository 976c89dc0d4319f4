"""A mutex that is fair: who came first goes first."""

from __future__ import annotations

import threading
from collections import deque


class Turnstile:
    """The right to open an entry, given in the order of arrival.

    A plain lock goes to whichever thread runs when it is let go, most often the one that
    had it: with 16 threads committing entries of 1 MiB, the 99th percentile was 14 medians.

    Any thread may let go of it. Held for as long as an entry is open; its own lock for a moment.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held = False
        self._queue: deque[threading.Lock] = deque()

    def acquire(self, timeout: float = -1) -> bool:
        """Wait for one's turn; False if it does not come within ``timeout`` seconds."""
        with self._lock:
            if not self._held:
                self._held = True
                return True
            turn = threading.Lock()
            turn.acquire()
            self._queue.append(turn)
        try:
            if turn.acquire(timeout=timeout):
                return True
        except BaseException:
            if not self._leave(turn):
                self.release()
            raise
        return not self._leave(turn)

    def _leave(self, turn: threading.Lock) -> bool:
        """Stop waiting; False if the turn has come already."""
        with self._lock:
            waiting = turn in self._queue
            if waiting:
                self._queue.remove(turn)
            return waiting

    def release(self) -> None:
        """Let the next one go, who has it then."""
        with self._lock:
            if self._queue:
                self._queue.popleft().release()
            else:
                self._held = False

    def __enter__(self) -> Turnstile:
        self.acquire()
        return self

    def __exit__(self, *error: object) -> None:
        self.release()
