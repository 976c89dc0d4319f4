"""What a store has on the symbolic disk: manifest, tables, mark of a backup, and its log.

The log is the one that the log's model vouches for: its entries survive as a prefix, its marker is
one cell that an opening settles. What it holds is one file that knows what of it is durable.
"""

from __future__ import annotations

from contextlib import suppress
from typing import NamedTuple

from tests.laboratory.protocol.disk import Failed, File
from tests.laboratory.protocol.log_values import Damage

MANIFEST, MANIFEST_NEW = "MANIFEST", "MANIFEST.new"
BACKUP, BACKUP_NEW = "BACKUP", "BACKUP.new"
MARKER, MARKER_NEW, SEGMENT = "CHECKPOINT", "CHECKPOINT-new", "wal-1"
"""Tables are ("table", number), and ("tmp", number) while they are made."""


class Refused(Exception):  # noqa: N818
    """StoreError: a backup that is not complete is no store."""


class Latched(Exception):  # noqa: N818
    """A write to the log failed: the store can go on only after it was opened anew."""


class Table:
    """An immutable table: which entries are in it. Its file has two cells."""

    __slots__ = ("ids", "number", "parts")

    def __init__(self, number, ids):
        self.number = number
        self.ids = ids
        self.parts = [(self, 0), (self, 1)]

    @property
    def name(self):
        return ("table", self.number)

    def __repr__(self):
        return f"table {self.number} of {self.ids}"


class Manifest(NamedTuple):
    """The file MANIFEST; it has one cell."""

    store: object
    last: int = 0
    tables: tuple[Table, ...] = ()
    next_number: int = 1
    clearing: bool = False

    @property
    def is_fresh(self):
        return not (self.last or self.tables or self.clearing) and self.next_number == 1


class LogFile(File):
    """The log's entries, oldest first, and how many of them survive what."""

    __slots__ = ("durable", "entries", "written")

    def __init__(self):
        super().__init__(1)
        self.entries = []
        self.durable = self.written = 0
        self.older[0] = [None]  # so that a power loss always asks it

    def lose_power(self, chance, rng):
        del self.entries[self.durable + int(rng.random() * (self.written - self.durable + 1)) :]
        self.durable = self.written = len(self.entries)

    def lose_process(self):
        del self.entries[self.written :]


class LogMarker(File):
    """The log's marker: one cell that is old or new, as its two slots in turn make it."""

    __slots__ = ()

    def lose_power(self, chance, rng):
        for values in self.older.values():
            if rng.random() >= chance:
                self.cells[0] = values[0]
        self.older.clear()
        self.dirty.clear()


class Place:
    """A directory in which a store or a backup is, or may come to be."""

    def __init__(self, disk):
        self.disk = disk
        self.root = disk.directory()
        self.tables = disk.directory()
        self.log = disk.directory()
        self._drafts = 0

    def draft(self):
        """A name for a table that is being made, which no other ever had."""
        self._drafts += 1
        return "tmp", self._drafts

    def read_manifest(self):
        return self._read(MANIFEST, Manifest)

    def read_mark(self):
        """Of which store this is a backup; None if it is none."""
        mark = self._read(BACKUP, tuple)
        return mark[1] if mark is not None else None

    def _read(self, name, kind):
        file = self.root.names.get(name)
        if file is None:
            return None
        if type(file.cells[0]) is not kind:
            raise Damage(f"{name} cannot be read")
        return file.cells[0]

    def is_backup(self, manifest):
        return manifest is not None and self.read_mark() == manifest.store

    def check_tables(self, manifest):
        """Every table that the manifest names is there, and is that table."""
        for table in manifest.tables:
            if not self.has(table):
                raise Damage(f"{table} is missing")

    def has(self, table):
        file = self.tables.names.get(table.name)
        return file is not None and file.cells == table.parts

    # -- writing -----------------------------------------------------------------------------------

    def put(self, draft, name, value, *, synced=True, settled=True):
        """Write a file of one cell beside its place, sync it, and put it there."""
        self.write_beside(draft, value, synced=synced)
        self.put_in_place(draft, name, settled=settled)

    def write_beside(self, draft, value, *, synced=True):
        root = self.root
        if draft in root.names:
            root.remove(draft)
        file = root.create(draft, 1)
        self.disk.write(file, 0, [value])
        if synced:
            self.disk.sync(file)

    def put_in_place(self, draft, name, *, settled=True):
        self.root.rename(draft, name)
        if settled:
            self.root.sync()

    def write_manifest(self, manifest, rules):
        synced, settled = rules.sync_manifest, rules.sync_root
        self.put(MANIFEST_NEW, MANIFEST, manifest, synced=synced, settled=settled)

    def begin_log(self, after):
        """An empty log whose entries follow on an id."""
        log = self.log
        file = log.names.get(MARKER_NEW) or log.create(MARKER_NEW, LogMarker(1))
        self.disk.write(file, 0, [after])
        self.disk.sync(file)
        self.log.rename(MARKER_NEW, MARKER)
        self.log.sync()

    def remove_all(self, directory):
        for name in list(directory.names):
            directory.remove(name)
        try:
            directory.sync()
        except Failed:
            # Assumed here alone: that the next sync covers a removal after one that failed. What
            # is not there any more cannot be removed again.
            for change in directory.changes:
                change[3] = change[3] and change[1] is not None
            raise

    def make_table(self, number, ids, *, synced=True):
        """A table, and the name of its file, which counts for nothing yet."""
        table, draft = Table(number, ids), self.draft()
        file = self.tables.create(draft, 2)
        self.disk.write(file, 0, table.parts)
        if synced:
            self.disk.sync(file)
        return table, draft

    def discard(self, names):
        """Remove tables, as far as that can be done: the next opening does the rest."""
        for name in names:
            if name in self.tables.names:
                with suppress(Failed):
                    self.tables.remove(name)


class OpenLog:
    """The store's log while it is open."""

    def __init__(self, place):
        self.disk = place.disk
        names = place.log.names
        if MARKER not in names and SEGMENT in names:
            raise Damage("the log has no marker, but a segment")
        if MARKER not in names or (SEGMENT not in names and names[MARKER].cells == [0]):
            place.begin_log(0)
        self.marker = names[MARKER]
        self.disk.write(self.marker, 0, self.marker.cells[:])
        self.disk.sync(self.marker)
        if SEGMENT not in names:
            place.log.create(SEGMENT, LogFile())
        try:
            place.log.sync()
        except Failed:
            # The log itself would begin another segment now. This one's name gets its sync then.
            for change in place.log.changes:
                change[3] = change[3] and change[1] != SEGMENT
            raise
        self.file = names[SEGMENT]
        self.file.durable = self.file.written = len(self.file.entries)

    @property
    def passed(self):
        return self.marker.cells[0]

    @property
    def last(self):
        return max([self.passed, *self.file.entries[-1:]])

    def write(self, ids, *, synced):
        """Append entries. They are known to be durable where this returns."""
        self.file.entries += ids
        if synced is not None:
            self._count("write to the log")
            self.file.written = len(self.file.entries)
        if synced:
            self.sync()

    def sync(self):
        self._count("sync the log")
        self.file.durable = self.file.written = len(self.file.entries)

    def _count(self, what):
        try:
            self.disk.count(what)
        except Failed:
            raise Latched from None

    def pass_to(self, last):
        """Move the marker, durably; then the entries up to it are gone."""
        self.disk.write(self.marker, 0, [last])
        self.disk.sync(self.marker)
        file = self.file
        gone = sum(id <= last for id in file.entries)
        del file.entries[:gone]
        file.durable, file.written = max(0, file.durable - gone), max(0, file.written - gone)
