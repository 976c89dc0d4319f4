"""Batches for tasks."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from kvstore.aio.places import child_of
from kvstore.batch import Mutations
from kvstore.codecs import Codec
from kvstore.config import check_durability
from kvstore.errors import StoreError
from kvstore.mutations import Buffer, as_key, as_value
from kvstore.names import Place

if TYPE_CHECKING:
    from types import TracebackType

    from kvstore.aio.writing import WriteRoot
    from wal import Durability

V = TypeVar("V")
W = TypeVar("W")


class AsyncBatchPart(Generic[V]):
    """The mutations of one namespace in a batch."""

    def __init__(
        self, batch: AsyncBatch[Any], place: Place, encode: Callable[[Any], bytes] | None
    ) -> None:
        self._batch = batch
        self._place = place
        self._encode = encode

    def put(self, key: Buffer, value: V) -> None:
        """Set a key, once the batch is committed."""
        data = as_value(value if self._encode is None else self._encode(value))
        self._batch._mutations_of(self._place)[as_key(key)] = data

    def delete(self, key: Buffer) -> None:
        """Delete a key, there or not, once the batch is committed."""
        self._batch._mutations_of(self._place)[as_key(key)] = None

    def namespace(self, name: Buffer, codec: Codec[W] | None = None) -> AsyncBatchPart[W]:
        """The part of the same batch for a namespace in this one."""
        place = child_of(self._place, name, codec)
        return AsyncBatchPart(self._batch, place, place[-1].codec.encoder)


class AsyncBatch(AsyncBatchPart[V]):
    """Mutations that are committed at the end of an ``async with`` block.

    ``put`` and ``delete`` need no ``await``: they only gather. An exception in the block drops them
    all. Of several mutations of a key the last one counts. ``namespace()`` gives the same for the
    keys of a namespace: all of it is one batch.

    >>> import asyncio, kvstore.aio, wal
    >>> async def main():
    ...     async with kvstore.aio.open("db", file_system=wal.files.MemoryFileSystem()) as db:
    ...         async with db.batch() as batch:
    ...             batch.put(b"a", b"1")
    ...             batch.delete(b"b")
    ...         print(await db.get(b"a"), batch.entry_id == db.last_entry_id)
    >>> asyncio.run(main())
    b'1' True
    """

    def __init__(
        self,
        root: WriteRoot,
        place: Place,
        encode: Callable[[Any], bytes] | None,
        durability: Durability | None,
    ) -> None:
        """Use ``batch()``."""
        super().__init__(self, place, encode)
        self._root = root
        if durability is not None:
            check_durability(durability)
        self._durability = durability
        self._parts: dict[Place, Mutations] | None = None  # None before and after the block
        self._over = False
        self.entry_id: int | None = None
        """The id of the log entry, once it is committed; None for an empty batch."""

    def _mutations_of(self, place: Place) -> Mutations:
        if self._parts is None:
            raise self._refusal()
        return self._parts.setdefault(place, {})

    def __len__(self) -> int:
        return sum(map(len, (self._parts or {}).values()))

    def __bool__(self) -> bool:
        return True

    async def __aenter__(self) -> AsyncBatch[V]:
        if self._parts is not None or self._over:
            raise self._refusal()
        self._root._check_writable()
        self._parts = {}
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        parts, self._parts = self._parts, None
        self._over = True
        if kind is None and parts:
            mutations = await self._stored(parts)
            self.entry_id = await self._root._commit_stored(mutations, self._durability)

    async def _stored(self, parts: dict[Place, Mutations]) -> Mutations:
        """The mutations of stored keys."""
        self._root._check_writable()
        stored: Mutations = {}
        for place, mutations in parts.items():
            space, extra = await self._root._places.for_writing(place)
            stored.update(extra)
            stored.update((space.stored(key), value) for key, value in mutations.items())
        return stored

    def _refusal(self) -> StoreError:
        if self._over:
            return StoreError("the batch has ended: begin another one")
        if self._parts is not None:
            return StoreError("the batch has begun already")
        return StoreError(
            "a batch is committed by its block: use `async with db.batch() as batch:`"
        )
