"""RocksDB: a log and tables in levels, compacted by threads."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from itertools import islice

import rocksdict

from benches.peers.engines import Engine, Get, Items, Put, Tuning, count

FILTER_BITS = 10
THREADS = 2


class Rocksdict(Engine):
    package = "rocksdict"
    has_log = True
    settings = (
        "raw mode, bloom filter of 10 bits, two background threads; durable: WriteOptions.sync"
    )

    def __init__(self, path: str, tuning: Tuning) -> None:
        self._path = path
        self._options = options = _options(tuning)
        # An existing store's own options are taken unless they are given for the family as well.
        self._db = rocksdict.Rdict(path, options, column_families={"default": options})
        self._writing = rocksdict.WriteOptions()
        self._writing.sync = tuning.durable
        self._db.set_write_options(self._writing)

    def getter(self) -> Get:
        get: Get = self._db.get
        return get

    def putter(self) -> Put:
        put: Put = self._db.put
        return put

    def read_range(self, start: bytes, most: int) -> Sequence[tuple[bytes, bytes]]:
        return list(islice(self._db.items(from_key=start), most))

    def delete_each(self, keys: Sequence[bytes]) -> None:
        delete = self._db.delete
        for key in keys:
            delete(key)

    def get_many(self, keys: Sequence[bytes]) -> Sequence[object]:
        found: list[object] = self._db.get(list(keys))
        return found

    def write(self, items: Items) -> None:
        batch = rocksdict.WriteBatch(raw_mode=True)
        put = batch.put
        for key, value in items:
            put(key, value)
        self._db.write(batch, self._writing)

    def load(self, chunks: Iterable[Items]) -> None:
        """A table of its own making, which is taken in whole."""
        path = os.path.join(self._path, "loaded.sst")
        writer = rocksdict.SstFileWriter(self._options)
        writer.open(path)
        for chunk in chunks:
            for key, value in chunk:
                writer[key] = value
        writer.finish()
        ingesting = rocksdict.IngestExternalFileOptions()
        ingesting.set_move_files(True)
        self._db.ingest_external_file([path], ingesting)

    def scan(self) -> int:
        return count(self._db.items())

    def scan_from(self, starts: Sequence[bytes], most: int) -> int:
        walk = self._db.items
        return sum(count(islice(walk(from_key=start), most)) for start in starts)

    def compact(self) -> None:
        self._db.flush()
        self._db.compact_range(None, None)

    def sync(self) -> None:
        self._db.flush_wal(True)

    def close(self) -> None:
        self._db.close()


def _options(tuning: Tuning) -> rocksdict.Options:
    blocks = rocksdict.BlockBasedOptions()
    blocks.set_block_cache(rocksdict.Cache(tuning.cache_bytes))
    blocks.set_bloom_filter(FILTER_BITS, False)
    options = rocksdict.Options(raw_mode=True)
    options.create_if_missing(True)
    options.set_block_based_table_factory(blocks)
    options.set_write_buffer_size(max(tuning.memtable_bytes, 4 * tuning.log_bytes))
    options.increase_parallelism(THREADS)
    return options
