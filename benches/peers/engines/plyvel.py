"""LevelDB: a log and tables in levels, compacted by a thread."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import islice

import plyvel

from benches.peers.engines import Engine, Get, Items, Put, Tuning, count

FILTER_BITS = 10
OPEN_FILES = 1000


class Plyvel(Engine):
    package = "plyvel"
    has_log = True
    settings = "bloom_filter_bits=10, max_open_files=1000, snappy; durable: sync=True"

    def __init__(self, path: str, tuning: Tuning) -> None:
        self._durable = tuning.durable
        self._db = plyvel.DB(
            path,
            create_if_missing=True,
            lru_cache_size=tuning.cache_bytes,
            write_buffer_size=max(tuning.memtable_bytes, 4 * tuning.log_bytes),
            bloom_filter_bits=FILTER_BITS,
            max_open_files=OPEN_FILES,
        )

    def getter(self) -> Get:
        get: Get = self._db.get
        return get

    def putter(self) -> Put:
        return partial(self._db.put, sync=True) if self._durable else self._db.put

    def read_range(self, start: bytes, most: int) -> Sequence[tuple[bytes, bytes]]:
        return list(islice(self._db.iterator(start=start), most))

    def delete_each(self, keys: Sequence[bytes]) -> None:
        delete = self._db.delete
        for key in keys:
            delete(key, sync=self._durable)

    def write(self, items: Items) -> None:
        with self._db.write_batch(sync=self._durable) as batch:
            put = batch.put
            for key, value in items:
                put(key, value)

    def scan(self) -> int:
        return count(self._db)

    def scan_from(self, starts: Sequence[bytes], most: int) -> int:
        walk = self._db.iterator
        return sum(count(islice(walk(start=start), most)) for start in starts)

    def compact(self) -> None:
        self._db.compact_range()

    def sync(self) -> None:
        self._db.write_batch(sync=True).write()  # an empty one syncs the log

    def close(self) -> None:
        self._db.close()
