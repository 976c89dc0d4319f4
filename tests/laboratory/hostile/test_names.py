"""No name, in a directory or in a file, leads a store out of its directory or makes it unusable.

Proved for forged manifests with right checksums (numbers, strings with ``../``, whatever else
stands where a number should), for what a worker's process answers, and for files planted in a
store's directories under names that look like its own. The files next to the store stay the same.
"""

from __future__ import annotations

import contextlib
import os
from unittest import mock

import msgpack
import pytest

import kvstore
import wal
from kvstore.background import worker
from kvstore.tables.manifest import Manifest, read_manifest
from kvstore.tables.records import MOST_NUMBER, number_of
from tests.laboratory.hostile.log_targets import Reading
from tests.laboratory.hostile.sealing import seal_manifest
from tests.laboratory.hostile.store_targets import store_with, use
from tests.laboratory.hostile.targets import Silence
from tests.store.support import read_file
from wal.checkpoint_marker import BLOCK, Marker
from wal.files import MemoryFileSystem, StandardFileSystem
from wal.judgement import Listing
from wal.positions import MAX_ID, MAX_START
from wal.segments import format as fmt

OPTIONS = {"processes": False, "memtable_bytes": 64 << 10}
FILES = StandardFileSystem()


@pytest.fixture
def path(tmp_path):
    path = str(tmp_path / "s")
    with kvstore.open(path, **OPTIONS) as db:
        db[b"k"] = b"v"
        db.checkpoint()
        db[b"tail"] = b"t"
    for name in ("000000000001.table", "wal-00000000000000000001", "precious"):
        (tmp_path / name).write_bytes(b"precious")
    return path


HUGE = [MOST_NUMBER, (1 << 62) - 1, (1 << 63) - 2, (1 << 63) - 1, 1 << 63, (1 << 64) - 1]
PATHS = ["../precious", "../../s/x", "/etc/passwd", "..", "", "\0", b"../precious"]


@pytest.mark.parametrize("value", [*HUGE, -1, -(1 << 63), 1.5, None, True, [1], *PATHS], ids=repr)
def test_a_forged_record(value):
    """In the place of each field; all in memory, where any path outside the store is an error."""
    for field in range(12):
        use_forged(lambda payload, field=field: payload["runs"][0][0].__setitem__(field, value))


@pytest.mark.parametrize("value", [*HUGE, *PATHS, -1, None, [[["../x"] * 12]]], ids=repr)
def test_a_forged_manifest(value):
    for name in ("next_number", "last_entry_id", "store_id", "clearing", "runs"):
        use_forged(lambda payload, name=name: payload.__setitem__(name, value))


def use_forged(change):
    with Silence() as silence:
        use(store_with(forged(read_file(store_with(b"", "notes"), "s/MANIFEST"), change)))
        silence.check()


def forged(data, change):
    payload = msgpack.unpackb(data[12:-4])
    change(payload)
    return seal_manifest(data[:12] + msgpack.packb(payload) + bytes(4))


@pytest.mark.parametrize("value", [(1 << 63) - 1, -7, "../000000000001.table"], ids=repr)
def test_a_forged_number_among_real_files(tmp_path, path, value):
    """All that is beside the store stays as it is."""

    def beside():
        return {p.name: p.read_bytes() for p in tmp_path.iterdir() if p.name != "s"}

    before = beside()
    place = tmp_path / "s" / "MANIFEST"
    data = forged(place.read_bytes(), lambda payload: payload["runs"][0][0].__setitem__(0, value))
    place.write_bytes(data)
    ways = (lambda: kvstore.verify(path), lambda: _open(path, "r"), lambda: _open(path, "w"))
    for way in ways:
        with contextlib.suppress(kvstore.StoreError):
            way()
    assert beside() == before


def _open(path, flag):
    with kvstore.open(path, flag, **OPTIONS) as db:
        dict(db.scan())
        if flag == "w":
            db[b"new"] = b"n"
            db.checkpoint()
            db.compact()


def test_numbers_beyond_all_use_are_damage():
    """The next number could not be written any more: an OverflowError at every later checkpoint."""
    sound = Manifest(bytes(16), next_number=MOST_NUMBER, last_entry_id=MOST_NUMBER)
    assert Manifest.decode(sound.encode()) == sound
    payload = msgpack.unpackb(sound.encode()[12:-4]) | {"next_number": MOST_NUMBER + 1}
    with pytest.raises(ValueError, match="number"):
        Manifest.decode(seal_manifest(bytes(12) + msgpack.packb(payload) + bytes(4)))


def test_a_backup_whose_ids_are_forged(tmp_path, path):
    """Its log is begun behind them, which raised a ValueError."""
    backup = str(tmp_path / "b")
    with kvstore.open(path, **OPTIONS) as db:
        db.backup(backup)
    place = tmp_path / "b" / "MANIFEST"
    data = place.read_bytes()
    for number in (MOST_NUMBER, MOST_NUMBER + 1):
        place.write_bytes(forged(data, lambda payload, n=number: payload.update(last_entry_id=n)))
        for flag in "rw":
            with contextlib.suppress(kvstore.CorruptStoreError):
                _open(backup, flag)
                assert number == MOST_NUMBER


# ------------------------------------------------------------------ planted files


@pytest.mark.parametrize(
    "name",
    [
        "9" * 100 + ".table",  # its number, and one more, went into the manifest: an OverflowError
        "9" * 20 + ".table",
        f"{(1 << 63) - 1}.table",
        "٠٠٠٠٠٠٠٠٠٠٠١.table",  # digits, but not those of a store
        "7.table",
        "-00000000001.table",
        "+0000000001.table",
    ],
)
def test_a_table_that_is_nobodys(path, name):
    planted = os.path.join(path, "tables", name)
    with open(planted, "wb"):
        pass
    assert number_of(name) is None
    _open(path, "w")
    assert os.path.exists(planted), "what is not the store's is not removed"
    assert read_manifest(FILES, path).next_number < 100


@pytest.mark.parametrize(
    "name",
    [
        "free-" + "9" * 200,  # the next spare had a name that no file may have
        "free-٣",
        "free-../x".replace("/", "\u2215"),
        "wal-" + "9" * 20,  # ids that no field holds: a struct.error
        "abandoned-" + "9" * 20,
        "kept-" + "9" * 20 + "-" + "9" * 20,
        "wal-" + "٠" * 19 + "١",
        "wal-1",
        "kept-1-2",
    ],
)
def test_a_segment_that_is_nobodys(path, name):
    with open(os.path.join(path, "wal", name), "wb") as file:
        file.write(b"x" * 5000)
    for _ in range(2):
        with kvstore.open(path, **OPTIONS) as db:
            assert db[b"k"] + db[b"tail"] == b"vt"
            db.write({b"%d" % n: bytes(1000) for n in range(100)})
            db.checkpoint()
    with kvstore.open(path, "r") as db:
        assert db[b"k"] + db[b"tail"] == b"vt"


def test_a_name_in_other_digits_hides_no_segment(tmp_path):
    """It was taken for the segment itself, and sorted behind it."""
    own = "wal-" + "0" * 19 + "1"
    for name in (own, "wal-" + "٠" * 19 + "١"):
        (tmp_path / name).write_bytes(b"")
    assert Listing.of(FILES, str(tmp_path)).segments == {1: own}


# ------------------------------------------------------------------ what a process answers


@pytest.mark.parametrize(
    "answer",
    [
        ["built", [["../precious", [1]]]],
        ["built", [["tmp-1/../../../precious", [1]]]],
        ["built", [["/etc/passwd", [1]]]],
        ["built", [[7, [1]]]],
        ["built", [["tmp-1", [1]]]],
        ["built", 7],
        ["rebuilt", []],
        [["list"], []],
        [],
        7,
        None,
    ],
    ids=repr,
)
def test_an_answer_that_makes_no_sense(answer):
    """It was an error of the checkpoint, for ever; now the process is given up, as if it died."""
    with pytest.raises(worker._ProcessError):
        worker._result_of(answer)


def test_a_process_that_talks_nonsense_is_given_up(tmp_path):
    from tests.store.disk import segment_job

    with kvstore.open(str(tmp_path / "x"), **OPTIONS):
        pass
    job = segment_job(FILES, str(tmp_path / "d"), [{b"a": b"1"}])
    mine = worker.Worker(FILES, least_bytes=0)
    try:
        with mock.patch.object(worker.Worker, "_hear", return_value=["what", "?"]):
            for _ in range(worker.MOST_FAILURES):
                (built,) = mine.run(job)  # done by a thread
                assert built.record.items == 1
            assert not mine._may_start
    finally:
        mine.stop()


# ------------------------------------------------------------------ ids


@pytest.mark.parametrize("highest", [MAX_START, MAX_ID - 70_000, MAX_ID])
def test_a_marker_at_the_end_of_all_ids(highest):
    """The log went on, in a segment whose header the next opening refused: entries were lost."""
    marker = Marker(2, 0, 0, highest, 0, 0).encode().ljust(2 * BLOCK, b"\0")
    files = MemoryFileSystem({os.path.join("log", "CHECKPOINT"): marker})
    with pytest.raises(wal.CorruptLogError, match="beyond all ids"):
        wal.Configuration("log", files, preallocate_bytes=4096).open(Reading())
    assert set(files.list("log")) == {"CHECKPOINT", "LOCK"}


def test_evidence_of_ids_that_no_log_gives():
    """An abandoned segment's forged header raised the next id beyond 64 bits: an OverflowError."""
    header = fmt.SegmentHeader(5, 0, 5 + (1 << 16), 0)
    made = [(9, 8), (1 << 63, 3), (9, 9), (7, 1 << 63), (header.id_limit + 1, 4)]
    for entry_id, durable_id in made:
        frame = fmt.encode_entry_header(header, header.seed, 0, entry_id, durable_id)
        found = fmt.evidence_in(header, header.seed, frame, 0)
        assert found == (8 if (entry_id, durable_id) == (9, 8) else 0)
