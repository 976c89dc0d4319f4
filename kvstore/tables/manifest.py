r"""The manifest: which tables are the store's checkpoint, and up to which log entry.

It is replaced as a whole: written beside the old one, synced, renamed over it, the directory
synced. A crash leaves the old one or the new one. All integers little-endian::

    magic "KVSM"  u8 version=2  3 zero bytes  u32 length  payload  u32 crc32c(all before)

The crc is checked first, then the version: a newer manifest is a FormatVersionError, never taken
for damage, and damage is never taken for a newer one. The payload is a msgpack map::

    store_id        16 random bytes, of this store alone
    last_entry_id   every log entry up to this one is in the tables
    next_number     above the number of every table there ever was: none is used twice
    clearing        true while the log and all tables are being removed (flag "n")
    runs            newest first; each the list of its tables, ascending by key, each as
                    kvstore.tables.records packs it

A newer run's keys hide those of older ones. Unknown names in the map are passed over.
"""

from __future__ import annotations

import os
import struct
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Final

import msgpack
from crc32c import crc32c

from kvstore.errors import CorruptStoreError, FormatVersionError
from kvstore.tables.format import DamageError
from kvstore.tables.records import MOST_NUMBER, TableRecord
from wal.files import FileSystem
from wal.untrusted import is_affordable

NAME: Final = "MANIFEST"
TEMPORARY: Final = "MANIFEST.new"
VERSION: Final = 3
STORE_ID_BYTES: Final = 16

_MAGIC: Final = b"KVSM"
_HEAD: Final = struct.Struct("<4sB3xI")
_CRC: Final = struct.Struct("<I")

Records = tuple[TableRecord, ...]


def _new_store_id() -> bytes:
    return os.urandom(STORE_ID_BYTES)


@dataclass(frozen=True)
class Manifest:
    """What a MANIFEST file says. The default is that of a new store.

    >>> manifest = Manifest(last_entry_id=7, next_number=2)
    >>> Manifest.decode(manifest.encode()) == manifest
    True
    """

    store_id: bytes = field(default_factory=_new_store_id)
    last_entry_id: int = 0
    runs: tuple[Records, ...] = ()
    next_number: int = 1
    clearing: bool = False

    @property
    def is_fresh(self) -> bool:
        """Whether it is as at the store's creation: there need not be a log yet."""
        return not (self.last_entry_id or self.runs or self.clearing) and self.next_number == 1

    @property
    def tables(self) -> Records:
        """The tables of all runs."""
        return tuple(chain.from_iterable(self.runs))

    def with_runs(self, runs: tuple[Records, ...], last_entry_id: int) -> Manifest:
        """The one that follows when these runs hold everything up to ``last_entry_id``."""
        highest = max((record.number for record in chain.from_iterable(runs)), default=0)
        next_number = max(self.next_number, highest + 1)
        return replace(self, last_entry_id=last_entry_id, runs=runs, next_number=next_number)

    def encode(self) -> bytes:
        """The file's bytes."""
        payload: bytes = msgpack.packb(
            {
                "store_id": self.store_id,
                "last_entry_id": self.last_entry_id,
                "next_number": self.next_number,
                "clearing": self.clearing,
                "runs": [[record.pack() for record in run] for run in self.runs],
            }
        )
        frame = _HEAD.pack(_MAGIC, VERSION, len(payload)) + payload
        return frame + _CRC.pack(crc32c(frame))

    @classmethod
    def decode(cls, data: bytes) -> Manifest:
        """A manifest from its file's bytes; DamageError, or FormatVersionError."""
        payload = _unpack(_payload_of(data))
        store_id, clearing, runs = map(payload.get, ("store_id", "clearing", "runs"))
        if not isinstance(store_id, bytes) or len(store_id) != STORE_ID_BYTES:
            raise DamageError("the manifest has no store id")
        if not isinstance(clearing, bool):
            raise DamageError("the manifest's flag is not a boolean")
        if not isinstance(runs, list) or not all(isinstance(run, list) and run for run in runs):
            raise DamageError("the manifest has no lists of tables")
        manifest = cls(
            store_id,
            _natural(payload.get("last_entry_id")),
            tuple(tuple(map(TableRecord.unpack, run)) for run in runs),
            _natural(payload.get("next_number")),
            clearing,
        )
        return _checked(manifest)


def _checked(manifest: Manifest) -> Manifest:
    numbers = [record.number for record in manifest.tables]
    if len(set(numbers)) != len(numbers) or max(numbers, default=0) >= manifest.next_number:
        raise DamageError("the manifest's table numbers contradict each other")
    return manifest


def _payload_of(data: bytes) -> bytes:
    frame, crc = data[: -_CRC.size], data[-_CRC.size :]
    if len(frame) < _HEAD.size or crc != _CRC.pack(crc32c(frame)):
        raise DamageError("the manifest's checksum does not match")
    magic, version, length = _HEAD.unpack_from(frame)
    if magic != _MAGIC:
        raise DamageError("not a manifest")
    if version != VERSION:
        raise FormatVersionError(f"the manifest has format version {version}; known is {VERSION}")
    if length != len(frame) - _HEAD.size:
        raise DamageError("the manifest has another length than it says")
    return frame[_HEAD.size :]


def _unpack(payload: bytes) -> dict[object, object]:
    """Decode msgpack, taking no more memory than its length warrants."""
    size = len(payload)
    if not is_affordable(payload, size):
        raise DamageError("the manifest is not valid msgpack: arrays in arrays")
    try:
        value = msgpack.unpackb(
            payload,
            max_bin_len=size,
            max_str_len=size,
            max_array_len=size,
            max_map_len=size,
            max_ext_len=0,
        )
    except (ValueError, RecursionError, msgpack.exceptions.StackError) as error:
        raise DamageError(f"the manifest is not valid msgpack: {error}") from None
    if not isinstance(value, dict):
        raise DamageError("the manifest's payload is not a map")
    return value


def _natural(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MOST_NUMBER:
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
    write_beside(files, directory, manifest)
    put_in_place(files, directory)


def write_beside(files: FileSystem, directory: str, manifest: Manifest) -> None:
    """The first half of it: after an error the old manifest is there for certain."""
    path = os.path.join(directory, TEMPORARY)
    with suppress(FileNotFoundError):
        files.remove(path)  # of an attempt that failed
    file = files.create(path)
    try:
        file.write_at(0, [manifest.encode()])
        file.sync()
    finally:
        file.close()


def put_in_place(files: FileSystem, directory: str) -> None:
    """The second half: after an error either may be there, now or after a power loss."""
    files.rename(os.path.join(directory, TEMPORARY), os.path.join(directory, NAME))
    files.sync_directory(directory)
