"""The event loop that a store belongs to, and the threads that wait in its place.

Nothing on the loop waits for a disk. What may have to runs in a few threads of the store's own: the
loop's default ones may be busy with anything, and cost several times as much for each call. A call
that is cancelled goes on in its thread, and nobody hears of it; one that has not begun does not
begin.
"""

from __future__ import annotations

import asyncio
import threading
import weakref
from asyncio import get_running_loop
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Final, TypeVar

from kvstore.errors import StoreClosedError, StoreError

T = TypeVar("T")
Job = tuple[Callable[..., Any], tuple[object, ...], "asyncio.Future[Any]"]

THREADS: Final = 8
_DIRECT: Final = 64


class Home:
    """One event loop, and one store's threads."""

    def __init__(self) -> None:
        """Belong to the running event loop."""
        self.loop = get_running_loop()
        self._work = _Work(self.loop)
        self._threads = 0
        self._direct = 0
        self._closing = False
        # Also where it is dropped: the threads know the work, not the home.
        self._end_threads = weakref.finalize(self, _end, self._work.todo)
        self._end_threads.atexit = False

    def check(self) -> None:
        """Raise StoreClosedError after the store was closed, StoreError in another event loop."""
        if get_running_loop() is not self.loop:
            raise StoreError("the store belongs to the event loop in which it was opened")
        if self._closing:
            raise _closed()

    # -- threads -----------------------------------------------------------------------------------

    def start(self, function: Callable[..., T], *arguments: object) -> asyncio.Future[T]:
        """Have a function called in a thread."""
        if not self._end_threads.alive:
            raise _closed()
        work = self._work
        work.enter()
        if work.pending > self._threads < THREADS:
            self._threads += 1
            name = f"kvstore-aio-{self._threads}"
            threading.Thread(target=_run, args=(work,), name=name, daemon=True).start()
        future: asyncio.Future[T] = self.loop.create_future()
        work.todo.put((function, arguments, future))
        return future

    async def run(self, function: Callable[..., T], *arguments: object) -> T:
        """Call a function in a thread and wait for it."""
        return await self.start(function, *arguments)

    def have_done(self, function: Callable[[], object]) -> None:
        """Have something done in a thread that nobody waits for."""
        self.start(function).add_done_callback(_forget)

    def enter(self) -> None:
        """Something begins that the store must not be closed before."""
        self._work.enter()

    def leave(self) -> None:
        """It has ended."""
        self._work.leave()

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
        while self._work.pending:
            await self._work.idle.wait()
        if not self._end_threads.alive:
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
        self._end_threads()


class _Work:
    """What threads have to do for a loop, and have done. Counted on the loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.todo: SimpleQueue[Job | None] = SimpleQueue()
        self.done: deque[tuple[asyncio.Future[Any], Any, BaseException | None]] = deque()
        self.waker = Waker(loop, self.deliver)
        self.pending = 0
        self.idle = asyncio.Event()

    def enter(self) -> None:
        self.pending += 1
        self.idle.clear()

    def leave(self) -> None:
        self.pending -= 1
        if not self.pending:
            self.idle.set()

    def deliver(self) -> None:
        """On the loop: hand over what was done."""
        while True:
            try:
                future, result, error = self.done.popleft()
            except IndexError:
                return
            self.leave()
            if future.done():  # cancelled
                continue
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)


def _run(work: _Work) -> None:
    """A thread: does what there is to do until it is told to end."""
    while (job := work.todo.get()) is not None:
        function, arguments, future = job
        result = error = None
        if not future.cancelled():
            try:
                result = function(*arguments)
            except BaseException as raised:  # noqa: BLE001 - handed to who waits
                error = raised
        work.done.append((future, result, error))
        del job, function, arguments, future, result, error  # while it waits it keeps nothing
        work.waker.wake()


def _end(todo: SimpleQueue[Job | None]) -> None:
    for _ in range(THREADS):
        todo.put(None)


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
