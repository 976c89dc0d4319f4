"""A file system that becomes read-only: writing says so, reading goes on, nothing is lost.

Proved: on ext4, as after an error of the disk, while threads write: every write fails with an error
of the store that has the system's number and names the file, reads go on, and close lets go of
everything. On such a mount, and on ext4, xfs and btrfs that were asked to be read-only, opening for
reading shows what the store holds; opening for writing is a clear error. Once the mount can be
written again, all that was acknowledged is there.

Bounds: xfs and btrfs refuse to become read-only while a store is open for writing, so there only
what is opened afterwards is tried.
"""

from __future__ import annotations

import errno

import pytest

import kvstore
from tests.laboratory.disks.crowds import Crowd, check_is_clear
from tests.store.support import SMALL

LONG = [pytest.param(kind, marks=pytest.mark.long) for kind in ("xfs", "btrfs")]


def open_store(path, flag="c"):
    return kvstore.open(path, flag, memtable_bytes=SMALL, processes=False)


def check_read_only(path, crowd, root, *, all_of_it):
    """What may be done where nothing can be written."""
    with open_store(path, "r") as reader:
        crowd.check(reader, all_of_it=all_of_it)
    assert kvstore.verify(path).ok
    for flag in "wcn":
        with pytest.raises(OSError, match="Read-only") as caught:
            open_store(path, flag)
        check_is_clear(caught.value, root, errno.EROFS)


def check_writes_fail(db, crowd):
    """Everything that writes does, also the close."""
    for call in (db.checkpoint, db.compact, lambda: db.put(b"k", b"v"), db.close):
        with pytest.raises(kvstore.StoreFailedError) as caught:
            call()
        crowd.errors.append(caught.value)


def test_while_threads_write(mounted, tally, quiet):
    image = mounted("ext4")
    path = image.path_of("s")
    db = open_store(path)
    with Crowd(db) as crowd:
        crowd.wait(200)
        if not image.remount("abort"):
            pytest.skip("ext4: remounting with `abort` is not possible here")
        crowd.wait(-20)
        crowd.stop()
        crowd.look(db)
        check_writes_fail(db, crowd)
    for error in crowd.errors:
        check_is_clear(error, image.root, errno.EROFS, errno.EIO)  # what was under way fails, too
    # A reader shows what is known to be durable: that may miss what was acknowledged last.
    check_read_only(path, crowd, image.root, all_of_it=False)
    image.unmount()
    image.mount()
    with open_store(path, "w") as db:
        crowd.check(db)
    tally("file systems that became read-only", mounts=1, puts=len(crowd.acknowledged))


@pytest.mark.parametrize("kind", ["ext4", *LONG])
def test_a_mount_that_is_read_only(mounted, tally, kind):
    image = mounted(kind)
    path = image.path_of("s")
    db = open_store(path)
    with Crowd(db) as crowd:
        crowd.wait(200)
        crowd.stop()
    assert image.remount("ro")
    check_read_only(path, crowd, image.root, all_of_it=True)
    assert image.remount("rw")
    with open_store(path, "w") as db:
        crowd.check(db)
    tally("file systems that became read-only", mounts=1, puts=len(crowd.acknowledged))
