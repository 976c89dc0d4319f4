"""Everything that can be read of a store, a snapshot, a transaction, a namespace of any of them."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from operator import itemgetter
from typing import Any, Final, Generic, TypeVar, overload

from kvstore.cursor import Cursor
from kvstore.keyspaces import Keyspace
from kvstore.mutations import Buffer, as_bytes
from kvstore.ranges import Range, as_limit, as_range
from kvstore.sources import Source, Walk
from kvstore.values import Page

V = TypeVar("V")
T = TypeVar("T")

Decode = Callable[[bytes], Any]

_value_of: Final = itemgetter(1)


class Reads(Generic[V]):
    """Reads of single keys and of ranges, over a source of stored keys.

    ``_decode`` makes a value of a stored one; None where values are the bytes themselves.
    """

    _decode: Decode | None = None

    def _reader(self) -> tuple[Source, Keyspace | None]:
        """The source and the space to read in, None while that does not exist. Or an error."""
        raise NotImplementedError

    # -- single keys -------------------------------------------------------------------------------

    @overload
    def get(self, key: Buffer) -> V | None: ...
    @overload
    def get(self, key: Buffer, default: T) -> V | T: ...
    def get(self, key: Buffer, default: object = None) -> object:
        """The value of a key, or ``default``. Waits for no writer."""
        key = as_bytes(key, "key")
        source, space = self._reader()
        if space is None:
            return default
        stored = space.stored(key)
        value = source.load(stored, source.find(stored))
        if value is None:
            return default
        return value if self._decode is None else self._decode(value)

    def __getitem__(self, key: Buffer) -> V:
        value = self.get(key, _ABSENT)
        if value is _ABSENT:
            raise KeyError(key)
        return value  # type: ignore[return-value]

    def __contains__(self, key: Buffer) -> bool:
        key = as_bytes(key, "key")
        source, space = self._reader()
        return space is not None and source.find(space.stored(key)) is not None

    def get_many(self, keys: Iterable[Buffer]) -> list[V | None]:
        """The values of keys, in the order of the keys, None where absent; all of one state.

        >>> import kvstore, wal
        >>> with kvstore.open("db", file_system=wal.files.MemoryFileSystem()) as db:
        ...     db.put(b"a", b"1")
        ...     db.get_many([b"x", b"a"])
        [None, b'1']
        """
        wanted = [as_bytes(key, "key") for key in keys]
        source, space = self._reader()
        if space is None:
            return [None] * len(wanted)
        stored = list(map(space.stored, wanted))
        found: list[Any] = source.find_many(stored)
        for at, value in enumerate(found):
            if value is not None:
                data = source.load(stored[at], value) if type(value) is not bytes else value
                found[at] = data if self._decode is None or data is None else self._decode(data)
        return found

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
    ) -> Generator[tuple[bytes, V], None, None]:
        """The items in a range, in the order of their keys, as they are at this moment.

        Without arguments what ``items()`` is of a dict: ``dict(db.scan())`` is all of a store.

        Args:
            start: The lower bound, whatever the direction.
            stop: The upper bound.
            prefix: All keys that begin so; instead of start and stop.
            reverse: From the highest key to the lowest.
            limit: At most so many items, in the direction asked for.
            include_start: Whether ``start`` itself belongs to the range.
            include_stop: Whether ``stop`` itself does.

        Returns:
            A lazy iterator of pairs, which holds a few pages in memory. Writes, checkpoints and
            compactions during the iteration do not change what it yields. It keeps the files that
            it needs until its end; ``close()`` ends it at once.

        O(log n) to begin, after writes O(m log m) in the m new keys; then some million items a
        second.

        >>> import kvstore, wal
        >>> with kvstore.open("db", file_system=wal.files.MemoryFileSystem()) as db:
        ...     db.write({b"a1": b"", b"a2": b"", b"b1": b""})
        ...     [key for key, value in db.scan(b"a2")]
        ...     [key for key, value in db.scan(prefix=b"a", reverse=True, limit=1)]
        [b'a2', b'b1']
        [b'a2']
        """
        wanted = as_range(start, stop, prefix, include_start, include_stop)
        begun = self._begin(wanted, as_limit(limit), reverse)
        if begun is None:
            return _nothing()
        source, space, walk = begun
        return _items(source, space, walk, as_limit(limit), reverse, self._decode)

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
    ) -> Generator[bytes, None, None]:
        """The keys in a range; the arguments of :meth:`scan`. Large values are not read."""
        wanted = as_range(start, stop, prefix, include_start, include_stop)
        begun = self._begin(wanted, as_limit(limit), reverse)
        if begun is None:
            return _nothing()
        _, space, walk = begun
        return _keys(space, walk, as_limit(limit), reverse)

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
    ) -> Generator[V, None, None]:
        """The values in a range, in the order of their keys; the arguments of :meth:`scan`."""
        items = self.scan(
            start,
            stop,
            prefix=prefix,
            reverse=reverse,
            limit=limit,
            include_start=include_start,
            include_stop=include_stop,
        )
        return _values(items)

    def count(
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
        wanted = as_range(start, stop, prefix, include_start, include_stop)
        most = as_limit(limit)
        begun = self._begin(wanted, most, reverse)
        if begun is None:
            return 0
        walk = begun[2]
        total = 0
        try:
            for keys, _ in _limited(walk, most, reverse):
                total += len(keys)
                walk.reached(keys[0] if reverse else keys[-1])
        finally:
            walk.close()
        return total

    def cursor(
        self,
        start: Buffer | None = None,
        stop: Buffer | None = None,
        *,
        prefix: Buffer | None = None,
    ) -> Cursor[V]:
        """A position among the keys of a range, of this moment, that moves in both directions.

        >>> import kvstore, wal
        >>> with kvstore.open("db", file_system=wal.files.MemoryFileSystem()) as db:
        ...     db.write({b"a": b"1", b"c": b"3"})
        ...     with db.cursor() as cursor:
        ...         cursor.seek(b"b"), cursor.prev(), cursor.prev(), cursor.next()
        ((b'c', b'3'), (b'a', b'1'), None, (b'a', b'1'))
        """
        wanted = as_range(start, stop, prefix, True, False)
        source, space = self._reader()
        pinned = source.pinned()
        return Cursor(pinned, space, wanted, self._decode, owned=pinned is not source)

    def __iter__(self) -> Iterator[bytes]:
        return self.keys()

    def __reversed__(self) -> Iterator[bytes]:
        return self.keys(reverse=True)

    def _begin(
        self, wanted: Range, most: int | None, reverse: bool
    ) -> tuple[Source, Keyspace, Walk] | None:
        source, space = self._reader()
        if space is None or most == 0:
            return None
        return source, space, source.walk(space.bounds(*wanted), most, reverse=reverse)


_ABSENT: Final = object()


def _nothing() -> Generator[Any, None, None]:
    """What an empty range yields; to be closed as any other."""
    yield from ()


def _values(items: Generator[tuple[bytes, V], None, None]) -> Generator[V, None, None]:
    try:
        yield from map(_value_of, items)
    finally:
        items.close()


def _limited(walk: Walk, most: int | None, reverse: bool) -> Iterator[Page]:
    """The pages of a walk, up to a number of keys."""
    if most is None:
        yield from walk
        return
    for keys, values in walk:
        if len(keys) >= most:
            first, last = (len(keys) - most, len(keys)) if reverse else (0, most)
            yield keys[first:last], values[first:last]
            return
        most -= len(keys)
        yield keys, values


def _keys(
    space: Keyspace, walk: Walk, most: int | None, reverse: bool
) -> Generator[bytes, None, None]:
    try:
        for stored, _ in _limited(walk, most, reverse):
            keys = space.shown(stored)
            if walk.observed:
                for key, shown in _directed(zip(stored, keys, strict=False), reverse):
                    walk.reached(key)
                    yield shown
            else:
                yield from reversed(keys) if reverse else keys
    finally:
        walk.close()


def _items(
    source: Source,
    space: Keyspace,
    walk: Walk,
    most: int | None,
    reverse: bool,
    decode: Decode | None,
) -> Generator[tuple[bytes, Any], None, None]:
    """The items of a walk. Pages of plain bytes go through without a bytecode for each."""
    try:
        for stored, values in _limited(walk, most, reverse):
            keys = space.shown(stored)
            if walk.observed or decode is not None or set(map(type, values)) != {bytes}:
                triples = zip(stored, keys, values, strict=False)
                for key, shown, value in _directed(triples, reverse):
                    walk.reached(key)
                    data = source.load(key, value)
                    assert data is not None
                    yield shown, data if decode is None else decode(data)
            elif reverse:
                yield from zip(reversed(keys), reversed(values), strict=False)
            else:
                yield from zip(keys, values, strict=False)
    finally:
        walk.close()


def _directed(items: Iterable[T], reverse: bool) -> Iterator[T]:
    return reversed(list(items)) if reverse else iter(items)
