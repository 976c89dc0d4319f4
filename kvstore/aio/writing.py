"""Everything that can be written to a store and its parts, for ``await``."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar, overload

from kvstore.aio.batch import AsyncBatch
from kvstore.aio.reading import AsyncReads, ReadRoot
from kvstore.batch import Mutations
from kvstore.keyspaces import ESCAPE, ROOT
from kvstore.mutations import Buffer, as_key, as_value
from kvstore.values import MISSING, Found

if TYPE_CHECKING:
    from wal import Durability

V = TypeVar("V")
A = TypeVar("A")
"""What is taken for a value: for bytes any buffer."""
T = TypeVar("T")
K = TypeVar("K", bound=Buffer)


class WriteRoot(ReadRoot, Protocol):
    """What is written through: a store, a transaction."""

    def _check_writable(self) -> None:
        """An error if nothing can be written."""

    def _commit_stored(
        self, mutations: Mutations, durability: Durability | None
    ) -> Awaitable[int | None]:
        """Commit mutations of stored keys; their entry's id, if there is one already."""

    async def _change_stored(
        self,
        key: bytes,
        choose: Callable[[bytes | None], Found],
        durability: Durability | None,
        extra: Mutations,
    ) -> tuple[bytes | None, bool]:
        """Read a stored key and write what ``choose`` makes of it: the old value, and if it wrote.

        What is written comes with the ``extra`` mutations.
        """


class AsyncWrites(AsyncReads[V], Generic[V, A]):
    """Reads and writes of keys in one space.

    A write that is cancelled is in doubt: it may happen or not, but never by halves. Writes that
    are made at the same time have no order.
    """

    _root: WriteRoot
    _encode: Callable[[Any], bytes] | None = None

    def _value(self, value: object) -> bytes:
        return as_value(value if self._encode is None else self._encode(value))

    # -- one key -----------------------------------------------------------------------------------

    async def put(self, key: Buffer, value: A, *, durability: Durability | None = None) -> None:
        """Set a key.

        Raises KeyTooLongError and ValueTooLongError, StoreFailedError (``latched``: in doubt, and
        no later write succeeds; else nothing was written), ReadOnlyError, StoreClosedError.
        """
        await self._commit({as_key(key): self._value(value)}, durability)

    async def delete(self, key: Buffer, *, durability: Durability | None = None) -> None:
        """Delete a key, there or not. Raises what :meth:`put` does."""
        await self._commit({as_key(key): None}, durability)

    async def _commit(self, mutations: Mutations, durability: Durability | None) -> None:
        """Commit mutations of this space's keys."""
        root = self._root
        root._check_writable()
        if self._path:
            space, extra = await root._places.for_writing(self._path)
            stored = space.stored
            mutations = {**extra, **{stored(key): value for key, value in mutations.items()}}
        elif max(mutations) >= ESCAPE:
            mutations = {ROOT.stored(key): value for key, value in mutations.items()}
        await root._commit_stored(mutations, durability)

    # -- what rests on what is there ---------------------------------------------------------------

    async def add(self, key: Buffer, value: A, *, durability: Durability | None = None) -> bool:
        """Set a key only if it is absent; whether it was. Of several tasks one succeeds."""
        data = self._value(value)
        _, done = await self._change(key, lambda old: data if old is None else MISSING, durability)
        return done

    async def replace(
        self,
        key: Buffer,
        expected: A | None,
        new: A | None,
        *,
        durability: Durability | None = None,
    ) -> bool:
        """Set a key only if its value is the expected one; whether it was.

        ``expected`` None: only if the key is absent. ``new`` None: delete it.
        """
        wanted = None if expected is None else self._value(expected)
        data = None if new is None else self._value(new)
        decode = self._decode
        matched = False

        def choose(old: bytes | None) -> Found:
            nonlocal matched
            matched = old == wanted
            if not matched and decode is not None and old is not None and wanted is not None:
                matched = decode(old) == expected  # equal values may have different bytes
            return MISSING if not matched or old is data is None else data

        await self._change(key, choose, durability)
        return matched

    @overload
    async def pop(self, key: Buffer, *, durability: Durability | None = None) -> V | None: ...
    @overload
    async def pop(
        self, key: Buffer, default: T, *, durability: Durability | None = None
    ) -> V | T: ...
    async def pop(
        self, key: Buffer, default: object = None, *, durability: Durability | None = None
    ) -> object:
        """Delete a key and return its value, or ``default``. Of several tasks one gets it."""
        old, _ = await self._change(key, lambda old: MISSING if old is None else None, durability)
        if old is None:
            return default
        return old if self._decode is None else self._decode(old)

    async def _change(
        self,
        key: Buffer,
        choose: Callable[[bytes | None], Found],
        durability: Durability | None,
    ) -> tuple[bytes | None, bool]:
        key = as_key(key)
        self._root._check_writable()
        space, extra = await self._root._places.for_writing(self._path)
        return await self._root._change_stored(space.stored(key), choose, durability, extra)

    # -- several keys ------------------------------------------------------------------------------

    def batch(self, *, durability: Durability | None = None) -> AsyncBatch[A]:
        """Several mutations at once, all or nothing; see :class:`AsyncBatch`."""
        self._root._check_writable()
        return AsyncBatch(self._root, self._path, self._encode, durability)

    async def write(
        self, items: Mapping[K, A | None], *, durability: Durability | None = None
    ) -> None:
        """Put every item of a mapping, and delete the keys whose value is None: all or nothing.

        In a namespace with a codec, where None may be a value, None is a TypeError.
        """
        if not isinstance(items, Mapping):
            raise TypeError(f"write takes a mapping of keys to values, not {type(items).__name__}")
        if self._encode is not None and any(value is None for value in items.values()):
            raise TypeError("None may be a value here: use a batch to delete or to put it")
        mutations = {
            as_key(key): None if value is None else self._value(value)
            for key, value in items.items()
        }
        if mutations:
            await self._commit(mutations, durability)
        else:
            self._root._check_writable()
