"""A disk that is full: reading goes on, writing says so, and nothing that was acknowledged goes.

Proved, on real file systems filled to the last block: while threads write, and at a checkpoint, a
compaction, a backup, a close, an opening, a recovery and a creation, whoever writes gets an error
of the store that is an OSError with ENOSPC, and that or its cause names the file; nobody waits for
ever; what can be read stays so. When there is room again the same store goes on, unless the
failure has latched; and what is opened then holds all that was acknowledged and nothing that was
refused. The same where the log alone has no room, or the tables.

Bounds: a file system that writes what is there anew in another place (btrfs) may refuse what has
its room already, so there the log latches where it would only refuse one write elsewhere.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time

import pytest

import kvstore
from tests.laboratory.disks.crowds import Crowd, check_is_clear
from tests.store.support import SMALL, contents


def later(*values):
    """Parameters of the long run."""
    return [pytest.param(value, marks=pytest.mark.long) for value in values]


SIZES = {"ext4": 12, "xfs": 300, "btrfs": 128}  # megabytes


@pytest.fixture(params=["ext4", *later("xfs", "btrfs")])
def image(mounted, request, quiet):
    return mounted(request.param, SIZES[request.param])


def open_store(path, flag="c"):
    return kvstore.open(path, flag, memtable_bytes=SMALL, processes=False)


def place(tmp_path, image, part):
    """A store of which the whole is on the image, or a part."""
    if part == "whole":
        return image.path_of("s")
    path = tmp_path / "s"
    path.mkdir()
    os.mkdir(image.path_of(part))
    os.symlink(image.path_of(part), path / part)
    return str(path)


@pytest.mark.parametrize("part", ["whole", *later("wal", "tables")])
def test_while_threads_write(image, tmp_path, tally, part):
    path = place(tmp_path, image, part)
    db = open_store(path)
    with Crowd(db) as crowd:
        crowd.wait(200)
        crowd.wait(-20, meanwhile=image.fill)
        crowd.look(db)
        for error in crowd.errors:
            check_is_clear(error, os.path.dirname(path))
        image.free()
        if not crowd.latched:
            crowd.wait(200, meanwhile=lambda: _hurry(db))
        crowd.stop()
        crowd.look(db)
    with open_store(path, "r") as reader:
        crowd.check(reader, all_of_it=not crowd.latched)
    with open_store(path, "w") as db:
        crowd.check(db)
        assert db.verify().ok
    tally(
        f"full disks, {image.kind}",
        moments=1,
        puts_acknowledged=len(crowd.acknowledged),
        puts_refused=len(crowd.refused),
        puts_in_doubt=len(crowd.doubtful),
    )


def _hurry(db):
    """The checkpointer makes growing pauses; who asks for a checkpoint cuts them short."""
    with contextlib.suppress(kvstore.StoreFailedError):
        db.checkpoint()


def filled_store(path):
    """With tables, a log, and what is deleted: something to do for all upkeep."""
    db = open_store(path)
    for turn in range(3):
        db.write({b"%03d" % n: bytes([turn]) * 900 for n in range(turn, 90)})
        db.compact()
    db.delete(b"007")
    db.put(b"late", b"x" * 200_000)  # more than a spare segment would give way for
    return db


def fill(image):
    """Also what is let go of in the background a moment later: a segment, by the checkpointer."""
    for _ in range(4):
        image.fill()
        time.sleep(0.05)


CALLS = {
    "checkpoint": lambda db, image: db.checkpoint(),
    "compact": lambda db, image: db.compact(),
    "backup": lambda db, image: db.backup(image.path_of("backup")),
}


@pytest.mark.parametrize("call", ["checkpoint", *later("compact", "backup")])
def test_a_call_that_needs_room(image, tally, call):
    path = image.path_of("s")
    db = filled_store(path)
    expected = contents(db)
    fill(image)
    with pytest.raises(kvstore.StoreFailedError) as caught:
        CALLS[call](db, image)
    check_is_clear(caught.value, image.root)
    assert contents(db) == expected
    image.free()
    if not caught.value.latched:
        CALLS[call](db, image)
        db.put(b"more", b"")
        expected[b"more"] = b""
    with contextlib.suppress(kvstore.StoreFailedError):
        db.close()
    with open_store(path, "w") as db:
        assert contents(db) == expected
    tally(f"full disks, {image.kind}", moments=1)


def test_backing_up_to_a_full_disk(image, tmp_path, tally):
    """The store, on another disk, does not mind."""
    with filled_store(str(tmp_path / "s")) as db:
        expected = contents(db)
        image.fill()
        with pytest.raises(kvstore.StoreFailedError) as caught:
            db.backup(image.path_of("backup"))
        check_is_clear(caught.value, image.root)
        db.put(b"more", b"")
        db.checkpoint()
        image.free()
        db.backup(image.path_of("backup"))
    with open_store(image.path_of("backup"), "w") as copy:
        assert contents(copy) == {**expected, b"more": b""}
    tally(f"full disks, {image.kind}", moments=1)


def killed(db, path):
    """What a kill would leave: the files of a store that is at rest, copied."""
    shutil.copytree(db.path, path)
    db.close()


ENDS = {
    "close": lambda db, path: None,
    "opening": lambda db, path: (db.close(), os.rename(db.path, path)),
    "recovery": killed,
    "creation": lambda db, path: db.close(),
}


@pytest.mark.parametrize("moment", ["close", "recovery", *later("opening", "creation")])
def test_the_ends_of_a_life(image, tally, moment):
    """Closed, opened, recovered or created where there is no room: done, or refused clearly."""
    db = filled_store(image.path_of("s"))
    path = image.path_of("another")
    expected = {} if moment == "creation" else contents(db)
    ENDS[moment](db, path)
    path = db.path if moment == "close" else path
    image.fill()
    for _ in range(3):
        try:
            if moment != "close":
                db = open_store(path)
                assert contents(db) == expected
            db.close()
        except OSError as error:
            check_is_clear(error, image.root)
    if moment != "creation":
        with open_store(path, "r") as reader:
            assert expected.items() - contents(reader).items() <= {(b"late", expected[b"late"])}
    image.free()
    with open_store(path) as db:
        assert contents(db) == expected
        assert db.verify().ok
        db.put(b"more", b"")
    tally(f"full disks, {image.kind}", moments=1)
