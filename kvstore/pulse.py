"""What wakes those who wait for the next commit of a store."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

_SOON: Final = 0.02
_OFTEN: Final = 0.1
_SELDOM: Final = 1.0


class Pulse:
    """What wakes those who follow a store: one for each open store.

    :meth:`beat` is called after each commit has become visible, with any lock held; it takes the
    pulse's own lock only if somebody waits. A beat that is missed (a commit that becomes durable
    later, another process) is made up for by looking again after a while.
    """

    def __init__(self, seldom: float = _SELDOM) -> None:
        self._mutex = threading.Lock()  # taken as such: a Condition is entered by Python code
        self._changed = threading.Condition(self._mutex)
        self._seldom = seldom
        self.waiting = 0
        """How many followers wait. Who commits may look at it first, and save the call."""
        self.look: Callable[[], object] | None = None
        """Finds out what is new, for those who wait where nobody beats: beside a writer."""
        self.closed = False
        """Whether the store is closed, or about to be."""

    def beat(self) -> None:
        """Something was committed: let those who wait look."""
        if self.waiting:
            with self._mutex:
                self._changed.notify_all()

    def close(self) -> None:
        """End all waiting: the store is closed."""
        self.closed = True
        with self._mutex:
            self._changed.notify_all()

    def wait(self, ready: Callable[[], bool], soon: Callable[[], bool]) -> bool:
        """Wait until something is ready; False once the store is closed.

        Neither function may take a lock. ``soon`` tells that it may become ready without a beat.
        """
        while not (self.closed or ready()):
            if self.look is not None:
                self.look()
            with self._mutex:
                self.waiting += 1
                try:
                    if not (self.closed or ready()):
                        often = self.look is not None
                        pause = _SOON if soon() else _OFTEN if often else self._seldom
                        self._changed.wait(pause)
                finally:
                    self.waiting -= 1
        return not self.closed
