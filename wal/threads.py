"""Threads whose end can be waited for, also again after an interrupt."""

from __future__ import annotations

import threading


class JoinableThread(threading.Thread):
    """A thread that is alive until it has ended, whatever came in the way of a ``join()``.

    Before CPython 3.13 a ``join()`` that is interrupted, by Ctrl-C for one, takes the thread for
    ended from then on: the next one returns at once, and its caller goes on as if nobody worked.
    """

    _over: threading.Event | None = None  # once it is started

    def start(self) -> None:
        """As of any thread."""
        self._over = threading.Event()
        try:
            super().start()
        except RuntimeError:  # there can be no more threads
            self._over.set()
            raise

    def run(self) -> None:
        """As of any thread."""
        assert self._over is not None
        try:
            super().run()
        finally:
            self._over.set()

    def join(self, timeout: float | None = None) -> None:
        """As of any thread. After an interrupt it can be called again."""
        if self._over is not None and threading.current_thread() is not self:
            self._over.wait(timeout)
        super().join(timeout)

    def is_alive(self) -> bool:
        """Whether it was started and has not ended."""
        return self._over is not None and not self._over.is_set()
