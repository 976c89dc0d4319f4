"""The manifest: which tables are the store's checkpoint, and up to which log entry.

It is replaced as a whole: written beside the old one, synced, renamed over it, the directory
synced. A crash leaves the old one or the new one. The payload is a map::

    last_entry_id   every log entry up to this one is in the tables
    next_number     the number of the next table: no number is used twice
    clearing        true while the log and all tables are being removed (flag "n")
    tables          newest first, each [number, size, crc]
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final

from kvstore.errors import CorruptStoreError
from kvstore.tables.format import DamageError, decode_manifest, encode_manifest
from kvstore.tables.table import Table, TableRecord
from wal.files import FileSystem

NAME: Final = "MANIFEST"
TEMPORARY: Final = "MANIFEST.new"


@dataclass(frozen=True)
class Manifest:
    """What a MANIFEST file says.

    >>> manifest = Manifest(last_entry_id=7, tables=(TableRecord(1, 1000, 5),), next_number=2)
    >>> Manifest.decode(manifest.encode()) == manifest
    True
    """

    last_entry_id: int = 0
    tables: tuple[TableRecord, ...] = ()
    next_number: int = 1
    clearing: bool = False

    def with_tables(self, tables: tuple[Table, ...], last_entry_id: int) -> Manifest:
        """The one that follows when these tables hold everything up to ``last_entry_id``."""
        records = tuple(table.record for table in tables)
        highest = max((record.number for record in records), default=0)
        next_number = max(self.next_number, highest + 1)
        return replace(self, last_entry_id=last_entry_id, tables=records, next_number=next_number)

    def encode(self) -> bytes:
        """The file's bytes."""
        return encode_manifest(
            {
                "last_entry_id": self.last_entry_id,
                "next_number": self.next_number,
                "clearing": self.clearing,
                "tables": [[each.number, each.size, each.crc] for each in self.tables],
            }
        )

    @classmethod
    def decode(cls, data: bytes) -> Manifest:
        """A manifest from its file's bytes; DamageError, or FormatVersionError."""
        payload = decode_manifest(data)
        tables = payload.get("tables")
        if not isinstance(tables, list):
            raise DamageError("the manifest has no list of tables")
        clearing = payload.get("clearing")
        if not isinstance(clearing, bool):
            raise DamageError("the manifest's flag is not a boolean")
        return cls(
            _natural(payload.get("last_entry_id")),
            tuple(map(_record, tables)),
            _natural(payload.get("next_number")),
            clearing,
        )


def _record(value: object) -> TableRecord:
    if not isinstance(value, list) or len(value) != 3:
        raise DamageError("the manifest has a table that is not of three numbers")
    return TableRecord(*map(_natural, value))


def _natural(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise DamageError("the manifest has something else where a number must be")
    return value


def read_manifest(files: FileSystem, directory: str) -> Manifest | None:
    """The manifest of a store, None if it has none. CorruptStoreError if it is damaged."""
    path = os.path.join(directory, NAME)
    try:
        file = files.open(path, writable=False)
    except FileNotFoundError:
        return None
    try:
        return Manifest.decode(file.read_at(0, file.size()))
    except DamageError as damage:
        raise CorruptStoreError(path, damage.offset, damage.reason) from None
    finally:
        file.close()


def write_manifest(files: FileSystem, directory: str, manifest: Manifest) -> None:
    """Replace the manifest. When this returns the new one is durable; after an error it may be."""
    path = os.path.join(directory, TEMPORARY)
    with suppress(FileNotFoundError):
        files.remove(path)  # of an attempt that failed
    file = files.create(path)
    try:
        file.write_at(0, [manifest.encode()])
        file.sync()
    finally:
        file.close()
    files.rename(path, os.path.join(directory, NAME))
    files.sync_directory(directory)
