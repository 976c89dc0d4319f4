"""Whoever reads while others write, compact, recycle, lose power, or are killed."""

from __future__ import annotations

import errno
import logging
import os
import random
import threading

import pytest

import kvstore
from kvstore.background.building import SegmentJob
from kvstore.background.worker import Worker as TableWorker
from kvstore.directory import is_temporary
from tests.store.support import (
    BUFFER,
    FSYNC,
    PATIENCE,
    SMALL,
    WRITE,
    contents,
    random_history,
)
from tests.wal.support import Worker, until
from wal.files.faulty import FaultyFileSystem

TABLES = os.path.join("s", "tables")


@pytest.fixture(autouse=True)
def _no_noise():
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture
def system():
    return FaultyFileSystem()


def open_on(system, flag="c", **options):
    return kvstore.open("s", flag, file_system=system, memtable_bytes=SMALL, **options)


# ------------------------------------------------------------------ a read-only handle


@pytest.mark.parametrize("seed", range(3))
def test_a_reader_shows_nothing_that_a_power_loss_undoes(system, seed):
    """What it showed, freshly opened or refreshed, is there after a power loss at that moment."""
    rng = random.Random(seed)
    batches, models = random_history(seed, 25)
    with open_on(system) as db, open_on(system, "r") as reader:
        at = 0
        for number, batch in enumerate(batches):
            db.write(batch, durability=rng.choice([BUFFER, WRITE, WRITE, FSYNC]))
            if number % 8 == 5:
                db.checkpoint()
            if number % 12 == 11:
                db.compact()
            reader.refresh()
            seen = reader.last_entry_id
            assert at <= seen <= number + 1
            assert contents(reader) == models[seen]
            at = seen
            with open_on(system, "r") as fresh:
                at = max(at, fresh.last_entry_id)
                assert contents(fresh) == models[fresh.last_entry_id]
            for state in system.crash_states(seed=number, limit=3):
                with open_on(state, "w") as left:
                    assert contents(left) in models[at : number + 2], state.label
        assert at >= 22, "it has to show what is in tables at least"


def test_what_a_reader_has_open_is_removed_and_used_again(opened, files, path):
    """Its tables are replaced, its segments recycled: it shows what it did, until it is told to."""
    writer = opened(large_value_bytes=2_000)
    before = {b"%03d" % n: b"before-%d" % n for n in range(300)}
    before |= {b"large": b"B" * 5_000, b"in the log": b"L" * 5_000}
    writer.write({key: before[key] for key in before if key != b"in the log"})
    writer.checkpoint()
    writer.put(b"in the log", before[b"in the log"])
    writer.sync()
    reader = opened("r", large_value_bytes=2_000)
    until(lambda: reader.refresh() or b"in the log" in reader)
    snap, scan = reader.snapshot(), reader.scan()
    first = next(scan)
    removed = set(files.list(os.path.join(path, "tables")))
    for turn in range(6):  # more than there are segments to recycle
        writer.write(dict.fromkeys(before, None if turn % 2 else b"after" * 100))
        writer.checkpoint()
    writer.put(b"after", b"1")
    writer.compact()
    assert removed.isdisjoint(files.list(os.path.join(path, "tables")))
    assert contents(reader) == contents(snap) == before
    assert [first, *scan] == sorted(before.items())
    assert reader.get(b"in the log") == before[b"in the log"]
    until(lambda: reader.refresh() or contents(reader) == {b"after": b"1"})
    assert contents(snap) == before
    assert snap[b"in the log"] == before[b"in the log"]
    snap.close()


def test_a_refresh_while_the_writer_goes_on(system):
    """After each file that the refresh opens the writer checkpoints, merges and recycles."""
    writer = open_on(system)
    written = 0

    def write(count):
        nonlocal written
        for _ in range(count):
            writer[b"%04d" % written] = b""
            written += 1
        writer.compact()

    write(1)
    reader = open_on(system, "r")
    for at in range(1, 20):
        calls = 0

        def on_call(kind, name, number, at=at):
            nonlocal calls
            if threading.current_thread() is threading.main_thread() and kind == "open":
                calls += 1
                if calls == at:
                    system.on_call = None
                    write(2)

        before = written
        system.on_call = on_call
        reader.refresh()
        system.on_call = None
        found = list(reader)
        assert found == [b"%04d" % n for n in range(len(found))]
        assert before <= len(found) <= written
        write(1)
    reader.close()
    writer.close()


# ------------------------------------------------------------------ readers of a compacted table


@pytest.mark.parametrize("cache_bytes", [0, 1 << 20])
def test_a_table_is_compacted_while_it_is_read(system, cache_bytes):
    """Readers neither wait for it nor notice: before, while, and after it is replaced."""
    items = {b"%04d" % n: b"%d" % n * 20 for n in range(1_500)}
    with open_on(system, cache_bytes=cache_bytes) as db:
        db.write(items)
        db.checkpoint()
        db.delete(b"0007")
        del items[b"0007"]
        entered, proceed = threading.Event(), threading.Event()

        def on_call(kind, path, number):
            if kind == "sync" and is_temporary(os.path.basename(path)):
                entered.set()
                assert proceed.wait(PATIENCE)

        db.checkpoint()
        scan, backwards, cursor = db.scan(), db.keys(reverse=True), db.cursor().__enter__()
        first, last = next(scan), next(backwards)
        assert cursor.first() == first
        system.on_call = on_call
        compaction = Worker(db.compact)
        assert entered.wait(PATIENCE)
        assert contents(db) == items
        assert db[b"0700"] == items[b"0700"]
        db.put(b"0700", b"new")
        proceed.set()
        compaction.join()
        system.on_call = None
        assert [first, *scan] == sorted(items.items())
        assert [last, *backwards] == sorted(items, reverse=True)
        assert [cursor.next() for _ in range(len(items) - 1)] == sorted(items.items())[1:]
        cursor.close()
        assert contents(db) == items | {b"0700": b"new"}
        del scan, backwards, cursor
        db.compact()
        assert len(system.list(TABLES)) == 1


# ------------------------------------------------------------------ a child of a killed parent


@pytest.fixture
def killed(system, monkeypatch):
    """A store whose process was killed while a child of it built a table: the disk, and the job."""
    jobs = []

    def run(worker, job):
        jobs.append(job)
        raise OSError(errno.EIO, "the process is killed here")

    db = open_on(system)
    db.write({b"%03d" % n: b"%d" % n * 50 for n in range(200)})
    with monkeypatch.context() as patched:
        patched.setattr(TableWorker, "run", run)
        with pytest.raises(kvstore.StoreFailedError):
            db.checkpoint()
    (job,) = jobs
    assert isinstance(job, SegmentJob)
    after = system.killed()
    db.close()
    return after, job, {b"%03d" % n: b"%d" % n * 50 for n in range(200)}


@pytest.mark.parametrize("kind", ["create", "write_at", "sync"])
def test_the_next_opener_and_the_child_build_the_same_table(killed, kind):
    """The child is held in the middle; the store is opened, checkpointed, used; the child ends."""
    system, job, expected = killed
    held, proceed = threading.Event(), threading.Event()
    child_thread = []

    def on_call(what, path, number):
        if what == kind and threading.get_ident() in child_thread and not held.is_set():
            held.set()
            assert proceed.wait(PATIENCE)

    def run():
        child_thread.append(threading.get_ident())
        return job.run(system)

    system.on_call = on_call
    child = Worker(run)
    assert held.wait(PATIENCE)
    with open_on(system, "w") as db:
        assert contents(db) == expected
        db.checkpoint()
        db[b"more"] = expected[b"more"] = b"1"
        proceed.set()
        child.wait()  # it may find its file gone
        assert contents(db) == expected
        db.compact()
        assert db.verify().ok
    with open_on(system, "w") as db:
        assert contents(db) == expected
        assert len(system.list(TABLES)) == db.stats().tables
        assert not any(map(is_temporary, system.list(TABLES)))


def test_the_same_segment_gives_the_same_table(killed):
    """Whoever builds it."""
    system, job, _ = killed
    first, second = (job.run(system) for _ in range(2))
    for one, other in zip(first, second, strict=True):
        assert one.name != other.name
        assert (one.record.size, one.record.items) == (other.record.size, other.record.items)
        assert (one.record.low, one.record.high) == (other.record.low, other.record.high)
