"""SQLite: a B-tree with a write-ahead log, used as a key-value store."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Sequence
from typing import Final

from benches.store.engines import Engine, count
from benches.store.items import Items

PAGE_BYTES: Final = 4096
CREATE: Final = "CREATE TABLE IF NOT EXISTS items (k BLOB PRIMARY KEY, v BLOB) WITHOUT ROWID"
PUT: Final = "REPLACE INTO items VALUES (?, ?)"
GET: Final = "SELECT v FROM items WHERE k = ?"
SCAN: Final = "SELECT k, v FROM items ORDER BY k"
SCAN_FROM: Final = "SELECT k, v FROM items WHERE k >= ? ORDER BY k LIMIT ?"


class Sqlite3(Engine):
    """Its log is checkpointed once it is as long as the others' memtables are large."""

    def __init__(self, path: str, cache_bytes: int, memtable_bytes: int) -> None:
        os.makedirs(path, exist_ok=True)
        self._db = sqlite3.connect(os.path.join(path, "items.db"), isolation_level=None)
        self._set("page_size", PAGE_BYTES)
        self._set("journal_mode", "WAL")
        self._set("synchronous", "OFF")
        self._set("wal_autocheckpoint", memtable_bytes // PAGE_BYTES)
        self._set("cache_size", -(cache_bytes >> 10))
        self._db.execute(CREATE)

    def _set(self, name: str, value: object) -> None:
        self._db.execute(f"PRAGMA {name} = {value}")

    def put_each(self, items: Items) -> None:
        execute = self._db.execute
        for item in items:
            execute(PUT, item)

    def write(self, items: Items) -> None:
        self._db.execute("BEGIN")
        self._db.executemany(PUT, items)
        self._db.execute("COMMIT")

    def get_each(self, keys: Sequence[bytes]) -> int:
        execute = self._db.execute
        return sum(execute(GET, (key,)).fetchone() is not None for key in keys)

    def scan(self) -> int:
        return count(self._db.execute(SCAN))

    def scan_from(self, starts: Sequence[bytes], most: int) -> int:
        execute = self._db.execute
        return sum(len(execute(SCAN_FROM, (start, most)).fetchall()) for start in starts)

    def close(self) -> None:
        self._db.close()
