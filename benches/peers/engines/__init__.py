"""The engines that are measured: each behind the same few calls, used as its users would.

Many calls of the same kind are made by the adapter, so that each engine's own best loop is what is
timed: a held read transaction, a bound method, a cursor. :data:`ENGINES` names them all.
"""

from __future__ import annotations

import pkgutil
import sys
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

MIB: Final = 1 << 20

Items = Sequence[tuple[bytes, bytes]]
Get = Callable[[bytes], object]
Put = Callable[[bytes, bytes], object]
Range = Callable[[bytes, int], Sequence[tuple[bytes, bytes]]]

ENGINES: Final = {
    "kvstore": "benches.peers.engines.kvstore:Kvstore",
    "kvstore-write": "benches.peers.engines.kvstore:WrittenKvstore",
    "lmdb": "benches.peers.engines.lmdb:Lmdb",
    "lmdb-fresh": "benches.peers.engines.lmdb:FreshLmdb",
    "lmdb-writemap": "benches.peers.engines.lmdb:WritemapLmdb",
    "plyvel": "benches.peers.engines.plyvel:Plyvel",
    "rocksdict": "benches.peers.engines.rocksdict:Rocksdict",
    "sqlite3": "benches.peers.engines.sqlite3:Sqlite3",
    "diskcache": "benches.peers.engines.diskcache:Diskcache",
    "sqlitedict": "benches.peers.engines.sqlitedict:Sqlitedict",
    "dbm.gnu": "benches.peers.engines.dbm_gnu:DbmGnu",
}


@dataclass(frozen=True)
class Tuning:
    """How a store is opened: the same for every engine, as far as it has such a thing."""

    cache_bytes: int = 64 * MIB
    memtable_bytes: int = 64 * MIB
    durable: bool = False
    """Whether a write returns only once it would survive a power loss."""
    log_bytes: int = 0
    """So much must fit into the log before any of it is moved elsewhere; 0: as usual."""


class UnsupportedError(Exception):
    """The engine has no such thing."""


@dataclass
class Mixed:
    """Single calls for a mix of reads and writes by one thread; reads see every earlier write.

    ``get`` may be another one after a put.
    """

    get: Get
    put: Put
    read_range: Range


class Engine(ABC):
    """An open store.

    What is left out here, an engine has to have; the rest it overrides where it has a better way.
    """

    package: ClassVar[str] = ""
    """The distribution whose version made a store; empty: no package of its own."""
    stock: ClassVar[str] = ""
    """The engine whose stores it reads, where that is another one."""
    only: ClassVar[frozenset[str]] = frozenset()
    """The kinds of rows it is measured in; empty: all."""
    has_log: ClassVar[bool] = False
    """Whether writes go to a log first, which is replayed when a process was killed."""
    logs_pages: ClassVar[bool] = False
    """Whether that log grows by whole pages for each write."""
    has_tasks: ClassVar[bool] = False
    """Whether it can be used from asyncio."""
    most_keys: ClassVar[int | None] = None
    """A slow engine is not given more keys to hold than these, lest the run takes hours."""
    seconds: ClassVar[float] = 3.0
    """How long a cell may take; slow engines get less of the run."""
    turns: ClassVar[int] = 100
    """It is measured so many times at most."""
    settings: ClassVar[str] = ""
    """How it is used, in a line for the report."""

    @abstractmethod
    def __init__(self, path: str, tuning: Tuning) -> None:
        """Open the store of this path, a directory, or create it."""

    # Single calls.

    @abstractmethod
    def getter(self) -> Get:
        """What gets one key, None where it is absent, as long as nothing is written."""

    @abstractmethod
    def putter(self) -> Put:
        """What puts one item; from many threads where there are many."""

    def mixed(self) -> Mixed:
        return Mixed(self.getter(), self.putter(), self.read_range)

    def read_range(self, start: bytes, most: int) -> Sequence[tuple[bytes, bytes]]:
        """The next so many items from a start on."""
        raise UnsupportedError("no order")

    # Many calls of one kind.

    def put_each(self, items: Items) -> None:
        """Put every item by itself."""
        put = self.putter()
        for key, value in items:
            put(key, value)

    @abstractmethod
    def delete_each(self, keys: Sequence[bytes]) -> None:
        """Delete every key by itself."""

    def get_each(self, keys: Sequence[bytes]) -> int:
        """Get every key by itself, all of which are there; the bytes of all values."""
        return sum(map(len, map(self.getter(), keys)))  # type: ignore[arg-type]

    def miss_each(self, keys: Sequence[bytes]) -> bool:
        """Get every key by itself, none of which is there; whether one was."""
        return any(map(self.getter(), keys))

    def get_many(self, keys: Sequence[bytes]) -> Sequence[object]:
        """Get the keys in one call, in any order."""
        raise UnsupportedError("no call for many keys")

    @abstractmethod
    def write(self, items: Items) -> None:
        """Put all items at once, all or nothing."""

    def load(self, chunks: Iterable[Items]) -> None:
        """Put items in ascending order into an empty store, the fastest way; durable at the end."""
        for chunk in chunks:
            self.write(chunk)
        self.sync()

    def fill(self, chunks: Iterable[Items]) -> None:
        """Put items in any order before something else is measured: no matter how."""
        for chunk in chunks:
            self.write(chunk)

    @abstractmethod
    def scan(self) -> int:
        """Walk over everything, in the order of the keys; how many items there were."""

    def scan_from(self, starts: Sequence[bytes], most: int) -> int:
        """Walk over the next so many items from each start; how many there were in all."""
        read_range = self.read_range
        return sum(len(read_range(start, most)) for start in starts)

    @abstractmethod
    def sync(self) -> None:
        """Make everything written durable."""

    def compact(self) -> None:  # noqa: B027
        """Bring everything into the order that is best for reading."""

    def hand_over(self) -> None:  # noqa: B027 - most have nothing to do
        """Give the system what the process still holds of the writes: a kill must not lose it."""

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
    """The engine of a name; ImportError where its package is not installed.

    ``kvstore@DIRECTORY`` is kvstore from another checkout: its process imports it from there.
    """
    found: type[Engine] = pkgutil.resolve_name(ENGINES[name.partition("@")[0]])
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
