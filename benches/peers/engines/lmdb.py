"""LMDB: a B+tree in a mapped file.

Unsynced it is at its best with a writable map. Reads are measured twice: in one held transaction,
its best, which does not see what is written later; and with a transaction for each get, which sees
the newest state as the other engines do.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import ClassVar, Final

import lmdb

from benches.peers.engines import Engine, Get, Items, Mixed, Put, Tuning, count

MAP_BYTES: Final = 16 << 30
"""The file may grow so far; where files are sparse it takes what is in it."""
LOADED_AT_ONCE: Final = 100
"""Chunks of a bulk load in one transaction."""


class Lmdb(Engine):
    """Has no cache and no memtable: the map is both, in the system's page cache."""

    package = "lmdb"
    settings = (
        "durable: sync=True without writemap; else writemap=True, map_async=True, sync=False; "
        "reads in one held transaction"
    )
    writemap_if_durable: ClassVar[bool] = False

    def __init__(self, path: str, tuning: Tuning) -> None:
        self._env = lmdb.open(
            path,
            map_size=MAP_BYTES,
            writemap=self.writemap_if_durable or not tuning.durable,
            map_async=not tuning.durable,
            sync=tuning.durable,
            max_spare_txns=64,
            max_readers=1024,
        )

    def getter(self) -> Get:
        get: Get = self._env.begin().get
        return get

    def putter(self) -> Put:
        begin = self._env.begin

        def put(key: bytes, value: bytes) -> None:
            with begin(write=True) as transaction:
                transaction.put(key, value)

        return put

    def mixed(self) -> Mixed:
        """A held transaction, which is taken anew after a write."""
        begin, write = self._env.begin, self.putter()
        reader = begin()

        def put(key: bytes, value: bytes) -> None:
            nonlocal reader
            reader.abort()
            write(key, value)
            reader = begin()
            found.get = reader.get

        def read_range(start: bytes, most: int) -> Sequence[tuple[bytes, bytes]]:
            return _range(reader, start, most)

        found = Mixed(reader.get, put, read_range)
        return found

    def read_range(self, start: bytes, most: int) -> Sequence[tuple[bytes, bytes]]:
        with self._env.begin() as transaction:
            return _range(transaction, start, most)

    def delete_each(self, keys: Sequence[bytes]) -> None:
        begin = self._env.begin
        for key in keys:
            with begin(write=True) as transaction:
                transaction.delete(key)

    def get_many(self, keys: Sequence[bytes]) -> Sequence[object]:
        with self._env.begin() as transaction:
            found: list[object] = transaction.cursor().getmulti(keys)
            return found

    def write(self, items: Items) -> None:
        with self._env.begin(write=True) as transaction:
            transaction.cursor().putmulti(items)

    def load(self, chunks: Iterable[Items]) -> None:
        rest = iter(chunks)
        while some := list(islice(rest, LOADED_AT_ONCE)):
            with self._env.begin(write=True) as transaction:
                cursor = transaction.cursor()
                for chunk in some:
                    cursor.putmulti(chunk, append=True)
        self.sync()

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

    def sync(self) -> None:
        self._env.sync(True)

    def close(self) -> None:
        self._env.sync(True)
        self._env.close()


def _range(transaction: lmdb.Transaction, start: bytes, most: int) -> list[tuple[bytes, bytes]]:
    with transaction.cursor() as cursor:
        cursor.set_range(start)
        return list(islice(cursor.iternext(), most))


class FreshLmdb(Lmdb):
    """A transaction for each read."""

    stock = "lmdb"
    only = frozenset({"read"})
    settings = "a read transaction for each call"

    def getter(self) -> Get:
        begin = self._env.begin

        def get(key: bytes) -> object:
            with begin() as transaction:
                return transaction.get(key)

        return get

    def get_each(self, keys: Sequence[bytes]) -> int:
        begin, total = self._env.begin, 0
        for key in keys:
            with begin() as transaction:
                total += len(transaction.get(key))
        return total

    def scan_from(self, starts: Sequence[bytes], most: int) -> int:
        return sum(super(FreshLmdb, self).scan_from([start], most) for start in starts)


class WritemapLmdb(Lmdb):
    """With a writable map also where writes are durable."""

    only = frozenset({"durable"})
    settings = "durable: sync=True with writemap=True"
    writemap_if_durable = True
