"""When the disk fails: which error, what goes on, and what reopening finds."""

from __future__ import annotations

import errno
import logging
import os

import pytest

import kvstore
import wal
from tests.store.support import BUFFER, SMALL, WRITE, contents
from tests.wal.support import until
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
    fault = system.fail(errno.ENOSPC, kinds="write_at", path="tmp-*", forever=True, written=10)
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
    system.fail(errno.ENOSPC, kinds="create", path="tmp-*", forever=True)
    db.write({b"%d" % n: bytes(1000) for n in range(300)})
    with pytest.raises(kvstore.StoreFailedError):
        db.close()
    system.heal()
    with open_on(system, "w") as db:
        assert db.count() == 300


#: Every way in which a table, then the manifest, can find no room: the call, and of which file.
ROOM = [
    ("create", "tmp-*"),
    ("write_at", "tmp-*"),
    ("sync", "tmp-*"),
    ("rename", "tmp-*"),
    ("sync_directory", "tables"),
    ("create", "MANIFEST*"),
    ("write_at", "MANIFEST*"),
    ("sync", "MANIFEST*"),
    ("rename", "MANIFEST*"),
]


@pytest.mark.parametrize(("kind", "name"), ROOM)
def test_a_disk_that_is_full_for_a_while(system, kind, name):
    """Checkpoints and compactions fail, are told, and leave nothing; later they succeed."""
    db = open_on(system)
    expected = {b"%d" % n: bytes(n) for n in range(50)}
    db.write(expected)
    db.checkpoint()
    db.delete(b"7")
    del expected[b"7"]
    fault = system.fail(errno.ENOSPC, kinds=kind, path=name, forever=True)
    for call in (db.checkpoint, db.compact):
        with db.snapshot() as snap:
            with pytest.raises(kvstore.StoreFailedError) as caught:
                call()
            assert (caught.value.errno, caught.value.latched) == (errno.ENOSPC, False)
            assert contents(db) == contents(snap) == expected
        del snap
        name = call.__name__.encode()
        assert db.add(name, b"") is True
        expected[name] = b""
    assert fault.hits >= 2
    system.heal()
    db.compact()
    assert contents(db) == expected
    assert (db.stats().tables, len(system.list("s/tables"))) == (1, 1)
    assert db.verify().ok
    db.close()
    with open_on(system, "r") as db:
        assert contents(db) == expected


def write_until_refused(db, model):
    """Single puts of some kilobytes, until one is refused; the model gets those that are not."""
    for n in range(1_000):
        key = b"%06d" % len(model)
        try:
            db.put(key, bytes([n % 256]) * 3_000, durability=WRITE)
        except kvstore.StoreFailedError as error:
            return error
        model[key] = bytes([n % 256]) * 3_000
    raise AssertionError("nothing bounds what waits for its checkpoint")


def checkpointed(db):
    """Whether there is room; at first the failure of the attempt before is still told."""
    try:
        db.checkpoint()
    except kvstore.StoreFailedError:
        return False
    return True


def test_no_room_for_checkpoints_and_a_snapshot_that_is_never_released(system, monkeypatch):
    """Writers go on for as long as memory allows, are then told, and go on when there is room."""
    monkeypatch.setattr("wal.checkpointer.LONGEST_PAUSE", 0.05)
    db = open_on(system)
    db.write({b"k": b"before", b"gone": b"1"})
    snap = db.snapshot()
    before = contents(snap)
    db.write({b"k": b"after", b"gone": None})
    model = {b"k": b"after"}
    system.fail(errno.ENOSPC, kinds="create", path="tmp-*", forever=True)
    for _ in range(3):
        written = len(model)
        error = write_until_refused(db, model)
        assert (error.errno, error.latched) == (errno.ENOSPC, False)
        assert isinstance(error.__cause__, wal.CheckpointError)
        assert contents(db) == model
        assert contents(snap) == before
    assert len(model) == written, "what is refused once is refused again"
    for refused in (
        lambda: db.write({b"k": bytes(60_000)}),
        lambda: db.add(b"more", bytes(60_000)),
        lambda: db.replace(b"k", b"after", bytes(60_000)),
        lambda: db.transact(lambda tx: tx.put(b"k", bytes(60_000))),
        db.checkpoint,
    ):
        with pytest.raises(kvstore.StoreFailedError) as caught:
            refused()
        assert (caught.value.errno, caught.value.latched) == (errno.ENOSPC, False)
    assert contents(db) == model
    killed = system.killed_state()
    system.heal()
    until(lambda: checkpointed(db))
    for n in range(100):
        db.put(b"%d" % n, bytes(3_000), durability=BUFFER)
        model[b"%d" % n] = bytes(3_000)
    assert contents(db) == model
    assert contents(snap) == before
    db.compact()
    assert contents(snap) == before
    snap.close()
    assert contents(db) == model
    db.close()
    with open_on(system, "r") as db:
        assert contents(db) == model
    with open_on(killed, "w") as db:  # the process was killed when nothing went on any more
        assert contents(db).keys() == {key for key in model if len(key) == 6} | {b"k"}


def test_no_room_for_the_log_is_an_error_of_that_write_alone(system):
    db = open_on(system)
    fault = system.fail(errno.ENOSPC, kinds="allocate", forever=True)
    model = {}
    error = write_until_refused(db, model)
    assert fault.hits > 0
    assert (error.errno, error.latched) == (errno.ENOSPC, False)
    assert contents(db) == model
    system.heal()
    db.put(b"more", bytes(3_000))
    assert db.get(b"more") == bytes(3_000)
    db.close()
    with open_on(system, "r") as db:
        assert contents(db) == {**model, b"more": bytes(3_000)}


def test_a_disk_that_cannot_be_read(system):
    """An error of the system while a table is read comes through as what it is, not as absence."""
    with open_on(system) as db:
        db.write({b"%03d" % n: bytes(200) for n in range(200)})
        db.checkpoint()
    with open_on(system) as db:
        system.fail(errno.EIO, kinds="read_at", path="*.table", forever=True)
        for read in (lambda: db.get(b"007"), lambda: contents(db), lambda: b"0070" in db):
            with pytest.raises(OSError, match=os.strerror(errno.EIO)) as caught:
                read()
            assert caught.value.errno == errno.EIO
        system.heal()
        assert db.get(b"007") == bytes(200)
        assert b"0070" not in db
        assert db.count() == 200


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
