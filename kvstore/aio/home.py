"""The event loop that a store belongs to, and the threads that wait in its place.

Nothing on the loop waits for a disk. What may have to runs in a few threads of the store's own: the
loop's default ones may be busy with anything. A call that is cancelled goes on in its thread, and
nobody hears of it; one that has not begun does not begin.
"""

from __future__ import annotations

import asyncio
import threading
from asyncio import get_running_loop
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from kvstore.errors import StoreClosedError, StoreError

T = TypeVar("T")

THREADS: Final = 8
_DIRECT: Final = 64


class Home:
    """One event loop, and one store's threads."""

    def __init__(self) -> None:
        """Belong to the running event loop."""
        self.loop = get_running_loop()
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="kvstore-aio")
        self._at_work = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._direct = 0
        self._closing = False
        self._closed = False

    def check(self) -> None:
        """Raise StoreClosedError after the store was closed, StoreError in another event loop."""
        if get_running_loop() is not self.loop:
            raise StoreError("the store belongs to the event loop in which it was opened")
        if self._closing:
            raise _closed()

    # -- threads -----------------------------------------------------------------------------------

    def start(self, function: Callable[..., T], *arguments: object) -> asyncio.Future[T]:
        """Have a function called in a thread."""
        if self._closed:
            raise _closed()
        job = self.loop.run_in_executor(self._threads, function, *arguments)
        self.enter()
        job.add_done_callback(self._leave)
        return job

    async def run(self, function: Callable[..., T], *arguments: object) -> T:
        """Call a function in a thread and wait for it."""
        return await self.start(function, *arguments)

    def have_done(self, function: Callable[[], object]) -> None:
        """Have something done in a thread that nobody waits for."""
        self.start(function).add_done_callback(_forget)

    def enter(self) -> None:
        """Something begins that the store must not be closed before."""
        self._at_work += 1
        self._idle.clear()

    def leave(self) -> None:
        """It has ended."""
        self._at_work -= 1
        if not self._at_work:
            self._idle.set()

    def _leave(self, job: asyncio.Future[T]) -> None:
        self.leave()

    # -- fairness ----------------------------------------------------------------------------------

    def must_yield(self) -> bool:
        """Whether a caller that need not wait should let others run: once in a while."""
        self._direct += 1
        if self._direct < _DIRECT:
            return False
        self._direct = 0
        return True

    # -- the end -----------------------------------------------------------------------------------

    async def close(self, close: Callable[[], object]) -> None:
        """Refuse what is new, let go on what has begun, then call ``close`` in a thread."""
        self._closing = True
        while self._at_work:
            await self._idle.wait()
        if self._closed:
            return
        try:
            await self.run(close)
        except asyncio.CancelledError:
            raise  # it may be called again, and waits for the end then
        except BaseException:
            self.let_go()
            raise
        self.let_go()

    def let_go(self) -> None:
        """End the threads, once they have nothing to do."""
        self._closed = True
        self._threads.shutdown(wait=False)


def _closed() -> StoreClosedError:
    return StoreClosedError("the store was closed")


def _forget(job: asyncio.Future[object]) -> None:
    if not job.cancelled():
        job.exception()  # looked at: asyncio would complain


class Waker:
    """Hands things from other threads to the loop, all that have gathered with one wake-up."""

    def __init__(self, loop: asyncio.AbstractEventLoop, deliver: Callable[[], object]) -> None:
        self._loop = loop
        self._deliver = deliver
        self._scheduled = False

    def wake(self) -> None:
        """Have ``deliver`` called on the loop; it takes all that was put down before this call."""
        if not self._scheduled:
            self._scheduled = True
            try:
                self._loop.call_soon_threadsafe(self._run)
            except RuntimeError:  # the loop was closed: nobody waits any more
                self._scheduled = False

    def _run(self) -> None:
        self._scheduled = False  # first: what comes from here on wakes anew
        self._deliver()


class Turn:
    """What one thread at a time may do, and the loop only if it need not wait for it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def run(self, function: Callable[..., T], *arguments: object) -> T:
        """In a thread: call a function once it is its turn."""
        with self._lock:
            return function(*arguments)

    def try_to_run(self, function: Callable[[], object]) -> bool:
        """On the loop: call a function if nobody is at it; False if somebody is."""
        if not self._lock.acquire(blocking=False):
            return False
        try:
            function()
        finally:
            self._lock.release()
        return True
