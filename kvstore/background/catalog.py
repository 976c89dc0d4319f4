"""The catalog: the manifest, the runs of tables that it names, and how both are changed.

A change adds a run at the front (a checkpoint) or puts one in the place of some neighbours (a
compaction). Each is durable before a reader sees it, in an order that makes any crash harmless:

==========================================  ====================================================
after                                       a crash leaves
==========================================  ====================================================
the tables are written and synced           ``tmp-`` files: removed at the next opening
they have their numbers                     files that no manifest names: the same
``tables/`` is synced                       the same
the manifest is renamed                     the old manifest or the new one, each with its tables
the store's directory is synced             the new manifest; the log replays what it skips
readers see the new runs                    –
replaced tables are removed, one by one,    files that no manifest names
when their last reader has let go
==========================================  ====================================================

Where writing the manifest fails it is unknown which of the two is there. Then nothing is removed
that either names, until a later change has succeeded. The same holds after an opening: the manifest
that was read may not be durable yet (:meth:`Catalog.settle`).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import chain
from types import MappingProxyType

from kvstore.background.building import Built
from kvstore.directory import Directory, is_temporary
from kvstore.tables.cache import Cache
from kvstore.tables.manifest import (
    Manifest,
    Records,
    put_in_place,
    write_beside,
    write_manifest,
)
from kvstore.tables.records import TableRecord, number_of
from kvstore.tables.runs import SortedRun
from kvstore.tables.table import Table

Runs = tuple[SortedRun, ...]
Publish = Callable[[Runs, "int | None"], object]
"""Shows readers new runs, and drops what is in memory of log segments up to an id (None: none)."""

NO_TABLES: Mapping[TableRecord, Table] = MappingProxyType({})


class Catalog:
    """The manifest and its runs. Making one does no I/O; tables are opened when they are touched.

    ``_lock`` makes one change at a time: it is held during I/O, and ``publish`` is called inside
    it. ``manifest`` and ``runs`` are replaced as a whole and read without it.
    """

    def __init__(
        self,
        directory: Directory,
        manifest: Manifest,
        cache: Cache,
        known: Mapping[TableRecord, Table] = NO_TABLES,
    ) -> None:
        """``known`` are tables that a former catalog of the same store has open."""
        self.directory = directory
        self.manifest = manifest
        self._cache = cache
        self.runs: Runs = tuple(
            SortedRun([known.get(record) or self._table(record) for record in run])
            for run in manifest.runs
        )
        self._lock = threading.Lock()
        self._publish: Publish = lambda runs, segment_id: None
        self._bury: Callable[[str], object] = lambda path: None
        self._next_number = manifest.next_number
        self._settled = False
        self._orphans: list[str] = []  # which opening found, and has yet to remove
        self._doubtful: list[
            str
        ] = []  # named by a manifest of which it is not known if it is there
        self.checkpoint_bytes = 0
        """What was written into tables made from the log."""
        self.merge_bytes = 0
        """What was written into tables made from tables."""

    def attach(self, publish: Publish, bury: Callable[[str], object]) -> None:
        """Say who shows new runs to readers, and who removes the files of tables let go of.

        ``bury`` is called by finalizers: it must do no more than put the path into a queue.
        """
        self._publish = publish
        self._bury = bury

    def tables(self) -> dict[TableRecord, Table]:
        """All tables, by what the manifest says of them."""
        return {table.record: table for run in self.runs for table in run.tables}

    def present(self) -> tuple[Manifest, Runs]:
        """The manifest and the runs that it names. Waits for a change that is under way."""
        with self._lock:
            return self.manifest, self.runs

    def open_tables(self) -> None:
        """Open every file now: a writer may remove them. CorruptStoreError where one is missing."""
        for table in self.tables().values():
            table.open()

    # -- changes -----------------------------------------------------------------------------------

    def add(self, built: Sequence[Built], last_entry_id: int, segment_id: int) -> None:
        """Add the run of a checkpoint: what the log holds up to an entry. Empty: no new run."""
        with self._lock:
            tables = self._install_locked(built)
            runs = (SortedRun(tables), *self.runs) if tables else self.runs
            self._change_locked(runs, last_entry_id, segment_id, tables)
            self.checkpoint_bytes += sum(table.record.size for table in tables)

    def replace(self, old: Runs, parts: Sequence[Table | Built]) -> None:
        """Put one run, of some of the old tables and new ones, ascending, in the place of others.

        The others are neighbours. The tables of theirs that are not among the parts are removed
        when nobody reads them any more.
        """
        with self._lock:
            first = self.runs.index(old[0])
            assert self.runs[first : first + len(old)] == old
            fresh = self._install_locked([part for part in parts if isinstance(part, Built)])
            rest = iter(fresh)
            tables = [next(rest) if isinstance(part, Built) else part for part in parts]
            run = (SortedRun(tables),) if tables else ()
            runs = (*self.runs[:first], *run, *self.runs[first + len(old) :])
            self._change_locked(runs, self.manifest.last_entry_id, None, fresh)
            self.merge_bytes += sum(table.record.size for table in fresh)
            for table in {*chain.from_iterable(each.tables for each in old)} - {*tables}:
                table.retire(self._bury)

    def settle(self) -> None:
        """Make sure that the manifest is durable, not just there, before anything rests on it.

        The process that wrote it may have been killed before it synced the directory.
        """
        with self._lock:
            if not self._settled:
                write_manifest(self.directory.files, self.directory.path, self.manifest)
                self._settled = True

    def _change_locked(
        self, runs: Runs, last_entry_id: int, segment_id: int | None, fresh: list[Table]
    ) -> None:
        records: tuple[Records, ...] = tuple(
            tuple(table.record for table in run.tables) for run in runs
        )
        manifest = self.manifest.with_runs(records, last_entry_id)
        manifest = replace(manifest, next_number=self._next_number)
        paths = [table.path for table in fresh]
        try:
            write_beside(self.directory.files, self.directory.path, manifest)
        except BaseException:
            self._remove(paths)
            raise
        doubtful, self._doubtful = self._doubtful, [*self._doubtful, *paths]
        put_in_place(self.directory.files, self.directory.path)
        self._settled = True
        self._doubtful = []
        self.manifest = manifest
        self.runs = runs
        self._publish(runs, segment_id)
        self._remove(doubtful)

    # -- files -------------------------------------------------------------------------------------

    def _table(self, record: TableRecord) -> Table:
        return Table(self.directory.files, self.directory.tables, record, self._cache)

    def _install_locked(self, built: Sequence[Built]) -> list[Table]:
        """Give new tables their numbers and names, durably. An error leaves none of them."""
        files, directory = self.directory.files, self.directory.tables
        tables = []
        try:
            for each in built:
                table = self._table(replace(each.record, number=self._next_number))
                self._next_number += 1  # for good: no number is tried twice
                files.rename(os.path.join(directory, each.name), table.path)
                tables.append(table)
            if tables:
                files.sync_directory(directory)
        except BaseException:
            self._remove([table.path for table in tables])
            self.discard(built[len(tables) :])
            raise
        return tables

    def discard(self, built: Sequence[Built]) -> None:
        """Remove tables that are not wanted after all, as far as that can be done."""
        self._remove([os.path.join(self.directory.tables, each.name) for each in built])

    def _remove(self, paths: Sequence[str]) -> None:
        for path in paths:
            with suppress(OSError):  # an orphan, which the next opening removes
                self.directory.files.remove(path)

    def find_orphans(self) -> None:
        """See what crashes left in ``tables/``. At a writer's opening, before anything is added."""
        named = {record.name for record in self.manifest.tables}
        for name in self.directory.files.list(self.directory.tables):
            number = number_of(name)
            if number is not None:
                self._next_number = max(self._next_number, number + 1)
            if name not in named and (number is not None or is_temporary(name)):
                self._orphans.append(os.path.join(self.directory.tables, name))

    def remove_orphans(self) -> None:
        """Remove what was found. Only when the log has shown that the manifest is the present one.

        Next to an older one, which somebody put back, these may be the tables that count.
        """
        if any(number_of(os.path.basename(path)) is not None for path in self._orphans):
            # The manifest before this one, which a power loss may bring back, can name them.
            self.settle()
        self._remove(self._orphans)
        self._orphans = []
