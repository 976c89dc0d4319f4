"""When the disk fails: which error, what goes on, and what reopening finds."""

from __future__ import annotations

import errno
import logging

import pytest

import kvstore
import wal
from tests.store.support import SMALL, contents
from wal.files.faulty import FaultyFileSystem


@pytest.fixture(autouse=True)
def _no_noise():
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture
def system():
    return FaultyFileSystem()


def open_on(system, flag="c"):
    return kvstore.open("s", flag, file_system=system, memtable_bytes=SMALL)


def test_the_first_failed_sync_latches(system):
    db = open_on(system)
    db[b"a"] = b"1"
    system.fail(errno.EIO, kinds="sync", path="wal-*")
    with pytest.raises(kvstore.StoreFailedError) as caught:
        db[b"b"] = b"2"
    assert isinstance(caught.value, OSError)
    assert (caught.value.errno, caught.value.latched) == (errno.EIO, True)
    assert isinstance(caught.value.__cause__, wal.LogFailedError)
    for write in (
        lambda: db.put(b"c", b""),
        lambda: db.delete(b"a"),
        lambda: db.write({b"c": b""}),
        db.sync,
        db.checkpoint,
    ):
        with pytest.raises(kvstore.StoreFailedError):
            write()
    assert contents(db) == {b"a": b"1"}
    with pytest.raises(kvstore.StoreFailedError):
        db.close()
    assert db.closed
    with open_on(system, "w") as db:
        assert contents(db) in ({b"a": b"1"}, {b"a": b"1", b"b": b"2"})
        db[b"c"] = b"3"


def test_no_room_for_a_table_is_no_latch(system):
    db = open_on(system)
    db[b"a"] = b"1"
    fault = system.fail(errno.ENOSPC, kinds="write_at", path="*.table", forever=True, written=10)
    with pytest.raises(kvstore.StoreFailedError) as caught:
        db.checkpoint()
    assert (caught.value.errno, caught.value.latched) == (errno.ENOSPC, False)
    assert fault.hits > 0
    db[b"b"] = b"2"
    assert contents(db) == {b"a": b"1", b"b": b"2"}
    system.heal()
    db.checkpoint()
    assert len(system.list("s/tables")) == db.stats().tables
    db.close()
    with open_on(system, "r") as db:
        assert contents(db) == {b"a": b"1", b"b": b"2"}


def test_a_checkpoint_that_fails_at_close_is_told_and_loses_nothing(system):
    db = open_on(system)
    system.fail(errno.ENOSPC, kinds="create", path="*.table", forever=True)
    db.write({b"%d" % n: bytes(1000) for n in range(300)})
    with pytest.raises(kvstore.StoreFailedError):
        db.close()
    system.heal()
    with open_on(system, "w") as db:
        assert db.count() == 300


def test_a_failed_manifest_is_written_again(system):
    for kind, nth in (("sync", 1), ("rename", 1), ("write_at", 1), ("create", 1)):
        with open_on(system, "n") as db:
            db[b"a"] = b"1"
            system.fail(errno.EIO, kinds=kind, path="MANIFEST*", nth=nth)
            with pytest.raises(kvstore.StoreFailedError):
                db.checkpoint()
            db.checkpoint()
            db[b"b"] = b"2"
        with open_on(system, "r") as db:
            assert contents(db) == {b"a": b"1", b"b": b"2"}


def test_an_unknown_operation_in_the_log_is_of_a_newer_version():
    files = wal.files.MemoryFileSystem()
    kvstore.open("s", file_system=files, memtable_bytes=SMALL).close()
    head = bytes([1]) + bytes(8)
    cases = {
        (head + b"\x07", b"k"): kvstore.FormatVersionError,
        (bytes([2]) + bytes(8) + b"\1", b"k", b"v"): kvstore.FormatVersionError,
        (head + b"\1", b"k"): kvstore.CorruptStoreError,
        (b"short",): kvstore.CorruptStoreError,
        (): kvstore.CorruptStoreError,
    }
    for chunks, error in cases.items():
        copy = files.copy()
        configuration = wal.Configuration("s/wal", copy, preallocate_bytes=SMALL // 2)
        with configuration.open(wal.LogVoid()) as log:
            log.append(list(chunks))
        for flag in "rw":
            with pytest.raises(error):
                open_on(copy, flag)


def test_errors_of_the_log_become_the_stores():
    """None is forgotten, none escapes."""
    from kvstore.errors import translate

    assert isinstance(translate(wal.LogLockedError("p", 7)), kvstore.StoreLockedError)
    assert isinstance(translate(wal.LogClosedError("x")), kvstore.StoreClosedError)
    assert isinstance(translate(wal.FormatVersionError("p", 2, 1)), kvstore.FormatVersionError)
    damage = kvstore.CorruptStoreError("p", 3, "r")
    error = wal.CheckpointError("x")
    error.__cause__ = damage
    assert isinstance(translate(error), kvstore.CorruptStoreError)
    full = wal.SegmentAllocationError("p", OSError(errno.ENOSPC, "full"))
    translated = translate(full)
    assert isinstance(translated, kvstore.StoreFailedError)
    assert (translated.errno, translated.latched) == (errno.ENOSPC, False)
    for kind in (wal.CallbackError, wal.EntryStateError, wal.PositionNotFoundError):
        assert isinstance(translate(kind(1)), kvstore.StoreError)
