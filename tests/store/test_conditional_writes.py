"""add, replace and pop: decided against the newest state there is, however many threads ask."""

from __future__ import annotations

import random
import threading

import pytest

import kvstore
from tests.store.support import BUFFER, FSYNC, PATIENCE, SMALL, WRITE, contents
from tests.store.test_threads import run
from wal.files import MemoryFileSystem


class TestAdd:
    def test_only_if_absent(self, db):
        assert db.add(b"k", b"1") is True
        assert db.add(b"k", b"2") is False
        assert contents(db) == {b"k": b"1"}

    def test_after_a_delete(self, db):
        db[b"k"] = b"1"
        db.checkpoint()
        db.delete(b"k")
        assert db.add(b"k", b"2") is True
        assert db[b"k"] == b"2"

    def test_where_the_key_is_in_a_table(self, db):
        db[b"k"] = b"1"
        db.checkpoint()
        assert db.add(b"k", b"2") is False
        assert db.add(b"m", b"2") is True
        assert contents(db) == {b"k": b"1", b"m": b"2"}


class TestReplace:
    def test_only_what_was_expected(self, db):
        db[b"k"] = b"1"
        assert db.replace(b"k", b"0", b"2") is False
        assert db[b"k"] == b"1"
        assert db.replace(b"k", b"1", b"2") is True
        assert db[b"k"] == b"2"

    def test_none_expects_that_it_is_absent(self, db):
        assert db.replace(b"k", None, b"1") is True
        assert db.replace(b"k", None, b"2") is False
        assert contents(db) == {b"k": b"1"}

    def test_none_as_the_new_value_deletes(self, db):
        db[b"k"] = b"1"
        assert db.replace(b"k", b"0", None) is False
        assert db.replace(b"k", b"1", None) is True
        assert contents(db) == {}

    def test_an_absent_key_equals_no_value(self, db):
        assert db.replace(b"k", b"", b"1") is False
        db[b"k"] = b""
        assert db.replace(b"k", None, b"1") is False
        assert db.replace(b"k", b"", b"1") is True

    def test_a_value_by_itself(self, db):
        db[b"k"] = b"1"
        assert db.replace(b"k", b"1", b"1") is True
        assert db[b"k"] == b"1"

    def test_where_the_key_is_in_a_table(self, db):
        db.write({b"k": b"1", b"gone": b"1"})
        db.checkpoint()
        db.delete(b"gone")
        assert db.replace(b"k", b"1", b"2") is True
        assert db.replace(b"gone", b"1", b"2") is False
        assert db.replace(b"gone", None, b"3") is True
        assert contents(db) == {b"k": b"2", b"gone": b"3"}


class TestPop:
    def test_the_value_goes(self, db):
        db[b"k"] = b"1"
        assert db.pop(b"k") == b"1"
        assert b"k" not in db
        assert db.pop(b"k") is None
        assert db.pop(b"k", 7) == 7
        assert db.pop(b"k", default=b"") == b""

    def test_an_empty_value_is_a_value(self, db):
        db[b"k"] = b""
        assert db.pop(b"k", 7) == b""
        assert db.pop(b"k", 7) == 7

    def test_where_the_key_is_in_a_table(self, db):
        db[b"k"] = b"1"
        db.checkpoint()
        assert db.pop(b"k") == b"1"
        assert db.pop(b"k", 7) == 7
        db.checkpoint()
        assert contents(db) == {}


class TestAllOfThem:
    def test_what_changes_nothing_writes_nothing(self, db):
        db[b"k"] = b"1"
        before = db.last_entry_id
        db.add(b"k", b"2")
        db.replace(b"k", b"2", b"3")
        db.pop(b"x")
        assert db.last_entry_id == before
        db.pop(b"k")
        assert db.last_entry_id == before + 1

    @pytest.mark.parametrize("durability", [None, FSYNC, WRITE, BUFFER])
    def test_they_take_a_durability(self, db, durability):
        assert db.add(b"k", b"1", durability=durability)
        assert db.replace(b"k", b"1", b"2", durability=durability)
        assert db.pop(b"k", durability=durability) == b"2"
        with pytest.raises(TypeError, match="Durability"):
            db.add(b"k", b"1", durability="fsync")
        assert list(db) == []

    def test_any_buffer_will_do(self, db):
        assert db.add(bytearray(b"k"), memoryview(b"1"))
        assert db.replace(memoryview(b"k"), bytearray(b"1"), bytearray(b"2"))
        assert db[b"k"] == b"2"
        assert db.pop(bytearray(b"k")) == b"2"

    @pytest.mark.parametrize(
        ("call", "hint"),
        [
            (lambda db: db.add("k", b""), r"key\.encode\(\)"),
            (lambda db: db.add(b"k", ""), r"value\.encode\(\)"),
            (lambda db: db.add(b"k", None), "value must be bytes"),
            (lambda db: db.replace("k", b"", b""), r"key\.encode\(\)"),
            (lambda db: db.replace(b"k", "", b""), r"\.encode\(\)"),
            (lambda db: db.replace(b"k", b"", ""), r"\.encode\(\)"),
            (lambda db: db.pop("k"), r"key\.encode\(\)"),
        ],
    )
    def test_wrong_types(self, db, call, hint):
        with pytest.raises(TypeError, match=hint):
            call(db)
        assert list(db) == []

    def test_a_key_that_is_too_long(self, db):
        key = bytes(65_536)
        for call in (lambda: db.add(key, b""), lambda: db.replace(key, None, b"")):
            with pytest.raises(kvstore.KeyTooLongError):
                call()

    def test_a_closed_or_read_only_store_refuses(self, opened):
        db = opened()
        db[b"k"] = b"1"
        db.close()
        calls = [
            lambda: db.add(b"m", b""),
            lambda: db.replace(b"k", b"1", b"2"),
            lambda: db.pop(b"k"),
        ]
        for call in calls:
            with pytest.raises(kvstore.StoreClosedError):
                call()
        with opened("r") as db:
            for call in calls:
                with pytest.raises(kvstore.ReadOnlyError):
                    call()

    @pytest.mark.parametrize("seed", range(3))
    def test_beside_a_model(self, seed):
        rng = random.Random(seed)
        model = {}
        files = MemoryFileSystem()
        with kvstore.open("s", file_system=files, memtable_bytes=SMALL, durability=BUFFER) as db:
            for n in range(1500):
                key, value = b"%d" % rng.randrange(12), b"%d" % rng.randrange(4)
                way = rng.randrange(100)
                if way < 30:
                    assert db.add(key, value) is (key not in model)
                    model.setdefault(key, value)
                elif way < 70:
                    expected = rng.choice([None, value, model.get(key)])
                    new = rng.choice([None, b"%d" % n])
                    assert db.replace(key, expected, new) is (model.get(key) == expected)
                    if model.get(key) == expected:
                        model.pop(key, None)
                        model.update({} if new is None else {key: new})
                elif way < 97:
                    assert db.pop(key, 7) == model.pop(key, 7)
                else:
                    db.checkpoint()
            assert contents(db) == model
        with kvstore.open("s", "r", file_system=files) as db:
            assert contents(db) == model


def increment(db, key):
    while True:
        value = db.get(key)
        if db.replace(key, value, b"%d" % (int(value or b"0") + 1)):
            return


class TestThreads:
    @pytest.fixture(params=[BUFFER, WRITE, FSYNC], ids=lambda each: each.value)
    def shared(self, request):
        files = MemoryFileSystem()
        options = {"file_system": files, "memtable_bytes": SMALL, "durability": request.param}
        with kvstore.open("s", **options) as db:
            yield db
            before = contents(db)
        with kvstore.open("s", "r", file_system=files) as db:
            assert contents(db) == before

    def test_a_counter(self, shared):
        """A replace that returned True counted: none got lost, none counted twice."""

        def worker():
            for _ in range(40):
                increment(shared, b"counter")

        run(*[worker] * 8)
        assert shared[b"counter"] == b"320"

    def test_a_counter_beside_checkpoints(self, shared):
        done = threading.Event()

        def worker():
            try:
                for _ in range(100):
                    increment(shared, b"counter")
            finally:
                done.set()

        def checkpointer():
            while not done.is_set():
                shared.checkpoint()

        run(worker, worker, checkpointer)
        assert shared[b"counter"] == b"200"

    def test_of_32_that_add_one_wins(self, shared):
        for number in range(5):
            key = b"%d" % number
            together = threading.Barrier(32)
            won = []

            def worker(name, key=key, together=together, won=won):
                together.wait(PATIENCE)
                if shared.add(key, b"%d" % name):
                    won.append(name)

            run(*(lambda name=name: worker(name) for name in range(32)))
            (winner,) = won
            assert shared[key] == b"%d" % winner

    def test_each_value_is_popped_once(self, shared):
        """A queue: whatever is put in comes out once."""
        taken = []

        def producer(name):
            for n in range(30):
                while not shared.add(b"slot-%d" % (n % 3), b"%d-%d" % (name, n)):
                    pass

        def consumer():
            for _ in range(30):
                value = None
                while value is None:
                    value = shared.pop(b"slot-%d" % random.randrange(3))
                taken.append(value)

        run(*(lambda name=name: producer(name) for name in range(3)), *[consumer] * 3)
        assert sorted(taken) == sorted(b"%d-%d" % (name, n) for name in range(3) for n in range(30))
        assert contents(shared) == {}

    def test_whoever_lost_sees_the_winner(self, shared):
        """What an answer rests on is visible when it is given."""
        together = threading.Barrier(4)

        def worker():
            for n in range(30):
                key = b"%d" % n
                together.wait(PATIENCE)
                shared.add(key, b"v")
                assert shared[key] == b"v"

        run(*[worker] * 4)
