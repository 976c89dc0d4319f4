"""Values that stay out of memory: in the log by their position, in tables outside the blocks."""

from __future__ import annotations

import random
import tracemalloc

import pytest

import kvstore
import wal
from tests.store.support import BUFFER, FSYNC, SMALL, WRITE, contents
from tests.store.test_threads import run
from wal.files import MemoryFileSystem

#: The default of ``large_value_bytes``.
LARGE = 64 << 10


def large(name, size=LARGE):
    """Bytes that tell which value they are, of a size from the threshold on."""
    return random.Random(repr((name, size))).randbytes(size)


SIZES = [LARGE - 1, LARGE, LARGE + 1, 300 << 10, 1 << 20]
ITEMS = {b"key-%07d" % size: large("v", size) for size in SIZES} | {b"small": b"s", b"empty": b""}

#: What may happen to a store between writing and reading; each leaves its contents alone.
STAGES = ["just written", "reopened", "checkpointed", "compacted", "twice", "beside"]


def bring_to(stage, db, reopen):
    """The store in that stage."""
    if stage == "reopened":
        return reopen(db)
    if stage in ("checkpointed", "compacted", "twice"):
        db.checkpoint()
    if stage in ("compacted", "twice"):
        db[b"other"] = large("other")
        db.delete(b"other")
        db.checkpoint()
        db.compact()
    if stage == "twice":
        db = reopen(db)
        db.compact()
        return reopen(db)
    if stage == "beside":
        db.close()
        return reopen(db, "r")
    return db


@pytest.fixture
def db(opened):
    """Without processes, whose starts take longer than all the rest; some tests below have them."""
    return opened(processes=False)


@pytest.fixture
def reopen(opened):
    def reopen(db, flag="w"):
        db.close()
        return opened(flag, processes=False)

    return reopen


def check(db):
    """Every way of reading."""
    items = sorted(ITEMS.items())
    assert list(db.scan()) == items
    assert list(db.scan(reverse=True)) == items[::-1]
    assert list(db.values(prefix=b"key-")) == [v for k, v in items if k.startswith(b"key-")]
    assert list(db.keys()) == [key for key, _ in items]
    assert db.count() == len(items)
    assert db.get_many([key for key, _ in items]) == [value for _, value in items]
    for key, value in items:
        assert db[key] == value
        assert type(db.get(key)) is bytes
        assert key in db
    with db.cursor() as cursor:
        assert [cursor.next() for _ in items] == items
        assert [cursor.value, *(item[1] for item in iter(cursor.prev, None))] == [
            value for _, value in items[::-1]
        ]


@pytest.mark.parametrize("stage", STAGES)
class TestEveryStage:
    def test_of_a_write(self, db, reopen, stage):
        db.write(ITEMS)
        check(bring_to(stage, db, reopen))

    def test_of_puts(self, db, reopen, stage):
        for durability, (key, value) in zip(
            [FSYNC, WRITE, BUFFER] * 3, ITEMS.items(), strict=False
        ):
            db.put(key, value, durability=durability)
        check(bring_to(stage, db, reopen))

    def test_of_a_batch(self, db, reopen, stage):
        with db.batch() as batch:
            for key, value in ITEMS.items():
                batch.put(key, value)
        check(bring_to(stage, db, reopen))

    def test_of_a_transaction(self, db, reopen, stage):
        with db.transaction() as tx:
            for key, value in ITEMS.items():
                tx[key] = value
            check(tx)
        check(bring_to(stage, db, reopen))

    def test_of_conditional_writes(self, db, reopen, stage):
        for key, value in ITEMS.items():
            assert db.add(key, large("first"))
            assert not db.add(key, value)
            assert not db.replace(key, large("another"), b"")
            assert db.replace(key, large("first"), value)
        check(bring_to(stage, db, reopen))

    def test_over_older_ones(self, db, reopen, stage):
        """Large over large, small over large, large over small, and deleted ones."""
        db.write({key: large("old") for key in ITEMS} | {b"gone": large("gone")})
        db.checkpoint()
        db.write({key: large("older", 70_000) for key in ITEMS})
        db.delete(b"gone")
        db.write(ITEMS)
        check(bring_to(stage, db, reopen))


class TestReading:
    def test_a_snapshot_keeps_them(self, db):
        """The segments and tables that it needs stay until it is released."""
        db.write(ITEMS)
        with db.snapshot() as snap:
            check(snap)
            db.write(dict.fromkeys(ITEMS, large("new")))
            check(snap)
            db.checkpoint()
            check(snap)
            db.write(dict.fromkeys(ITEMS))
            db.checkpoint()
            db.compact()
            check(snap)
            with db.snapshot() as later:
                assert contents(later) == {}
        assert contents(db) == {}

    def test_a_snapshot_over_many_segments(self, db):
        """They come and go while it is open; those that it needs are not among them."""
        snaps = []
        for n in range(6):
            db.write({b"a": large(n), b"%d" % n: large(-n)})
            snaps.append((n, db.snapshot().__enter__()))
            if n % 2:
                db.checkpoint()
        for n, snap in snaps[::-1]:
            assert snap[b"a"] == large(n)
            assert list(snap.values(b"0", b"9")) == [large(-each) for each in range(n + 1)]
            snap.close()
        db.checkpoint()
        assert db[b"a"] == large(5)

    def test_a_scan_keeps_them(self, db):
        db.write({b"%02d" % n: large(n) for n in range(12)})
        for make in (db.scan, db.cursor):
            scan = iter(make())
            assert next(scan) == (b"00", large(0))
            db.write({b"%02d" % n: large("after") for n in range(12)})
            db.checkpoint()
            db.compact()
            assert list(scan) == [(b"%02d" % n, large(n)) for n in range(1, 12)]
            db.write({b"%02d" % n: large(n) for n in range(12)})

    def test_keys_and_counts_read_none_of_them(self, opened):
        """Positions are enough."""
        db = opened(cache_bytes=0)
        db.write({b"%02d" % n: large(n, 1 << 20) for n in range(8)})
        for prepare in (lambda: None, db.checkpoint):
            prepare()
            tracemalloc.start()
            assert len(list(db.keys())) == db.count() == 8
            assert b"03" in db
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            assert peak < 512 << 10

    def test_in_a_transaction_they_conflict_like_any(self, db):
        db[b"k"] = large("k")
        with pytest.raises(kvstore.ConflictError), db.transaction() as tx:  # noqa: PT012
            assert tx[b"k"] == large("k")
            tx[b"mine"] = large("mine")
            db[b"k"] = large("other")
        assert contents(db) == {b"k": large("other")}
        assert db.transact(lambda tx: tx.pop(b"k")) == large("other")
        assert contents(db) == {}

    def test_pop_returns_them(self, db):
        db.write({b"a": large("a"), b"b": large("b")})
        assert db.pop(b"a") == large("a")
        db.checkpoint()
        assert db.pop(b"b") == large("b")
        assert contents(db) == {}


class TestOptions:
    @pytest.mark.parametrize("threshold", [1 << 10, 10_000, 1 << 20])
    def test_the_threshold_can_be_chosen(self, opened, threshold):
        """And another one at the next opening: what is written already stays as it is."""
        items = {b"%d" % size: large("t", size) for size in (threshold - 1, threshold, 50_000)}
        db = opened(large_value_bytes=threshold)
        db.write(items)
        assert contents(db) == items
        db.checkpoint()
        db.close()
        db = opened()
        assert contents(db) == items
        db[b"more"] = large("more", 20_000)
        db.compact()
        db.close()
        assert contents(opened("r", large_value_bytes=1 << 10)) == {
            **items,
            b"more": large("more", 20_000),
        }

    @pytest.mark.parametrize("compression", [None, "zlib"])
    def test_with_compression(self, opened, compression):
        db = opened(compression=compression)
        items = {b"zeros": bytes(1 << 20), b"noise": large("noise"), b"short": bytes(1000)}
        db.write(items)
        db.checkpoint()
        assert contents(db) == items
        db.compact()
        assert contents(db) == items

    def test_any_buffer_is_copied(self, db):
        value = bytearray(large("k"))
        db.put(b"k", value)
        value[:] = bytes(len(value))
        assert db[b"k"] == large("k")
        db.put(b"k", memoryview(bytearray(large("m"))))
        assert db[b"k"] == large("m")


def test_those_that_were_replaced_leave_the_disk(opened, files, path):
    """At the latest when everything is merged."""

    def table_bytes():
        db.checkpoint()
        db.compact()
        return db.stats().table_bytes

    db = opened()
    for n in range(6):
        db.write({b"a": large(n, 300_000), b"b": large(-n, 300_000)})
        db.checkpoint()
    assert 600_000 < table_bytes() < 700_000
    db.delete(b"a")
    assert 300_000 < table_bytes() < 350_000
    assert db[b"b"] == large(-5, 300_000)
    db.delete(b"b")
    assert table_bytes() < 10_000


def test_a_crash_leaves_them_whole_or_not_at_all():
    """Killed behind each write: each value is as it was written."""
    files = MemoryFileSystem()
    model = {}
    db = kvstore.open("s", file_system=files, memtable_bytes=SMALL, durability=WRITE)
    for n in range(8):
        key = b"%d" % (n % 3)
        db[key] = model[key] = large(n)
        if n == 4:
            db.checkpoint()
        with kvstore.open("s", file_system=files.copy(), memtable_bytes=SMALL) as killed:
            assert contents(killed) == model
            killed[b"0"] = large("killed")
            assert killed[b"0"] == large("killed")
    db.close()


def test_the_memory_they_take_is_bounded(path):
    """A store of 48 MiB in values of 1 MiB: at no time more than a few of them are in memory."""
    most = 12 << 20
    names = [b"%02d" % n for n in range(48)]
    options = {"durability": WRITE, "cache_bytes": 1 << 20, "processes": False}
    options |= {"memtable_bytes": 1 << 20}
    tracemalloc.start()
    try:
        with kvstore.open(path, **options) as db:
            for name in names:
                db[name] = large(name, 1 << 20)
            db.checkpoint()
            for name in names[:10]:
                db[name] = large(name, 1 << 20)
            db.checkpoint()
            db.compact()
            for name, value in db.scan():
                assert value == large(name, 1 << 20)
            with db.snapshot() as snap:
                assert sum(map(len, snap.values(reverse=True))) == 48 << 20
        with kvstore.open(path, "w", **options) as db:
            assert db[b"47"] == large(b"47", 1 << 20)
            db.verify()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < most


def test_one_whose_segment_goes_between_its_position_and_its_bytes(monkeypatch):
    """The reader has the position, then the checkpoint moves the value: it looks again."""
    read_at = wal.WriteAheadLog.read_at
    moves = []

    def moved_away(self, position, *arguments, **named):
        if moves:
            moves.pop()()
        return read_at(self, position, *arguments, **named)

    monkeypatch.setattr(wal.WriteAheadLog, "read_at", moved_away)
    options = {"memtable_bytes": SMALL, "durability": BUFFER}
    with kvstore.open("s", file_system=MemoryFileSystem(), **options) as db:

        def move():
            """Long enough for the segment's file to be gone."""
            for _ in range(3):
                db[b"other"] = b""
                db.checkpoint()

        for read in (
            lambda: db[b"k"],
            lambda: db.get(b"k"),
            lambda: db.get_many([b"other", b"k"])[1],
            lambda: next(db.values(b"k", b"l")),
            lambda: next(db.scan(b"k"))[1],
            lambda: db.snapshot().__enter__()[b"k"],
            lambda: db.cursor(b"k").first()[1],
            lambda: db.transact(lambda tx: tx[b"k"]),
            lambda: db.pop(b"k"),
        ):
            db[b"k"] = large("k")
            moves.append(move)
            assert read() == large("k")
            assert not moves, "the position was not looked up in the log"


def test_one_that_is_replaced_then(monkeypatch):
    """The reader may see the old value or the new one: it finds one of them, whole."""
    read_at = wal.WriteAheadLog.read_at
    moves = []

    def replaced(self, position, *arguments, **named):
        if moves:
            moves.pop()()
        return read_at(self, position, *arguments, **named)

    monkeypatch.setattr(wal.WriteAheadLog, "read_at", replaced)
    options = {"memtable_bytes": SMALL, "durability": BUFFER}
    with kvstore.open("s", file_system=MemoryFileSystem(), **options) as db:

        def replace():
            for n in range(3):
                db[b"k"] = large(n)
                db.checkpoint()
            db.compact()

        def delete():
            db.delete(b"k")
            db.checkpoint()
            db.compact()

        for move, allowed in ((replace, [large("k"), large(2)]), (delete, [large("k"), None])):
            for read in (
                lambda: db.get(b"k"),
                lambda: db.get_many([b"k"])[0],
                lambda: next(db.values(), None),
            ):
                db[b"k"] = large("k")
                moves.append(move)
                assert read() in allowed
                assert not moves
            db[b"k"] = large("k")
            with db.snapshot() as snap:
                moves.append(move)
                assert snap[b"k"] == large("k")


def test_readers_beside_writers_and_checkpoints():
    """Values tell their own number: none is torn, none of another key."""
    values = {n: large(n) for n in range(12)}
    names = {value: n for n, value in values.items()}
    options = {"memtable_bytes": SMALL, "durability": BUFFER}
    with kvstore.open("s", file_system=MemoryFileSystem(), **options) as db:
        db.write({b"%d" % key: values[key] for key in range(4)})
        running = [True]

        def writer():
            try:
                rng = random.Random(0)
                for _ in range(120):
                    key = rng.randrange(4)
                    db[b"%d" % key] = values[key + 4 * rng.randrange(3)]
            finally:
                running.clear()

        def reader():
            rng = random.Random(1)
            while running:
                key = rng.randrange(4)
                assert names[db[b"%d" % key]] % 4 == key
                assert [names[value] % 4 for value in db.values()] == [0, 1, 2, 3]

        def checkpointer():
            while running:
                db.checkpoint()

        run(writer, reader, reader, checkpointer)
