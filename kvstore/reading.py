"""What can be read of anything ordered: the part of the API that rests on two operations."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from itertools import chain, islice
from operator import itemgetter
from typing import Final

from kvstore.mutations import Buffer
from kvstore.ranges import Range, as_limit, as_range
from kvstore.runs import Item

_key_of: Final = itemgetter(0)
_value_of: Final = itemgetter(1)


class OrderedReads(ABC):
    """Reads of single keys and of ranges, over one look-up and one walk."""

    @abstractmethod
    def get(self, key: Buffer) -> bytes | None:
        """The value of a key, or None."""

    @abstractmethod
    def _pages(self, wanted: Range, most: int | None, reverse: bool) -> Iterator[list[Item]]:
        """What is in a range at this moment; ``most`` is how much will be looked at."""

    def __getitem__(self, key: Buffer) -> bytes:
        value = self.get(key)
        if value is None:
            raise KeyError(key)
        return value

    def __contains__(self, key: Buffer) -> bool:
        return self.get(key) is not None

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
    ) -> Iterator[Item]:
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
            An iterator of pairs. Writes during the iteration do not change what it yields.

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
        most = as_limit(limit)
        items = chain.from_iterable(self._pages(wanted, most, reverse))
        return items if most is None else islice(items, most)

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
    ) -> Iterator[bytes]:
        """The keys in a range; the arguments of :meth:`scan`."""
        return map(
            _key_of,
            self.scan(
                start,
                stop,
                prefix=prefix,
                reverse=reverse,
                limit=limit,
                include_start=include_start,
                include_stop=include_stop,
            ),
        )

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
    ) -> Iterator[bytes]:
        """The values in a range, in the order of their keys; the arguments of :meth:`scan`."""
        return map(
            _value_of,
            self.scan(
                start,
                stop,
                prefix=prefix,
                reverse=reverse,
                limit=limit,
                include_start=include_start,
                include_stop=include_stop,
            ),
        )

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
        total = 0
        for page in self._pages(wanted, most, reverse):
            total += len(page)
            if most is not None and total >= most:
                return most
        return total

    def __iter__(self) -> Iterator[bytes]:
        return self.keys()

    def __reversed__(self) -> Iterator[bytes]:
        return self.keys(reverse=True)
