"""Everything that can be read of a store and its parts, for ``await`` and ``async for``."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar, overload

from kvstore.aio.cursor import AsyncCursor
from kvstore.aio.home import Home
from kvstore.aio.iterating import Pages, items_of
from kvstore.aio.places import Places
from kvstore.keyspaces import Keyspace
from kvstore.mutations import Buffer, as_bytes
from kvstore.names import Place
from kvstore.ranges import as_limit, as_range
from kvstore.values import MISSING, Found

if TYPE_CHECKING:
    from kvstore.reading import Reads
    from kvstore.snapshot import Snapshot
    from kvstore.store import Store
    from kvstore.transactions import Transaction

V = TypeVar("V")
T = TypeVar("T")


class ReadRoot(Protocol):
    """What is read through: a store, a snapshot, a transaction."""

    _home: Home
    _places: Places

    def _look(self, stored: bytes) -> Found:
        """What is known of a stored key without reading; MISSING for nothing."""

    def _twin(self) -> Store | Snapshot | Transaction:
        """The same for threads, or an error if it can be read no more."""

    async def _run(self, function: Callable[..., T], *arguments: object) -> T:
        """Call a function in a thread."""


class AsyncReads(Generic[V]):
    """Reads of single keys and of ranges.

    What is in memory is answered at once, on the loop; anything else is read in a thread.
    """

    _root: ReadRoot
    _path: Place = ()
    _decode: Callable[[bytes], Any] | None = None
    _space: Keyspace | None = None  # once it is known

    # -- single keys -------------------------------------------------------------------------------

    @overload
    async def get(self, key: Buffer) -> V | None: ...
    @overload
    async def get(self, key: Buffer, default: T) -> V | T: ...
    async def get(self, key: Buffer, default: object = None) -> object:
        """The value of a key, or ``default``. Waits for no writer."""
        key = as_bytes(key, "key")
        root = self._root
        root._home.check()
        value = self._known(key)
        if type(value) is bytes:
            found: object = value if self._decode is None else self._decode(value)
        elif value is None:
            found = default
        else:
            return await root._run(self._read, key, default)
        if root._home.must_yield():
            await asyncio.sleep(0)
        return found

    async def contains(self, key: Buffer) -> bool:
        """Whether a key is there: what ``in`` tells of a store. Reads no large value."""
        key = as_bytes(key, "key")
        root = self._root
        root._home.check()
        value = self._known(key, large=True)
        if value is MISSING:
            return await root._run(self._is_there, key)
        if root._home.must_yield():
            await asyncio.sleep(0)
        return value is not None

    async def get_many(self, keys: Iterable[Buffer]) -> list[V | None]:
        """The values of keys, in the order of the keys, None where absent; all of one state."""
        wanted = [as_bytes(key, "key") for key in keys]
        self._root._home.check()
        return await self._root._run(self._read_many, wanted)

    async def namespaces(self) -> list[bytes]:
        """The names of the namespaces right below, in order: those that were ever written to."""
        self._root._home.check()
        return await self._root._run(self._list)

    def _known(self, key: bytes, *, large: bool = False) -> Found:
        """What is known of a key without reading: bytes, None, or MISSING; or what is ``large``."""
        space = self._space
        if space is None:
            space = self._space = self._root._places.known(self._path)
            if space is None:
                return MISSING
        value = self._root._look(space.stored(key))
        return value if large or value is None or type(value) is bytes else MISSING

    # -- in a thread -------------------------------------------------------------------------------

    def _reads(self) -> Reads[V]:
        """The synchronous counterpart."""
        place = self._path
        twin: Any = self._root._twin()
        for step in place:
            twin = twin.namespace(step.name, step.codec)  # which checks the codec
        if self._root._places.known(place) is None:
            self._root._places.look_up(place)
        return twin  # type: ignore[no-any-return]

    def _read(self, key: bytes, default: object) -> object:
        return self._reads().get(key, default)

    def _is_there(self, key: bytes) -> bool:
        return key in self._reads()

    def _read_many(self, keys: list[bytes]) -> list[V | None]:
        return self._reads().get_many(keys)

    def _list(self) -> list[bytes]:
        reads: Any = self._reads()
        return reads.namespaces()  # type: ignore[no-any-return]

    # -- ranges ------------------------------------------------------------------------------------

    def scan(
        self,
        start: Buffer | None = None,
        stop: Buffer | None = None,
        *,
        prefix: Buffer | None = None,
        reverse: bool = False,
        limit: int | None = None,
        include_start: bool = True,
        include_stop: bool = False,
    ) -> AsyncGenerator[tuple[bytes, V], None]:
        """The items in a range, in the order of their keys, as they are when the iteration begins.

        The arguments are those of :meth:`kvstore.Store.scan`. Items come from a thread, a page of
        up to 1,024 at a time. A loop that is left early holds the state until the iterator is
        collected, or closed: ``async with contextlib.aclosing(db.scan()) as items``.
        """
        asked = _asked(start, stop, prefix, reverse, limit, include_start, include_stop)
        decode = self._decode
        return self._items(
            lambda: self._plain().scan(**asked),
            _weight_of_item,
            None if decode is None else lambda item: (item[0], decode(item[1])),
        )

    def keys(
        self,
        start: Buffer | None = None,
        stop: Buffer | None = None,
        *,
        prefix: Buffer | None = None,
        reverse: bool = False,
        limit: int | None = None,
        include_start: bool = True,
        include_stop: bool = False,
    ) -> AsyncGenerator[bytes, None]:
        """The keys in a range; the arguments of :meth:`scan`. Large values are not read."""
        asked = _asked(start, stop, prefix, reverse, limit, include_start, include_stop)
        return self._items(lambda: self._plain().keys(**asked), len, None)

    def values(
        self,
        start: Buffer | None = None,
        stop: Buffer | None = None,
        *,
        prefix: Buffer | None = None,
        reverse: bool = False,
        limit: int | None = None,
        include_start: bool = True,
        include_stop: bool = False,
    ) -> AsyncGenerator[V, None]:
        """The values in a range, in the order of their keys; the arguments of :meth:`scan`."""
        asked = _asked(start, stop, prefix, reverse, limit, include_start, include_stop)
        return self._items(lambda: self._plain().values(**asked), len, self._decode)

    async def count(
        self,
        start: Buffer | None = None,
        stop: Buffer | None = None,
        *,
        prefix: Buffer | None = None,
        reverse: bool = False,
        limit: int | None = None,
        include_start: bool = True,
        include_stop: bool = False,
    ) -> int:
        """How many keys are in a range; the arguments of :meth:`scan`. Walks them all."""
        asked = _asked(start, stop, prefix, reverse, limit, include_start, include_stop)
        self._root._home.check()
        return await self._root._run(lambda: self._reads().count(**asked))

    def cursor(
        self,
        start: Buffer | None = None,
        stop: Buffer | None = None,
        *,
        prefix: Buffer | None = None,
    ) -> AsyncCursor[V]:
        """A position among the keys of a range that moves in both directions.

        Its state is that of the moment when its ``async with`` block begins.
        """
        as_range(start, stop, prefix, True, False)
        self._root._home.check()
        return AsyncCursor(self._root, lambda: self._reads().cursor(start, stop, prefix=prefix))

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self.keys()

    def _items(
        self,
        begin: Callable[[], Iterator[Any]],
        weigh: Callable[[Any], int],
        shape: Callable[[Any], Any] | None,
    ) -> AsyncGenerator[Any, None]:
        self._root._home.check()
        return items_of(self._root, Pages(begin, weigh, shape))

    def _plain(self) -> Reads[Any]:
        """The synchronous counterpart, whose values are bytes: their weight is known."""
        reads = self._reads()
        if reads._decode is not None:
            reads = copy.copy(reads)
            reads._decode = None
        return reads


def _weight_of_item(item: tuple[bytes, bytes]) -> int:
    return len(item[1])


def _asked(
    start: Buffer | None,
    stop: Buffer | None,
    prefix: Buffer | None,
    reverse: bool,
    limit: int | None,
    include_start: bool,
    include_stop: bool,
) -> dict[str, Any]:
    """The arguments of a scan, checked here and now."""
    as_range(start, stop, prefix, include_start, include_stop)
    as_limit(limit)
    return {
        "start": start,
        "stop": stop,
        "prefix": prefix,
        "reverse": reverse,
        "limit": limit,
        "include_start": include_start,
        "include_stop": include_stop,
    }
