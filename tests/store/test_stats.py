"""What a store tells about itself."""

from __future__ import annotations

import dataclasses
import logging
import random
import threading

import pytest

import kvstore
from tests.store.support import BUFFER
from wal.files import FaultyFileSystem


def put_many(db, count, size=100, start=0):
    for first in range(start, start + count, 50):
        with db.batch(durability=BUFFER) as batch:
            for number in range(first, first + 50):
                batch.put(b"key-%010d" % number, bytes(size))


def test_a_snapshot_never_changes(db):
    stats = db.stats()
    with pytest.raises(dataclasses.FrozenInstanceError):
        stats.tables = 5
    db.put(b"k", b"v")
    assert stats.memtable_items == 0
    assert db.stats().memtable_items == 1


def test_an_empty_store(db):
    stats = db.stats()
    counts = dataclasses.asdict(stats)
    assert 0 < counts.pop("log_bytes") < 1000
    assert set(counts.values()) == {0}
    assert stats.checkpoint_lag == 0
    assert stats.write_amplification == 0.0


def test_where_things_are(db):
    db.write({b"a": b"1", b"b": b"22", b"c": b"333"})
    db.delete(b"a")
    before = db.stats()
    assert (before.last_entry_id, before.durable_entry_id, before.checkpoint_entry_id) == (2, 2, 0)
    assert (before.memtable_items, before.checkpoint_lag) == (3, 2)
    assert 3 * 190 < before.memtable_bytes < 3 * 200
    assert (before.tables, before.runs, before.table_bytes) == (0, 0, 0)
    db.checkpoint()
    after = db.stats()
    assert (after.checkpoint_entry_id, after.checkpoint_lag) == (2, 0)
    assert (after.memtable_items, after.memtable_bytes, after.segments_waiting) == (0, 0, 0)
    assert after.log_bytes < before.log_bytes
    assert (after.tables, after.runs, after.table_items) == (1, 1, 2)
    assert after.value_bytes == 5
    assert after.table_bytes == after.checkpoint_bytes_written > 0


def test_tombstones(db):
    db.write({b"a": b"1", b"b": b"2"})
    db.checkpoint()
    for number in range(5):  # so that the deletion is not merged at once
        db.put(b"k%d" % number, b"v")
    db.delete(b"a")
    db.checkpoint()
    stats = db.stats()
    if stats.runs > 1:
        assert (stats.table_items, stats.table_tombstones) == (8, 1)
    db.compact()
    stats = db.stats()
    assert (stats.runs, stats.table_items, stats.table_tombstones) == (1, 6, 0)
    assert stats.merge_bytes_written > 0


@pytest.mark.parametrize("batch", [1, 7, 300])
@pytest.mark.parametrize("size", [0, 100, 1000, 200_000])
def test_user_bytes(opened, batch, size):
    if batch * size > 2_000_000:
        pytest.skip("that takes long")
    db = opened(memtable_bytes=8 << 20)
    rng = random.Random(1)
    keys = values = 0
    for _ in range(max(2, 60 // batch)):
        items = {rng.randbytes(16): bytes(size) for _ in range(batch)}
        items[b"gone"] = None
        db.write(items, durability=BUFFER)
        keys, values = keys + 16 * batch + 4, values + size * batch
    db.sync()
    assert db.stats().user_bytes == pytest.approx(keys + values, rel=0.05, abs=100)


def test_write_amplification(opened):
    """Counted by hand: the log once, its tables once, and what compactions wrote."""
    db = opened(processes=False)
    put_many(db, 2000)
    db.checkpoint()
    db.compact()
    stats = db.stats()
    assert stats.user_bytes == pytest.approx(2000 * 114, rel=0.02)
    assert stats.log_bytes_written > stats.user_bytes
    assert stats.checkpoint_bytes_written > stats.user_bytes
    assert stats.merge_bytes_written > stats.user_bytes
    assert 3 < stats.write_amplification < 12


def test_the_cache(opened):
    db = opened(cache_bytes=1 << 20)
    put_many(db, 500)
    db.checkpoint()
    assert db.stats().cache_bytes < 100_000
    assert db.get(b"key-%010d" % 7) is not None
    first = db.stats()
    assert first.cache_misses > 0
    assert first.cache_bytes > 0
    for _ in range(3):
        db.get(b"key-%010d" % 7)
    again = db.stats()
    assert again.cache_hits >= first.cache_hits + 3
    assert again.cache_misses == first.cache_misses


def test_replayed_entries(opened):
    db = opened()
    for number in range(5):
        db.put(b"%d" % number, b"v")
    db.close()
    again = opened()
    assert again.stats().replayed_entries == 5
    assert again.stats().memtable_items == 5
    again.close()
    assert opened("r").stats().replayed_entries == 5


def test_beside_a_writer(db, opened):
    db.put(b"k", b"v")
    db.checkpoint()
    reader = opened("r")
    stats = reader.stats()
    assert (stats.tables, stats.table_items, stats.last_entry_id) == (1, 1, 1)
    assert stats.user_bytes == stats.log_bytes_written == 0
    db.put(b"l", b"w")
    db.checkpoint()
    reader.refresh()
    assert reader.stats().table_items == 2


class Told(logging.Handler):
    """Hears that writers wait."""

    def __init__(self):
        super().__init__()
        self.event = threading.Event()

    def emit(self, record):
        if "writers wait" in record.getMessage():
            self.event.set()


def test_a_writer_that_waits_is_counted(opened, files):
    """No table gets its name before a writer has to wait."""
    told, system = Told(), FaultyFileSystem(files)

    def hold(kind, path, number):
        if kind == "rename" and "tmp-" in path:
            assert told.event.wait(20)

    system.on_call = hold
    logger = logging.getLogger("wal.checkpointer")
    logger.addHandler(told)
    try:
        db = opened(file_system=system, processes=False)
        assert db.stats().stalls == 0
        put_many(db, 5000)
        assert told.event.is_set()
        assert db.stats().stalls > 0
        assert db.stats().stall_seconds > 0
    finally:
        logger.removeHandler(told)


def test_a_closed_store(db):
    db.close()
    with pytest.raises(kvstore.StoreClosedError):
        db.stats()
