"""Hostile bytes for the store: tables, manifests, marks, log entries, names, values, workers.

Each function takes bytes and returns; an exception that the store does not document is the bug that
is looked for, and so is any use of a path outside the store.
"""

from __future__ import annotations

import contextlib
import io
import os
from unittest import mock

from crc32c import crc32c

import kvstore
from kvstore import mutations, names
from kvstore.background import worker
from kvstore.codecs import JSON, MSGPACK, UTF8
from kvstore.directory import Directory
from kvstore.keyspaces import directory_key, split_stored
from kvstore.tables.cache import Cache
from kvstore.tables.format import DamageError
from kvstore.tables.manifest import Manifest
from kvstore.tables.records import TableRecord
from kvstore.tables.table import Table
from kvstore.upkeep.restoring import read_mark
from kvstore.upkeep.verification import verify
from tests.laboratory.hostile.log_targets import log_around
from tests.laboratory.hostile.sealing import U32, footer_of
from wal.files import MemoryFileSystem
from wal.segments import format as wal_format

DOCUMENTED = (kvstore.CorruptStoreError, kvstore.FormatVersionError, kvstore.MissingCodecError)
OPTIONS = {"processes": False, "memtable_bytes": 64 << 10}
TABLE_KEYS = [b"", b"k", b"0003", b"0050", b"large", b"gone", b"\xff\xff", b"absent" * 9]


class Fenced(MemoryFileSystem):
    """Files in memory; a path that leads out of the store is an error of the test."""


def _fence(method):
    def fenced(self, *paths, **options):
        for path in paths:
            inside = not isinstance(path, str) or os.path.normpath(path).split(os.sep)[0] == "s"
            assert inside, f"{method.__name__} of {path!r}, outside the store"
        return method(self, *paths, **options)

    return fenced


for _name in ("open", "create", "rename", "link", "remove", "make_directory", "lock", "list"):
    setattr(Fenced, _name, _fence(getattr(MemoryFileSystem, _name)))


# ------------------------------------------------------------------ tables


def record_for(data):
    """What a manifest would say of these bytes, were they a table."""
    fields, _ = footer_of(data)
    items, tombstones = ((fields or {}).get(name) for name in ("items", "tombstones"))
    return TableRecord(
        1,
        data[8:24].ljust(16, b"\0"),
        len(data),
        U32.unpack(data[-4:].rjust(4, b"\0"))[0],
        1,
        9,
        items if type(items) is int and items >= 0 else 0,
        tombstones if type(tombstones) is int and tombstones >= 0 else 0,
        b"",
        None,
        None,
        0,
    )


def table(data):
    """A table file, read in every way there is."""
    record = record_for(data)
    files = MemoryFileSystem({os.path.join("t", record.name): data})
    table = Table(files, "t", record, Cache(64 << 10))
    with contextlib.suppress(*DOCUMENTED):
        table.open()
    keys = list(TABLE_KEYS)
    for reverse in (False, True):
        with contextlib.suppress(*DOCUMENTED):
            for found, values in table.pages(b"", None, reverse=reverse):
                keys += found[:3]
                for value in values:
                    if not isinstance(value, (bytes, type(None))):
                        _read_blob(value)
    with contextlib.suppress(*DOCUMENTED):
        for _ in table.pages(b"0010", b"0020"):
            pass
    for key in keys[:50]:
        with contextlib.suppress(*DOCUMENTED):
            value = table.get(key, crc32c(key))
            if hasattr(value, "pieces"):
                _read_blob(value)
    with contextlib.suppress(*DOCUMENTED):
        table.verify()
    table.close()


def _read_blob(value):
    for read in (value.read, lambda: list(value.pieces())):
        with contextlib.suppress(*DOCUMENTED):
            read()


# ------------------------------------------------------------------ the store's own files


def store_with(data, name="MANIFEST"):
    """A small store in which one file is these bytes."""
    if not _SMALL:
        files = MemoryFileSystem()
        with kvstore.open("s", file_system=files, **OPTIONS) as db:
            db.write({b"%04d" % n: b"%d" % n for n in range(40)} | {b"large": bytes(70_000)})
            db.checkpoint()
            db.namespace(b"names", codec=MSGPACK)[b"k"] = [1]
            db.delete(b"0003")
            db.checkpoint()
        _SMALL.update(all_files(files, "s"))
    return Fenced({**_SMALL, os.path.join("s", name): data})


_SMALL = {}


def all_files(files, directory):
    """The paths of all files, and what is in them."""
    found = {}
    for name in files.list(directory):
        path = os.path.join(directory, name)
        try:
            file = files.open(path, writable=False)
        except IsADirectoryError:
            found |= all_files(files, path)
        else:
            found[path] = file.read_at(0, file.size())
            file.close()
    return found


def use(files):
    """Open a store for reading and for writing, read all of it, write to it, verify it."""
    with mock.patch("wal.read_only._ATTEMPTS", 1), mock.patch("kvstore.opening._ATTEMPTS", 1):
        str(verify("s", file_system=files))
        for flag in "rw":
            with (
                contextlib.suppress(kvstore.StoreError),
                kvstore.open("s", flag, file_system=files, **OPTIONS) as db,
            ):
                _use_open(db, flag)


def _use_open(db, flag):
    for read in (lambda: db.get(b"0001"), lambda: list(db.scan()), lambda: db.count(), db.stats):
        with contextlib.suppress(kvstore.StoreError):
            read()
    for codec in (MSGPACK, None):
        with contextlib.suppress(kvstore.StoreError):
            list(db.namespace(b"names", codec=codec).scan())
    with contextlib.suppress(kvstore.StoreError):
        db.namespaces()
    if flag == "w":
        for write in (lambda: db.put(b"new", b"1"), db.checkpoint, db.compact):
            with contextlib.suppress(kvstore.StoreError):
                write()


def manifest(data):
    """A MANIFEST: decoded, and with a store around it."""
    try:
        Manifest.decode(data).encode()
    except (DamageError, kvstore.FormatVersionError):
        if len(data) % 16:
            return
    use(store_with(data))


def mark(data):
    """A BACKUP file."""
    files = store_with(data, "BACKUP")
    with contextlib.suppress(kvstore.CorruptStoreError):
        read_mark(Directory(files, "s"))
    if len(data) % 8 == 0:
        use(files)


# ------------------------------------------------------------------ what is in the log and tables


def chunks_in(data):
    """The input as chunks: u16 length, bytes; the last may be cut short."""
    chunks, at = [], 0
    while at + 2 <= len(data):
        length = int.from_bytes(data[at : at + 2], "little")
        chunks.append(data[at + 2 : at + 2 + length])
        at += 2 + length
    return chunks


def entry(data):
    """The chunks of a log entry, alone and as the only entry that a store has to replay."""
    chunks = chunks_in(data)
    try:
        batch = mutations.decode(chunks)
        assert all(type(key) is bytes for key in batch)
        mutations.time_of(chunks)
    except (mutations.MalformedEntryError, kvstore.FormatVersionError):
        pass
    if len(data) % 4 == 0:
        use(Fenced(_store_replaying(chunks)))


def _store_replaying(chunks):
    header = wal_format.SegmentHeader(1, 0, 1 + (1 << 16), 0)
    frames = wal_format.encode_group(header, header.seed, header.size, 1, 0, [chunks], len(chunks))
    log = all_files(log_around(header.encode() + b"".join(frames)), "log")
    files = {path.replace("log", os.path.join("s", "wal"), 1): data for path, data in log.items()}
    return files | {os.path.join("s", "MANIFEST"): Manifest(bytes(16), next_number=2).encode()}


def name(data):
    """A directory record of a namespace: its stored key, and its value."""
    cut = data[0] if data else 0
    key, value = data[1 : 1 + cut], data[1 + cut :]
    for stored in (key, b"\xff\x01" + key, b"\xff\x02" + key):
        with contextlib.suppress(ValueError):
            split_stored(stored)
        with contextlib.suppress(kvstore.CorruptStoreError):
            names._split(stored)
    with contextlib.suppress(kvstore.CorruptStoreError):
        names._unpack(directory_key(0, key), value)
    if len(data) % 8 == 0:
        head = mutations.encode_head({b"a": b"", b"b": b""})
        stored = b"\xff\x02" + key
        use(Fenced(_store_replaying([head, directory_key(0, b"names"), value, stored, value])))


def value(data):
    """A stored value, to each codec that comes with the package."""
    for codec in (JSON, MSGPACK, UTF8):
        with contextlib.suppress(ValueError):
            codec.decode(data)


def answer(data):
    """What a worker's process says, or what else may come out of its stdout."""
    with contextlib.suppress(worker._ProcessError):
        try:
            built = worker._result_of(heard(data))
        except (*DOCUMENTED, OSError):
            return
        for each in built:
            assert os.path.basename(each.name) == each.name
            assert each.name.startswith("tmp-")


def heard(data):
    """As a Worker hears it."""
    process = mock.Mock(stdout=io.BytesIO(data))
    return worker.Worker(MemoryFileSystem())._hear(process)
