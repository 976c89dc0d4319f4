"""The composition root: from a path, a flag and options to an open store."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Final

from kvstore.checkpointing import Checkpoint
from kvstore.config import Options, check_flag
from kvstore.directory import Directory
from kvstore.errors import CorruptStoreError, StoreError, StoreNotFoundError, translate
from kvstore.store import Parts, Store
from kvstore.tables.manifest import Manifest
from kvstore.tables.table import Table, TableRecord, load_table
from wal import Configuration, Durability, LogNotFoundError, WalError, WriteAheadLog
from wal.files import FileSystem, StandardFileSystem

_ATTEMPTS: Final = 20


def open(  # noqa: A001
    path: str | os.PathLike[str],
    flag: str = "c",
    *,
    durability: Durability = Durability.FSYNC,
    memtable_bytes: int = Options.memtable_bytes,
    lock_timeout: float = Options.lock_timeout,
    file_system: FileSystem | None = None,
    log_segment_bytes: int | None = None,
) -> Store:
    """Open the store in a directory.

    All that it holds is read into memory, and stays there while it is open: the time that this
    takes, and the memory, grow with the store.

    Args:
        path: The directory.
        flag: As in :mod:`dbm`: ``"r"`` reads an existing store, beside its writer if there is one;
            ``"w"`` writes an existing one; ``"c"`` creates it if there is none; ``"n"`` makes it an
            empty one, whatever it held. With ``"r"`` the store stays as it was when it was opened.
            Beside a writer that may be up to about 0.05 seconds behind what that has acknowledged;
            it never shows what a power loss could undo.
        durability: What writes wait for unless they say otherwise.
        memtable_bytes: About how much memory recent mutations take before a table is made of them.
            Where tables cannot be made as fast as is written, it may be a few times as much.
        lock_timeout: Seconds to wait for another writer to let go of the store.
        file_system: Where the files live; by default with the operating system.
        log_segment_bytes: The length of a file of the log, of which even an empty store has one,
            and later usually two. It is also how much of the log becomes a table at a time, so
            that smaller ones make loading much data slower. At least 32 KiB, and never more than
            half of ``memtable_bytes``; by default 8 MiB, or an eighth of ``memtable_bytes`` where
            that is more, up to 64 MiB.

    Returns:
        The store. Close it, or use it as a context manager.

    Raises:
        StoreNotFoundError: There is no store, and the flag does not create one.
        StoreLockedError: Another writer has it open.
        StoreError: The path is a directory that holds something else (``"c"``, ``"n"``).
        CorruptStoreError: Something that was acknowledged is damaged.
        FormatVersionError: A newer version of this package wrote it.

    >>> import kvstore, wal
    >>> files = wal.files.MemoryFileSystem()           # leave it out for real files
    >>> with kvstore.open("fruit.db", file_system=files) as db:
    ...     db[b"apple"] = b"red"
    >>> with kvstore.open("fruit.db", "r", file_system=files) as db:
    ...     db[b"apple"]
    b'red'
    """
    name = os.fspath(path)
    if not isinstance(name, str):
        raise TypeError(f"path must be a str or a path, not {type(name).__name__}")
    files = StandardFileSystem() if file_system is None else file_system
    options = Options(durability, memtable_bytes, lock_timeout, files, log_segment_bytes)
    directory = Directory(files, files.resolve(name))
    if check_flag(flag) == "r":
        return _open_for_reading(name, directory, options)
    return _open_for_writing(name, directory, options, flag)


def _open_for_writing(name: str, directory: Directory, options: Options, flag: str) -> Store:
    directory.check_may_open(flag)
    directory.files.make_directory(directory.path)
    lock = directory.lock(options.lock_timeout)
    try:
        directory.check_may_open(flag)  # once more: now nobody else changes it
        manifest = directory.prepare(flag)
        directory.check_log_exists(manifest)
        checkpoint = Checkpoint(directory, manifest, _load(directory, manifest, {}))
        # A store that is dropped may be gone before its log, which may be checkpointing: the lock
        # has to last as long as that, or the next opener would take its new table for an orphan.
        checkpoint.lock = lock  # released when the log has closed
        checkpoint.remove_orphans()
        log = _open_log(directory, options, checkpoint, read_only=False)
    except BaseException:
        lock.release()
        raise
    return Store(name, Parts(options, checkpoint, log, lock))


def _open_log(
    directory: Directory, options: Options, checkpoint: Checkpoint, *, read_only: bool
) -> WriteAheadLog:
    configuration = Configuration(
        directory.log,
        directory.files,
        preallocate_bytes=options.segment_bytes,
        durability=options.durability,
        max_sealed_segments=options.max_sealed_segments,
        lock_timeout=options.lock_timeout,
        read_only=read_only,
    )
    try:
        log = configuration.open(checkpoint)
    except WalError as error:
        raise translate(error) from error
    try:
        checkpoint.check_log(log)
    except BaseException:
        with suppress(WalError):
            log.shutdown()
        raise
    return log


# ------------------------------------------------------------------ beside a writer


def _open_for_reading(name: str, directory: Directory, options: Options) -> Store:
    """Read the manifest, its tables, then the log; again, where the writer went on meanwhile."""
    directory.check_may_open("r")
    loaded: dict[TableRecord, Table] = {}
    for attempt in range(_ATTEMPTS):
        manifest = directory.read()
        try:
            checkpoint = _read(directory, options, manifest, loaded)
        except (CorruptStoreError, StoreNotFoundError):
            # Damage, or something that the writer has just replaced? The manifest tells.
            if attempt == _ATTEMPTS - 1 or directory.read() == manifest:
                raise
        else:
            return Store(name, Parts(options, checkpoint, None, None))
    raise AssertionError("unreachable")


def _read(
    directory: Directory, options: Options, manifest: Manifest, loaded: dict[TableRecord, Table]
) -> Checkpoint:
    if manifest.clearing:
        raise StoreNotFoundError(directory.path)
    checkpoint = Checkpoint(directory, manifest, _load(directory, manifest, loaded))
    directory.check_log_exists(manifest)
    try:
        _open_log(directory, options, checkpoint, read_only=True).shutdown()
    except StoreError as error:
        if not isinstance(error.__cause__, LogNotFoundError):
            raise
        if manifest != Manifest():
            raise directory.log_is_missing() from error
    return checkpoint


def _load(
    directory: Directory, manifest: Manifest, loaded: dict[TableRecord, Table]
) -> tuple[Table, ...]:
    """The manifest's tables, newest first; ``loaded`` keeps them for another attempt."""
    for record in manifest.tables:
        if record not in loaded:
            loaded[record] = load_table(directory.files, directory.tables, record)
    return tuple(loaded[record] for record in manifest.tables)
