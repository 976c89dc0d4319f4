"""Everything that can be read of a store, a snapshot, a transaction, a namespace of any of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final, Generic, TypeVar, overload

from kvstore.cursor import Cursor
from kvstore.keyspaces import Keyspace
from kvstore.mutations import Buffer, as_bytes
from kvstore.ranges import Range, as_limit, as_range
from kvstore.scan import Decode, Scan, items_of, keys_of, limited, nothing, scan_of, values_of
from kvstore.sources import Source, Walk

V = TypeVar("V")
T = TypeVar("T")


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
    ) -> Scan[tuple[bytes, V]]:
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
            return nothing()
        source, space, walk = begun
        return scan_of(items_of(source, space, walk, limit, reverse, self._decode))

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
    ) -> Scan[bytes]:
        """The keys in a range; the arguments of :meth:`scan`. Large values are not read."""
        wanted = as_range(start, stop, prefix, include_start, include_stop)
        begun = self._begin(wanted, as_limit(limit), reverse)
        if begun is None:
            return nothing()
        _, space, walk = begun
        return scan_of(keys_of(space, walk, limit, reverse))

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
    ) -> Scan[V]:
        """The values in a range, in the order of their keys; the arguments of :meth:`scan`."""
        wanted = as_range(start, stop, prefix, include_start, include_stop)
        begun = self._begin(wanted, as_limit(limit), reverse)
        if begun is None:
            return nothing()
        source, _, walk = begun
        return scan_of(values_of(source, walk, limit, reverse, self._decode))

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
            for keys, _ in limited(walk, most, reverse):
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
