"""A handle beside a writer that is refreshed: what was taken before stays as it was."""

from __future__ import annotations

import kvstore
from wal.files import MemoryFileSystem

LARGE = bytes(range(256)) * 300


def test_a_snapshot_of_before_still_reads_large_values() -> None:
    """Its values are in the log that it was taken from, which a refresh replaces by a fresh one."""
    files = MemoryFileSystem()
    with kvstore.open("db", file_system=files) as db:
        db.put(b"k", LARGE)
        db.put(b"other", b"1")  # the witness that the large one is durable
        with kvstore.open("db", "r", file_system=files) as reader:
            snap, scan = reader.snapshot(), reader.scan()
            db.put(b"k", b"small")
            db.put(b"other", b"2")
            db.put(b"other", b"3")
            reader.refresh()
            reader.refresh()
            assert reader[b"k"] == b"small"
            assert snap[b"k"] == LARGE
            assert dict(scan)[b"k"] == LARGE
            snap.close()


def test_refreshing_leaves_no_file_open() -> None:
    files = MemoryFileSystem()
    with kvstore.open("db", file_system=files) as db:
        db.put(b"k", LARGE)
        with kvstore.open("db", "r", file_system=files) as reader:
            for number in range(5):
                db.put(b"n", b"%d" % number)
                db.checkpoint()
                reader.refresh()
                assert reader[b"n"] == b"%d" % number
                assert reader[b"k"] == LARGE


def test_a_follower_in_a_reader_refreshes_it() -> None:
    """Nobody else would: it waited for ever for what its writer had written long before."""
    files = MemoryFileSystem()
    with (
        kvstore.open("db", file_system=files) as db,
        kvstore.open("db", "r", file_system=files) as reader,
        reader.changes(after=0, follow=True) as changes,
    ):
        for number in range(3):
            db.put(b"k", b"%d" % number)
            db.sync()
            assert next(changes).items == ((b"k", b"%d" % number),)
