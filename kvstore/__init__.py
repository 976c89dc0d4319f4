"""An embedded, ordered key-value store.

A store is a directory. It maps bytes to bytes, in the order of the keys:

>>> import kvstore, wal
>>> files = wal.files.MemoryFileSystem()               # leave it away for real files
>>> db = kvstore.open("my.db", file_system=files)
>>> db.put(b"apple", b"red")                           # returns when it survives a power loss
>>> db[b"banana"] = b"yellow"
>>> db.get(b"apple"), db.get(b"pear")
(b'red', None)
>>> list(db.scan(prefix=b"b"))
[(b'banana', b'yellow')]

Several mutations become one, all or nothing:

>>> with db.batch() as batch:
...     batch.put(b"cherry", b"dark red")
...     batch.delete(b"apple")
>>> list(db)
[b'banana', b'cherry']

Who does not need each write to survive a power loss says so, once or for each write:

>>> db.put(b"counter", b"17", durability=kvstore.Durability.BUFFER)
>>> db.close()

Whatever was acknowledged is there after a crash, and everything in it is whole:

>>> with kvstore.open("my.db", "r", file_system=files) as db:
...     db.get_many([b"cherry", b"counter"])
[b'dark red', b'17']

Every mutation goes to a write-ahead log (:mod:`wal`) first. Recent ones are kept in memory; in the
background the log is turned into immutable sorted tables, which are read where they are needed.
Errors derive from :class:`StoreError`; the tree is drawn in :mod:`kvstore.errors`.
"""

from importlib import import_module

from kvstore.batch import Batch
from kvstore.change_feed import Change
from kvstore.codecs import BYTES, JSON, MSGPACK, UTF8, Codec
from kvstore.cursor import Cursor
from kvstore.errors import (
    ChangesLostError,
    CodecMismatchError,
    ConflictError,
    CorruptStoreError,
    FormatVersionError,
    KeyTooLongError,
    MissingCodecError,
    ReadOnlyError,
    StoreClosedError,
    StoreError,
    StoreFailedError,
    StoreLockedError,
    StoreNotFoundError,
    TransactionTooOldError,
    ValueTooLongError,
)
from kvstore.mapping import StoreMapping
from kvstore.namespaces import Namespace, ReadableNamespace
from kvstore.opening import open  # noqa: A004
from kvstore.snapshot import Snapshot
from kvstore.statistics import StoreStats
from kvstore.store import Store
from kvstore.transactions import Transaction
from kvstore.upkeep.verification import Problem, Report, verify
from wal import Durability

__all__ = [
    "BYTES",
    "JSON",
    "MSGPACK",
    "UTF8",
    "Batch",
    "Change",
    "ChangesLostError",
    "Codec",
    "CodecMismatchError",
    "ConflictError",
    "CorruptStoreError",
    "Cursor",
    "Durability",
    "FormatVersionError",
    "KeyTooLongError",
    "MissingCodecError",
    "Namespace",
    "Problem",
    "ReadOnlyError",
    "ReadableNamespace",
    "Report",
    "Snapshot",
    "Store",
    "StoreClosedError",
    "StoreError",
    "StoreFailedError",
    "StoreLockedError",
    "StoreMapping",
    "StoreNotFoundError",
    "StoreStats",
    "Transaction",
    "TransactionTooOldError",
    "ValueTooLongError",
    "open",
    "verify",
]


def __getattr__(name: str) -> object:
    """``kvstore.aio`` is imported when it is first asked for: asyncio takes its time."""
    if name == "aio":
        return import_module("kvstore.aio")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
