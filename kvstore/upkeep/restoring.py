"""Backups as stores: what marks one, how it is read, and how it becomes a store of its own.

::

    backup/  BACKUP  MANIFEST  tables/{number:012d}.table  LOCK

A backup is a store whose log has not been begun: its manifest says up to which entry its tables
hold everything, and there is nothing behind that. So one rename, that of the manifest, takes a
backup from one state to the next. It has the store's own id, for it *is* the store, as of that
entry.

``BACKUP`` names that id. A directory is a backup for as long as this is the id in its manifest.
Opening it for reading changes nothing. Opening it for writing makes it a store of its own, whose
entries are another continuation: so it gets an id of its own, and no backup of the first store can
go on in it. Each step of :func:`restore` leaves, after a crash,

=================================  =============================================================
after                              a crash leaves
=================================  =============================================================
``wal/`` is emptied                a backup; what was there is left of an attempt like this
the log is begun                   a backup; the log in it does not count
the manifest has the new id        the backup, or the new store without entries, its log begun
``BACKUP`` is removed              the new store; a ``BACKUP`` that comes back names another id
=================================  =============================================================
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Final

from kvstore.directory import BACKUP, LOCK, LOG, Directory
from kvstore.errors import CorruptStoreError, translate
from kvstore.tables.manifest import STORE_ID_BYTES, Manifest, write_manifest
from wal import Configuration, WalError, WriteAheadLog
from wal.files import MemoryFileSystem

MARK: Final = BACKUP
MARK_DRAFT: Final = "BACKUP.new"
_TEXT: Final = b"kvstore: a backup of the store %s\n"


def encode_mark(store_id: bytes) -> bytes:
    r"""What ``BACKUP`` says.

    >>> encode_mark(bytes(16))
    b'kvstore: a backup of the store 00000000000000000000000000000000\n'
    """
    return _TEXT % store_id.hex().encode()


def read_mark(directory: Directory) -> bytes | None:
    """The store id in ``BACKUP``, None if there is none; CorruptStoreError if it is damaged."""
    path = os.path.join(directory.path, MARK)
    try:
        file = directory.files.open(path, writable=False)
    except FileNotFoundError:
        return None
    try:
        text = file.read_at(0, file.size())
    finally:
        file.close()
    head = len(_TEXT) - len("%s\n")
    try:
        store_id = bytes.fromhex(text[head:].decode())
    except ValueError:
        store_id = b""
    if len(store_id) != STORE_ID_BYTES or text != encode_mark(store_id):
        raise CorruptStoreError(path, 0, "it does not say of which store this is a backup")
    return store_id


def is_backup(directory: Directory, manifest: Manifest) -> bool:
    """Whether a directory is a backup that nobody has written to."""
    return read_mark(directory) == manifest.store_id


def directory_of_log(directory: Directory, manifest: Manifest) -> Directory:
    """The directory with the log that belongs to a manifest, to read it: usually the same.

    For a backup it is one in memory, with an empty log that ends where the tables do; so it is for
    a store whose creation has not come to its log yet, or never did.
    """
    begun = directory.files.exists(directory.log) or not manifest.is_fresh
    if begun and not is_backup(directory, manifest):
        return directory
    files = MemoryFileSystem()
    WriteAheadLog.begin(Configuration(LOG, files), manifest.last_entry_id)
    return Directory(files, "")


def restore(directory: Directory, manifest: Manifest) -> Manifest:
    """Before a store is written to: make a backup a store of its own. The manifest to go on with.

    Does nothing to what is no backup. The directory is locked, and its manifest was read.
    """
    mark = read_mark(directory)
    if mark is None:
        return manifest
    if mark == manifest.store_id:
        _begin_log(directory, manifest.last_entry_id)
        manifest = replace(manifest, store_id=Manifest().store_id)  # a new one
    # Even if it was there already: the one before it, which may be what is durable, made the
    # directory a backup, whose log does not count.
    write_manifest(directory.files, directory.path, manifest)
    directory.files.remove(os.path.join(directory.path, MARK))
    directory.files.sync_directory(directory.path)
    return manifest


def _begin_log(directory: Directory, last_entry_id: int) -> None:
    files = directory.files
    files.make_directory(directory.log)
    for name in files.list(directory.log):
        if name != LOCK:
            files.remove(os.path.join(directory.log, name))
    files.sync_directory(directory.log)
    try:
        WriteAheadLog.begin(Configuration(directory.log, files), last_entry_id)
    except WalError as error:
        raise translate(error) from error
