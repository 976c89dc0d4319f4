"""GDBM, of the standard library: a hash file without transactions."""

from __future__ import annotations

import dbm.gnu
import os
from collections.abc import Iterator, Sequence

from benches.peers.engines import Engine, Get, Items, Put, Tuning, UnsupportedError, count


class DbmGnu(Engine):
    most_keys = 100_000
    seconds = 1.0
    turns = 1
    settings = 'durable: flag "s" (each write is synced), else "f"; its batches are not atomic'

    def __init__(self, path: str, tuning: Tuning) -> None:
        os.makedirs(path, exist_ok=True)
        self._durable = tuning.durable
        flag = "cs" if tuning.durable else "cf"
        self._db = dbm.gnu.open(os.path.join(path, "items"), flag)  # noqa: SIM115

    def getter(self) -> Get:
        return self._db.get

    def putter(self) -> Put:
        return self._db.__setitem__

    def delete_each(self, keys: Sequence[bytes]) -> None:
        delete = self._db.__delitem__
        for key in keys:
            delete(key)

    def write(self, items: Items) -> None:
        if self._durable:
            raise UnsupportedError("no batch")
        self.put_each(items)

    def scan(self) -> int:
        return count(map(self._db.__getitem__, self._keys()))  # in the order of hashes

    def _keys(self) -> Iterator[bytes]:
        key = self._db.firstkey()
        while key is not None:
            yield key
            key = self._db.nextkey(key)

    def sync(self) -> None:
        self._db.sync()

    def close(self) -> None:
        self._db.close()
