"""Backups: an online, consistent, verified copy of a store in another directory.

The store has put everything into tables before. They never change, so nobody has to wait while they
are linked or copied: it is enough that whoever calls :func:`back_up` holds them. The log is not
copied. What makes a directory a backup, and a backup a store again, is in
:mod:`kvstore.upkeep.restoring`.

A backup in the directory of an earlier one of the same store takes over the tables that are there
already, and brings the others. A crash leaves, after

=======================================  ========================================================
the directory is made and locked         an empty directory, but for ``LOCK``
``BACKUP.new`` is written and synced     the same
``BACKUP`` has its name, synced          a backup that is not complete: no store, refused as such
tables are linked, or copied and synced  the earlier backup, or one that is not complete; files in
                                         ``tables/`` that its manifest does not name
``tables/`` is synced                    the same
the new ones are read and verified       the same; the next attempt takes them over
``MANIFEST.new`` is written and synced   the same
``MANIFEST`` has its name, synced        the earlier backup or the new one, each with its tables
other tables are removed                 the new backup; files that no manifest names
=======================================  ========================================================

Each of them can be backed up into again.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from kvstore.directory import LOCK, Directory, is_temporary, temporary_name
from kvstore.errors import CorruptStoreError, StoreError, StoreFailedError
from kvstore.tables.cache import Cache
from kvstore.tables.manifest import NAME, Manifest, Records, read_manifest, write_manifest
from kvstore.tables.records import TableRecord, number_of
from kvstore.tables.runs import SortedRun
from kvstore.tables.table import Table
from kvstore.upkeep.restoring import MARK, MARK_DRAFT, encode_mark, read_mark
from wal.files import File

_PIECE: Final = 1 << 20
_CACHE_BYTES: Final = 8 << 20


def back_up(source: Directory, manifest: Manifest, runs: Sequence[SortedRun], path: str) -> None:
    """Make the directory at ``path`` a backup of what a manifest of the store says.

    ``runs`` are the manifest's. They are held until this returns, so their files stay.

    Raises StoreError where the directory is in the store, or holds something else than a backup of
    this store to which nobody has written; StoreLockedError while another has it open;
    CorruptStoreError for damage, in the store or what was there; StoreFailedError for want of
    room, and whatever else the operating system refuses. Then the earlier backup is as it was.
    """
    target = Directory(source.files, source.files.resolve(path))
    _check_is_elsewhere(source, target)
    try:
        target.files.make_directory(target.path)
        _check_may_write(target, manifest)  # before even a LOCK is left there
        lock = target.lock(0.0)
        try:
            _Backup(source, target, manifest).write(runs)
        finally:
            lock.release()
    except StoreError:
        raise
    except OSError as error:
        message = f"{target.path}: the backup failed: {error}"
        raise StoreFailedError(message, error.errno, latched=False) from error


# ------------------------------------------------------------------ whether


def _check_is_elsewhere(source: Directory, target: Directory) -> None:
    """Another spelling of the same directory, which this does not see, is locked."""
    own, other = (os.path.normpath(os.path.join(os.sep, each.path)) for each in (source, target))
    if other == own or other.startswith(own + os.sep):
        raise StoreError(f"{target.path}: a store cannot be backed up into itself")


def _check_may_write(target: Directory, manifest: Manifest) -> Manifest | None:
    """The manifest of the earlier backup that is there, None if there is none."""
    names = set(target.files.list(target.path)) - {LOCK, MARK_DRAFT}
    if not names:
        return None
    mark = read_mark(target)
    if mark is None:
        what = "a store, not a backup" if NAME in names else "not empty, and not a backup"
        raise StoreError(f"{target.path}: {what}")
    if mark != manifest.store_id:
        raise StoreError(f"{target.path}: a backup of another store")
    earlier = read_manifest(target.files, target.path)
    if earlier is not None and earlier.store_id != mark:
        raise StoreError(f"{target.path}: not a backup any more: it was opened for writing")
    if earlier is not None and earlier.last_entry_id > manifest.last_entry_id:
        raise StoreError(
            f"{target.path}: the backup goes up to entry {earlier.last_entry_id}, "
            f"beyond the store, which ends at {manifest.last_entry_id}"
        )
    return earlier


# ------------------------------------------------------------------ how


class _Backup:
    """One backup in progress; the target is locked."""

    def __init__(self, source: Directory, target: Directory, manifest: Manifest) -> None:
        self._files = target.files
        self._source = source
        self._target = target
        self._manifest = manifest
        self._cache = Cache(_CACHE_BYTES)

    def write(self, runs: Sequence[SortedRun]) -> None:
        """All steps."""
        earlier = _check_may_write(self._target, self._manifest)
        if earlier is None:
            self._write_mark()
        self._files.make_directory(self._target.tables)
        tables = [table for run in runs for table in run.tables]
        self._bring_tables(tables, earlier.tables if earlier is not None else ())
        write_manifest(self._files, self._target.path, self._manifest)
        self._remove_others()

    def _write_mark(self) -> None:
        draft = os.path.join(self._target.path, MARK_DRAFT)
        with suppress(FileNotFoundError):
            self._files.remove(draft)
        file = self._files.create(draft)
        try:
            file.write_at(0, [encode_mark(self._manifest.store_id)])
            file.sync()
        finally:
            file.close()
        self._files.rename(draft, os.path.join(self._target.path, MARK))
        self._files.sync_directory(self._target.path)

    # -- tables ------------------------------------------------------------------------------------

    def _bring_tables(self, tables: Sequence[Table], kept: Records) -> None:
        known = set(kept)
        left = set(self._files.list(self._target.tables))
        for table in tables:
            record = table.record
            if not (
                (record in known and self._is_sound(record))
                or (record.name in left and self._take_over(record))
            ):
                self._bring(table)
        self._files.sync_directory(self._target.tables)

    def _is_sound(self, record: TableRecord) -> bool:
        """Whether a table of the earlier backup has its length and its footer."""
        table = self._table(self._target, record)
        try:
            table.open()
        except CorruptStoreError:
            return False
        finally:
            table.close()
        return True

    def _take_over(self, record: TableRecord) -> bool:
        """Whether what an attempt that did not get far left is the whole table. Else it goes."""
        path, draft = self._path(record.name), self._draft()
        # Should that have failed to sync the name, only a new name will be covered by a sync.
        self._files.rename(path, draft)
        self._files.rename(draft, path)
        try:
            self._verify(record)
        except CorruptStoreError:
            self._files.remove(path)
            return False
        return True

    def _bring(self, table: Table) -> None:
        """Link or copy a table, and verify it."""
        path = self._path(table.record.name)
        with suppress(FileNotFoundError):
            self._files.remove(path)  # a damaged one
        try:
            draft = self._linked(table.path) or self._copied(table.path)
        except FileNotFoundError as error:
            raise CorruptStoreError(table.path, 0, "the table is missing") from error
        self._files.rename(draft, path)
        try:
            self._verify(table.record)
        except CorruptStoreError:
            self._files.remove(path)
            # Is it damaged in the store already? Then that is the file to name.
            self._verify(table.record, self._source)
            raise

    def _linked(self, path: str) -> str | None:
        draft = self._draft()
        try:
            self._files.link(path, draft)
        except (OSError, NotImplementedError):
            return None
        return draft

    def _copied(self, path: str) -> str:
        draft = self._draft()
        original = self._files.open(path, writable=False)
        try:
            copy = self._files.create(draft)
            try:
                _copy(original, copy)
            except BaseException:
                copy.close()
                with suppress(OSError):
                    self._files.remove(draft)  # it may take up the last room there is
                raise
            copy.close()
        finally:
            original.close()
        return draft

    def _verify(self, record: TableRecord, where: Directory | None = None) -> None:
        table = self._table(where or self._target, record)
        try:
            table.verify()
        finally:
            table.close()

    def _remove_others(self) -> None:
        """Remove the tables that only the earlier backup had, and what was left behind."""
        named = {record.name for record in self._manifest.tables}
        for name in self._files.list(self._target.tables):
            if name not in named and (is_temporary(name) or number_of(name) is not None):
                with suppress(PermissionError):  # open in a reader, where that matters: next time
                    self._files.remove(self._path(name))

    def _table(self, where: Directory, record: TableRecord) -> Table:
        return Table(self._files, where.tables, record, self._cache)

    def _path(self, name: str) -> str:
        return os.path.join(self._target.tables, name)

    def _draft(self) -> str:
        return self._path(temporary_name())


def _copy(original: File, copy: File) -> None:
    for at in range(0, original.size(), _PIECE):
        copy.write_at(at, [original.read_at(at, _PIECE)])
    copy.sync()
