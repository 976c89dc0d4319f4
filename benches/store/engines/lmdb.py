"""LMDB: a B+tree in a mapped file. Unsynced it is at its best with a writable map."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Final

import lmdb

from benches.store.engines import Engine, count
from benches.store.items import Items

MAP_BYTES: Final = 16 << 30
"""The file may grow so far; where files are sparse it takes what is in it."""


class Lmdb(Engine):
    """Has no cache and no memtable: the map is both, in the system's page cache."""

    def __init__(self, path: str, cache_bytes: int, memtable_bytes: int) -> None:
        self._env = lmdb.open(path, map_size=MAP_BYTES, writemap=True, map_async=True, sync=False)

    def put_each(self, items: Items) -> None:
        begin = self._env.begin
        for key, value in items:
            with begin(write=True) as transaction:
                transaction.put(key, value)

    def write(self, items: Items) -> None:
        with self._env.begin(write=True) as transaction:
            transaction.cursor().putmulti(items)

    def get_each(self, keys: Sequence[bytes]) -> int:
        with self._env.begin() as transaction:
            return sum(value is not None for value in map(transaction.get, keys))

    def scan(self) -> int:
        with self._env.begin() as transaction:
            return count(transaction.cursor())

    def scan_from(self, starts: Sequence[bytes], most: int) -> int:
        found = 0
        with self._env.begin() as transaction, transaction.cursor() as cursor:
            for start in starts:
                cursor.set_range(start)
                found += count(islice(cursor.iternext(), most))
        return found

    def close(self) -> None:
        self._env.sync(True)
        self._env.close()
