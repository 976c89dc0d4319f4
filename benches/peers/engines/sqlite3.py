"""SQLite: a B-tree with a write-ahead log, used as a key-value store."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterable, Sequence
from typing import Final

from benches.peers.engines import MIB, Engine, Get, Items, Put, Tuning, count

PAGE_BYTES: Final = 4096
CHECKPOINT_BYTES: Final = 64 * MIB
CREATE: Final = "CREATE TABLE IF NOT EXISTS items (k BLOB PRIMARY KEY, v BLOB) WITHOUT ROWID"
PUT: Final = "REPLACE INTO items VALUES (?, ?)"
DELETE: Final = "DELETE FROM items WHERE k = ?"
GET: Final = "SELECT v FROM items WHERE k = ?"
SCAN: Final = "SELECT k, v FROM items ORDER BY k"
SCAN_FROM: Final = "SELECT k, v FROM items WHERE k >= ? ORDER BY k LIMIT ?"


class Sqlite3(Engine):
    """Its log is checkpointed once it has 64 MiB."""

    has_log = True
    logs_pages = True
    settings = (
        "WITHOUT ROWID, journal_mode=WAL, checkpoint at 64 MiB; durable: synchronous=FULL; "
        "else NORMAL; threads share a connection under a lock"
    )

    def __init__(self, path: str, tuning: Tuning) -> None:
        os.makedirs(path, exist_ok=True)
        file = os.path.join(path, "items.db")
        self._db = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
        self._set("page_size", PAGE_BYTES)
        self._set("journal_mode", "WAL")
        self._set("synchronous", "FULL" if tuning.durable else "NORMAL")
        self._set("wal_autocheckpoint", 0 if tuning.log_bytes else CHECKPOINT_BYTES // PAGE_BYTES)
        self._set("cache_size", -(tuning.cache_bytes >> 10))
        self._db.execute(CREATE)

    def _set(self, name: str, value: object) -> None:
        self._db.execute(f"PRAGMA {name} = {value}")

    def getter(self) -> Get:
        execute = self._db.execute

        def get(key: bytes) -> object:
            row = execute(GET, (key,)).fetchone()
            return None if row is None else row[0]

        return get

    def putter(self) -> Put:
        execute, lock = self._db.execute, threading.Lock()

        def put(key: bytes, value: bytes) -> None:
            with lock:
                execute(PUT, (key, value))

        return put

    def read_range(self, start: bytes, most: int) -> Sequence[tuple[bytes, bytes]]:
        return self._db.execute(SCAN_FROM, (start, most)).fetchall()

    def put_each(self, items: Items) -> None:
        execute = self._db.execute
        for item in items:
            execute(PUT, item)

    def delete_each(self, keys: Sequence[bytes]) -> None:
        execute = self._db.execute
        for key in keys:
            execute(DELETE, (key,))

    def get_many(self, keys: Sequence[bytes]) -> Sequence[object]:
        marks = ",".join("?" * len(keys))
        return self._db.execute(f"SELECT k, v FROM items WHERE k IN ({marks})", keys).fetchall()

    def write(self, items: Items) -> None:
        self._db.execute("BEGIN")
        self._db.executemany(PUT, items)
        self._db.execute("COMMIT")

    def fill(self, chunks: Iterable[Items]) -> None:
        self._db.execute("BEGIN")
        for chunk in chunks:
            self._db.executemany(PUT, chunk)
        self._db.execute("COMMIT")

    def load(self, chunks: Iterable[Items]) -> None:
        self.fill(chunks)
        self.sync()

    def scan(self) -> int:
        return count(self._db.execute(SCAN))

    def compact(self) -> None:
        self._db.execute("VACUUM")

    def sync(self) -> None:
        """Move everything into the main file, which is synced for it."""
        self._db.execute("PRAGMA wal_checkpoint(FULL)").fetchall()

    def close(self) -> None:
        self._db.close()
