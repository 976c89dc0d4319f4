"""Stores made by hand, a run at a time, without a log at work."""

from __future__ import annotations

import hashlib
import os

from kvstore.background.building import Built
from kvstore.background.catalog import Catalog
from kvstore.directory import Directory, temporary_name
from kvstore.tables.builder import TableBuilder
from kvstore.tables.cache import Cache
from kvstore.tables.manifest import Manifest, read_manifest, write_manifest
from wal import Configuration, WriteAheadLog


class MadeStore:
    """A store on the disk with whatever runs a test gives it, newest first."""

    def __init__(self, files, path, store_id=bytes(16)):
        self.files = files
        self.directory = Directory(files, files.resolve(path))
        files.make_directory(self.directory.tables)
        write_manifest(files, self.directory.path, Manifest(store_id))
        self.lock = self.directory.lock(0.0)
        self.gone = []  # files that no reader needs any more
        self.catalog = Catalog(
            self.directory, read_manifest(files, self.directory.path), Cache(1 << 20)
        )
        self.catalog.attach(lambda runs, segment_id: None, self.gone.append)

    def add(self, *tables, last_id=None):
        """A run of tables, each a dict: from one checkpoint, by default of one entry."""
        last_id = self.last_id + 1 if last_id is None else last_id
        built = [self.build(table, self.last_id + 1, last_id) for table in tables]
        self.catalog.add(built, last_id, 0)

    def merge(self, *tables):
        """All runs replaced by one of these tables; the files of the others go."""
        runs = self.catalog.runs
        built = [self.build(table, 1, self.last_id) for table in tables]
        self.catalog.replace(runs, built)
        del runs
        while self.gone:
            self.files.remove(self.gone.pop())

    def build(self, items, first_id, last_id):
        name = temporary_name()
        identity = repr((first_id, last_id, sorted(items.items())))
        table_id = hashlib.md5(identity.encode(), usedforsecurity=False).digest()
        builder = TableBuilder(
            self.files,
            os.path.join(self.directory.tables, name),
            table_id,
            large_value_bytes=1 << 10,
        )
        keys = sorted(items)
        builder.add(keys, [items[key] for key in keys])
        return Built(name, builder.finish(first_id, last_id))

    def begin_log(self):
        """An empty log that goes on where the tables end."""
        WriteAheadLog.begin(Configuration(self.directory.log, self.files), self.last_id)

    @property
    def last_id(self):
        return self.catalog.manifest.last_entry_id

    def present(self):
        """What a backup is made of."""
        return self.directory, self.catalog.manifest, self.catalog.runs


def numbered(start, stop, size=10):
    """Some items; a greater size makes large values of them."""
    return {b"%06d" % number: (b"%d-" % number) * size for number in range(start, stop)}


def read_store(files, path):
    """What the tables of a store hold, by its manifest; every one of them is verified."""
    manifest = read_manifest(files, path)
    assert manifest is not None, "there is no manifest"
    catalog = Catalog(Directory(files, path), manifest, Cache(0))
    found = {}
    for run in reversed(catalog.runs):
        for table in run.tables:
            table.verify()
        for keys, values in run.pages(b"", None, fill_cache=False):
            found.update(zip(keys, values, strict=True))
    return {
        key: value if isinstance(value, bytes) else value.read()
        for key, value in found.items()
        if value is not None
    }
