"""The store of this project."""

from __future__ import annotations

from collections.abc import Sequence

import kvstore
from benches.peers.engines import Engine, Get, Items, Put, Tuning, count


class Kvstore(Engine):
    has_log = True
    has_tasks = True
    settings = "durable: FSYNC; else BUFFER"
    otherwise = kvstore.Durability.BUFFER
    """What a write waits for that need not be durable."""

    def __init__(self, path: str, tuning: Tuning) -> None:
        self._db = kvstore.open(
            path,
            durability=kvstore.Durability.FSYNC if tuning.durable else self.otherwise,
            cache_bytes=tuning.cache_bytes,
            memtable_bytes=tuning.memtable_bytes,
            log_segment_bytes=tuning.log_bytes or None,
        )

    def getter(self) -> Get:
        return self._db.get

    def putter(self) -> Put:
        return self._db.put

    def read_range(self, start: bytes, most: int) -> Sequence[tuple[bytes, bytes]]:
        return list(self._db.scan(start, limit=most))

    def delete_each(self, keys: Sequence[bytes]) -> None:
        delete = self._db.delete
        for key in keys:
            delete(key)

    def get_many(self, keys: Sequence[bytes]) -> Sequence[object]:
        return self._db.get_many(keys)

    def write(self, items: Items) -> None:
        self._db.write(dict(items))

    def scan(self) -> int:
        return count(self._db.scan())

    def scan_from(self, starts: Sequence[bytes], most: int) -> int:
        scan = self._db.scan
        return sum(count(scan(start, limit=most)) for start in starts)

    def sync(self) -> None:
        self._db.sync()

    def compact(self) -> None:
        self._db.compact()

    def hand_over(self) -> None:
        self._db.sync()

    def statistics(self) -> dict[str, float]:
        told = self._db.stats()
        return {"runs": told.runs, "write_amplification": told.write_amplification}

    def close(self) -> None:
        self._db.close()


class WrittenKvstore(Kvstore):
    """Each write is handed to the system: what a killed process leaves, as with most peers."""

    only = frozenset({"write"})
    turns = 1
    settings = "not durable: WRITE"
    otherwise = kvstore.Durability.WRITE
