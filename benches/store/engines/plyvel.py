"""LevelDB: a log and tables in levels, compacted by a thread."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

import plyvel

from benches.store.engines import Engine, count
from benches.store.items import Items

FILTER_BITS = 10


class Plyvel(Engine):
    def __init__(self, path: str, cache_bytes: int, memtable_bytes: int) -> None:
        self._db = plyvel.DB(
            path,
            create_if_missing=True,
            lru_cache_size=cache_bytes,
            write_buffer_size=memtable_bytes,
            bloom_filter_bits=FILTER_BITS,
        )

    def put_each(self, items: Items) -> None:
        put = self._db.put
        for key, value in items:
            put(key, value)

    def write(self, items: Items) -> None:
        with self._db.write_batch() as batch:
            put = batch.put
            for key, value in items:
                put(key, value)

    def get_each(self, keys: Sequence[bytes]) -> int:
        return sum(value is not None for value in map(self._db.get, keys))

    def scan(self) -> int:
        return count(self._db)

    def scan_from(self, starts: Sequence[bytes], most: int) -> int:
        walk = self._db.iterator
        return sum(count(islice(walk(start=start), most)) for start in starts)

    def close(self) -> None:
        self._db.close()
