"""Namespaces for tasks."""

from __future__ import annotations

from typing import TypeVar

from kvstore.aio.places import child_of
from kvstore.aio.reading import AsyncReads, ReadRoot
from kvstore.aio.writing import AsyncWrites, WriteRoot
from kvstore.codecs import Codec
from kvstore.mutations import Buffer
from kvstore.names import Place

V = TypeVar("V")
W = TypeVar("W")

_CLEARED_AT_ONCE = 1000


class AsyncReadableNamespace(AsyncReads[V]):
    """A namespace of a snapshot.

    Making one reads nothing: whether its codec is the recorded one shows when it is first used.
    """

    def __init__(self, root: ReadRoot, path: Place) -> None:
        """Use ``namespace()``."""
        self._root = root
        self._path = path
        self._decode = path[-1].codec.decoder

    @property
    def name(self) -> bytes:
        """The namespace's own name."""
        return self._path[-1].name

    def namespace(self, name: Buffer, codec: Codec[W] | None = None) -> AsyncReadableNamespace[W]:
        """A namespace inside this one."""
        return AsyncReadableNamespace(self._root, child_of(self._path, name, codec))

    def __repr__(self) -> str:
        names = " > ".join(repr(step.name) for step in self._path)
        return f"<kvstore.aio.{type(self).__name__} {names} of {self._root!r}>"


class AsyncNamespace(AsyncReadableNamespace[V], AsyncWrites[V, V]):
    """A part of a store, or of a transaction, with keys of its own; see :class:`kvstore.Namespace`.

    Making one reads nothing: CodecMismatchError comes when it is first used.

    >>> import asyncio, kvstore.aio, wal
    >>> async def main():
    ...     async with kvstore.aio.open("db", file_system=wal.files.MemoryFileSystem()) as db:
    ...         users = db.namespace(b"users", codec=kvstore.JSON)
    ...         await users.put(b"ann", {"age": 40})
    ...         print(await users.get(b"ann"), await users.count(), await db.namespaces())
    >>> asyncio.run(main())
    {'age': 40} 1 [b'users']
    """

    _root: WriteRoot

    def __init__(self, root: WriteRoot, path: Place) -> None:
        """Use ``namespace()``."""
        super().__init__(root, path)
        self._encode = path[-1].codec.encoder

    def namespace(self, name: Buffer, codec: Codec[W] | None = None) -> AsyncNamespace[W]:
        """A namespace inside this one."""
        return AsyncNamespace(self._root, child_of(self._path, name, codec))

    async def clear(self) -> None:
        """Delete every key that is here now, some at a time; those of namespaces inside it stay.

        Keys that are written meanwhile may stay. Not one step: a crash, or to be cancelled, may
        leave a part.
        """
        self._root._check_writable()
        some: list[bytes] = []
        async for key in self.keys():
            some.append(key)
            if len(some) == _CLEARED_AT_ONCE:
                await self._commit(dict.fromkeys(some), None)
                some.clear()
        if some:
            await self._commit(dict.fromkeys(some), None)
