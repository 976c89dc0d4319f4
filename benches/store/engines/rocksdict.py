"""RocksDB: a log and tables in levels, compacted by threads."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

import rocksdict

from benches.store.engines import Engine, count
from benches.store.items import Items

FILTER_BITS = 10


class Rocksdict(Engine):
    def __init__(self, path: str, cache_bytes: int, memtable_bytes: int) -> None:
        options = _options(cache_bytes, memtable_bytes)
        # An existing store's own options are taken unless they are given for the family as well.
        self._db = rocksdict.Rdict(path, options, column_families={"default": options})

    def put_each(self, items: Items) -> None:
        put = self._db.put
        for key, value in items:
            put(key, value)

    def write(self, items: Items) -> None:
        batch = rocksdict.WriteBatch(raw_mode=True)
        put = batch.put
        for key, value in items:
            put(key, value)
        self._db.write(batch)

    def get_each(self, keys: Sequence[bytes]) -> int:
        return sum(value is not None for value in map(self._db.get, keys))

    def scan(self) -> int:
        return count(self._db.items())

    def scan_from(self, starts: Sequence[bytes], most: int) -> int:
        walk = self._db.items
        return sum(count(islice(walk(from_key=start), most)) for start in starts)

    def close(self) -> None:
        self._db.close()


def _options(cache_bytes: int, memtable_bytes: int) -> rocksdict.Options:
    blocks = rocksdict.BlockBasedOptions()
    blocks.set_block_cache(rocksdict.Cache(cache_bytes))
    blocks.set_bloom_filter(FILTER_BITS, False)
    options = rocksdict.Options(raw_mode=True)
    options.create_if_missing(True)
    options.set_block_based_table_factory(blocks)
    options.set_write_buffer_size(memtable_bytes)
    return options
