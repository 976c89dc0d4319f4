"""Iterators that threads advance, for ``async for``."""

from __future__ import annotations

import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

if TYPE_CHECKING:
    from kvstore.aio.home import Home

T = TypeVar("T")

_FIRST: Final = 16
_MOST: Final = 1024
_ENOUGH_BYTES: Final = 256 << 10


class Runs(Protocol):
    """What calls functions in threads."""

    _home: Home

    async def _run(self, function: Callable[..., T], *arguments: object) -> T: ...


class Pages:
    """An iterator taken a page at a time. It may be closed while a thread is at it."""

    def __init__(
        self,
        begin: Callable[[], Iterator[Any]],
        weigh: Callable[[Any], int],
        shape: Callable[[Any], Any] | None = None,
    ) -> None:
        """Take from ``begin()``; ``weigh`` tells an item's bytes, ``shape`` what is made of it."""
        self._begin = begin
        self._weigh = weigh
        self._shape = shape
        self._iterator: Iterator[Any] | None = None
        self._turn = threading.Lock()
        self._closed = False
        self.ended = False
        """Whether there is nothing more."""

    def take(self, most: int) -> list[Any]:
        """In a thread: up to so many items, or fewer large ones; always one, if there is any."""
        try:
            with self._turn:
                taken = [] if self._closed else self._take(most)
                return taken if self._shape is None else list(map(self._shape, taken))
        finally:
            if self._closed:
                self._let_go()

    def _take(self, most: int) -> list[Any]:
        if self._iterator is None:
            self._iterator = self._begin()
        taken: list[Any] = []
        left = _ENOUGH_BYTES
        weigh = self._weigh
        for item in self._iterator:
            taken.append(item)
            left -= weigh(item)
            if left <= 0 or len(taken) == most:
                return taken
        self.ended = True
        return taken

    def close(self) -> None:
        """Let go of the iterator, or have the thread do so that is at it."""
        self._closed = True
        self._let_go()

    def _let_go(self) -> None:
        if self._turn.acquire(blocking=False):
            try:
                iterator: Any = self._iterator
                self._iterator = iter(())
                if hasattr(iterator, "close"):
                    iterator.close()
            finally:
                self._turn.release()


async def items_of(runs: Runs, pages: Pages) -> AsyncGenerator[Any, None]:
    """All items of an iterator; pages grow, so that who wants few gets them soon."""
    most = _FIRST
    try:
        while not pages.ended:
            runs._home.check()
            for item in await runs._run(pages.take, most):
                yield item
            most = min(2 * most, _MOST)
    finally:
        pages.close()
