"""Faults that were found once, each told first, then kept from coming back."""

from __future__ import annotations

import traceback

import pytest

import kvstore
from tests.store.support import SMALL, contents
from wal.files import MemoryFileSystem


def small_on(files, flag="c"):
    """A store that checkpoints, merges and streams values early."""
    return kvstore.open(
        "s", flag, file_system=files, memtable_bytes=SMALL, large_value_bytes=1 << 10
    )


@pytest.mark.parametrize("end", ["first", "last"])
def test_a_cursor_in_a_transaction_that_seeks_within_its_page(end):
    """What was passed over between the sought key and the one found was not counted as read.

    A cursor that had come from the other side found it in the page at hand, and noted the key that
    it found alone: another write in between went unnoticed, and the transaction was not
    serializable.
    """
    with kvstore.open("s", file_system=MemoryFileSystem()) as db:
        db.write({b"a": b"", b"c": b"", b"e": b""})
        tx = db.transaction().__enter__()
        cursor = tx.cursor()
        if end == "first":
            assert cursor.first() == (b"a", b"")
            assert cursor.seek_last(b"d") == (b"c", b"")
            db[b"cc"] = b"now this is the last up to d"
        else:
            assert cursor.last() == (b"e", b"")
            assert cursor.seek(b"b") == (b"c", b"")
            db[b"bb"] = b"now this is the first from b on"
        tx[b"found"] = b"c"
        with pytest.raises(kvstore.ConflictError):
            tx.__exit__(None, None, None)


def test_a_delete_in_a_namespace_that_was_never_written():
    """It went to the log without the directory's entry.

    The change feed then took the namespace's id, which the directory did not have, for damage.
    """
    files = MemoryFileSystem()
    with small_on(files) as db:
        db.namespace(b"n").delete(b"k")
        db.namespace(b"n").namespace(b"inner").delete(b"k")
        (change, inner) = db.changes()
    assert (change.namespace, change.items) == ((b"n",), ((b"k", None),))
    assert (inner.namespace, inner.items) == ((b"n", b"inner"), ((b"k", None),))


def test_large_values_of_a_reader_whose_writer_goes_on():
    """A reader had their positions in log segments, which its writer takes when it likes.

    Once that had checkpointed them, reading such a value, also from a snapshot, raised errors of
    the log, "cannot be found where it is said to be", or a struct.error.
    """
    files = MemoryFileSystem()
    items = {b"%02d" % n: bytes([n]) * 5000 for n in range(8)}
    with small_on(files) as db:
        db.write(items)
        db[b"witness"] = b""  # of what comes before it: now a reader sees that
        with small_on(files, "r") as reader, reader.snapshot() as snap, reader.cursor() as cursor:
            started = reader.scan(stop=b"w")
            assert next(started) == (b"00", items[b"00"])
            for _ in range(6):
                db.write(dict.fromkeys(items, b"new" * 3000))
                db.checkpoint()
            for view in (reader, snap):
                assert {key: contents(view)[key] for key in items} == items
                assert view[b"07"] == items[b"07"]
            assert cursor.seek(b"07") == (b"07", items[b"07"])
            assert dict(started) == {key: items[key] for key in list(items)[1:]}


def test_a_store_whose_log_has_closed_already():
    """Reads of large values met the closed log of a store that was not marked as closed yet.

    They raised the log's own error; taking a snapshot or a scan tried for ever, which was long
    where an interrupt had come just there. Each try made the traceback of the one error longer.
    """
    db = small_on(MemoryFileSystem())
    db[b"k"] = bytes(5000)
    snap = db.snapshot()
    db._engine.log.shutdown()
    depths = set()
    for _ in range(3):
        for read in (lambda: db[b"k"], lambda: snap[b"k"], db.snapshot, lambda: list(db.scan())):
            with pytest.raises(kvstore.StoreClosedError) as caught:
                read()
        cause = caught.value.__cause__
        depths.add(len(list(traceback.walk_tb(cause.__traceback__))))
    assert len(depths) == 1
    db.close()
