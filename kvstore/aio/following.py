"""The change feed for tasks: read by a thread of its own, which may wait as long as it likes."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncGenerator, Callable
from typing import Any, Final

from kvstore.aio.home import Home, Waker
from kvstore.change_feed import Change

_AHEAD: Final = 256


class Follower:
    """A thread that reads a feed, up to some changes ahead of who takes them."""

    def __init__(self, home: Home, begin: Callable[[], Any]) -> None:
        """Follow the feed that ``begin()`` makes."""
        self._begin = begin
        self._changed = asyncio.Event()
        self._waker = Waker(home.loop, self._changed.set)
        self._ready: deque[Change] = deque()
        self._room = threading.Semaphore(_AHEAD)
        self._lock = threading.Lock()
        self._feed: Any = None
        self._stopped = False
        self._ended = False
        self._error: BaseException | None = None
        threading.Thread(target=self._follow, name="kvstore-follower", daemon=True).start()

    # -- in the thread -----------------------------------------------------------------------------

    def _follow(self) -> None:
        try:
            feed = self._begin()
            with self._lock:
                self._feed = feed
            if self._stopped:
                feed.close()
            for change in feed:
                self._room.acquire()
                if self._stopped:
                    break
                self._ready.append(change)
                self._waker.wake()
        except BaseException as error:  # noqa: BLE001 - handed to who follows
            self._error = error
        self._ended = True
        self._waker.wake()

    # -- on the loop -------------------------------------------------------------------------------

    async def changes(self) -> AsyncGenerator[Change, None]:
        """What the thread has read."""
        try:
            while True:
                ended = self._ended  # first: what came before its end is there
                self._changed.clear()
                while self._ready:
                    change = self._ready.popleft()
                    self._room.release()
                    yield change
                if ended:
                    break
                await self._changed.wait()
            if self._error is not None:
                raise self._error
        finally:
            self.stop()

    def stop(self) -> None:
        """End the thread. What it has read can still be taken."""
        self._stopped = True
        with self._lock:
            feed = self._feed
        if feed is not None:
            feed.close()
        self._room.release()
