"""One budget of memory for what is kept of tables: rows, blocks, directories, pieces of files.

Rows and blocks have two generations. What is added is young; what is found among the old becomes
young again; where room is needed the old go, one by one, and once there are none left all that is
young is old. So what is asked for stays and the rest goes, at the price of no bookkeeping when
something young is found: one look into a dict. It is the second chance of the clock algorithm
(Corbato, 1968), with two dicts for the hand. While all fits nothing moves.

Once rows must go for others, only every fourth new one comes in: a row that is asked for again and
again gets in soon, and the many that are not cost the look-up a step less.

Directories (where a table's keys are: :mod:`kvstore.tables.directory`) are held by the tables'
readers while these are open, up to three quarters of the budget. Where they do not fit these hold
4 KiB pieces of them instead: first in, first out, a quarter of the budget and what is left over.

Looking up takes no lock; everything that changes something does. The counts of hits are not exact
when threads race.
"""

from __future__ import annotations

import threading
import weakref
from collections import deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any, Final, Protocol, TypeVar

from kvstore.tables.handles import OpenTables
from kvstore.values import MISSING, Found, Page, Value

T = TypeVar("T")

_ROW_OVERHEAD: Final = 180
_PIECES_SHARE: Final = 4
_DIRECTORIES_SHARE: Final = 3 / 4
ADMITTED: Final = 3
"""While rows must go, a row comes in where the count of misses has none of these bits."""
_MOST_AT_ONCE: Final = 256 << 10
"""As much room as is made at once."""


class Holder(Protocol):
    """Something that holds pieces of a file."""

    def drop(self, piece: int) -> None:
        """Let go of that piece. Called with the cache's lock held."""


class HasRuns(Protocol):
    """What has runs."""

    @property
    def runs(self) -> object: ...


class HasState(Protocol):
    """Who knows which runs are the present ones: an engine."""

    @property
    def state(self) -> HasRuns: ...


@dataclass(frozen=True)
class CacheStatistics:
    """What the cache has and how it did."""

    hits: int
    misses: int
    """Rows and blocks that were not there."""
    bytes: int
    """Of rows and blocks, with their overhead."""
    piece_bytes: int
    """Of directories, whole or in pieces."""
    budget: int


class Claim:
    """Some bytes of the budget, for as long as this is kept."""

    __slots__ = ("_released", "nbytes")

    def __init__(self, nbytes: int, released: deque[int]) -> None:
        self.nbytes = nbytes
        self._released = released

    def __del__(self) -> None:
        self._released.append(self.nbytes)  # wherever that is: it takes no lock


class _Generation:
    __slots__ = (
        "block_bytes",
        "block_order",
        "blocks",
        "blocks_size",
        "row_order",
        "rows",
        "rows_size",
    )

    def __init__(self) -> None:
        # Once it is old: what it had then, in the order in which to drop it, the first ones last.
        self.row_order: list[bytes] = []
        self.block_order: list[int] = []
        self.rows: dict[bytes, Value] = {}
        self.rows_size = 0
        self.blocks: dict[int, Page] = {}
        self.block_bytes: dict[int, int] = {}
        self.blocks_size = 0

    @property
    def size(self) -> int:
        return self.rows_size + self.blocks_size

    def add_row(self, key: bytes, value: Value) -> None:
        self.rows[key] = value
        self.rows_size += _row_bytes(key, value)

    def pop_row(self, key: bytes) -> Found:
        value: Found = self.rows.pop(key, MISSING)
        if value is not MISSING:
            self.rows_size -= _row_bytes(key, value)
        return value

    def add_block(self, token: int, block: Page, nbytes: int) -> None:
        self.blocks[token] = block
        self.block_bytes[token] = nbytes
        self.blocks_size += nbytes

    def pop_block(self, token: int) -> int:
        nbytes = self.block_bytes.pop(token, 0)
        if nbytes:
            del self.blocks[token]
            self.blocks_size -= nbytes
        return nbytes

    def age(self) -> None:
        """From now on these are the old ones."""
        self.row_order = _dropping_order(list(self.rows))
        self.block_order = _dropping_order(list(self.blocks))

    def drop_one(self) -> None:
        """Drop the first row or block, of what takes more room. There is one."""
        if self.block_order and self.rows_size < self.blocks_size:
            self.pop_block(self.block_order.pop())
        elif self.row_order:
            self.pop_row(self.row_order.pop())
        else:  # all that is in order is gone
            self.rows.clear()
            self.blocks.clear()
            self.block_bytes.clear()
            self.rows_size = self.blocks_size = 0


def _dropping_order(found: list[T]) -> list[T]:
    """What to drop, last one first: from the middle on.

    What came first may be what is asked for most, and what came last has hardly been here: both
    have time to be asked for.
    """
    middle = len(found) // 2
    return [*found[:middle][::-1], *found[middle:][::-1]]


def _row_bytes(key: bytes, value: object) -> int:
    return _ROW_OVERHEAD + len(key) + (len(value) if type(value) is bytes else 0)


class Cache:
    """The memory for tables of one store, ``budget`` bytes of it.

    >>> cache = Cache(1 << 20)
    >>> class Store:
    ...     class state:
    ...         runs = ()
    >>> cache.add_row(b"key", b"value", Store, Store.state.runs)
    >>> cache.row(b"key"), cache.row(b"other")
    (b'value', MISSING)
    """

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self.lock = threading.Lock()
        self.open_tables = OpenTables()
        self._young = _Generation()
        self._old = _Generation()
        self.rows: Mapping[bytes, Value] = self._young.rows
        """The young rows: where to look first."""
        self.old_rows: Mapping[bytes, Value] = self._old.rows
        """The others: what is found here is to be asked for with :meth:`row`."""
        self.hits = 0
        self.misses = 0
        self.full = False
        """Whether something must go for whatever comes: then :meth:`add_row` takes every fourth."""
        self._room = budget  # at least; what was let go of is counted when there is none left
        self._pieces: deque[tuple[weakref.ref[Holder], int, int]] = deque()
        self._piece_bytes = 0
        self._claimed = 0
        self._released: deque[int] = deque()
        self._serials = count(1)

    def new_serial(self) -> int:
        """A number that no other file has, for the tokens of its blocks."""
        return next(self._serials)

    # ------------------------------------------------------------------ rows

    def row(self, key: bytes) -> Found:
        """What the tables have for the key, MISSING if that is not known here."""
        value: Found = self.rows.get(key, MISSING)
        if value is MISSING:
            value = self._old.rows.get(key, MISSING)
            if value is MISSING:
                return MISSING
            self._keep_row(key)
        self.hits += 1
        return value

    def _keep_row(self, key: bytes) -> None:
        with self.lock:
            # It may have been forgotten since; then it must not come back.
            value = self._old.pop_row(key)
            if value is not MISSING and key not in self._young.rows:
                self._young.add_row(key, value)  # type: ignore[arg-type]

    def add_row(self, key: bytes, value: Value, store: HasState, runs: object) -> None:
        """Keep what the tables of ``runs`` have, if these are still the store's.

        The caller has counted the miss.
        """
        if self.full and self.misses & ADMITTED:
            return
        size = _row_bytes(key, value)
        with self.lock:
            young = self._young
            if store.state.runs is runs and key not in young.rows and self._fits(size):
                young.rows[key] = value
                young.rows_size += size
                self._take(size)

    def forget_rows(self, keys: Collection[bytes], swap: Callable[[], None]) -> None:
        """Forget these rows and change the tables by ``swap``, in one hold of the lock.

        In that order: whoever has seen the change, and takes no lock, finds no row from before it.
        """
        with self.lock:
            for generation in (self._young, self._old):
                for key in generation.rows.keys() & keys:
                    generation.pop_row(key)
            swap()

    def forget_all_rows(self, swap: Callable[[], None]) -> None:
        """As :meth:`forget_rows`, of every row."""
        with self.lock:
            for generation in (self._young, self._old):
                generation.rows, generation.rows_size = {}, 0
            self._publish()
            self.full = False
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
                nbytes = self._old.pop_block(token)
                if nbytes and token not in self._young.blocks:
                    self._young.add_block(token, block, nbytes)
        self.hits += 1
        return block

    def add_block(self, token: int, block: Page, nbytes: int) -> None:
        """Keep a decoded block that takes up ``nbytes``."""
        with self.lock:
            self.misses += 1
            if token not in self._young.blocks and self._fits(nbytes):
                self._young.add_block(token, block, nbytes)
                self._take(nbytes)

    # ------------------------------------------------------------------ directories

    def claim(self, nbytes: int) -> Claim | None:
        """Room for a directory that its reader holds, or None where there is none."""
        with self.lock:
            self._take_back()
            if self._claimed + nbytes > self.budget * _DIRECTORIES_SHARE:
                return None
            self._claimed += nbytes
            self._take(nbytes)
        return Claim(nbytes, self._released)

    def _take_back(self) -> None:
        while self._released:
            self._claimed -= self._released.popleft()

    def count_piece(self, holder: weakref.ref[Any], piece: int, size: int) -> None:
        """Count a piece that a reader now holds; the lock is held.

        Others may be dropped for it, and so may it.
        """
        self._pieces.append((holder, piece, size))
        self._piece_bytes += size
        self._take(size)

    # ------------------------------------------------------------------ the budget; lock held

    def _publish(self) -> None:
        self.rows, self.old_rows = self._young.rows, self._old.rows

    def _fits(self, size: int) -> bool:
        return size <= self.budget // 4

    def _take(self, size: int) -> None:
        self._room -= size
        if self._room < 0:
            self._make_room()

    def _make_room(self) -> None:
        self._take_back()
        room = self.budget - self._claimed - self._young.size - self._old.size
        least = self.budget // _PIECES_SHARE
        while self._pieces and self._piece_bytes > max(least, room):
            self._drop_piece()
        self.full = self._piece_bytes > room
        if self.full:
            at_once = min(_MOST_AT_ONCE, self.budget >> 6)
            self._drop_entries(self.budget - self._claimed - self._piece_bytes - at_once)
        self._room = self.budget - self._claimed - self._piece_bytes
        self._room -= self._young.size + self._old.size

    def _drop_piece(self) -> None:
        reference, piece, size = self._pieces.popleft()
        self._piece_bytes -= size
        holder = reference()
        if holder is not None:
            holder.drop(piece)

    def _drop_entries(self, room: int) -> None:
        """Drop rows and blocks until they take no more than that."""
        while self._young.size + self._old.size > room:
            if not self._old.size:
                self._old, self._young = self._young, _Generation()
                self._old.age()
                self._publish()
                if not self._old.size:
                    return
            self._old.drop_one()

    def statistics(self) -> CacheStatistics:
        """What is kept now, and how often it helped."""
        with self.lock:
            self._take_back()
            return CacheStatistics(
                self.hits,
                self.misses,
                self._young.size + self._old.size,
                self._piece_bytes + self._claimed,
                self.budget,
            )
