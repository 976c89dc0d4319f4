"""Namespaces: spaces of keys of their own, in step with everything else of the store."""

from __future__ import annotations

import contextlib
import itertools
import logging
import random
import threading

import msgpack
import pytest

import kvstore
from kvstore import JSON, UTF8
from kvstore.keyspaces import Keyspace, directory_bounds, directory_key
from kvstore.upkeep.verification import verify
from tests.store.made import MadeStore
from tests.store.support import BUFFER, FSYNC, PATIENCE, SMALL, contents
from tests.store.test_interleavings import Flight
from tests.store.test_threads import run
from wal.files import MemoryFileSystem
from wal.files.faulty import FaultyFileSystem, PowerLoss

KEY = b"k"
LONGEST = b"\xff" * 65_535
NASTY = [
    b"",
    b"\0",
    b"k",
    b"\xfe",
    b"\xff",
    b"\xff\xff",
    *(b"\xff%c" % n + tail for n in range(4) for tail in (b"", b"\0", b"\1\1", b"\1\1\1k")),
    LONGEST,
    b"\xff\x01" + bytes(65_533),
]
PATHS = [
    (),
    (b"a",),
    (b"b",),
    (b"a", b"a"),
    (b"a", b""),
    (b"",),
    (b"\xff\x02",),
    (b"a", b"a", b"a"),
]


def there(root, path):
    for name in path:
        root = root.namespace(name)
    return root


def entries_of(db):
    """The directory, as it is stored."""
    walk = db._engine.walk(directory_bounds(), None, reverse=False)
    with contextlib.closing(walk):
        found = {
            key: value for keys, values in walk for key, value in zip(keys, values, strict=True)
        }
    return {key: msgpack.unpackb(value) for key, value in found.items()}


class TestIsolation:
    @pytest.mark.parametrize("state", ["memory", "table", "reopened"])
    def test_no_key_reaches_into_another_one(self, opened, state):
        db = opened()
        expected = {}
        for number, path in enumerate(PATHS):
            expected[path] = {key: b"%d-%d" % (number, n) for n, key in enumerate(NASTY)}
            there(db, path).write(expected[path])
        if state == "table":
            db.checkpoint()
        elif state == "reopened":
            db.close()
            db = opened()
        for path, items in expected.items():
            space = there(db, path)
            assert contents(space) == items
            assert {key: space[key] for key in NASTY} == items
            assert space.count() == len(items)
            assert [*space.keys(prefix=b"\xff")] == sorted(k for k in items if k[:1] == b"\xff")
        for path in PATHS:
            for key in NASTY:
                there(db, path).delete(key)
            del expected[path]
            assert contents(there(db, path)) == {}
            assert {other: contents(there(db, other)) for other in expected} == expected

    def test_more_than_255_of_them(self, db):
        """Ids of one byte and of two, and what begins like them."""
        with db.batch() as batch:
            for n in range(300):
                for key in (b"", b"\xff", b"%d" % n):
                    batch.namespace(b"%d" % n).put(key, b"%d" % n)
        for n in (*range(0, 300, 13), 253, 254, 255, 256, 299):
            value = b"%d" % n
            assert contents(db.namespace(value)) == dict.fromkeys([b"", b"\xff", value], value)
        assert contents(db) == {}
        assert len(db.namespaces()) == 300

    def test_limits(self, db):
        space = db.namespace(LONGEST).namespace(LONGEST)
        space[LONGEST] = b"v"
        db.checkpoint()
        assert contents(space) == {LONGEST: b"v"}
        with pytest.raises(kvstore.KeyTooLongError, match="65,535"):
            space.put(LONGEST + b"\0", b"")
        assert space.get(LONGEST + b"\0") is None
        with pytest.raises(ValueError, match="a name may have at most 65,535 bytes, not 65,536"):
            db.namespace(LONGEST + b"\0")

    @pytest.mark.parametrize("seed", range(4))
    def test_beside_a_dict_of_dicts(self, opened, seed):
        rng = random.Random(seed)
        model = {path: {} for path in PATHS}
        keys = [key for key in NASTY if len(key) < 10]
        db = opened(durability=BUFFER)
        for n in range(300):
            path, key = rng.choice(PATHS), rng.choice(keys)
            way = rng.randrange(100)
            self.write(rng, there(db, path), model[path], key, n)
            if way < 60:
                self.read(rng, there(db, path), model[path], keys)
            elif way < 63:
                db.checkpoint()
            elif way < 65:
                there(db, path).clear() if path else db.mapping().clear()
                model[path].clear()
            elif way < 67:
                db.close()
                db = opened(durability=BUFFER)
        with db.snapshot() as snap, db.transaction() as tx:
            for path in PATHS:
                for root in (db, snap, tx):
                    assert contents(there(root, path)) == model[path]

    def write(self, rng, space, items, key, n):
        value = b"%d" % n
        way = rng.randrange(6)
        if way < 2:
            space[key] = items[key] = value
        elif way == 2:
            space.delete(key)
            items.pop(key, None)
        elif way == 3:
            assert space.add(key, value) is (key not in items)
            items.setdefault(key, value)
        elif way == 4:
            assert space.pop(key) == items.pop(key, None)
        else:
            old = items.get(key)
            assert space.replace(key, old, value)
            items[key] = value

    def read(self, rng, space, items, keys):
        start, stop = (rng.choice([None, *keys]) for _ in range(2))
        with_start, with_stop, reverse = (rng.random() < 0.5 for _ in range(3))
        limit = rng.choice([None, None, 0, 1, 3])
        wanted = {
            "start": start,
            "stop": stop,
            "include_start": with_start,
            "include_stop": with_stop,
            "reverse": reverse,
            "limit": limit,
        }
        found = sorted(
            item
            for item in items.items()
            if (start is None or item[0] > start or (with_start and item[0] == start))
            and (stop is None or item[0] < stop or (with_stop and item[0] == stop))
        )
        found = (found[::-1] if reverse else found)[:limit]
        assert [*space.scan(**wanted)] == found
        assert [*space.keys(**wanted)] == [key for key, _ in found]
        assert [*space.values(**wanted)] == [value for _, value in found]
        assert space.count(**wanted) == len(found)
        prefix = rng.choice(keys)[: rng.randrange(3)]
        found = sorted(item for item in items.items() if item[0].startswith(prefix))
        assert [*space.scan(prefix=prefix)] == found
        assert [*space.scan(prefix=prefix, reverse=True)] == found[::-1]
        assert space.get_many(keys) == [items.get(key) for key in keys]
        with space.cursor(prefix=prefix) as cursor:
            assert [*cursor] == found
            assert cursor.prev() == (found[-1] if found else None)
            assert cursor.first() == (found[0] if found else None)
            above = [item for item in found if item[0] >= stop] if stop is not None else found
            assert cursor.seek(stop or b"") == (above[0] if above else None)


class TestOneThatWasNeverWritten:
    def test_it_is_empty(self, db):
        for root in (db, db.snapshot()):
            space = root.namespace(b"n").namespace(b"m")
            assert space.get(KEY) is None
            assert space.get(KEY, 7) == 7
            assert KEY not in space
            assert space.get_many([KEY, b"x"]) == [None, None]
            assert [*space.scan()] == [*space.values()] == [*space] == [*reversed(space)] == []
            assert (space.count(), len(space), space.namespaces()) == (0, 0, [])
            with space.cursor() as cursor:
                assert (cursor.first(), cursor.last(), cursor.seek(b""), cursor.key) == (None,) * 4
            with pytest.raises(KeyError):
                space[KEY]
        assert db.namespaces() == []

    def test_what_changes_nothing_does_not_make_it(self, db):
        space = db.namespace(b"n")
        space.clear()
        space.write({})
        assert space.pop(KEY) is None
        assert not space.replace(KEY, b"", b"")
        with pytest.raises(KeyError):
            del space[KEY]
        with space.batch():
            pass
        with db.transaction() as tx:
            assert tx.namespace(b"n").pop(KEY) is None
        assert (db.namespaces(), db.last_entry_id) == ([], 0)

    @pytest.mark.parametrize(
        "delete",
        [
            lambda space, db: space.delete(KEY),
            lambda space, db: space.write({KEY: None}),
            lambda space, db: db.transact(lambda tx: tx.namespace(b"n").delete(KEY)),
        ],
    )
    def test_a_delete_is_a_write(self, opened, delete):
        """The change feed has to name the namespace."""
        db = opened()
        delete(db.namespace(b"n"), db)
        [change] = db.changes()
        assert (change.namespace, change.items) == ((b"n",), ((KEY, None),))
        db.close()
        db = opened()
        db.namespace(b"m")[KEY] = b"v"
        assert db.namespaces() == [b"m", b"n"]
        assert [change.namespace for change in db.changes()][-1] == (b"m",)


class TestNames:
    NAMES = (b"", b"\0", b"/", b"a", b"a/b", b"\xff", b"\xff\x02\0", LONGEST)

    def test_of_any_bytes(self, opened):
        db = opened()
        for name in self.NAMES:
            db.namespace(name)[KEY] = name
            db.namespace(name).namespace(name)[KEY] = name + b"2"
        db.close()
        db = opened()
        with db.snapshot() as snap, db.transaction() as tx:
            for root in (db, snap, tx):
                assert root.namespaces() == sorted(self.NAMES)
                for name in self.NAMES:
                    space = root.namespace(name)
                    assert (space[KEY], space.namespaces(), space.name) == (name, [name], name)
                    assert space.namespace(name)[KEY] == name + b"2"

    def test_any_buffer_will_do(self, db):
        db.namespace(bytearray(b"n")).namespace(memoryview(b"m"))[KEY] = b"v"
        assert db.namespace(b"n").namespace(b"m")[KEY] == b"v"

    @pytest.mark.parametrize(
        ("name", "hint"),
        [("n", r"a name must be bytes, not str: use name\.encode\(\)"), (None, "not NoneType")],
    )
    def test_wrong_types(self, db, name, hint):
        for root in (db, db.namespace(b"n"), db.snapshot(), db.transaction(), db.batch()):
            with pytest.raises(TypeError, match=hint):
                root.namespace(name)

    @pytest.mark.parametrize(
        ("call", "hint"),
        [
            (lambda space: space.put("k", b""), r"key\.encode"),
            (lambda space: space.put(b"k", ""), r"value\.encode"),
            (lambda space: space.get("k"), r"key\.encode"),
            (lambda space: space.write({"k": b""}), r"key\.encode"),
            (lambda space: space.write([]), "mapping"),
            (lambda space: space.scan("k"), r"start\.encode"),
            (lambda space: space.add(b"k", None), "value must be bytes"),
        ],
    )
    def test_wrong_types_of_keys_and_values(self, db, call, hint):
        with pytest.raises(TypeError, match=hint):
            call(db.namespace(b"n"))
        assert db.namespaces() == []

    def test_what_it_says_of_itself(self, db):
        space = db.namespace(b"n").namespace(b"m")
        assert repr(space).startswith("<kvstore.Namespace b'n' > b'm' of <kvstore.Store in")
        assert bool(space)
        with db.snapshot() as snap:
            assert "ReadableNamespace b'n' of <kvstore.Snapshot" in repr(snap.namespace(b"n"))
            assert not hasattr(snap.namespace(b"n"), "put")


class TestListing:
    def test_each_sees_its_own_state(self, db):
        with db.snapshot() as before, db.transaction() as tx:
            db.namespace(b"a")[KEY] = b""
            with db.snapshot() as after:
                db.namespace(b"b").namespace(b"c")[KEY] = b""
                tx.namespace(b"d").namespace(b"e")[KEY] = b""
                assert before.namespaces() == []
                assert after.namespaces() == [b"a"]
                assert db.namespaces() == [b"a", b"b"]
                assert tx.namespaces() == [b"d"]
                assert tx.namespace(b"d").namespaces() == [b"e"]
                assert db.namespace(b"d").namespaces() == []
                assert before.namespace(b"b").namespaces() == []
                assert db.namespace(b"b").namespaces() == [b"c"]
            tx.rollback()
        assert db.namespaces() == [b"a", b"b"]

    def test_it_stays_listed_when_it_is_empty(self, opened):
        with opened() as db:
            db.namespace(b"n")[KEY] = b""
            db.namespace(b"n").clear()
            db.checkpoint()
            db.compact()
        assert opened("r").namespaces() == [b"n"]

    def test_a_closed_store_or_snapshot(self, opened):
        db = opened()
        space, snap = db.namespace(b"n"), db.snapshot()
        space[KEY] = b""
        within = snap.namespace(b"n")
        snap.close()
        for call in (within.namespaces, snap.namespaces, lambda: within.get(KEY)):
            with pytest.raises(kvstore.StoreClosedError):
                call()
        db.close()
        for call in (
            db.namespaces,
            space.namespaces,
            space.clear,
            lambda: space.get(KEY),
            lambda: space.put(KEY, b""),
            lambda: db.namespace(b"n"),
        ):
            with pytest.raises(kvstore.StoreClosedError):
                call()
        space = opened("r").namespace(b"n")
        for call in (space.clear, lambda: space.delete(KEY), lambda: space.put(KEY, b"")):
            with pytest.raises(kvstore.ReadOnlyError):
                call()


class TestClear:
    @pytest.fixture
    def space(self, db):
        db.write({b"\xff\x01\x01k": b"", b"root": b""})
        space = db.namespace(b"n")
        space.write({b"%04d" % n: b"" for n in range(2500)})
        space.namespace(b"inner").write({b"%04d" % n: b"" for n in range(10)})
        db.namespace(b"o").write({b"%04d" % n: b"" for n in range(10)})
        return space

    def check_others(self, db):
        assert len(list(db)) == 2
        assert len(db.namespace(b"n").namespace(b"inner")) == len(db.namespace(b"o")) == 10

    @pytest.mark.parametrize("where", ["memory", "tables"])
    def test_those_around_it_and_inside_it_stay(self, db, space, where):
        if where == "tables":
            db.checkpoint()
        with db.snapshot() as snap:
            space.clear()
            assert len(space) == 0
            assert len(snap.namespace(b"n")) == 2500
        assert (db.namespaces(), space.namespaces()) == ([b"n", b"o"], [b"inner"])
        self.check_others(db)
        space[KEY] = b"v"
        assert contents(space) == {KEY: b"v"}

    def test_in_a_transaction(self, db, space):
        with db.transaction() as tx:
            tx.namespace(b"n").clear()
            assert (len(tx.namespace(b"n")), len(space)) == (0, 2500)
            tx.rollback()
        assert len(space) == 2500
        with db.transaction() as tx:
            tx.namespace(b"n")[b"mine"] = b""
            tx.namespace(b"n").clear()
            tx.namespace(b"n")[b"later"] = b""
        assert [*space] == [b"later"]
        self.check_others(db)

    def test_while_others_write(self, db, space):
        """What was there at its beginning is gone; what came since may be."""
        begun, done = threading.Event(), threading.Event()

        def writer():
            for n in itertools.count():
                space.put(b"new-%d" % n, b"", durability=BUFFER)
                begun.set()
                if done.is_set():
                    break

        def clearer():
            assert begun.wait(PATIENCE)
            space.clear()
            done.set()

        run(writer, clearer)
        assert all(key.startswith(b"new-") for key in space)
        self.check_others(db)


class TestDirectory:
    def test_entries(self, db):
        db.namespace(b"n", JSON).namespace(b"m", UTF8)[KEY] = "v"
        db.namespace(b"n", JSON)[KEY] = 7
        db.namespace(b"")[KEY] = b""
        assert entries_of(db) == {
            directory_key(0, b"n"): [1, "json"],
            directory_key(1, b"m"): [2, "utf8"],
            directory_key(0, b""): [3, "bytes"],
        }

    def test_an_entry_is_written_once(self, db):
        """From then on a write is the mutation alone."""
        space = db.namespace(b"n").namespace(b"m")
        sizes = []
        for n in range(4):
            space[b"%d" % n] = b"v"
            sizes.append([len(entry.read_all()) for entry in db._engine.log.entries()][-1])
            if n == 1:
                db.checkpoint()
        assert sizes == [7, 3, 3, 3]

    def test_ids_are_never_used_again(self, opened):
        seen = {}
        for n in range(5):
            with opened() as db:
                names = [b"%d-%d" % (n, k) for k in range(3)]
                db.namespace(names[0])[KEY] = b""
                with contextlib.suppress(ZeroDivisionError), db.batch() as batch:
                    batch.namespace(names[1]).put(KEY, b"")
                    raise ZeroDivisionError
                db.namespace(names[2])[KEY] = b""
                db.namespace(names[2]).clear()
                if n % 2:
                    db.checkpoint()
                    db.compact()
                now = {key: number for key, (number, _) in entries_of(db).items()}
                assert seen.items() <= now.items()
                assert len(set(now.values())) == len(now) == 2 * (n + 1)
                seen = now

    def test_many_are_found_by_id(self, opened, monkeypatch):
        with opened() as db, db.batch() as batch:
            for n in range(50):
                batch.namespace(b"%d" % n).namespace(b"m").put(KEY, b"")
        db = opened()
        db.namespace(b"new").namespace(b"newer")[KEY] = b""
        names = db._names
        found = {names.names_of(number) for number in range(103)}
        assert found == {
            (),
            (b"new",),
            (b"new", b"newer"),
            *((b"%d" % n,) for n in range(50)),
            *((b"%d" % n, b"m") for n in range(50)),
        }
        assert names.names_of(103) is None
        db.namespace(b"latest")[KEY] = b""
        monkeypatch.setattr(db._engine, "walk", None)  # it was walked once
        assert names.names_of(103) == (b"latest",)

    def test_one_that_is_made_just_before_it_is_claimed(self, db, monkeypatch):
        names = db._names
        claim = names._claim

        def late(*arguments):
            monkeypatch.setattr(names, "_claim", claim)
            db.namespace(b"n")[b"1"] = b""
            assert b"1" in db.namespace(b"n")
            return claim(*arguments)

        monkeypatch.setattr(names, "_claim", late)
        db.namespace(b"n")[b"2"] = b""
        assert [*db.namespace(b"n")] == [b"1", b"2"]
        assert entries_of(db) == {directory_key(0, b"n"): [1, "bytes"]}

    def test_two_threads_write_first(self):
        """However they meet, there is one id, and each key is found under it."""
        files = MemoryFileSystem()
        options = {"file_system": files, "memtable_bytes": SMALL, "durability": BUFFER}
        with kvstore.open("s", **options) as db:
            barrier = threading.Barrier(3)

            def writer(number):
                for n in range(80):
                    barrier.wait(PATIENCE)
                    name = b"%d" % n
                    if number == 0:
                        db.namespace(name).namespace(b"m")[b"0"] = b""
                    elif number == 1:
                        db.namespace(name)[b"1"] = b""
                    else:
                        db.transact(lambda tx, name=name: tx.namespace(name).put(b"2", b""))

            run(*(lambda number=number: writer(number) for number in range(3)))
        with kvstore.open("s", "r", **options) as db:
            assert len(db.namespaces()) == 80
            for name in db.namespaces():
                assert [*db.namespace(name)] == [b"1", b"2"]
                assert [*db.namespace(name).namespace(b"m")] == [b"0"]
            numbers = [number for number, _ in entries_of(db).values()]
            assert len(set(numbers)) == len(numbers) == 160
            assert db.verify().ok

    @pytest.mark.parametrize("fails", [False, True])
    def test_a_first_write_in_flight_and_another_behind_it(self, fails):
        logging.disable(logging.CRITICAL)
        system = FaultyFileSystem()
        db = kvstore.open("s", file_system=system, memtable_bytes=SMALL)
        try:
            db[b"root"] = b""
            flight = Flight(db, system)
            flight.begin(lambda: db.namespace(b"n").put(b"1", b""))
            flight.follow(lambda: db.namespace(b"n").put(b"2", b"", durability=BUFFER))
            assert (db.namespaces(), contents(db.namespace(b"n"))) == ([], {})
            if fails:
                assert all(isinstance(e, kvstore.StoreFailedError) for e in flight.crash())
            else:
                flight.land()
                assert [*db.namespace(b"n")] == [b"1", b"2"]
        finally:
            system.on_call = None
            with contextlib.suppress(kvstore.StoreFailedError):
                db.close()
            logging.disable(logging.NOTSET)
        with kvstore.open("s", file_system=system.killed_state()) as db:
            assert verify("s", file_system=system.killed_state()).ok
            assert db.namespaces() == ([b"n"] if [*db.namespace(b"n")] else [])

    @pytest.mark.parametrize(
        "value", [b"?", b"", msgpack.packb([1, None]), msgpack.packb([0, "x"])]
    )
    def test_a_damaged_entry(self, value):
        files = MemoryFileSystem()
        store = MadeStore(files, "s")
        store.add({directory_key(0, b"n"): value, Keyspace(1).stored(KEY): b"v"})
        store.begin_log()
        store.lock.release()
        assert [p.reason for p in verify("s", file_system=files).problems]
        with kvstore.open("s", file_system=files) as db:
            for call in (
                db.namespaces,
                lambda: db.namespace(b"n"),
                lambda: db.namespace(b"m").put(KEY, b""),
            ):
                with pytest.raises(kvstore.CorruptStoreError, match="is not one"):
                    call()

    def test_a_damaged_key_of_an_entry(self):
        files = MemoryFileSystem()
        store = MadeStore(files, "s")
        store.add({b"\xff\x02\x09a": msgpack.packb([1, "bytes"])})
        store.begin_log()
        store.lock.release()
        assert "cut short" in verify("s", file_system=files).problems[0].reason
        with (
            kvstore.open("s", file_system=files) as db,
            pytest.raises(kvstore.CorruptStoreError, match="cut short"),
        ):
            db.namespace(b"m").put(KEY, b"")

    def test_entries_that_go_in_a_circle(self):
        files = MemoryFileSystem()
        store = MadeStore(files, "s")
        entry = [(directory_key(a, b"n"), msgpack.packb([b, "bytes"])) for a, b in ((1, 2), (2, 1))]
        store.add(dict(entry))
        store.begin_log()
        store.lock.release()
        with kvstore.open("s", file_system=files) as db:
            assert db._names.names_of(1) is db._names.names_of(2) is None


class TestBatches:
    def test_one_entry_for_all(self, db):
        with db.batch() as batch:
            batch.put(KEY, b"root")
            part = batch.namespace(b"n", JSON)
            part.put(KEY, [1])
            part.namespace(b"m").put(KEY, b"inner")
            part.delete(b"x")
            assert db.namespaces() == []
        assert db.last_entry_id == batch.entry_id == 1
        assert db[KEY] == b"root"
        assert db.namespace(b"n", JSON)[KEY] == [1]
        assert db.namespace(b"n", JSON).namespace(b"m")[KEY] == b"inner"

    def test_of_a_namespace(self, db):
        with db.namespace(b"n").batch(durability=BUFFER) as batch:
            batch.put(KEY, b"1")
            batch.namespace(b"m").put(KEY, b"2")
        assert contents(db.namespace(b"n")) == {KEY: b"1"}
        assert contents(db.namespace(b"n").namespace(b"m")) == {KEY: b"2"}

    def test_a_dropped_one_that_was_the_first_writer(self, opened):
        db = opened()
        with contextlib.suppress(ZeroDivisionError), db.batch() as batch:
            batch.namespace(b"n").namespace(b"m").put(KEY, b"")
            raise ZeroDivisionError
        assert (db.namespaces(), contents(db.namespace(b"n"))) == ([], {})
        db.namespace(b"n").namespace(b"m")[KEY] = b"v"
        db.close()
        assert opened("r").namespace(b"n").namespace(b"m")[KEY] == b"v"

    def test_outside_of_its_block(self, db):
        batch = db.batch()
        part = batch.namespace(b"n")
        with pytest.raises(kvstore.StoreError, match="block"):
            part.put(KEY, b"")
        with batch:
            part.put(KEY, b"")
        with pytest.raises(kvstore.StoreError, match="has ended"):
            part.delete(KEY)
        assert contents(db.namespace(b"n")) == {KEY: b""}


class TestTransactions:
    def test_own_writes(self, db):
        db.namespace(b"n")[b"old"] = b"1"
        with db.transaction() as tx:
            space, new = tx.namespace(b"n"), tx.namespace(b"new").namespace(b"newer")
            space[KEY] = new[KEY] = b"2"
            with tx.namespace(b"batch").batch() as batch:
                batch.put(KEY, b"3")
            assert contents(space) == {KEY: b"2", b"old": b"1"}
            assert (
                contents(new) == contents(tx.namespace(b"new").namespace(b"newer")) == {KEY: b"2"}
            )
            assert (tx.namespace(b"batch")[KEY], len(tx.namespace(b"new"))) == (b"3", 0)
            assert contents(tx) == {}
            assert not new.add(KEY, b"")
            assert new.replace(KEY, b"2", b"4")
            assert space.pop(b"old") == b"1"
            assert (contents(db.namespace(b"n")), db.namespaces()) == ({b"old": b"1"}, [b"n"])
        assert contents(db.namespace(b"n")) == {KEY: b"2"}
        assert contents(db.namespace(b"new").namespace(b"newer")) == {KEY: b"4"}
        assert db.namespaces() == [b"batch", b"n", b"new"]

    def conflict(self, db, read, write):
        """What a transaction reads, another one writes: it cannot commit what rests on it."""

        def both():
            with db.transaction() as tx:
                read(tx)
                db.transact(write)
                tx[b"rests on it"] = b""

        with pytest.raises(kvstore.ConflictError):
            both()
        assert b"rests on it" not in db

    READS = (
        lambda space: space.get(KEY),
        lambda space: KEY in space,
        lambda space: space.get_many([b"a", KEY]),
        lambda space: list(space.scan()),
        lambda space: space.count(b"a", b"z"),
        lambda space: list(space.keys(prefix=KEY)),
        lambda space: list(space.values(reverse=True)),
        lambda space: space.cursor().seek(b"a"),
        lambda space: space.pop(KEY),
    )

    @pytest.mark.parametrize("read", READS)
    @pytest.mark.parametrize("exists", [False, True])
    def test_conflicts_and_phantoms(self, db, read, exists):
        """Also where the namespace itself appears meanwhile."""
        if exists:
            db.namespace(b"n").namespace(b"m")[b"zz"] = b""
        self.conflict(
            db,
            lambda tx: read(tx.namespace(b"n").namespace(b"m")),
            lambda tx: tx.namespace(b"n").namespace(b"m").put(KEY, b""),
        )

    def test_the_listing_is_read_too(self, db):
        for path in ((), (b"n",), (b"n", b"new")):
            self.conflict(
                db,
                lambda tx, path=path: there(tx, path).namespaces(),
                lambda tx, path=path: there(tx, path).namespace(b"new").put(KEY, b""),
            )

    @pytest.mark.parametrize("read", READS)
    def test_none_where_another_namespace_is_written(self, db, read):
        for name in (b"n", b"o"):
            db.namespace(name)[KEY] = b"v"
        with db.transaction() as tx:
            read(tx.namespace(b"n"))
            tx.namespace(b"n")[b"mine"] = b""
            db[KEY] = b"1"
            db.namespace(b"o")[KEY] = b"2"
            db.namespace(b"n").namespace(b"m")[KEY] = b"3"
        assert b"mine" in db.namespace(b"n")

    def test_two_make_the_same_one_without_a_conflict(self, db):
        with db.transaction() as first, db.transaction() as second:
            first.namespace(b"n")[b"1"] = b""
            second.namespace(b"n")[b"2"] = b""
        assert [*db.namespace(b"n")] == [b"1", b"2"]

    def test_a_dropped_one_that_was_the_first_writer(self, opened):
        db = opened()
        with db.transaction() as tx:
            tx.namespace(b"n")[b"dropped"] = b""
            tx.rollback()
        self.conflict(
            db,
            lambda tx: tx.namespace(b"n").get(KEY),
            lambda tx: tx.namespace(b"n").put(KEY, b"v"),
        )
        db.close()
        db = opened()
        assert contents(db.namespace(b"n")) == {KEY: b"v"}
        assert len(entries_of(db)) == 1

    def test_one_that_meets_a_conflict_and_comes_again(self, db):
        db[KEY] = b"0"
        calls = []

        def move(tx):
            calls.append(tx)
            tx.namespace(b"n")[KEY] = tx[KEY]
            if len(calls) == 1:
                db[KEY] = b"1"

        db.transact(move)
        assert (len(calls), db.namespace(b"n")[KEY]) == (2, b"1")


class TestConditionalWrites:
    def test_add_replace_pop(self, opened):
        db = opened()
        space = db.namespace(b"n").namespace(b"m")
        assert space.add(KEY, b"1")
        assert not space.add(KEY, b"2")
        assert not space.replace(KEY, b"2", b"3")
        assert space.replace(KEY, b"1", b"3")
        db[KEY] = b"root"
        db.close()
        space = opened().namespace(b"n").namespace(b"m")
        assert space.pop(KEY) == b"3"
        assert space.pop(KEY, 7) == 7
        assert space.replace(KEY, None, b"4")
        del space[KEY]
        with pytest.raises(KeyError):
            del space[KEY]

    def test_of_many_threads_one_adds(self, db):
        won = []

        def space_of(n):
            return db.namespace(b"%d" % (n % 5))

        def add(number):
            value = b"%d" % number
            won.extend((n, number) for n in range(40) if space_of(n).add(b"%d" % n, value))

        run(*(lambda number=number: add(number) for number in range(3)))
        assert sorted(n for n, _ in won) == [*range(40)]
        for n, number in won:
            assert space_of(n)[b"%d" % n] == b"%d" % number


class TestSnapshotsAndReaders:
    def test_a_snapshot_keeps_its_state(self, db):
        space = db.namespace(b"n")
        space[KEY] = b"1"
        with db.snapshot() as snap:
            space[KEY] = b"2"
            db.namespace(b"late")[KEY] = b"3"
            db.checkpoint()
            assert contents(snap.namespace(b"n")) == {KEY: b"1"}
            assert contents(snap.namespace(b"late")) == {}
            walk = snap.namespace(b"n").scan()
            space.clear()
            assert [*walk] == [(KEY, b"1")]

    def test_a_reader_beside_the_writer(self, opened):
        db = opened()
        reader = opened("r")
        space = reader.namespace(b"n")
        assert contents(space) == {}
        db.namespace(b"n")[KEY] = b"v"
        db.checkpoint()
        assert contents(space) == {}
        reader.refresh()
        assert (contents(space), reader.namespaces()) == ({KEY: b"v"}, [b"n"])

    def test_changes_tell_the_names(self, opened):
        with opened() as db:
            with db.batch() as batch:
                batch.put(KEY, b"0")
                batch.namespace(b"n", JSON).put(KEY, 1)
                batch.namespace(b"n", JSON).namespace(b"m").put(b"\xff", b"2")
            db.namespace(b"n", JSON).clear()
            expected = [
                ((), ((KEY, b"0"),)),
                ((b"n",), ((KEY, b"1"),)),
                ((b"n", b"m"), ((b"\xff", b"2"),)),
                ((b"n",), ((KEY, None),)),
            ]
            assert [(change.namespace, change.items) for change in db.changes()] == expected
        with opened("r") as db:
            assert [(change.namespace, change.items) for change in db.changes()] == expected


class Life:
    """First writes to many namespaces, in every way there is."""

    def __init__(self, system):
        self.system = system
        self.written = set()  # paths that were acknowledged
        self.db = None

    def run(self):
        self.db = kvstore.open("s", file_system=self.system, memtable_bytes=SMALL)
        for n, durability in itertools.product(range(3), (FSYNC, BUFFER)):
            name = b"%d-%d" % (n, durability is FSYNC)
            self.db.namespace(name).put(KEY, name, durability=durability)
            with self.db.batch(durability=durability) as batch:
                batch.namespace(b"batch").namespace(name).put(KEY, name)
            with self.db.transaction(durability=durability) as tx:
                tx.namespace(b"tx").namespace(name)[KEY] = name
            if durability is FSYNC:
                self.written |= {(name,), (b"batch", name), (b"tx", name)}
            if n == 1:
                self.db.checkpoint()
        self.db.close()

    def give_up(self):
        with contextlib.suppress(PowerLoss, kvstore.StoreError, OSError):
            if self.db is not None:
                self.db.close()

    def check(self, db):
        """Every key that is stored belongs to a namespace that is listed."""
        found = {(name,) for name in db.namespaces()}
        for name in (b"batch", b"tx"):
            found |= {(name, inner) for inner in db.namespace(name).namespaces()}
        assert self.written <= found
        keys = {path for path in found if there(db, path).get(KEY) == path[-1]}
        assert keys == found - {(b"batch",), (b"tx",)}
        walk = db._engine.walk(directory_bounds(), None, reverse=False)
        with contextlib.closing(walk):
            entries = sum(len(page) for page, _ in walk)
        all_keys = db._engine.walk(
            Keyspace(1).bounds(b"", None)._replace(high=b"\xff\x02"), None, reverse=False
        )
        with contextlib.closing(all_keys):
            assert sum(len(page) for page, _ in all_keys) == len(keys)
        assert entries == len(found)


@pytest.mark.parametrize("step", [3, pytest.param(1, marks=pytest.mark.long, id="every one")])
def test_power_loss_never_leaves_a_key_without_its_entry(step, monkeypatch):
    usual = threading.excepthook
    monkeypatch.setattr(
        threading,
        "excepthook",
        lambda args: None if isinstance(args.exc_value, PowerLoss) else usual(args),
    )
    logging.disable(logging.CRITICAL)
    try:
        for number in itertools.count(1, step):
            life = Life(FaultyFileSystem())
            life.system.stop_at(number)
            with contextlib.suppress(PowerLoss, kvstore.StoreError):
                life.run()
            lost = life.system.lost_power
            life.give_up()
            if not lost:
                break
            for state in life.system.crash_states(seed=number, limit=3):
                with kvstore.open("s", file_system=state, memtable_bytes=SMALL) as db:
                    life.check(db)
                    db.namespace(b"another")[KEY] = b""
                    assert db.verify().ok, state.label
    finally:
        logging.disable(logging.NOTSET)
    assert number > 20
