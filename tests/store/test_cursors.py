"""Cursors: positions in an order that does not change, moved about beside a model."""

from __future__ import annotations

import itertools
import random

import pytest

import kvstore
from tests.store.support import BUFFER, SMALL, contents
from tests.store.test_scan import BOUNDS, KEYS, layered, plain
from wal.files import MemoryFileSystem

ITEMS = {key: b"v" + key for key in KEYS}


class Model:
    """A cursor over a sorted list. None is the position of one that is fresh."""

    def __init__(self, items, start=None, stop=None, prefix=None):
        self.items = [
            (key, items[key])
            for key in sorted(items)
            if (start is None or key >= start)
            and (stop is None or key < stop)
            and (prefix is None or key.startswith(prefix))
        ]
        self.at = None

    def _move(self, at):
        self.at = min(max(at, -1), len(self.items))
        return self.item()

    def item(self):
        there = self.at is not None and 0 <= self.at < len(self.items)
        return self.items[self.at] if there else None

    def first(self):
        return self._move(0)

    def last(self):
        return self._move(len(self.items) - 1)

    def seek(self, key):
        return self._move(sum(each < key for each, _ in self.items))

    def seek_last(self, key):
        return self._move(sum(each <= key for each, _ in self.items) - 1)

    def next(self):
        return self._move(0 if self.at is None else self.at + 1)

    def prev(self):
        return self._move(len(self.items) - 1 if self.at is None else self.at - 1)


def agree(cursor, model):
    item = model.item()
    assert (cursor.key, cursor.value) == ((None, None) if item is None else item)


class TestSteps:
    @pytest.fixture
    def cursor(self, db):
        db.write({b"b": b"2", b"d": b"4", b"f": b"6"})
        with db.cursor() as cursor:
            yield cursor

    def test_a_fresh_one_stands_nowhere(self, cursor):
        assert (cursor.key, cursor.value) == (None, None)

    def test_first_and_last(self, cursor):
        assert cursor.last() == (b"f", b"6")
        assert (cursor.key, cursor.value) == (b"f", b"6")
        assert cursor.first() == (b"b", b"2")
        assert (cursor.key, cursor.value) == (b"b", b"2")

    def test_the_first_next_is_first_and_the_first_prev_is_last(self, db, cursor):
        assert cursor.next() == (b"b", b"2")
        with db.cursor() as other:
            assert other.prev() == (b"f", b"6")

    def test_to_the_end_and_back(self, cursor):
        assert [cursor.next() for _ in range(5)] == [
            (b"b", b"2"),
            (b"d", b"4"),
            (b"f", b"6"),
            None,
            None,
        ]
        assert (cursor.key, cursor.value) == (None, None)
        assert [cursor.prev() for _ in range(5)] == [
            (b"f", b"6"),
            (b"d", b"4"),
            (b"b", b"2"),
            None,
            None,
        ]
        assert cursor.next() == (b"b", b"2")

    def test_seek_finds_the_first_key_that_is_not_below(self, cursor):
        assert cursor.seek(b"d") == (b"d", b"4")
        assert cursor.seek(b"c") == (b"d", b"4")
        assert cursor.seek(b"") == (b"b", b"2")
        assert cursor.seek(b"g") is None
        assert cursor.prev() == (b"f", b"6")

    def test_seek_last_finds_the_last_key_that_is_not_above(self, cursor):
        assert cursor.seek_last(b"d") == (b"d", b"4")
        assert cursor.seek_last(b"e") == (b"d", b"4")
        assert cursor.seek_last(b"z") == (b"f", b"6")
        assert cursor.seek_last(b"a") is None
        assert cursor.next() == (b"b", b"2")

    def test_turning_round(self, cursor):
        assert cursor.seek(b"c") == (b"d", b"4")
        assert cursor.prev() == (b"b", b"2")
        assert cursor.next() == (b"d", b"4")
        assert cursor.next() == (b"f", b"6")
        assert cursor.prev() == (b"d", b"4")

    def test_iteration(self, db, cursor):
        assert list(cursor) == sorted(contents(db).items())
        with db.cursor(b"c") as other:
            assert [key for key, _ in other] == [b"d", b"f"]

    def test_an_empty_store(self, opened):
        with opened().cursor() as cursor:
            for move in (cursor.first, cursor.last, cursor.next, cursor.prev):
                assert move() is None
            assert cursor.seek(b"a") is cursor.seek_last(b"a") is None
            assert list(cursor) == []

    def test_a_cursor_is_always_true(self, opened):
        with opened().cursor() as cursor:
            assert cursor


class TestBounds:
    def test_nothing_outside_is_reached(self, db):
        db.write({key: b"" for key in (b"a", b"b", b"c", b"d")})  # noqa: C420
        with db.cursor(b"b", b"d") as cursor:
            assert cursor.first() == (b"b", b"")
            assert cursor.prev() is None
            assert cursor.last() == (b"c", b"")
            assert cursor.next() is None
            assert cursor.seek(b"a") == (b"b", b"")
            assert cursor.seek(b"d") is None
            assert cursor.seek_last(b"z") == (b"c", b"")
            assert cursor.seek_last(b"a") is None
            assert [key for key, _ in iter(db.cursor(b"b", stop=b"d"))] == [b"b", b"c"]

    def test_a_prefix(self, db):
        db.write(dict.fromkeys([b"a", b"b", b"b\xff", b"b\xff\xff", b"c"], b""))
        with db.cursor(prefix=b"b\xff") as cursor:
            assert cursor.last() == (b"b\xff\xff", b"")
            assert cursor.next() is None
            assert cursor.first() == (b"b\xff", b"")
            assert cursor.seek(b"a") == (b"b\xff", b"")

    @pytest.mark.parametrize("bounds", [{"start": b"a"}, {"stop": b"b"}])
    def test_a_prefix_is_a_range_of_its_own(self, db, bounds):
        with pytest.raises(ValueError, match="prefix"):
            db.cursor(prefix=b"a", **bounds)

    @pytest.mark.parametrize(
        ("call", "hint"),
        [
            (lambda db: db.cursor("a"), r"start\.encode\(\)"),
            (lambda db: db.cursor(stop="a"), r"stop\.encode\(\)"),
            (lambda db: db.cursor(prefix="a"), r"prefix\.encode\(\)"),
            (lambda db: db.cursor().seek("a"), r"key\.encode\(\)"),
            (lambda db: db.cursor().seek_last("a"), r"key\.encode\(\)"),
        ],
    )
    def test_wrong_types(self, db, call, hint):
        with pytest.raises(TypeError, match=hint):
            call(db)

    def test_any_buffer_will_do(self, db):
        db[b"k"] = b"v"
        with db.cursor(bytearray(b"a"), memoryview(b"z")) as cursor:
            assert cursor.seek(bytearray(b"b")) == (b"k", b"v")
            assert cursor.seek_last(memoryview(b"y")) == (b"k", b"v")

    def test_an_empty_range(self, db):
        db[b"k"] = b"v"
        with db.cursor(b"z", b"a") as cursor:
            assert cursor.first() is cursor.last() is cursor.seek(b"k") is None


MOVES = ["first", "last", "next", "prev", "seek", "seek_last"]


def wander(cursor, model, rng, steps, targets):
    """Any move after any other; from time to time a long way in one direction."""
    for _ in range(steps):
        move = rng.choice([*MOVES, "next", "prev"])
        arguments = [rng.choice(targets)] if move.startswith("seek") else []
        for _ in range(rng.choice([1, 1, 2, 9])):
            expected = getattr(model, move)(*arguments)
            assert getattr(cursor, move)(*arguments) == expected
            agree(cursor, model)


@pytest.mark.parametrize("make", [plain, layered])
def test_every_move_within_every_bound(make):
    rng = random.Random(1)
    with make() as db:
        ends = [*itertools.product(BOUNDS, BOUNDS, [None]), *((None, None, p) for p in BOUNDS)]
        for start, stop, prefix in ends:
            model = Model(ITEMS, start, stop, prefix)
            with db.cursor(start, stop, prefix=prefix) as cursor:
                agree(cursor, model)
                wander(cursor, model, rng, 25, [*KEYS, *filter(None, BOUNDS), b"abc"])


@pytest.mark.parametrize("seed", range(4))
def test_over_pages_of_many_tables(seed):
    """Longer than a page, so that a turn comes within one and at its edges."""
    rng = random.Random(seed)
    files = MemoryFileSystem()
    with kvstore.open("s", file_system=files, memtable_bytes=SMALL, durability=BUFFER) as db:
        items = {}
        for size in (3000, 2000, 500, 20):
            batch = {b"%05d" % rng.randrange(9000): b"%d" % size for _ in range(size)}
            gone = rng.sample(sorted(items), len(items) // 5)
            db.write({**batch, **dict.fromkeys(gone)})
            items = {k: v for k, v in (items | batch).items() if k not in gone}
            if rng.random() < 0.7:
                db.checkpoint()
        targets = [b"%05d" % n for n in range(0, 9000, 37)]
        for start, stop in ((None, None), (b"02", b"07"), (b"04000", b"04100")):
            model = Model(items, start, stop)
            with db.cursor(start, stop) as cursor:
                wander(cursor, model, rng, 200, targets)
                assert cursor.first() == model.first()
                assert [cursor.next() for _ in model.items] == [model.next() for _ in model.items]
                assert [cursor.prev() for _ in model.items] == [model.prev() for _ in model.items]


@pytest.mark.parametrize("seed", range(3))
def test_it_shows_the_state_of_its_opening(seed):
    """Whatever is written, checkpointed or merged between two moves."""
    rng = random.Random(seed)
    files = MemoryFileSystem()
    with kvstore.open("s", file_system=files, memtable_bytes=SMALL, durability=BUFFER) as db:
        before = {b"%04d" % n: b"before" for n in range(0, 2000, 2)}
        db.write(before)
        if seed:
            db.checkpoint()
        model = Model(before)
        with db.cursor() as cursor:
            for n in range(60):
                keys = [b"%04d" % rng.randrange(2000) for _ in range(30)]
                db.write({key: rng.choice([None, b"after"]) for key in keys})
                if n % 20 == 19:
                    db.checkpoint()
                if n == 50:
                    db.compact()
                wander(cursor, model, rng, 4, keys)
        with db.cursor() as cursor:
            assert list(cursor) == sorted(contents(db).items())


class TestTheEnd:
    def test_a_closed_cursor_refuses(self, db):
        db[b"k"] = b"v"
        with db.cursor() as cursor:
            cursor.first()
        for call in (
            cursor.first,
            cursor.last,
            cursor.next,
            cursor.prev,
            lambda: cursor.seek(b"k"),
            lambda: cursor.seek_last(b"k"),
            lambda: list(cursor),
        ):
            with pytest.raises(kvstore.StoreError):
                call()
        cursor.close()
        cursor.close()

    def test_close_inside_the_block(self, db):
        with db.cursor() as cursor:
            cursor.close()
            with pytest.raises(kvstore.StoreError):
                cursor.next()

    def test_a_closed_store_ends_its_cursors(self, db):
        db.write({b"%05d" % n: b"" for n in range(3000)})
        with db.cursor() as cursor:
            cursor.first()
            db.close()
            for call in (cursor.first, cursor.next, lambda: cursor.seek(b"1")):
                with pytest.raises(kvstore.StoreClosedError):
                    call()
        with pytest.raises(kvstore.StoreClosedError):
            db.cursor()

    def test_of_a_snapshot_that_is_released(self, db):
        """It has a state of its own, or refuses: it shows nothing newer."""
        db[b"k"] = b"before"
        with db.snapshot() as snap:
            cursor = snap.cursor()
        db[b"k"] = b"after"
        try:
            assert cursor.first() == (b"k", b"before")
        except kvstore.StoreError:
            pass
        finally:
            cursor.close()

    def test_it_keeps_no_snapshot_once_it_is_closed(self, opened):
        """Tables that only a cursor kept go with it; see also the tests of snapshots."""
        db = opened()
        db.write({b"%04d" % n: bytes(100) for n in range(1000)})
        db.checkpoint()
        with db.cursor() as cursor:
            cursor.first()
            db.write({b"%04d" % n: None for n in range(1000)})
            db.compact()
            assert cursor.last() == (b"0999", bytes(100))
        assert contents(db) == {}

    def test_of_a_read_only_store(self, opened):
        with opened() as db:
            db[b"k"] = b"v"
        with opened("r") as db, db.cursor() as cursor:
            assert cursor.last() == (b"k", b"v")
