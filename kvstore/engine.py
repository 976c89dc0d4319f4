"""The engine below the API: one open store, seen as stored keys.

It holds the parts that everything else shares (the memtable, the tables' cache, the log), reads the
present state, and knows whether the store can still be used.
"""

from __future__ import annotations

from typing import Final

from crc32c import crc32c

from kvstore.config import Options
from kvstore.errors import StoreClosedError, StoreError, translate
from kvstore.memory.memtable import Memtable
from kvstore.memory.pinned import PageWalk, Pinned, walk
from kvstore.memory.state import State
from kvstore.ranges import Range
from kvstore.tables.cache import ADMITTED, Cache
from kvstore.values import MISSING, Found, Value, int_to_position
from wal import PositionNotFoundError, WalError, WriteAheadLog

_ATTEMPTS: Final = 100


class Engine:
    """The present state of an open store: a :class:`~kvstore.sources.Source`."""

    def __init__(
        self,
        path: str,
        options: Options,
        memtable: Memtable,
        cache: Cache,
        log: WriteAheadLog,
        *,
        read_only: bool,
    ) -> None:
        self.path = path
        self.options = options
        self.cache = cache
        self.read_only = read_only
        self.ended: str | None = None
        """Why the store cannot be used any more, if it cannot."""
        self.show(memtable, log)

    def show(self, memtable: Memtable, log: WriteAheadLog) -> None:
        """Have these be the present ones; both at once for who reads ``present``."""
        self.present = (memtable, log)
        self.memtable = memtable
        self.log = log
        if self.ended is not None:  # meanwhile
            memtable.end()

    # -- whether it can be used --------------------------------------------------------------------

    def end(self, reason: str) -> None:
        """From now on the store cannot be used any more. Takes no lock."""
        self.ended = reason
        self.memtable.end()

    def check(self) -> None:
        """Raise StoreClosedError if the store cannot be used any more."""
        if self.ended is not None:
            raise self.refusal()

    def refusal(self) -> StoreError:
        """Why it cannot be used, as an error."""
        return StoreClosedError(f"{self.path}: {self.ended}")

    def failure(self, error: WalError) -> StoreError:
        """What to raise for an error of the log: in a forked child that calls itself failed."""
        return translate(error) if self.ended is None else self.refusal()

    @property
    def state(self) -> State:
        """The present state, whichever memtable has it."""
        return self.memtable.state

    # -- reading -----------------------------------------------------------------------------------

    def find(self, key: bytes) -> Value:
        """The value of a stored key at this moment, None where it is absent. Takes no lock."""
        memtable, cache = self.memtable, self.cache
        state = memtable.state
        for values in state.maps:
            value: Found = values.get(key, MISSING)
            if value is not MISSING:
                return value  # type: ignore[return-value]
        # As find_in_tables; a row that is kept takes 0.3 us less without its frames.
        value = cache.rows.get(key, MISSING)
        if value is not MISSING and memtable.state.runs is state.runs:
            cache.hits += 1
            return value  # type: ignore[return-value]
        value = self._find_in_files(state, key)
        return None if value is MISSING else value  # type: ignore[return-value]

    def find_in_tables(self, state: State, key: bytes) -> Found:
        """What the tables of a state have of a key, through the cache of the present rows."""
        value = self.cache.row(key)
        if value is not MISSING and self.memtable.state.runs is state.runs:
            return value
        return self._find_in_files(state, key)

    def _find_in_files(self, state: State, key: bytes) -> Found:
        memtable, cache = self.memtable, self.cache
        if key in cache.old_rows:
            value = cache.row(key)
            if value is not MISSING and memtable.state.runs is state.runs:
                return value
        crc = crc32c(key)
        for look_up in state.look_ups:
            value = look_up(key, crc)
            if value is not MISSING:
                cache.misses += 1
                if cache.full and cache.misses & ADMITTED:  # as add_row, without its frame
                    return value
                if value is None or type(value) is bytes:  # a blob would keep its table alive
                    cache.add_row(key, value, self, state.runs)
                return value
        return MISSING

    def find_many(self, keys: list[bytes]) -> list[Value]:
        """The values of stored keys, all of one state."""
        pinned = self.pinned()
        try:
            return list(map(pinned.find, keys))
        finally:
            pinned.release()

    def walk(self, wanted: Range, most: int | None, *, reverse: bool) -> PageWalk:
        """Walk a range as it is at this moment."""
        return walk(self, wanted, most, reverse=reverse)

    def load(self, key: bytes, value: Value) -> bytes | None:
        """A value as bytes. One whose place in the log is gone by now is looked up again."""
        for _ in range(_ATTEMPTS):
            if value is None or type(value) is bytes:
                return value
            try:
                return self.read(value, self.log)
            except PositionNotFoundError:
                value = self.find(key)
        raise StoreError(f"the value of {key!r} cannot be found where it is said to be")

    def read(self, value: Value, log: WriteAheadLog) -> bytes:
        """A large value, from a log or a table. PositionNotFoundError if the log let go of it."""
        if isinstance(value, int):
            try:
                with log.read_at(int_to_position(value)) as chunk:
                    return chunk.read()
            except PositionNotFoundError:
                self.check()
                raise
            except WalError as error:
                raise self.failure(error) from error
        assert value is not None
        return value if isinstance(value, bytes) else value.read()

    def pinned(self) -> Pinned:
        """The present state, to be read for as long as it is held."""
        self.check()
        return Pinned(self)
