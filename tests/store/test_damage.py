"""Damaged files: an error that says where, never other data than was written.

What is damaged in a table shows when it is first read, not when the store is opened.
"""

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
from kvstore.tables import format as fmt
from kvstore.tables import manifest as manifests
from kvstore.tables.cache import Cache
from kvstore.tables.manifest import read_manifest
from kvstore.tables.table import Table
from tests.store.support import contents, flipped, read_file, write_file
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


# ------------------------------------------------------------------ tables of many blocks


OLD = {b"%04d" % n: b"old-%04d" % n * 15 for n in range(500)}
CHANGES = {b"%04d" % n: None if n % 2 else b"new-%04d" % n * 30 for n in range(0, 500, 5)}
LARGE = {b"large-%d" % n: bytes([n]) * 3_000 for n in range(3)}
MANY = {key: value for key, value in (OLD | CHANGES | LARGE).items() if value is not None}
ABSENT = [b"absent", b"", b"\xff", *(b"%04d+" % n for n in range(0, 500, 40))]


@pytest.fixture(scope="module", params=[None, "zlib"], ids=["plain", "zlib"])
def many(request):
    """A merged table with hash slots and blobs, and a newer one over it, each of some blocks."""
    files = MemoryFileSystem()
    with open_many(files, compression=request.param) as db:
        db.write(OLD | LARGE)
        db.checkpoint()
        db.delete(b"something else")
        db.compact()
        db.write(CHANGES)
        db.checkpoint()
        assert contents(db) == MANY
    return files


def open_many(files, flag="c", **options):
    options = {"large_value_bytes": 1 << 10, "processes": False, **options}
    return kvstore.open("s", flag, file_system=files, **options)


def tables_of(files):
    directory = os.path.join("s", "tables")
    return [os.path.join(directory, name) for name in files.list(directory)]


def readers_of(files):
    """The path of each table, and what the store itself knows of its parts."""
    for record in read_manifest(files, "s").tables:
        table = Table(files, os.path.join("s", "tables"), record, Cache(0))
        table.open()
        yield table.path, table._reader


def reading(db):
    """Read in every way; each reading is right, or damage. What damage there was."""
    met = []

    def check(read, expected):
        try:
            assert read() == expected
        except kvstore.CorruptStoreError as damage:
            met.append(damage)

    for key in [*sorted(MANY)[::7], *sorted(LARGE), *CHANGES, *ABSENT]:
        check(lambda key=key: db.get(key), MANY.get(key))
    check(lambda: contents(db), MANY)
    check(lambda: [*db.keys(reverse=True)], sorted(MANY, reverse=True))
    check(lambda: db.count(b"0100", b"0200"), sum(b"0100" <= key < b"0200" for key in MANY))
    check(lambda: db.get_many([b"0003", b"absent"]), [MANY[b"0003"], None])
    with db.snapshot() as snap:
        check(lambda: contents(snap), MANY)
    return met


def check_damaged(files, path):
    """The damage is found by who looks for it, and nobody is ever told anything wrong."""
    report = kvstore.verify("s", file_system=files)
    assert [problem.path for problem in report.problems] == [path]
    for flag in "rw":
        try:
            with open_many(files, flag) as db:
                damage = reading(db)
                if flag == "w":
                    damage += merged(db)
        except kvstore.CorruptStoreError as error:
            damage = [error]
        assert {each.path for each in damage} <= {path}


def merged(db):
    """Compact it: either that tells of the damage, or everything is right and stays so."""
    try:
        db.compact()
    except kvstore.CorruptStoreError as damage:
        assert not db.verify().ok, "the damage was made to look sound"
        return [damage, *reading(db)]
    assert reading(db) == []
    assert db.verify().ok
    return []


def test_many_undamaged(many):
    assert kvstore.verify("s", file_system=many).ok
    files = many.copy()
    assert len(tables_of(files)) == 2
    with open_many(files, "r") as db:
        assert reading(db) == []
    with open_many(files, "w") as db:
        assert reading(db) == merged(db) == []


@pytest.mark.parametrize(
    "places", [pytest.param(12, id="some"), pytest.param(150, id="many", marks=pytest.mark.long)]
)
def test_a_bit_anywhere_in_a_table(many, places):
    for path in tables_of(many):
        data = read_file(many, path)
        step = len(data) // places
        for at in (*range(0, len(data), step), *range(len(data) - 80, len(data), 16)):
            files = many.copy()
            write_file(files, path, flipped(data, at, at % 8))
            check_damaged(files, path)


@pytest.mark.parametrize("kind", [fmt.INDEX, fmt.FILTER, fmt.SLOTS, fmt.SIEVE, fmt.RECORDS])
def test_a_bit_of_a_section(many, kind):
    """A filter that is not right would say of keys that they are not there."""
    for path, reader in readers_of(many):
        data = read_file(many, path)
        section = reader.footer.section(kind)
        assert section is not None
        places = range(section.offset, section.end)
        for at in places[:: max(1, len(places) // 4)]:
            files = many.copy()
            write_file(files, path, flipped(data, at, at % 8))
            with open_many(files, "r") as db, pytest.raises(kvstore.CorruptStoreError):
                check_each_key(db)
            check_damaged(files, path)  # a merge makes a sound table, of what is sound in this one


def check_each_key(db):
    for key in [*MANY, *ABSENT]:
        assert db.get(key) == MANY.get(key)


@pytest.mark.parametrize("many", [None], ids=["plain"], indirect=True)  # of one length
def test_two_blocks_exchanged(many):
    """Each is sound in itself; but not where it is."""
    exchanged = 0
    for path, reader in readers_of(many):
        data = read_file(many, path)
        _, offsets, lengths = reader.index
        pairs = [
            (one, other)
            for other in range(len(offsets))
            for one in range(other)
            if lengths[one] == lengths[other]
        ]
        for one, other in pairs:
            first, second = (slice(offsets[n], offsets[n] + lengths[n]) for n in (one, other))
            swapped = bytearray(data)
            swapped[first], swapped[second] = data[second], data[first]
            files = many.copy()
            write_file(files, path, bytes(swapped))
            check_damaged(files, path)
            exchanged += 1
    assert exchanged > 0


def test_a_table_replaced_by_an_older_one_of_its_name():
    """A store that was emptied begins again with number 1; so may one put back by hand."""
    files = MemoryFileSystem()
    lives = []
    for value in (b"older", b"newer"):
        with kvstore.open("s", "n", file_system=files) as db:
            db.write({b"k": value, b"m": value})
            db.checkpoint()
        lives.append(read_file(files, TABLE))
    older, newer = lives
    assert len(older) == len(newer)
    write_file(files, TABLE, older)
    assert [p.path for p in kvstore.verify("s", file_system=files).problems] == [TABLE]
    for flag in "rwc":
        with pytest.raises(kvstore.CorruptStoreError) as caught:
            reopen(files, flag)
        assert caught.value.path == TABLE
    write_file(files, TABLE, newer)
    assert reopen(files) == {b"k": b"newer", b"m": b"newer"}


def test_damage_is_met_where_it_is_read(many):
    """Opening a store for writing reads no table, so that it costs the same at any size."""
    files = many.copy()
    path = tables_of(files)[0]
    data = read_file(files, path)
    write_file(files, path, data[:-1])
    with open_many(files, "w") as db:
        db.put(b"recent", b"1")
        assert db.get(b"recent") == b"1"
        for read in (lambda: db.get(b"0001"), lambda: contents(db), lambda: db.count()):
            with pytest.raises(kvstore.CorruptStoreError) as caught:
                read()
            assert caught.value.path == path
        with pytest.raises(kvstore.CorruptStoreError):
            db.add(b"0001", b"")
        db.checkpoint()
        assert db.get(b"recent") == b"1"
    with pytest.raises(kvstore.CorruptStoreError):
        open_many(files, "r")


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


@pytest.mark.parametrize("version", [manifests.VERSION - 1, manifests.VERSION + 1])
def test_another_version_is_not_damage(made, version):
    files = made.copy()
    data = bytearray(read_file(files, MANIFEST))
    data[4] = version
    data[-4:] = crc32c(bytes(data[:-4])).to_bytes(4, "little")
    write_file(files, MANIFEST, bytes(data))
    for flag in "rwc":
        with pytest.raises(kvstore.FormatVersionError, match=f"version {version}"):
            reopen(files, flag)
    assert read_file(files, MANIFEST) == data
    assert not issubclass(kvstore.FormatVersionError, kvstore.CorruptStoreError)


def sound_payload(files):
    data = read_file(files, MANIFEST)
    return msgpack.unpackb(data[12:-4])


def put_manifest(files, payload):
    """A manifest with right checksums, whatever is in it."""
    body = msgpack.packb(payload)
    frame = b"KVSM" + bytes([manifests.VERSION, 0, 0, 0]) + len(body).to_bytes(4, "little") + body
    write_file(files, MANIFEST, frame + crc32c(frame).to_bytes(4, "little"))


def test_a_manifest_put_together_by_hand(made):
    """The next test means what it says."""
    files = made.copy()
    put_manifest(files, sound_payload(files))
    assert reopen(files) == ITEMS


@pytest.mark.parametrize(
    "change",
    [
        None,
        {"store_id": b"short"},
        {"last_entry_id": -1},
        {"last_entry_id": 1.5},
        {"next_number": True},
        {"next_number": 1},
        {"clearing": 0},
        {"runs": None},
        {"runs": [[]]},
        {"runs": [[[1, 2]]]},
        {"runs": [[[1, 2, "3"]]]},
    ],
    ids=repr,
)
def test_a_manifest_of_another_shape(made, change):
    """Right checksums, wrong content: still only an error."""
    files = made.copy()
    put_manifest(files, [] if change is None else sound_payload(files) | change)
    for flag in "rw":
        with pytest.raises(kvstore.CorruptStoreError) as caught:
            reopen(files, flag)
        assert caught.value.path == MANIFEST


@pytest.mark.parametrize(
    ("field", "value"),
    [
        (1, bytes(16)),  # the table's id
        (1, b"short"),
        (2, 1 << 62),  # its size
        (2, 3),
        (2, -1),
        (3, 7),  # the checksum of its footer
        (5, "2"),  # its last entry
        (6, 1 << 40),  # its items
    ],
)
@pytest.mark.parametrize("flag", ["r", "w"])
def test_a_manifest_that_says_something_else_of_a_table(made, flag, field, value):
    files = made.copy()
    payload = sound_payload(files)
    assert payload["runs"][-1][0][0] == 1  # the number of the oldest table
    payload["runs"][-1][0][field] = value
    put_manifest(files, payload)
    assert not kvstore.verify("s", file_system=files).ok
    with pytest.raises(kvstore.CorruptStoreError) as caught:
        reopen(files, flag)
    assert caught.value.path in (MANIFEST, TABLE)


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
