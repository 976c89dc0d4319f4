"""A table: an immutable sorted file, read where and when it is needed.

Making one does no I/O: the file is opened at the first touch, and closed again when too many others
are open. What it holds of the file is one reader, taken by one reference: a thread that is reading
while the file is let go of finishes with the reader it has.
"""

from __future__ import annotations

import os
import struct
import threading
import weakref
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator

from kvstore.errors import CorruptStoreError
from kvstore.tables.cache import Cache
from kvstore.tables.format import DamageError
from kvstore.tables.reader import TableReader, open_reader
from kvstore.tables.records import TableRecord, number_of, table_name
from kvstore.tables.verification import verify_table
from kvstore.values import NO_ITEMS, Found, Page, joined, part_of
from wal.files import FileSystem

__all__ = ["Table", "TableRecord", "number_of", "table_name"]


class Table:
    """One table of a store. Safe from many threads; a look-up in an open one takes no lock.

    Damage, wherever it is met, is a CorruptStoreError that names the file and the offset.
    """

    def __init__(
        self, files: FileSystem, directory: str, record: TableRecord, cache: Cache
    ) -> None:
        self.record = record
        self.path = os.path.join(directory, record.name)
        self.used = True
        self._files = files
        self._cache = cache
        self._lock = threading.Lock()
        self._reader: TableReader | None = None
        self._pinned = False

    def __repr__(self) -> str:
        return f"<Table {self.record.name}, {self.record.items} items>"

    # ------------------------------------------------------------------ reading

    def get(self, key: bytes, crc: int) -> Found:
        """The key's value, None for a tombstone, a Blob, or MISSING. ``crc``: the key's crc32c."""
        self.used = True
        try:
            return (self._reader or self._open()).get(key, crc, self)
        except DamageError as damage:
            raise self.corrupt(damage) from None
        except (struct.error, IndexError):  # of places that only a forger could have written
            raise self.corrupt(DamageError("a section makes no sense")) from None

    def pages(
        self,
        low: bytes,
        high: bytes | None,
        *,
        reverse: bool = False,
        fill_cache: bool = True,
        most: int | None = None,
    ) -> Iterator[Page]:
        """What lies in ``low <= key < high``, block by block; ``high`` None: no bound.

        With ``reverse`` the last page comes first; inside a page the keys ascend even then. Pages
        may be the cache's own: they must not be changed. ``most``: how many items are wanted, as
        far as is known; a page ends there.
        """
        numbers = self._blocks(low, high)
        for number in reversed(numbers) if reverse else numbers:
            page = self._page(number, keep=fill_cache)
            keys = page[0]
            first, last = 0, len(keys)
            if number == numbers[0]:
                first = bisect_left(keys, low)
            if high is not None and number == numbers[-1]:
                last = bisect_left(keys, high, first)
            if most is not None:
                # Of a page of the cache each item that is copied costs, wanted or not: one item
                # out of the middle took 5.6 us with half of its page behind it, 2.1 alone.
                cut = max(first, last - most) if reverse else min(first + most, last)
                near, rest = ((cut, last), (first, cut)) if reverse else ((first, cut), (cut, last))
                most = max(0, most - (near[1] - near[0]))
                if near[0] < near[1]:
                    yield part_of(page, *near)
                first, last = rest
            if first < last:
                yield part_of(page, first, last)

    def some(self, low: bytes, high: bytes | None, most: int, *, reverse: bool) -> Page:
        """The first items with ``low <= key < high``, or the last: ``most``, or all there are.

        As the first of :meth:`pages`, without its steps; it is through the cache, and may be the
        cache's own. O(log n + most).
        """
        self.used = True
        try:
            reader = self._reader or self._open()
            separators = reader.index[0]
            if reverse:
                end = len(separators) if high is None else bisect_left(separators, high)
                numbers = range(end - 1, -1, -1)
            else:
                numbers = range(max(0, bisect_right(separators, low) - 1), len(separators))
            found: Page = NO_ITEMS
            for number in numbers:
                page = reader.page(number, self, keep=True)
                missing = most - len(found[0])
                part, ends = (_last_of if reverse else _first_of)(page, low, high, missing)
                found = joined(part, found) if reverse else joined(found, part)
                if ends or len(found[0]) >= most:
                    break
        except DamageError as damage:
            raise self.corrupt(damage) from None
        return found

    def _blocks(self, low: bytes, high: bytes | None) -> range:
        """The numbers of the blocks that may have keys between the bounds."""
        self.used = True
        try:
            separators = (self._reader or self._open()).index[0]
        except DamageError as damage:
            raise self.corrupt(damage) from None
        first = max(0, bisect_right(separators, low) - 1)
        return range(first, len(separators) if high is None else bisect_left(separators, high))

    def _page(self, number: int, *, keep: bool) -> Page:
        self.used = True
        try:
            return (self._reader or self._open()).page(number, self, keep=keep)
        except DamageError as damage:
            raise self.corrupt(damage) from None

    def read_at(self, offset: int, length: int) -> bytes:
        """Exactly these bytes of the file, unverified: a part of a blob."""
        try:
            return (self._reader or self._open()).read_at(offset, length)
        except DamageError as damage:
            raise self.corrupt(damage) from None

    def verify(self) -> None:
        """Check every checksum, the order of the keys, and that all parts of the file agree."""
        try:
            verify_table(self._reader or self._open(), self)
        except DamageError as damage:
            raise self.corrupt(damage) from None

    def corrupt(self, damage: DamageError) -> CorruptStoreError:
        """The error to raise for damage in this table."""
        return CorruptStoreError(self.path, damage.offset, damage.reason)

    # ------------------------------------------------------------------ the file

    def open(self) -> None:
        """Open the file now, check its size and footer, and keep it open until :meth:`close`.

        A missing file is a CorruptStoreError whose cause is the FileNotFoundError.
        """
        self._pinned = True
        self._cache.open_tables.closed(self)
        try:
            if self._reader is None:
                self._open()
        except DamageError as damage:
            raise self.corrupt(damage) from None

    def _open(self) -> TableReader:
        with self._lock:
            if self._reader is not None:
                return self._reader
            reader = self._reader = self._opened()
        if not self._pinned:
            # Outside the lock: it may close another table, which takes that one's.
            self._cache.open_tables.opened(self)
        return reader

    def _opened(self) -> TableReader:
        try:
            file = self._files.open(self.path, writable=False)
        except FileNotFoundError as error:
            raise CorruptStoreError(self.path, 0, "the table is missing") from error
        try:
            return open_reader(file, self.record, self._cache)
        except BaseException:
            file.close()
            raise

    def let_go(self) -> None:
        """Close the file until it is needed again."""
        # Whoever is reading has the reader; the file is closed with the last reference to it.
        self._reader = None

    def close(self) -> None:
        """Let go of the file and its memory. A later touch opens it again."""
        self._pinned = False
        self._cache.open_tables.closed(self)
        self.let_go()

    def retire(self, remove: Callable[[str], object]) -> None:
        """No manifest names the table any more: ``remove(path)`` when nobody has it any more.

        It is called wherever the last reference goes, and must neither block nor do I/O: let it put
        the path into a queue.
        """
        weakref.finalize(self, remove, self.path).atexit = False


def _first_of(page: Page, low: bytes, high: bytes | None, most: int) -> tuple[Page, bool]:
    """The first items of a page between the bounds, and whether it reaches the upper one."""
    keys = page[0]
    first = 0 if keys and low <= keys[0] else bisect_left(keys, low)
    last = min(first + most, len(keys))
    if high is None or first == last or keys[last - 1] < high:
        return part_of(page, first, last), False
    return part_of(page, first, bisect_left(keys, high, first, last)), True


def _last_of(page: Page, low: bytes, high: bytes | None, most: int) -> tuple[Page, bool]:
    """The last items of a page between the bounds, and whether it reaches the lower one."""
    keys = page[0]
    last = len(keys) if high is None else bisect_left(keys, high)
    first = max(0, last - most)
    if first == last or low <= keys[first]:
        return part_of(page, first, last), False
    return part_of(page, bisect_left(keys, low, first, last), last), True
