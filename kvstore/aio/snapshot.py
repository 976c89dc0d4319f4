"""Snapshots for tasks."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from kvstore.aio.glance import in_pinned
from kvstore.aio.home import Home
from kvstore.aio.namespaces import AsyncReadableNamespace
from kvstore.aio.places import Places, child_of
from kvstore.aio.reading import AsyncReads
from kvstore.codecs import Codec
from kvstore.mutations import Buffer
from kvstore.snapshot import Snapshot
from kvstore.values import Found

if TYPE_CHECKING:
    from types import TracebackType

    from kvstore.engine import Engine

T = TypeVar("T")
W = TypeVar("W")


class AsyncSnapshot(AsyncReads[bytes]):
    """The store as it was when the snapshot was taken; see :class:`kvstore.Snapshot`.

    >>> import asyncio, kvstore.aio, wal
    >>> async def main():
    ...     async with kvstore.aio.open("db", file_system=wal.files.MemoryFileSystem()) as db:
    ...         await db.put(b"k", b"old")
    ...         async with db.snapshot() as snap:
    ...             await db.put(b"k", b"new")
    ...             print(await snap.get(b"k"), await db.get(b"k"))
    >>> asyncio.run(main())
    b'old' b'new'
    """

    def __init__(self, home: Home, engine: Engine, places: Places, snapshot: Snapshot) -> None:
        """Use :meth:`AsyncStore.snapshot`."""
        self._home = home
        self._engine = engine
        self._places = places
        self._snapshot = snapshot
        self._root = self

    @property
    def entry_id(self) -> int:
        """The last log entry that it contains."""
        return self._snapshot.entry_id

    @property
    def closed(self) -> bool:
        """Whether it was released."""
        return self._snapshot.closed

    def namespace(self, name: Buffer, codec: Codec[W] | None = None) -> AsyncReadableNamespace[W]:
        """A namespace, as it was when the snapshot was taken."""
        return AsyncReadableNamespace(self, child_of((), name, codec))

    def _look(self, stored: bytes) -> Found:
        pinned = self._snapshot._pinned
        pinned.check()
        return in_pinned(self._engine, pinned, stored)

    def _twin(self) -> Snapshot:
        return self._snapshot

    async def _run(self, function: Callable[..., T], *arguments: object) -> T:
        return await self._home.run(function, *arguments)

    def close(self) -> None:
        """Let go of everything that is kept for it. Idempotent; needs no ``await``."""
        self._snapshot.close()

    release = close

    async def __aenter__(self) -> AsyncSnapshot:
        self._home.check()
        self._snapshot._pinned.check()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<kvstore.aio.AsyncSnapshot of entry {self.entry_id}>"
