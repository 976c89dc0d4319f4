"""The composition root: from a path, a flag and options to an open store."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Final

from kvstore.background.building import Shape
from kvstore.background.catalog import NO_TABLES, Catalog
from kvstore.background.checkpointing import Checkpoint
from kvstore.background.compaction import Compactor
from kvstore.background.worker import Worker
from kvstore.config import Options, check_flag
from kvstore.directory import Directory
from kvstore.engine import Engine
from kvstore.errors import CorruptStoreError, StoreNotFoundError, translate
from kvstore.memory.memtable import Memtable
from kvstore.parts import ReaderParts, View, WriterParts
from kvstore.pulse import Pulse
from kvstore.store import Store
from kvstore.tables.cache import Cache
from kvstore.tables.compression import codec_of
from kvstore.tables.manifest import Manifest
from kvstore.upkeep.restoring import directory_of_log, is_backup, restore
from wal import (
    Configuration,
    Durability,
    WalError,
    WriteAheadLog,
)
from wal.files import FileSystem, StandardFileSystem

_ATTEMPTS: Final = 20
_NICENESS: Final = 5  # of merging: tables are made of the log before tables are merged


def open(  # noqa: A001
    path: str | os.PathLike[str],
    flag: str = "c",
    *,
    durability: Durability = Durability.FSYNC,
    cache_bytes: int = Options.cache_bytes,
    memtable_bytes: int = Options.memtable_bytes,
    large_value_bytes: int = Options.large_value_bytes,
    compression: str | None = None,
    retain_bytes: int = 0,
    retain_seconds: float = 0.0,
    processes: bool = True,
    lock_timeout: float = Options.lock_timeout,
    file_system: FileSystem | None = None,
    log_segment_bytes: int | None = None,
) -> Store:
    """Open the store in a directory.

    The time that this takes, and the memory, grow with what the log holds that is in no table yet,
    not with the store.

    Args:
        path: The directory.
        flag: As in :mod:`dbm`: ``"r"`` reads an existing store, beside its writer if there is one;
            ``"w"`` writes an existing one; ``"c"`` creates it if there is none; ``"n"`` makes it an
            empty one, whatever it held. With ``"r"`` the store stays as it was when it was opened,
            or last refreshed. Beside a writer that may be 0.1 to 0.2 seconds behind what that
            has acknowledged; it never shows what a power loss could undo.
        durability: What writes wait for unless they say otherwise.
        cache_bytes: How much memory rows and blocks of tables may take while they are kept for
            later reads.
        memtable_bytes: About how much memory recent mutations take before a table is made of them.
            Where tables cannot be made as fast as is written, it may be a few times as much.
        large_value_bytes: Values of so many bytes and more are not kept in memory.
        compression: How blocks of new tables are compressed: None, ``"zlib"``, or ``"zstd"`` or
            ``"lz4"``, which need the extras of these names. Each table knows its own.
        retain_bytes: How much of the log is kept for :meth:`Store.changes` after its checkpoint.
        retain_seconds: For how long the log is kept for it. The greater of both counts.
        processes: Whether tables may be built and merged in processes of their own, so that it
            costs this one no interpreter time. Threads do it otherwise.
        lock_timeout: Seconds to wait for another writer to let go of the store.
        file_system: Where the files live; by default with the operating system.
        log_segment_bytes: The length of a file of the log, of which even an empty store has one,
            and later usually two. It is also how much of the log becomes a table at a time. At
            least 32 KiB, and never more than half of ``memtable_bytes``; by default 8 MiB, or an
            eighth of ``memtable_bytes`` where that is more, up to 64 MiB.

    Returns:
        The store. Close it, or use it as a context manager.

    Raises:
        StoreNotFoundError: There is no store, and the flag does not create one.
        StoreLockedError: Another writer has it open.
        StoreError: The path is a directory that holds something else (``"c"``, ``"n"``).
        CorruptStoreError: Something that was acknowledged is damaged.
        FormatVersionError: A newer version of this package wrote it.
        MissingCodecError: A table's compression needs a package that is not installed.

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
    options = Options(
        durability=durability,
        cache_bytes=cache_bytes,
        memtable_bytes=memtable_bytes,
        large_value_bytes=large_value_bytes,
        compression=compression,
        retain_bytes=retain_bytes,
        retain_seconds=retain_seconds,
        processes=processes,
        lock_timeout=lock_timeout,
        file_system=files,
        log_segment_bytes=log_segment_bytes,
    )
    directory = Directory(files, files.resolve(name))
    if check_flag(flag) == "r":
        return _open_for_reading(name, directory, options)
    return _open_for_writing(name, directory, options, flag)


def _open_for_writing(name: str, directory: Directory, options: Options, flag: str) -> Store:
    files = directory.files
    directory.check_may_open(flag)
    files.make_directory(directory.path)
    lock = directory.lock(options.lock_timeout)
    let_go = lock.release
    try:
        directory.check_may_open(flag)  # once more: now nobody else changes it
        manifest = directory.prepare(flag)
        if not is_backup(directory, manifest):
            directory.check_log_exists(manifest)
        manifest = restore(directory, manifest)
        _check_compressions(manifest, options.compression)
        cache = Cache(options.cache_bytes)
        catalog = Catalog(directory, manifest, cache)
        pulse = Pulse()
        memtable = Memtable(catalog.runs, manifest.last_entry_id, cache, pulse)
        shape = Shape(options.compression, options.large_value_bytes)
        merging = Worker(files, processes=options.processes, niceness=_NICENESS)
        compactor = Compactor(catalog, shape, options.segment_bytes, merging)
        building = Worker(files, processes=options.processes)
        checkpoint = Checkpoint(catalog, memtable, shape, building, compactor)
        # A store that is dropped may be gone before its log, which may be checkpointing: the lock
        # has to last as long as that, or the next opener would take its new table for an orphan.
        checkpoint.lock = lock
        let_go = checkpoint.closed  # which the log calls when it has closed
        catalog.attach(memtable.publish, compactor.bury)
        catalog.find_orphans()
        compactor.start()
        log = _open_log(directory, options, checkpoint, read_only=False)
        _remove_orphans(catalog, log)
    except BaseException:
        let_go()
        raise
    compactor.look()
    engine = Engine(name, options, memtable, cache, log, read_only=False)
    return Store(WriterParts(name, engine, catalog, pulse, checkpoint, compactor))


def _remove_orphans(catalog: Catalog, log: WriteAheadLog) -> None:
    """Only now: that the log goes with the manifest shows that it is no older one."""
    try:
        catalog.remove_orphans()
    except BaseException:
        with suppress(WalError):
            log.shutdown()
        raise


def _check_compressions(manifest: Manifest, chosen: str | None) -> None:
    """Raise MissingCodecError where a table, or the choice for new ones, needs what is not here."""
    for name in {record.compression for record in manifest.tables} | {chosen}:
        codec_of(name)


def _open_log(
    directory: Directory, options: Options, checkpoint: Checkpoint, *, read_only: bool
) -> WriteAheadLog:
    configuration = Configuration(
        directory.log,
        directory.files,
        preallocate_bytes=options.segment_bytes,
        version_info=checkpoint.catalog.manifest.store_id,
        durability=options.durability,
        max_sealed_segments=options.max_sealed_segments,
        lock_timeout=options.lock_timeout,
        retain_bytes=options.retain_bytes,
        retain_seconds=options.retain_seconds,
        read_only=read_only,
    )
    try:
        return configuration.open(checkpoint)
    except WalError as error:
        raise translate(error) from error


# ------------------------------------------------------------------ beside a writer


def _open_for_reading(name: str, directory: Directory, options: Options) -> Store:
    cache = Cache(options.cache_bytes)
    pulse = Pulse()

    def look(before: View | None) -> View:
        return _look(directory, options, cache, pulse, before)

    directory.check_may_open("r")
    view = look(None)
    engine = Engine(name, options, view.memtable, cache, view.log, read_only=True)
    return Store(ReaderParts(name, engine, view, pulse, look))


def _look(
    directory: Directory, options: Options, cache: Cache, pulse: Pulse, before: View | None
) -> View:
    """Read the manifest, its tables, then the log; again, where the writer went on meanwhile."""
    for attempt in range(_ATTEMPTS):
        manifest = directory.read()
        try:
            return _view(directory, options, cache, pulse, manifest, before)
        except (CorruptStoreError, StoreNotFoundError):
            # Damage, or something that the writer has just replaced? The manifest tells.
            if attempt == _ATTEMPTS - 1 or directory.read() == manifest:
                raise
    raise AssertionError("unreachable")


def _view(
    directory: Directory,
    options: Options,
    cache: Cache,
    pulse: Pulse,
    manifest: Manifest,
    before: View | None,
) -> View:
    if manifest.clearing:
        raise StoreNotFoundError(directory.path)
    _check_compressions(manifest, None)
    known = NO_TABLES if before is None else before.catalog.tables()
    catalog = Catalog(directory, manifest, cache, known)
    catalog.open_tables()  # the writer may remove them
    memtable = Memtable(catalog.runs, manifest.last_entry_id, cache, pulse)
    checkpoint = Checkpoint(catalog, memtable, Shape(large_value_bytes=options.large_value_bytes))
    with_log = directory_of_log(directory, manifest)
    with_log.check_log_exists(manifest)
    log = _open_log(with_log, options, checkpoint, read_only=True)
    return View(catalog, memtable, log, checkpoint.replayed)
