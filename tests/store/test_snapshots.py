"""Snapshots: each shows the state of its taking, whatever happens, and costs nothing afterwards."""

from __future__ import annotations

import os
import random
import sys
import threading

import pytest

import kvstore
from tests.store.support import BUFFER, SMALL, apply, contents, random_batch
from tests.store.test_threads import run
from tests.wal.support import until
from wal.files import MemoryFileSystem


def in_memory(**options):
    options = {"memtable_bytes": SMALL, "durability": BUFFER, **options}
    return kvstore.open("s", file_system=MemoryFileSystem(), **options)


def check(snap, model):
    """Every way of reading shows the model, and nothing else."""
    items = sorted(model.items())
    keys = [key for key, _ in items]
    assert list(snap.scan()) == items
    assert list(snap.scan(reverse=True)) == items[::-1]
    assert list(snap) == keys
    assert list(reversed(snap)) == keys[::-1]
    assert list(snap.values()) == [value for _, value in items]
    assert snap.count() == len(items)
    asked = [b"key-%02d" % n for n in range(32)]
    assert snap.get_many(asked) == [model.get(key) for key in asked]
    assert [snap.get(key) for key in asked] == [model.get(key) for key in asked]
    assert [key in snap for key in asked] == [key in model for key in asked]
    with snap.cursor() as cursor:
        assert list(cursor) == items


class TestReading:
    @pytest.fixture
    def snap(self, db):
        db.write({b"a": b"1", b"b": b"2", b"c": b"3", b"d": b"4"})
        with db.snapshot() as snap:
            db.write({b"a": None, b"b": b"new", b"bb": b"new"})
            yield snap

    def test_single_keys(self, snap):
        assert snap.get(b"a") == b"1"
        assert snap[b"b"] == b"2"
        assert (snap.get(b"bb"), snap.get(b"bb", 7)) == (None, 7)
        assert (b"a" in snap, b"bb" in snap) == (True, False)
        with pytest.raises(KeyError):
            snap[b"bb"]
        assert snap.get_many([b"c", b"bb", b"a"]) == [b"3", None, b"1"]

    def test_ranges(self, snap):
        items = [(b"a", b"1"), (b"b", b"2"), (b"c", b"3"), (b"d", b"4")]
        assert list(snap.scan()) == items
        assert list(snap.scan(b"b", b"d", include_start=False, include_stop=True)) == items[2:]
        assert list(snap.scan(b"b", reverse=True, limit=2)) == items[:1:-1]
        assert list(snap.keys(prefix=b"b")) == [b"b"]
        assert list(snap.values(stop=b"c")) == [b"1", b"2"]
        assert snap.count(b"b") == 3
        assert list(snap) == [key for key, _ in items]
        assert list(reversed(snap)) == [key for key, _ in items[::-1]]

    def test_a_cursor(self, snap):
        with snap.cursor(b"b") as cursor:
            assert cursor.seek(b"bb") == (b"c", b"3")
            assert cursor.prev() == (b"b", b"2")
            assert cursor.prev() is None

    def test_arguments_are_checked_as_those_of_a_store(self, snap):
        with pytest.raises(ValueError, match="prefix"):
            snap.scan(b"a", prefix=b"a")
        with pytest.raises(ValueError, match="limit"):
            snap.keys(limit=-1)
        with pytest.raises(TypeError, match=r"key\.encode\(\)"):
            snap.get("a")

    def test_nothing_can_be_written(self, db, snap):
        before = db.last_entry_id
        for call in (
            lambda: snap.put(b"k", b""),
            lambda: snap.delete(b"a"),
            lambda: snap.write({b"k": b""}),
        ):
            with pytest.raises((AttributeError, kvstore.ReadOnlyError)):
                call()
        assert db.last_entry_id == before

    def test_the_entry_that_it_stands_at(self, db):
        db[b"a"] = b"1"
        with db.snapshot() as snap:
            db[b"a"] = b"2"
            assert snap.entry_id == db.last_entry_id - 1

    def test_a_snapshot_is_always_true(self, db):
        with db.snapshot() as snap:
            assert snap
            assert list(snap) == []


@pytest.mark.parametrize("seed", range(6))
def test_many_at_a_time_beside_models(seed):
    """Taken and released at random, over checkpoints and compactions; all keep their states."""
    rng = random.Random(seed)
    model, held = {}, []
    with in_memory() as db:
        for _ in range(250):
            action = rng.random()
            if action < 0.6:
                batch = random_batch(rng)
                db.write(batch)
                apply(model, batch)
            elif action < 0.8:
                held.append((db.snapshot().__enter__(), dict(model)))
            elif action < 0.95:
                if held:
                    snap, _ = held.pop(rng.randrange(len(held)))
                    snap.close()
            elif action < 0.99:
                db.checkpoint()
            else:
                db.compact()
            if held and rng.random() < 0.3:
                check(*rng.choice(held))
        for snap, at in held:
            check(snap, at)
            snap.close()
        assert contents(db) == model


def test_it_outlives_the_tables_that_it_reads(opened, files, path):
    """A compaction replaces them; the snapshot keeps what it needs, and no longer."""
    db = opened()
    before = {b"%04d" % n: b"before" * 10 for n in range(2000)}
    db.write(before)
    db.checkpoint()
    with db.snapshot() as snap:
        first = next(scan := snap.scan())
        db.write(dict.fromkeys(before))
        db.checkpoint()
        db.compact()
        assert db.count() == 0
        assert [first, *scan] == sorted(before.items())
        assert contents(snap) == before
        assert snap.get(b"1999") == b"before" * 10
    del snap, scan
    db.compact()
    directory = os.path.join(path, "tables")
    until(lambda: len(files.list(directory)) == db.stats().tables)


def test_a_write_in_the_middle_of_a_scan_of_a_live_layer(db):
    db.write({b"%04d" % n: b"before" for n in range(3000)})
    with db.snapshot() as snap:
        scans = [snap.scan(), snap.scan(reverse=True), iter(snap.cursor())]
        firsts = [next(scan) for scan in scans]
        db.write({b"%04d+" % n: b"after" for n in range(3000)})
        db.write({b"%04d" % n: b"after" for n in range(3000)})
        for first, scan in zip(firsts, scans, strict=True):
            found = [first, *scan]
            assert len(found) == 3000
            assert {value for _, value in found} == {b"before"}


class TestTheEnd:
    def test_a_released_snapshot_refuses(self, db):
        db[b"a"] = b"1"
        with db.snapshot() as snap:
            pass
        for call in (
            lambda: snap.get(b"a"),
            lambda: snap[b"a"],
            lambda: b"a" in snap,
            lambda: snap.get_many([b"a"]),
            lambda: list(snap.scan()),
            lambda: list(snap.keys()),
            lambda: list(snap.values()),
            lambda: list(snap),
            snap.count,
            snap.cursor,
            snap.__enter__,
        ):
            with pytest.raises(kvstore.StoreError):
                call()
        snap.close()

    def test_close_may_be_called_twice_and_inside_the_block(self, db):
        db[b"a"] = b"1"
        with db.snapshot() as snap:
            snap.close()
            snap.close()
            with pytest.raises(kvstore.StoreError):
                snap.get(b"a")
        with db.snapshot() as other:
            assert other[b"a"] == b"1"

    def test_an_exception_releases_it(self, db):
        with pytest.raises(ZeroDivisionError), db.snapshot() as snap:
            raise ZeroDivisionError
        with pytest.raises(kvstore.StoreError):
            snap.get(b"a")

    def test_a_scan_never_goes_on_with_another_state(self, db):
        """After the release it may end with an error, but not show what came later."""
        before = {b"%05d" % n: b"before" for n in range(5000)}
        db.write(before)
        with db.snapshot() as snap:
            scan = snap.scan()
            found = [next(scan)]
        db.write(dict.fromkeys(before, b"after"))
        try:
            found += scan
        except kvstore.StoreError:
            assert {value for _, value in found} == {b"before"}
        else:
            assert found == sorted(before.items())

    def test_a_closed_store_ends_its_snapshots(self, db):
        db[b"a"] = b"1"
        with db.snapshot() as snap:
            db.close()
            for call in (lambda: snap.get(b"a"), lambda: list(snap.scan()), snap.cursor):
                with pytest.raises(kvstore.StoreClosedError):
                    call()
        snap.close()
        with pytest.raises(kvstore.StoreClosedError):
            db.snapshot()

    def test_of_a_read_only_store(self, opened):
        with opened() as db:
            db[b"a"] = b"1"
        with opened("r") as db, db.snapshot() as snap:
            assert contents(snap) == {b"a": b"1"}
            assert snap.entry_id == db.last_entry_id

    def test_a_long_life_under_many_checkpoints(self):
        """A snapshot that is forgotten keeps what it saw, and hinders nobody."""
        with in_memory() as db:
            first = {b"key-%02d" % n: b"first" for n in range(30)}
            db.write(first)
            with db.snapshot() as snap:
                for n in range(20):
                    db.write({b"key-%02d" % k: b"%d" % n * 300 for k in range(30)})
                    db.checkpoint()
                db.compact()
                check(snap, first)
            assert contents(db) == {b"key-%02d" % k: b"19" * 300 for k in range(30)}


# ------------------------------------------------------------------ costs


def lines_run(function):
    """How many lines of Python a call runs: its work, whatever the clock says."""
    count = 0

    def trace(frame, event, argument):
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        function()
    finally:
        sys.settrace(before)
    return count


KEYS = [b"%08d" % n for n in range(20_000)]


def test_32_snapshots_over_100_000_writes_are_released_at_once_and_leave_nothing():
    """A key's undo is handed on from epoch to epoch a few times at most, not 32 times."""
    rng = random.Random(3)
    with in_memory(memtable_bytes=256 << 20, log_segment_bytes=32 << 20) as db:
        db.write({key: key + b"%040d" % 0 for key in KEYS})
        db.sync()
        blocks = sys.getallocatedblocks()
        snaps = []
        for number in range(1, 101):
            if number % 3 == 1 and len(snaps) < 32:
                snaps.append((number, db.snapshot().__enter__()))
            db.write({key: key + b"%040d" % number for key in rng.sample(KEYS, 1000)})
        db.sync()
        kept = sys.getallocatedblocks() - blocks
        assert kept > 50_000, "so much that the snapshots see was overwritten"
        for number, snap in snaps:
            assert max(int(value[8:]) for value in snap.values()) == number - 1
        rng.shuffle(snaps)
        lines = lines_run(lambda: [snap.close() for _, snap in snaps])
        assert lines < 400_000  # two for each of 100,000 keys, twice; 3,000,000 if every time
        db.sync()
        del snap
        snaps.clear()
        assert sys.getallocatedblocks() - blocks < kept / 5
        assert db.count() == len(KEYS)


def test_taking_one_copies_nothing():
    with in_memory(memtable_bytes=64 << 20) as db:
        db.write(dict.fromkeys(KEYS, b""))

        def take_and_release():
            with db.snapshot():
                pass

        take_and_release()
        assert lines_run(take_and_release) < 200


# ------------------------------------------------------------------ threads

ACCOUNTS = [b"account-%02d" % n for n in range(16)]
EACH = 1000


def move_money(db, rng):
    one, other = rng.sample(ACCOUNTS, 2)
    amount = rng.randrange(1, 50)

    def move(tx):
        tx[one] = b"%d" % (int(tx[one]) - amount)
        tx[other] = b"%d" % (int(tx[other]) + amount)

    db.transact(move, attempts=10_000)


def total(snap, rng):
    """The sum, by a way of reading chosen at random."""
    way = rng.randrange(4)
    if way == 0:
        return sum(map(int, snap.values()))
    if way == 1:
        return sum(map(int, snap.values(reverse=True)))
    if way == 2:
        return sum(map(int, snap.get_many(ACCOUNTS)))
    return sum(int(snap[key]) for key in rng.sample(ACCOUNTS, len(ACCOUNTS)))


@pytest.mark.parametrize("seed", range(2))
def test_the_sum_of_all_accounts_never_changes(seed):
    """Taken and released in random order under two writers and checkpoints."""
    with in_memory() as db:
        db.write(dict.fromkeys(ACCOUNTS, b"%d" % EACH))
        done = threading.Event()

        def writer(name):
            rng = random.Random(seed * 100 + name)
            for _ in range(250):
                move_money(db, rng)

        def writers():
            try:
                run(lambda: writer(1), lambda: writer(2))
            finally:
                done.set()

        def reader():
            rng = random.Random(seed)
            held = [db.snapshot().__enter__()]
            while not done.is_set() or held:
                if not done.is_set() and len(held) < 8 and rng.random() < 0.5:
                    held.append(db.snapshot().__enter__())
                snap = rng.choice(held) if held else None
                if snap is not None:
                    assert total(snap, rng) == EACH * len(ACCOUNTS)
                    if rng.random() < 0.4 or done.is_set():
                        held.remove(snap)
                        snap.close()

        def checkpointer():
            while not done.is_set():
                db.checkpoint()

        run(writers, reader, reader, checkpointer)
        assert sum(map(int, db.values())) == EACH * len(ACCOUNTS)


def test_snapshots_of_many_threads():
    """Each thread reads twice from its snapshot while all overwrite: nothing moves."""
    keys = [b"%d" % n for n in range(40)]
    with in_memory() as db:
        db.write(dict.fromkeys(keys, b"0"))

        def worker(name):
            rng = random.Random(name)
            for n in range(60):
                with db.snapshot() as snap:
                    first = snap.get_many(keys)
                    db.write(dict.fromkeys(rng.sample(keys, 5), b"%d-%d" % (name, n)))
                    assert [snap[key] for key in keys] == first
                    assert [snap[key] for key in sorted(keys)] == list(snap.values())

        run(*(lambda name=name: worker(name) for name in range(5)))
