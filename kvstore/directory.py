"""A store's directory: what is in it, how it comes to be, and how it is emptied.

::

    my.db/  LOCK  MANIFEST  wal/…  tables/{number:012d}.table

A directory is a store from the moment that it has a manifest. That is written before the log is
begun, so a log without a manifest is damage, while a crash during creation leaves the beginnings of
a store, which the next opening completes. Emptying (flag ``"n"``) first puts a manifest in place
that says so; an opening that finds it goes on with it.
"""

from __future__ import annotations

import os
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from typing import Final

from kvstore.errors import CorruptStoreError, StoreError, StoreLockedError, StoreNotFoundError
from kvstore.tables import manifest as manifests
from kvstore.tables.manifest import Manifest, read_manifest, write_manifest
from wal import LogLockedError
from wal.files import FileSystem, Lock

LOCK: Final = "LOCK"
LOG: Final = "wal"
TABLES: Final = "tables"
BACKUP: Final = "BACKUP"
"""Marks a backup; see :mod:`kvstore.upkeep.restoring`."""
_PARTS: Final = frozenset({LOCK, LOG, TABLES, manifests.NAME, manifests.TEMPORARY})
_TEMPORARY: Final = "tmp-"


def temporary_name() -> str:
    """A name for a table that is being built, which nobody else uses, in no process."""
    return temporary_prefix(os.getpid()) + os.urandom(8).hex()


def temporary_prefix(pid: int) -> str:
    """How all such names of a process begin."""
    return f"{_TEMPORARY}{pid}-"


def is_temporary(name: str) -> bool:
    """Whether it is such a name, perhaps given by a process that is gone.

    >>> is_temporary(temporary_name()), is_temporary("000000000001.table")
    (True, False)
    """
    return name.startswith(_TEMPORARY)


@dataclass(frozen=True)
class Directory:
    """A path on a file system where a store is, or may come to be."""

    files: FileSystem
    path: str

    @property
    def log(self) -> str:
        """Where the log is."""
        return os.path.join(self.path, LOG)

    @property
    def tables(self) -> str:
        """Where the tables are."""
        return os.path.join(self.path, TABLES)

    def lock(self, timeout: float) -> Lock:
        """Become the store's only writer, or StoreLockedError."""
        path = os.path.join(self.path, LOCK)
        try:
            return self.files.lock(path, timeout)
        except LogLockedError as error:
            raise StoreLockedError(path, error.pid) from error

    def check_may_open(self, flag: str) -> None:
        """Before anything is written: raise where the flag does not allow to go on."""
        names = self._names(self.path)
        is_store = manifests.NAME in names
        if flag in "rw":
            if not is_store and not self._holds_data():
                raise StoreNotFoundError(self.path)
        elif not is_store and not names <= _PARTS:
            raise StoreError(f"{self.path}: not empty, and not a store")

    def read(self) -> Manifest:
        """The manifest of a store that must have one."""
        manifest = read_manifest(self.files, self.path)
        if manifest is None:
            if BACKUP in self._names(self.path):
                raise StoreError(f"{self.path}: a backup that was not completed: repeat it")
            path = os.path.join(self.path, manifests.NAME)
            raise CorruptStoreError(path, 0, "the manifest is missing")
        return manifest

    def check_log_exists(self, manifest: Manifest) -> None:
        """CorruptStoreError where the manifest says that there was a log, and there is none."""
        if manifest.is_fresh or self._names(self.log) - {LOCK}:
            return
        if BACKUP in self._names(self.path):  # a store that was a backup has begun its log
            path = os.path.join(self.path, BACKUP)
            reason = "it is not of the store that the manifest is of, and there is no log"
            raise CorruptStoreError(path, 0, reason)
        raise CorruptStoreError(self.log, 0, "the log is missing")

    def prepare(self, flag: str) -> Manifest:
        """The manifest to go on with. Creates what is missing, empties what is to be emptied."""
        if flag == "n" and (self._names(self.path) - {LOCK}):
            found: Manifest | None = Manifest(clearing=True)
        else:
            found = read_manifest(self.files, self.path)
        if found is None and self._holds_data():
            return self.read()
        if found is not None and found.clearing:
            # Even if it was there already: where a sync failed, the one before it is durable.
            write_manifest(self.files, self.path, found)
        self.files.make_directory(self.tables)
        if found is not None and found.clearing:
            self._clear()
        if found is None or found.clearing:
            found = Manifest()
        if found.is_fresh:
            # Even if it was there already: what is durable may be none, or one that says clearing,
            # and this is a store only from now on.
            write_manifest(self.files, self.path, found)
        return found

    def _clear(self) -> None:
        for directory in (self.log, self.tables):
            for name in self._names(directory) - {LOCK}:
                # What a child of a killed writer has open cannot be removed everywhere; let it be.
                with suppress(PermissionError) if is_temporary(name) else nullcontext():
                    self.files.remove(os.path.join(directory, name))
            if self.files.exists(directory):
                self.files.sync_directory(directory)

    def _holds_data(self) -> bool:
        """Whether there is a log or a table."""
        return bool((self._names(self.log) | self._names(self.tables)) - {LOCK})

    def _names(self, directory: str) -> set[str]:
        return set(self.files.list(directory)) if self.files.exists(directory) else set()
