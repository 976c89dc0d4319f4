"""Cursors for tasks."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from kvstore.aio.home import Turn
from kvstore.cursor import Cursor
from kvstore.errors import StoreClosedError
from kvstore.mutations import Buffer, as_bytes

if TYPE_CHECKING:
    from types import TracebackType

    from kvstore.aio.iterating import Runs

V = TypeVar("V")


class AsyncCursor(Generic[V]):
    """A position among the keys of a range; see :class:`kvstore.Cursor`. For one task at a time.

    Every move is made in a thread: to read a range in one direction ``scan`` is much faster.

    >>> import asyncio, kvstore.aio, wal
    >>> async def main():
    ...     async with kvstore.aio.open("db", file_system=wal.files.MemoryFileSystem()) as db:
    ...         await db.write({b"a": b"1", b"c": b"3"})
    ...         async with db.cursor() as cursor:
    ...             print(await cursor.seek(b"b"), await cursor.prev(), await cursor.prev())
    >>> asyncio.run(main())
    (b'c', b'3') (b'a', b'1') None
    """

    def __init__(self, root: Runs, begin: Callable[[], Cursor[V]]) -> None:
        """Use ``cursor()``."""
        self._root = root
        self._begin = begin
        self._turn = Turn()
        self._cursor: Cursor[V] | None = None
        self._closed = False
        self._item: tuple[bytes, V] | None = None

    @property
    def key(self) -> bytes | None:
        """The key it is at, None where it is at none."""
        return None if self._item is None else self._item[0]

    @property
    def value(self) -> V | None:
        """The value it is at, None where it is at none."""
        return None if self._item is None else self._item[1]

    async def first(self) -> tuple[bytes, V] | None:
        """To the first item of the range."""
        return await self._move("first")

    async def last(self) -> tuple[bytes, V] | None:
        """To the last item of the range."""
        return await self._move("last")

    async def seek(self, key: Buffer) -> tuple[bytes, V] | None:
        """To the first key that is not below this one."""
        return await self._move("seek", as_bytes(key, "key"))

    async def seek_last(self, key: Buffer) -> tuple[bytes, V] | None:
        """To the last key that is not above this one."""
        return await self._move("seek_last", as_bytes(key, "key"))

    async def next(self) -> tuple[bytes, V] | None:
        """To the item behind the present one."""
        return await self._move("next")

    async def prev(self) -> tuple[bytes, V] | None:
        """To the item before the present one."""
        return await self._move("prev")

    async def __aiter__(self) -> AsyncGenerator[tuple[bytes, V], None]:
        while (item := await self.next()) is not None:
            yield item

    async def _move(self, name: str, *arguments: object) -> tuple[bytes, V] | None:
        self._root._home.check()
        if self._cursor is None:
            raise StoreClosedError("a cursor is open in its block: use `async with db.cursor()`")
        move = getattr(self._cursor, name)
        self._item = await self._root._run(self._turn.run, move, *arguments)
        return self._item

    async def __aenter__(self) -> AsyncCursor[V]:
        self._root._home.check()
        if self._closed or self._cursor is not None:
            raise StoreClosedError("a cursor has one block: make another one")
        await self._root._run(self._turn.run, self._open)
        return self

    def _open(self) -> None:
        if not self._closed:
            self._cursor = self._begin()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Let go of everything that the cursor holds. Idempotent."""
        self._closed = True
        self._item = None
        if not self._turn.try_to_run(self._end):
            await self._root._run(self._turn.run, self._end)

    def _end(self) -> None:
        cursor: Any = self._cursor
        self._cursor = None
        if cursor is not None:
            cursor.close()
