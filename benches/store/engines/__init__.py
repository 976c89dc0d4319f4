"""The engines that are measured: each behind the same few calls, used as its users would.

A call does many of the same thing, so that each engine's own best loop is what is timed: a held
read transaction, a bound method, a cursor. :data:`ENGINES` names them all.
"""

from __future__ import annotations

import pkgutil
import sys
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Final

from benches.store.items import Items

ENGINES: Final = {
    "kvstore": "benches.store.engines.kvstore:Kvstore",
    "lmdb": "benches.store.engines.lmdb:Lmdb",
    "plyvel": "benches.store.engines.plyvel:Plyvel",
    "rocksdict": "benches.store.engines.rocksdict:Rocksdict",
    "sqlite3": "benches.store.engines.sqlite3:Sqlite3",
}


class Engine(ABC):
    """An open store. No write waits until it is durable."""

    @abstractmethod
    def __init__(self, path: str, cache_bytes: int, memtable_bytes: int) -> None:
        """Open the store of this path, a directory, or create it."""

    @abstractmethod
    def put_each(self, items: Items) -> None:
        """Put every item by itself."""

    @abstractmethod
    def write(self, items: Items) -> None:
        """Put all items at once, all or nothing."""

    @abstractmethod
    def get_each(self, keys: Sequence[bytes]) -> int:
        """Get every key by itself; how many were there."""

    @abstractmethod
    def scan(self) -> int:
        """Walk over everything, in the order of the keys; how many items there were."""

    @abstractmethod
    def scan_from(self, starts: Sequence[bytes], most: int) -> int:
        """Walk over the next so many items from each start; how many there were in all."""

    def statistics(self) -> dict[str, float]:
        """What the engine tells about itself. ``runs`` and ``write_amplification`` are used."""
        return {}

    @abstractmethod
    def close(self) -> None: ...


def count(iterable: Iterable[object]) -> int:
    """How many items an iterable has, at the speed of C."""
    last = deque(enumerate(iterable, 1), maxlen=1)
    return last[0][0] if last else 0


def engine(name: str) -> type[Engine]:
    """The engine of a name; ImportError where its package is not installed."""
    found: type[Engine] = pkgutil.resolve_name(ENGINES[name])
    return found


def present(names: Sequence[str]) -> tuple[str, ...]:
    """Those engines that can be imported. Says which cannot."""
    found = []
    for name in names:
        try:
            engine(name)
        except ImportError as error:
            print(f"without {name}: {error} (pip install 'kvstore[bench]')", file=sys.stderr)
        else:
            found.append(name)
    return tuple(found)
