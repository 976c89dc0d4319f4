"""Damaged files: an error that says where, never other data than was written."""

from __future__ import annotations

import logging
import os
import shutil

import msgpack
import pytest
from crc32c import crc32c

import kvstore
import wal
from kvstore.mutations import encode
from tests.store.support import contents, read_file, write_file
from wal.files import MemoryFileSystem

ITEMS = {b"key-%03d" % n: bytes([n]) * 50 for n in range(5)}
TABLE = os.path.join("s", "tables", "000000000001.table")
MANIFEST = os.path.join("s", "MANIFEST")


@pytest.fixture(autouse=True)
def _no_noise():
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture(scope="module")
def made():
    files = MemoryFileSystem()
    with kvstore.open("s", file_system=files, memtable_bytes=1 << 20) as db:
        db.write({**ITEMS, b"gone": b""})
        db.checkpoint()
        db.delete(b"gone")
        db.checkpoint()
    return files


def reopen(files, flag="c"):
    with kvstore.open("s", flag, file_system=files, memtable_bytes=1 << 20) as db:
        return contents(db)


@pytest.mark.parametrize("path", [TABLE, MANIFEST])
@pytest.mark.parametrize("flag", ["r", "c"])
def test_every_byte_is_vouched_for(made, path, flag):
    data = read_file(made, path)
    for offset in range(len(data)):
        files = made.copy()
        changed = bytearray(data)
        changed[offset] ^= 1 << offset % 8
        write_file(files, path, bytes(changed))
        with pytest.raises(kvstore.CorruptStoreError) as caught:
            reopen(files, flag)
        assert caught.value.path == path
        assert 0 <= caught.value.offset <= offset
        assert caught.value.reason in str(caught.value)


@pytest.mark.parametrize("path", [TABLE, MANIFEST])
def test_a_file_that_is_cut_short_or_too_long(made, path):
    data = read_file(made, path)
    for changed in (*(data[:length] for length in range(len(data))), data + b"\0", data * 2):
        files = made.copy()
        write_file(files, path, changed)
        with pytest.raises(kvstore.CorruptStoreError):
            reopen(files)


@pytest.mark.parametrize("flag", ["r", "w", "c"])
@pytest.mark.parametrize("path", [TABLE, MANIFEST])
def test_a_missing_file(made, path, flag):
    files = made.copy()
    files.remove(path)
    with pytest.raises(kvstore.CorruptStoreError, match="missing"):
        reopen(files, flag)


def test_a_missing_log(made):
    files = made.copy()
    for name in files.list(os.path.join("s", "wal")):
        if name.startswith("wal-"):
            files.remove(os.path.join("s", "wal", name))
    for flag in "rw":
        with pytest.raises(kvstore.CorruptStoreError):
            reopen(files, flag)


def test_damage_in_the_log(made):
    files = made.copy()
    with kvstore.open("s", file_system=files, memtable_bytes=1 << 20) as db:
        db[b"a"] = b"value of a"
        db[b"b"] = b"value of b"
    (segment,) = (n for n in files.list(os.path.join("s", "wal")) if n.startswith("wal-"))
    path = os.path.join("s", "wal", segment)
    data = read_file(files, path)
    at = data.index(b"value of a")
    write_file(files, path, data[:at] + b"V" + data[at + 1 :])
    with pytest.raises(kvstore.CorruptStoreError) as caught:
        reopen(files)
    assert caught.value.path == path
    assert caught.value.offset <= at
    assert caught.value.__cause__ is not None


def test_a_table_in_the_place_of_another(made):
    files = made.copy()
    second = os.path.join("s", "tables", "000000000002.table")
    write_file(files, TABLE, read_file(files, second))
    with pytest.raises(kvstore.CorruptStoreError):
        reopen(files)


def test_an_older_manifest_is_damage_once_its_log_is_gone(made):
    files = MemoryFileSystem()
    with kvstore.open("s", file_system=files, memtable_bytes=1 << 20) as db:
        old = read_file(files, MANIFEST)
        db[b"a"] = b"1"
        db.checkpoint()
    write_file(files, MANIFEST, old)
    for flag in "rw":
        with pytest.raises(kvstore.CorruptStoreError, match="the log begins after"):
            reopen(files, flag)


def test_a_newer_version_is_not_damage(made):
    files = made.copy()
    data = bytearray(read_file(files, MANIFEST))
    data[4] = 2
    data[-4:] = crc32c(bytes(data[:-4])).to_bytes(4, "little")
    write_file(files, MANIFEST, bytes(data))
    with pytest.raises(kvstore.FormatVersionError, match="version 2"):
        reopen(files)
    assert not issubclass(kvstore.FormatVersionError, kvstore.CorruptStoreError)


@pytest.mark.parametrize(
    "payload",
    [
        [],
        {},
        {"last_entry_id": -1, "next_number": 1, "clearing": False, "tables": []},
        {"last_entry_id": 1, "next_number": True, "clearing": False, "tables": []},
        {"last_entry_id": 1, "next_number": 1, "clearing": 0, "tables": []},
        {"last_entry_id": 1, "next_number": 1, "clearing": False, "tables": [[1, 2]]},
        {"last_entry_id": 1, "next_number": 1, "clearing": False, "tables": [[1, 2, "3"]]},
        {"last_entry_id": 1, "next_number": 1, "clearing": False, "tables": [[1, 1 << 62, 3]]},
    ],
    ids=repr,
)
def test_a_manifest_of_another_shape(made, payload):
    """Right checksums, wrong content: still only an error."""
    files = made.copy()
    body = msgpack.packb(payload)
    frame = b"KVSM\x01\0\0\0" + len(body).to_bytes(4, "little") + body
    write_file(files, MANIFEST, frame + crc32c(frame).to_bytes(4, "little"))
    with pytest.raises(kvstore.CorruptStoreError):
        reopen(files)


def test_what_nobody_names_is_removed(made):
    files = made.copy()
    orphan = os.path.join("s", "tables", "000000000077.table")
    other = os.path.join("s", "tables", "notes.txt")
    for path in (orphan, other, os.path.join("s", "MANIFEST.new")):
        write_file(files, path, b"left over")
    before = reopen(files, "r")
    assert files.exists(orphan)
    with kvstore.open("s", file_system=files, memtable_bytes=1 << 20) as db:
        assert contents(db) == before == ITEMS
        assert not files.exists(orphan)
        assert files.exists(other)
        db[b"new"] = b""
        db.checkpoint()
    assert "000000000078.table" in files.list(os.path.join("s", "tables"))


LOG = os.path.join("s", "wal")


def replace_log(files, entries):
    """Put another log in the place of the store's, with so many entries in it; its files."""
    for name in files.list(LOG):
        files.remove(os.path.join(LOG, name))
    with wal.Configuration(LOG, files, preallocate_bytes=4096).open(wal.LogVoid()) as log:
        for chunks in (encode({b"other-%d" % n: b"x"}) for n in range(entries)):
            log.append(chunks)


@pytest.mark.parametrize("flag", ["r", "w", "c"])
@pytest.mark.parametrize("left", ["nothing", "LOCK"])
def test_a_log_that_was_removed(made, flag, left):
    """Without its log a store opened for writing, and lost what was then put into it.

    A new log gave out ids that the manifest covers, so that no opening replayed them.
    """
    files = made.copy()
    for name in files.list(LOG):
        files.remove(os.path.join(LOG, name))
    if left == "LOCK":
        write_file(files, os.path.join(LOG, "LOCK"), b"")
    before = files.list(LOG)
    for _ in range(2):
        with pytest.raises(kvstore.CorruptStoreError, match="the log is missing") as caught:
            reopen(files, flag)
        assert caught.value.path == LOG
    assert [name for name in files.list(LOG) if name != "LOCK"] == [
        name for name in before if name != "LOCK"
    ]
    assert reopen(files, "n") == {}


def test_a_log_directory_that_was_removed(tmp_path):
    """Without the directory of its log a store opened for writing, and lost what was then put."""
    path = os.path.join(tmp_path, "s")
    with kvstore.open(path) as db:
        db[b"a"] = b"1"
        db.checkpoint()
    shutil.rmtree(os.path.join(path, "wal"))
    for flag in "rwc":
        with pytest.raises(kvstore.CorruptStoreError, match="the log is missing") as caught:
            kvstore.open(path, flag)
        assert caught.value.path == os.path.join(path, "wal")
    assert not os.path.exists(os.path.join(path, "wal"))


@pytest.mark.parametrize("flag", ["r", "w", "c"])
@pytest.mark.parametrize("entries", [0, 1])
def test_a_log_that_ends_below_the_tables(made, flag, entries):
    """In the place of its log another one, with lower ids, was taken for the store's own.

    What was then put into the store got ids that the manifest covers, and was gone at the next
    opening.
    """
    files = made.copy()
    replace_log(files, entries)
    for _ in range(2):
        with pytest.raises(kvstore.CorruptStoreError, match="the tables hold those up to 2") as c:
            reopen(files, flag)
        assert c.value.path == LOG
    # And the other log has let go of nothing.
    recovered = []

    class Other(wal.LogManager):
        def recover(self, entry):
            recovered.append(entry.id)

        def checkpoint_to(self, last_id, entries, log):
            pass

    wal.Configuration(LOG, files, read_only=True).open(Other()).shutdown()
    assert recovered == [*range(1, entries + 1)]


def test_new_ids_are_above_those_of_the_tables(made):
    """Also where all of the log was let go of, after a clean close or none, again and again."""
    files = made.copy()
    for number in range(6):
        db = kvstore.open("s", file_system=files, memtable_bytes=1 << 20)
        covered = db.stats().checkpoint_entry_id
        assert covered >= 2
        if number % 2:
            db.close()
            db = kvstore.open("s", file_system=files, memtable_bytes=1 << 20)
        db[b"new"] = b"%d" % number
        assert db.last_entry_id > covered
        db.checkpoint()
        if number % 3:
            db.close()
        files = files.copy()
        assert reopen(files, "r")[b"new"] == b"%d" % number
        assert reopen(files, "w")[b"new"] == b"%d" % number
        db.close()


@pytest.mark.parametrize("files", ["no log", "an empty one"], indirect=True)
def test_reading_a_store_whose_creation_was_cut_short(files):
    """A reader got an error of the log's where a creation ended before the log had begun."""
    assert reopen(files, "r") == {}
    assert reopen(files, "w") == {}


@pytest.fixture
def files(request):
    made = MemoryFileSystem()
    kvstore.open("s", file_system=made, memtable_bytes=1 << 20).close()
    for name in made.list(LOG):
        made.remove(os.path.join(LOG, name))
    if request.param == "an empty one":
        return made
    files = MemoryFileSystem()
    files.make_directory("s")
    write_file(files, MANIFEST, read_file(made, MANIFEST))
    return files
