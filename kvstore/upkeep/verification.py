"""Verifying a store: everything that is on the disk is read, checked, and held against the rest.

It is a look from outside: at a directory, whether somebody has the store open or nobody can open it
any more. Nothing is written, no lock is taken. Damage is collected, not raised: what is damaged is
passed over, and the look goes on with what it does not concern.

First the manifest is read, every table opened and the log read, as often as a writer disturbs it:
when something is wrong and the manifest is not what it was, nothing was proved. What was opened
then stays readable, whatever the writer does, and the tables, which take long, are read at leisure.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from kvstore.directory import Directory
from kvstore.errors import CorruptStoreError, StoreError
from kvstore.keyspaces import directory_bounds
from kvstore.tables.cache import Cache
from kvstore.tables.manifest import NAME, Manifest
from kvstore.tables.records import TableRecord
from kvstore.tables.table import Table
from kvstore.upkeep.checking import LogCheck, decoded_names
from kvstore.upkeep.restoring import is_backup
from kvstore.values import Value
from wal import Configuration, CorruptLogError, LogNotFoundError, WalError
from wal.files import FileSystem, StandardFileSystem

_ATTEMPTS: Final = 20
_CACHE_BYTES: Final = 8 << 20


@dataclass(frozen=True, slots=True)
class Problem:
    """Something acknowledged that is not as it was.

    >>> print(Problem("db/MANIFEST", 0, "the manifest's checksum does not match"))
    db/MANIFEST: offset 0: the manifest's checksum does not match
    """

    path: str
    offset: int
    reason: str

    def __str__(self) -> str:
        return f"{self.path}: offset {self.offset}: {self.reason}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a look at a store has found. ``str`` of it is for people."""

    path: str
    problems: tuple[Problem, ...]
    """Empty if all that was acknowledged is there and sound."""
    orphans: tuple[str, ...]
    """Names in ``tables/`` that do not count: left by a crash, in use, or about to be removed."""
    is_backup: bool
    """Whether it is a backup that nobody has written to."""
    last_entry_id: int
    """The last log entry that the store holds."""
    checkpoint_entry_id: int
    """Every log entry up to this one is in the tables."""
    log_entries: int
    """Entries of the log that could be read, of those that are known to be durable."""
    runs: int
    tables: int
    """Tables that were found sound."""
    table_items: int
    """What they hold, deletions that still hide something included."""
    table_bytes: int
    namespaces: int

    @property
    def ok(self) -> bool:
        """Whether there is no problem."""
        return not self.problems

    def __str__(self) -> str:
        found = "sound" if self.ok else f"DAMAGED, {len(self.problems)} problem(s)"
        lines = [
            f"{self.path}: {found}{' (a backup)' if self.is_backup else ''}",
            f"  entries: up to {self.last_entry_id:,}, of which {self.log_entries:,} in the log",
            f"  tables: {self.tables:,} sound ones in {self.runs:,} runs",
            f"  in them: entries up to {self.checkpoint_entry_id:,}, {self.table_items:,} items",
            f"  namespaces: {self.namespaces:,}",
            *(f"  damaged: {problem}" for problem in self.problems),
        ]
        if self.orphans:
            lines.append(f"  not part of it: {', '.join(self.orphans)}")
        return "\n".join(lines)


def verify(path: str | os.PathLike[str], *, file_system: FileSystem | None = None) -> Report:
    """Verify the store in a directory, be it open, closed, or too damaged to be opened.

    Reads all of it, and changes nothing. Raises StoreNotFoundError where there is no store.

    >>> import kvstore, wal
    >>> files = wal.files.MemoryFileSystem()
    >>> with kvstore.open("db", file_system=files) as db:
    ...     db[b"key"] = b"value"
    >>> report = verify("db", file_system=files)
    >>> report.ok, report.log_entries
    (True, 1)
    """
    files = StandardFileSystem() if file_system is None else file_system
    return verify_store(Directory(files, files.resolve(os.fspath(path))))


def verify_store(directory: Directory) -> Report:
    """As :func:`verify`."""
    directory.check_may_open("r")
    for attempt in range(_ATTEMPTS):
        look = _Look(directory)
        look.read()
        if not look.problems or attempt == _ATTEMPTS - 1 or not look.is_outdated():
            break
        look.close()
    try:
        look.read_tables()
        look.check_names()
        return look.report()
    finally:
        look.close()


class _Look:
    """One look at a store."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self.problems: list[Problem] = []
        self._cache = Cache(_CACHE_BYTES)
        self._manifest: Manifest | None = None
        self._is_backup = False
        self._runs: list[list[Table]] = []  # of those that could be opened
        self._sound: list[TableRecord] = []
        self._orphans: tuple[str, ...] = ()
        self._log: LogCheck | None = None
        self._names: dict[bytes, Value] = {}  # the directory of namespaces
        self._namespaces = 0

    def report(self) -> Report:
        """What was found."""
        checkpoint_id = self._manifest.last_entry_id if self._manifest is not None else 0
        return Report(
            path=self._directory.path,
            problems=tuple(self.problems),
            orphans=self._orphans,
            is_backup=self._is_backup,
            last_entry_id=max(checkpoint_id, self._log.end if self._log is not None else 0),
            checkpoint_entry_id=checkpoint_id,
            log_entries=self._log.entries if self._log is not None else 0,
            runs=len(self._runs),
            tables=len(self._sound),
            table_items=sum(record.items for record in self._sound),
            table_bytes=sum(record.size for record in self._sound),
            namespaces=self._namespaces,
        )

    @contextmanager
    def _noting(self, path: str) -> Iterator[None]:
        """Note what is raised inside as a problem, of that file unless it names another one."""
        try:
            yield
        except (CorruptStoreError, CorruptLogError) as error:
            self._note(error.path, error.offset, error.reason)
        except (StoreError, WalError, OSError) as error:
            self._note(path, 0, str(error))

    def _note(self, path: str, offset: int, reason: str) -> None:
        self.problems.append(Problem(path, offset, reason))

    # -- beside a writer ---------------------------------------------------------------------------

    def read(self) -> None:
        """The manifest, the log, and the tables as far as to open them."""
        directory, path = self._directory, os.path.join(self._directory.path, NAME)
        with self._noting(path):
            self._manifest = directory.read()
            self._is_backup = is_backup(directory, self._manifest)
        manifest = self._manifest
        if manifest is not None and manifest.clearing:
            return  # it is being emptied: what is still there does not count
        if manifest is not None:
            self._open_tables(manifest)
            self._check_ages(manifest, path)
        if not self._is_backup and (manifest is not None or directory.files.exists(directory.log)):
            with self._noting(directory.log):
                self._read_log(manifest)

    def is_outdated(self) -> bool:
        """Whether the manifest has changed since."""
        try:
            return self._directory.read() != self._manifest
        except (StoreError, OSError):
            return self._manifest is not None

    def _open_tables(self, manifest: Manifest) -> None:
        files, directory = self._directory.files, self._directory.tables
        for records in manifest.runs:
            run = []
            for record in records:
                table = Table(files, directory, record, self._cache)
                with self._noting(table.path):
                    table.open()
                    run.append(table)
            self._runs.append(run)
        named = {record.name for record in manifest.tables}
        with self._noting(directory):
            if manifest.tables or files.exists(directory):
                self._orphans = tuple(sorted(set(files.list(directory)) - named))

    def _check_ages(self, manifest: Manifest, path: str) -> None:
        """Newer runs hold newer entries, and none holds more than the manifest says."""
        above = manifest.last_entry_id + 1
        for run in manifest.runs:
            if max(record.last_entry_id for record in run) >= above:
                self._note(path, 0, f"the run of {run[0].name} is not older than what is before it")
            above = min(record.first_entry_id for record in run)

    def _read_log(self, manifest: Manifest | None) -> None:
        directory = self._directory
        if manifest is not None:
            directory.check_log_exists(manifest)
        path = os.path.join(directory.path, NAME)
        store_id = None if manifest is None else manifest.store_id
        look = LogCheck(directory.log, path, store_id, self._noting)
        configuration = Configuration(directory.log, directory.files, read_only=True)
        try:
            log = configuration.open(look)
        except LogNotFoundError:
            if manifest is None or not manifest.is_fresh:
                raise
            return
        self._log = look
        try:
            look.finish(log, None if manifest is None else manifest.last_entry_id)
        finally:
            log.shutdown()

    # -- at leisure --------------------------------------------------------------------------------

    def read_tables(self) -> None:
        """Every byte of every table; oldest first, for the directory of namespaces."""
        for run in reversed(self._runs):
            ends: list[tuple[Table, bytes, bytes]] = []
            for table in run:
                with self._noting(table.path):
                    table.verify()
                    self._sound.append(table.record)
                    self._take_names(table)
                    ends += _ends(table)
            for (_, _, last), (table, first, _) in pairwise(ends):
                if not last < first:
                    self._note(table.path, 0, "it does not lie behind the table before it")

    def _take_names(self, table: Table) -> None:
        for keys, values in table.pages(*directory_bounds(), fill_cache=False):
            self._names.update(zip(keys, values, strict=True))

    def check_names(self) -> None:
        """The directory of namespaces."""
        if self._log is not None:
            self._names.update(self._log.names)
        numbers: dict[int, bytes] = {}
        parents: dict[bytes, int] = {}
        complete = not self.problems  # else what is missing is in what is damaged
        for stored, value in sorted(self._names.items()):
            with self._noting(self._directory.path):
                for parent, _, entry in decoded_names(stored, value):
                    self._namespaces += 1
                    parents[stored] = parent
                    if numbers.setdefault(entry.number, stored) != stored:
                        self._note_name(stored, f"another one has the id {entry.number} too")
        for stored, parent in parents.items():
            if complete and parent and parent not in numbers:
                self._note_name(stored, f"there is no namespace {parent} for it to be in")

    def _note_name(self, stored: bytes, reason: str) -> None:
        self._note(self._directory.path, 0, f"the namespace at {stored!r}: {reason}")

    def close(self) -> None:
        """Let go of the files."""
        for run in self._runs:
            for table in run:
                table.close()


def _ends(table: Table) -> list[tuple[Table, bytes, bytes]]:
    """A table with its first key and its last; nothing for an empty one."""
    first = next(table.pages(b"", None, fill_cache=False), None)
    last = next(table.pages(b"", None, reverse=True, fill_cache=False), None)
    return [] if first is None or last is None else [(table, first[0][0], last[0][-1])]
