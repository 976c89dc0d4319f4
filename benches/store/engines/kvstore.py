"""The store of this project."""

from __future__ import annotations

from collections.abc import Sequence

import kvstore
from benches.store.engines import Engine, count
from benches.store.items import Items


class Kvstore(Engine):
    def __init__(self, path: str, cache_bytes: int, memtable_bytes: int) -> None:
        self._db = kvstore.open(
            path,
            durability=kvstore.Durability.BUFFER,
            cache_bytes=cache_bytes,
            memtable_bytes=memtable_bytes,
        )

    def put_each(self, items: Items) -> None:
        put = self._db.put
        for key, value in items:
            put(key, value)

    def write(self, items: Items) -> None:
        self._db.write(dict(items))

    def get_each(self, keys: Sequence[bytes]) -> int:
        return sum(value is not None for value in map(self._db.get, keys))

    def scan(self) -> int:
        return count(self._db.scan())

    def scan_from(self, starts: Sequence[bytes], most: int) -> int:
        scan = self._db.scan
        return sum(count(scan(start, limit=most)) for start in starts)

    def statistics(self) -> dict[str, float]:
        told = self._db.stats()
        return {"runs": told.runs, "write_amplification": told.write_amplification}

    def close(self) -> None:
        self._db.close()
