"""One budget of memory for what is kept of tables: rows, decoded blocks, pieces of files.

Rows and blocks have two generations. What is added goes to the young one; once that has half of the
budget the old one is dropped and the young one becomes old; what is found in the old one moves
to the young. So whatever is not asked for during a whole generation goes, at the price of no
bookkeeping when something is found: one look into a dict.

Pieces of files (blocks as they are, parts of indexes, filters and slots) are held by the tables'
readers and only counted here: a look-up finds them without asking the cache. They go first in,
first out, and before rows and blocks do, but a quarter of the budget is theirs; of them the blocks
go first while the others have no more than half of the budget.

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

from kvstore.tables.handles import OpenTables
from kvstore.values import MISSING, Found, Page, Value

_ROW_OVERHEAD: Final = 180
_PIECES_SHARE: Final = 4


class Holder(Protocol):
    """Something that holds pieces of a file."""

    def drop(self, piece: int) -> None:
        """Let go of that piece. Called with the cache's lock held."""


class _Queue:
    """Pieces in the order they came, and their bytes."""

    def __init__(self) -> None:
        self._pieces: deque[tuple[weakref.ref[Holder], int, int]] = deque()
        self.bytes = 0

    def append(self, holder: weakref.ref[Holder], piece: int, size: int) -> None:
        self._pieces.append((holder, piece, size))
        self.bytes += size

    def drop_oldest(self) -> None:
        reference, piece, size = self._pieces.popleft()
        self.bytes -= size
        holder = reference()
        if holder is not None:
            holder.drop(piece)


@dataclass(frozen=True)
class CacheStatistics:
    """What the cache has and how it did."""

    hits: int
    misses: int
    """Rows and blocks that had to be added."""
    bytes: int
    """Of rows and blocks, with their overhead."""
    piece_bytes: int
    budget: int


class _Generation:
    __slots__ = ("block_bytes", "blocks", "bytes", "rows")

    def __init__(self) -> None:
        self.rows: dict[bytes, Value] = {}
        self.blocks: dict[int, Page] = {}
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
        self._block_pieces = _Queue()
        self._section_pieces = _Queue()
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
        """Forget these rows and change the tables by ``swap``, in one hold of the lock.

        In that order: whoever has seen the change, and takes no lock, finds no row from before it.
        """
        with self.lock:
            for generation in (self._young, self._old):
                for key in generation.rows.keys() & keys:
                    value = generation.rows.pop(key)
                    size = len(value) if isinstance(value, bytes) else 0
                    generation.bytes -= _ROW_OVERHEAD + len(key) + size
            swap()

    def forget_all_rows(self, swap: Callable[[], None]) -> None:
        """As :meth:`forget_rows`, of every row."""
        with self.lock:
            for generation in (self._young, self._old):
                generation.rows = {}
                generation.bytes = sum(generation.block_bytes.values())
            swap()

    # ------------------------------------------------------------------ blocks

    def block(self, token: int) -> Page | None:
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

    def add_block(self, token: int, block: Page, nbytes: int) -> None:
        """Keep a decoded block that takes up ``nbytes``."""
        with self.lock:
            self._misses += 1
            if self._fits(nbytes):
                self._put_block(token, block, nbytes)

    def _put_block(self, token: int, block: Page, nbytes: int) -> None:
        young = self._young
        if token not in young.blocks:
            young.blocks[token] = block
            young.block_bytes[token] = nbytes
            young.bytes += nbytes
            self._shrink()

    # ------------------------------------------------------------------ pieces of files

    def count_piece(self, holder: weakref.ref[Any], piece: int, size: int) -> None:
        """Count a piece that a reader now holds, negative for a section's; the lock is held.

        Others may be dropped for it, and so may it.
        """
        queue = self._section_pieces if piece < 0 else self._block_pieces
        queue.append(holder, piece, size)
        self._shrink()

    # ------------------------------------------------------------------ the budget; lock held

    def _fits(self, size: int) -> bool:
        return size <= self.budget // 4

    def _shrink(self) -> None:
        quarter = self.budget // _PIECES_SHARE
        for_entries = self.budget - min(self._piece_bytes, quarter)
        if self._young.bytes > for_entries // 2:
            self._old, self._young = self._young, _Generation()
        entries = self._young.bytes + self._old.bytes
        while self._piece_bytes > max(quarter, self.budget - entries):
            self._drop_piece()
        if entries + self._piece_bytes > self.budget:
            self._old = _Generation()

    @property
    def _piece_bytes(self) -> int:
        return self._block_pieces.bytes + self._section_pieces.bytes

    def _drop_piece(self) -> None:
        sections = self._section_pieces
        if self._block_pieces.bytes and sections.bytes <= self.budget // 2:
            self._block_pieces.drop_oldest()
        else:
            sections.drop_oldest()

    def statistics(self) -> CacheStatistics:
        """What is kept now, and how often it helped."""
        with self.lock:
            return CacheStatistics(
                self._hits,
                self._misses,
                self._young.bytes + self._old.bytes,
                self._piece_bytes,
                self.budget,
            )
