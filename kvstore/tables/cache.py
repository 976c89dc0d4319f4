"""One budget of memory for what is kept of tables: rows, decoded blocks, mapped bytes.

Rows and blocks have two generations. What is added goes to the young one; once that has half of the
budget the old one is dropped and the young one becomes old; what is found in the old one moves
to the young. So whatever is not asked for during a whole generation goes, at the price of no
bookkeeping when something is found: one look into a dict.

Mapped bytes count in granules of 64 KiB, as the operating system maps them around each touch. They
go first in, first out, and before rows and blocks do, but a quarter of the budget is theirs.

Looking up takes no lock; everything that changes something does. The counts of hits are not exact
when threads race.
"""

from __future__ import annotations

import threading
import weakref
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass
from itertools import count
from typing import Any, Final, Protocol

from kvstore.tables.format import GRANULE
from kvstore.tables.handles import OpenTables
from kvstore.values import MISSING, Found, Page, Value

_ROW_OVERHEAD: Final = 180
_MAPPED_SHARE: Final = 4


class Mapping(Protocol):
    """Something with mapped memory. Both methods are called with the cache's lock held."""

    def drop(self, granule: int) -> None:
        """Give that granule's memory back, and take what was in it for unverified."""


@dataclass(frozen=True)
class CacheStatistics:
    """What the cache has and how it did."""

    hits: int
    misses: int
    """Rows and blocks that had to be added."""
    bytes: int
    """Of rows and blocks, with their overhead."""
    mapped_bytes: int
    budget: int


class _Generation:
    __slots__ = ("block_bytes", "blocks", "bytes", "rows")

    def __init__(self) -> None:
        self.rows: dict[bytes, Value] = {}
        self.blocks: dict[int, Page | bytes] = {}
        self.block_bytes: dict[int, int] = {}
        self.bytes = 0


class Cache:
    """The memory for tables of one store, ``budget`` bytes of it.

    >>> cache = Cache(1 << 20)
    >>> cache.add_row(b"key", b"value", lambda: True)
    >>> cache.row(b"key"), cache.row(b"other")
    (b'value', MISSING)
    """

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self.lock = threading.Lock()
        self.open_tables = OpenTables()
        self._young = _Generation()
        self._old = _Generation()
        self._mapped: deque[tuple[weakref.ref[Any], int]] = deque()
        self._hits = self._misses = 0
        self._serials = count(1)

    def new_serial(self) -> int:
        """A number that no other file has, for the tokens of its blocks."""
        return next(self._serials)

    # ------------------------------------------------------------------ rows

    def row(self, key: bytes) -> Found:
        """What the tables have for the key, MISSING if that is not known here."""
        value: Found = self._young.rows.get(key, MISSING)
        if value is MISSING:
            value = self._old.rows.get(key, MISSING)
            if value is MISSING:
                return MISSING
            self._keep_row(key)
        self._hits += 1
        return value

    def _keep_row(self, key: bytes) -> None:
        with self.lock:
            # It may have been forgotten since; then it must not come back.
            value = self._old.rows.get(key, MISSING)
            if value is not MISSING:
                self._put_row(key, value)  # type: ignore[arg-type]

    def add_row(self, key: bytes, value: Value, still_current: Callable[[], bool]) -> None:
        """Keep what the tables have, if ``still_current`` says that they have not changed."""
        with self.lock:
            if still_current():
                self._misses += 1
                self._put_row(key, value)

    def _put_row(self, key: bytes, value: Value) -> None:
        size = _ROW_OVERHEAD + len(key) + (len(value) if isinstance(value, bytes) else 0)
        young = self._young
        if key not in young.rows and self._fits(size):
            young.rows[key] = value
            young.bytes += size
            self._shrink()

    def forget_rows(self, keys: Collection[bytes], swap: Callable[[], None]) -> None:
        """Change the tables by ``swap`` and forget these rows, in one hold of the lock."""
        with self.lock:
            swap()
            for generation in (self._young, self._old):
                for key in generation.rows.keys() & keys:
                    value = generation.rows.pop(key)
                    size = len(value) if isinstance(value, bytes) else 0
                    generation.bytes -= _ROW_OVERHEAD + len(key) + size

    # ------------------------------------------------------------------ blocks

    def block(self, token: int) -> Page | bytes | None:
        """What was added under the token, if it is still here. Shared: not to be changed."""
        block = self._young.blocks.get(token)
        if block is None:
            block = self._old.blocks.get(token)
            if block is None:
                return None
            with self.lock:
                nbytes = self._old.block_bytes.pop(token, 0)
                if nbytes:
                    del self._old.blocks[token]
                    self._old.bytes -= nbytes
                    self._put_block(token, block, nbytes)
        self._hits += 1
        return block

    def add_block(self, token: int, block: Page | bytes, nbytes: int) -> None:
        """Keep a decoded block that takes up ``nbytes``."""
        with self.lock:
            self._misses += 1
            if self._fits(nbytes):
                self._put_block(token, block, nbytes)

    def _put_block(self, token: int, block: Page | bytes, nbytes: int) -> None:
        young = self._young
        if token not in young.blocks:
            young.blocks[token] = block
            young.block_bytes[token] = nbytes
            young.bytes += nbytes
            self._shrink()

    # ------------------------------------------------------------------ mapped memory

    def count_mapped(self, mapping: weakref.ref[Any], granules: list[int]) -> None:
        """Count granules that were touched; the lock is held. Others, or these, may be dropped."""
        self._mapped.extend([(mapping, granule) for granule in granules])
        self._shrink()

    # ------------------------------------------------------------------ the budget; lock held

    def _fits(self, size: int) -> bool:
        return size <= self.budget // 4

    def _shrink(self) -> None:
        mapped = len(self._mapped) * GRANULE
        quarter = self.budget // _MAPPED_SHARE
        for_entries = self.budget - min(mapped, quarter)
        if self._young.bytes > for_entries // 2:
            self._old, self._young = self._young, _Generation()
        entries = self._young.bytes + self._old.bytes
        while self._mapped and len(self._mapped) * GRANULE > max(quarter, self.budget - entries):
            reference, granule = self._mapped.popleft()
            mapping = reference()
            if mapping is not None:
                mapping.drop(granule)
        if entries > self.budget - len(self._mapped) * GRANULE:
            self._old = _Generation()

    def statistics(self) -> CacheStatistics:
        """What is kept now, and how often it helped."""
        with self.lock:
            return CacheStatistics(
                self._hits,
                self._misses,
                self._young.bytes + self._old.bytes,
                len(self._mapped) * GRANULE,
                self.budget,
            )
