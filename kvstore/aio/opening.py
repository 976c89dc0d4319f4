"""Opening a store for the tasks of an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any, ParamSpec

import kvstore.opening
from kvstore.aio.home import Home
from kvstore.aio.store import AsyncStore

if TYPE_CHECKING:
    from types import TracebackType

    from kvstore.store import Store

P = ParamSpec("P")


class Opening:
    """A store that is about to be opened: ``await`` it, or use it in ``async with``."""

    def __init__(self, open_store: Callable[[], Store]) -> None:
        """Use :func:`kvstore.aio.open`."""
        self._open_store = open_store
        self._db: AsyncStore | None = None

    def __await__(self) -> Generator[Any, None, AsyncStore]:
        return self._open().__await__()

    async def __aenter__(self) -> AsyncStore:
        self._db = await self._open()
        return self._db

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._db is not None
        await self._db.close()

    async def _open(self) -> AsyncStore:
        home = Home()
        job = home.start(self._open_store)
        try:
            return AsyncStore(home, await asyncio.shield(job))
        except asyncio.CancelledError:
            job.add_done_callback(lambda job: _drop(home, job))
            raise
        except BaseException:
            home.let_go()
            raise


def _drop(home: Home, job: asyncio.Future[Store]) -> None:
    """Nobody waits for the store any more: close it."""
    if not job.cancelled() and job.exception() is None:
        home.have_done(job.result().close)
    home.let_go()


def _for_tasks(open_store: Callable[P, Store]) -> Callable[P, Opening]:
    def open(*args: P.args, **kwargs: P.kwargs) -> Opening:  # noqa: A001
        """Open the store in a directory, for the tasks of the running event loop.

        The arguments and errors are those of :func:`kvstore.open`. Either ``await`` what it
        returns, and close the store in the end, or leave that to ``async with``.

        >>> import asyncio, kvstore.aio, wal
        >>> files = wal.files.MemoryFileSystem()           # leave it out for real files
        >>> async def main():
        ...     async with kvstore.aio.open("fruit.db", file_system=files) as db:
        ...         await db.put(b"apple", b"red")
        ...     db = await kvstore.aio.open("fruit.db", "r", file_system=files)
        ...     print(await db.get(b"apple"))
        ...     await db.close()
        >>> asyncio.run(main())
        b'red'
        """
        return Opening(lambda: open_store(*args, **kwargs))

    open.__wrapped__ = open_store  # type: ignore[attr-defined]  # help() shows its arguments
    return open


open = _for_tasks(kvstore.opening.open)  # noqa: A001
