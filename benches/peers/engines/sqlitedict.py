"""sqlitedict: SQLite behind an interface of a dictionary; a thread of its own makes all calls."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

import sqlitedict

from benches.peers.engines import Engine, Get, Items, Put, Tuning, count


class Sqlitedict(Engine):
    package = "sqlitedict"
    most_keys = 100_000
    seconds = 1.0
    turns = 1
    settings = (
        "journal_mode=WAL, nothing pickled; durable: synchronous=FULL, a commit for each put that "
        "waits; else NORMAL, a commit for each put, waited for once a chunk"
    )

    def __init__(self, path: str, tuning: Tuning) -> None:
        os.makedirs(path, exist_ok=True)
        same = sqlitedict.identity
        file = os.path.join(path, "items.db")
        self._db = sqlitedict.SqliteDict(file, journal_mode="WAL", encode=same, decode=same)
        self._set("synchronous", "FULL" if tuning.durable else "NORMAL")
        self._set("cache_size", -(tuning.cache_bytes >> 10))
        self._durable = tuning.durable

    def _set(self, name: str, value: object) -> None:
        self._db.commit(blocking=True)  # no pragma takes effect inside a transaction
        self._db.conn.select_one(f"PRAGMA {name} = {value}")

    def getter(self) -> Get:
        get: Get = self._db.get
        return get

    def putter(self) -> Put:
        db, wait = self._db, self._durable

        def put(key: bytes, value: bytes) -> None:
            db[key] = value
            db.commit(blocking=wait)

        return put

    def put_each(self, items: Items) -> None:
        super().put_each(items)
        self._db.commit(blocking=True)

    def delete_each(self, keys: Sequence[bytes]) -> None:
        db, wait = self._db, self._durable
        for key in keys:
            del db[key]
            db.commit(blocking=wait)
        db.commit(blocking=True)

    def write(self, items: Items) -> None:
        self._db.update(items)
        self._db.commit(blocking=True)

    def fill(self, chunks: Iterable[Items]) -> None:
        for chunk in chunks:
            self._db.update(chunk)
        self._db.commit(blocking=True)

    def load(self, chunks: Iterable[Items]) -> None:
        self.fill(chunks)
        self.sync()

    def scan(self) -> int:
        return count(self._db.items())  # in the order in which they were put

    def sync(self) -> None:
        self._db.conn.select_one("PRAGMA wal_checkpoint(FULL)")

    def close(self) -> None:
        self._db.commit(blocking=True)
        self._db.close()
