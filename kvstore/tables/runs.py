"""Runs: tables of one age with disjoint, ascending ranges of keys, read as one table."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence

from kvstore.tables.table import Table
from kvstore.values import MISSING, Found, Page


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

    def get(self, key: bytes) -> Found:
        """As a table's. O(log n) in the number of tables."""
        # A bound is cut to 64 bytes, so more than one table may have to be asked.
        for number in range(bisect_right(self._lows, key) - 1, -1, -1):
            table = self.tables[number]
            high = table.record.high
            if high is not None and high < key:
                break
            found = table.get(key)
            if found is not MISSING:
                return found
        return MISSING

    def pages(
        self, low: bytes, high: bytes | None, *, reverse: bool = False, fill_cache: bool = True
    ) -> Iterator[Page]:
        """As a table's."""
        for table in reversed(self.tables) if reverse else self.tables:
            record = table.record
            if record.high is not None and record.high < low:
                continue
            if high is not None and high <= record.low:
                continue
            yield from table.pages(low, high, reverse=reverse, fill_cache=fill_cache)
