"""Runs: tables of one age with disjoint, ascending ranges of keys, read as one table."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from itertools import chain

from kvstore.tables.table import Table
from kvstore.values import MISSING, NO_ITEMS, Found, Page, joined

LookUp = Callable[[bytes, int], Found]
"""From a key and its crc32c to what is known of it."""


class SortedRun:
    """Several tables as one. Immutable."""

    __slots__ = ("_lows", "items", "size", "tables", "tombstones")

    def __init__(self, tables: Sequence[Table]) -> None:
        self.tables = tuple(tables)
        records = [table.record for table in self.tables]
        self._lows = [record.low for record in records]
        self.size = sum(record.size for record in records)
        self.items = sum(record.items for record in records)
        self.tombstones = sum(record.tombstones for record in records)

    def __repr__(self) -> str:
        return f"<SortedRun of {len(self.tables)} tables, {self.items} items>"

    @property
    def look_up(self) -> LookUp:
        """:meth:`get`, or that of its only table, which says the same.

        Measured for an absent key: 0.65 us, where the general way takes 1.0.
        """
        return self.tables[0].get if len(self.tables) == 1 else self.get

    def get(self, key: bytes, crc: int) -> Found:
        """As a table's. O(log n) in the number of tables."""
        # A bound is cut to 64 bytes, so more than one table may have to be asked.
        for number in range(bisect_right(self._lows, key) - 1, -1, -1):
            table = self.tables[number]
            high = table.record.high
            if high is not None and high < key:
                break
            found = table.get(key, crc)
            if found is not MISSING:
                return found
        return MISSING

    def pages(
        self,
        low: bytes,
        high: bytes | None,
        *,
        reverse: bool = False,
        fill_cache: bool = True,
        most: int | None = None,
    ) -> Iterator[Page]:
        """As a table's. O(log n) in the number of tables."""
        tables = self._between(low, high)
        pages = (
            table.pages(low, high, reverse=reverse, fill_cache=fill_cache, most=most)
            for table in (reversed(tables) if reverse else tables)
        )
        return next(pages) if len(tables) == 1 else chain.from_iterable(pages)

    def some(self, low: bytes, high: bytes | None, most: int, *, reverse: bool) -> Page:
        """As a table's."""
        if len(self.tables) == 1:
            return self.tables[0].some(low, high, most, reverse=reverse)
        tables, found = self._between(low, high), NO_ITEMS
        for table in reversed(tables) if reverse else tables:
            page = table.some(low, high, most - len(found[0]), reverse=reverse)
            found = joined(page, found) if reverse else joined(found, page)
            if len(found[0]) >= most:
                break
        return found

    def _between(self, low: bytes, high: bytes | None) -> tuple[Table, ...]:
        """The tables that may have keys with ``low <= key < high``."""
        lows, tables = self._lows, self.tables
        first = bisect_right(lows, low)
        while first and ((top := tables[first - 1].record.high) is None or low <= top):
            first -= 1  # more than one, where bounds are cut to the same 64 bytes
        last = len(lows) if high is None else bisect_left(lows, high)
        return tables[first:last]
