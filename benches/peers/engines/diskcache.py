"""diskcache: SQLite behind an interface of a dictionary, for caches."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain

import diskcache

from benches.peers.engines import Engine, Get, Items, Put, Tuning, count

NORMAL, FULL = 1, 2


class Diskcache(Engine):
    package = "diskcache"
    most_keys = 100_000
    seconds = 1.0
    turns = 1
    settings = "eviction_policy=none, nothing culled; durable: sqlite_synchronous=2 (FULL), else 1"

    def __init__(self, path: str, tuning: Tuning) -> None:
        self._cache = diskcache.Cache(
            path,
            eviction_policy="none",
            cull_limit=0,
            size_limit=1 << 40,
            sqlite_synchronous=FULL if tuning.durable else NORMAL,
            sqlite_cache_size=tuning.cache_bytes // 4096,  # in pages
        )

    def getter(self) -> Get:
        get: Get = self._cache.get
        return get

    def putter(self) -> Put:
        put: Put = self._cache.set
        return put

    def delete_each(self, keys: Sequence[bytes]) -> None:
        delete = self._cache.delete
        for key in keys:
            delete(key)

    def write(self, items: Items) -> None:
        self.fill([items])

    def fill(self, chunks: Iterable[Items]) -> None:
        put = self._cache.set
        with self._cache.transact():
            for key, value in chain.from_iterable(chunks):
                put(key, value)

    def load(self, chunks: Iterable[Items]) -> None:
        self.fill(chunks)
        self.sync()

    def scan(self) -> int:
        get = self._cache.get
        return count(get(key) for key in self._cache.iterkeys())

    def sync(self) -> None:
        self._cache._sql("PRAGMA wal_checkpoint(FULL)").fetchall()

    def close(self) -> None:
        self._cache.close()
