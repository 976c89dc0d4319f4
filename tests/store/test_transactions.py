"""Transactions: serializable, decided at their commit, in one log entry or not at all."""

from __future__ import annotations

import contextlib
import random
import threading

import pytest

import kvstore
from tests.store.support import BUFFER, FSYNC, PATIENCE, SMALL, WRITE, apply, contents, random_batch
from tests.store.test_scan import model_scan
from tests.store.test_snapshots import lines_run
from tests.store.test_threads import run
from wal.files import MemoryFileSystem

OPTIONS = {"memtable_bytes": SMALL, "durability": BUFFER}


def in_memory(**options):
    return kvstore.open("s", file_system=MemoryFileSystem(), **{**OPTIONS, **options})


def begin(db):
    """A transaction whose block has begun; :func:`commit` ends it."""
    tx = db.transaction()
    tx.__enter__()
    return tx


def commit(tx):
    tx.__exit__(None, None, None)


class TestOwnWrites:
    @pytest.fixture
    def tx(self, db):
        db.write({b"a": b"1", b"b": b"2", b"c": b"3"})
        db.checkpoint()
        with db.transaction() as tx:
            tx[b"b"] = b"new"
            tx.delete(b"c")
            tx.put(b"d", b"4")
            yield tx

    def test_single_keys(self, tx):
        assert tx.get(b"a") == b"1"
        assert tx[b"b"] == b"new"
        assert (tx.get(b"c"), tx.get(b"c", 7), tx.get(b"x", 7)) == (None, 7, 7)
        assert (b"c" in tx, b"d" in tx) == (False, True)
        with pytest.raises(KeyError):
            tx[b"c"]
        assert tx.get_many([b"d", b"c", b"a"]) == [b"4", None, b"1"]

    def test_ranges(self, tx):
        items = [(b"a", b"1"), (b"b", b"new"), (b"d", b"4")]
        assert list(tx.scan()) == items
        assert list(tx.scan(reverse=True)) == items[::-1]
        assert list(tx.scan(b"b", b"d", include_stop=True)) == items[1:]
        assert list(tx.scan(b"b", include_start=False, limit=1)) == items[2:]
        assert list(tx.keys(prefix=b"d")) == [b"d"]
        assert list(tx.values()) == [b"1", b"new", b"4"]
        assert tx.count() == 3
        assert list(tx) == [b"a", b"b", b"d"]
        assert list(reversed(tx)) == [b"d", b"b", b"a"]

    def test_a_cursor(self, tx):
        with tx.cursor() as cursor:
            assert cursor.seek(b"b") == (b"b", b"new")
            assert cursor.next() == (b"d", b"4")
            assert cursor.next() is None
            assert cursor.prev() == (b"d", b"4")
            assert cursor.first() == (b"a", b"1")

    def test_a_scan_shows_them_as_they_are_at_its_start(self, db):
        """As one of the store does with all writes."""
        db.write({b"a": b"1", b"b": b"2"})
        with db.transaction() as tx:
            tx[b"c"] = b"3"
            scans = [tx.scan(), tx.scan(reverse=True)]
            begun = tx.scan()
            first = next(begun)
            tx.write({b"a": None, b"b": b"new", b"d": b"new"})
            items = [(b"a", b"1"), (b"b", b"2"), (b"c", b"3")]
            assert [first, *begun] == items
            assert [list(scan) for scan in scans] == [items, items[::-1]]
            assert list(tx.scan()) == [(b"b", b"new"), (b"c", b"3"), (b"d", b"new")]

    def test_nobody_else_sees_them(self, db, tx):
        assert contents(db) == {b"a": b"1", b"b": b"2", b"c": b"3"}
        with db.snapshot() as snap:
            assert snap[b"b"] == b"2"
        with db.transaction() as other:
            assert other[b"b"] == b"2"

    def test_after_the_end_everybody_does(self, db):
        db.write({b"a": b"1", b"b": b"2"})
        with db.transaction() as tx:
            tx[b"b"] = b"new"
            tx.delete(b"a")
        assert contents(db) == {b"b": b"new"}


class TestWriting:
    def test_every_way(self, db):
        db.write({b"a": b"1", b"b": b"2", b"c": b"3", b"d": b"4"})
        with db.transaction() as tx:
            tx.put(b"e", b"5")
            tx[b"f"] = b"6"
            tx.delete(b"a")
            del tx[b"b"]
            tx.write({b"c": None, b"g": b"7"})
            with tx.batch() as batch:
                batch.put(b"i", b"9")
                batch.delete(b"x")
                assert b"i" not in tx
            assert tx[b"i"] == b"9"
            assert tx.add(b"h", b"8") is True
            assert tx.add(b"h", b"9") is False
            assert tx.replace(b"d", b"4", b"44") is True
            assert tx.replace(b"d", b"4", b"0") is False
            assert tx.replace(b"e", b"5", None) is True
            assert tx.pop(b"f") == b"6"
            assert tx.pop(b"f", 7) == 7
            with pytest.raises(KeyError):
                del tx[b"f"]
        assert contents(db) == {b"d": b"44", b"g": b"7", b"h": b"8", b"i": b"9"}

    def test_it_is_one_entry(self, db):
        db[b"a"] = b"1"
        before = db.last_entry_id
        with db.transaction() as tx:
            for n in range(100):
                tx[b"%d" % n] = b"v"
        assert db.last_entry_id == tx.entry_id == before + 1

    def test_nothing_written_is_no_entry(self, db):
        before = db.last_entry_id
        with db.transaction() as tx:
            tx.get(b"a")
            tx.pop(b"a")
        assert db.last_entry_id == before

    @pytest.mark.parametrize("durability", [None, FSYNC, WRITE, BUFFER])
    def test_it_takes_a_durability(self, db, durability):
        with db.transaction(durability=durability) as tx:
            tx[b"k"] = b"v"
        assert db[b"k"] == b"v"
        db.transact(lambda tx: tx.delete(b"k"), durability=durability)
        assert b"k" not in db
        with pytest.raises(TypeError, match="Durability"):
            db.transact(lambda tx: tx.put(b"k", b"v"), durability="fsync")
        assert b"k" not in db

    def test_it_survives(self, db, opened):
        with db.transaction() as tx:
            tx.write({b"a": b"1", b"b": b"2"})
        db.close()
        assert contents(opened("r")) == {b"a": b"1", b"b": b"2"}

    def test_any_buffer_will_do_and_nothing_else(self, db):
        with db.transaction() as tx:
            value = bytearray(b"v")
            tx.put(memoryview(b"k"), value)
            value[0] = 0
            assert tx[bytearray(b"k")] == b"v"
            with pytest.raises(TypeError, match=r"key\.encode\(\)"):
                tx.put("k", b"v")
            with pytest.raises(TypeError, match=r"value\.encode\(\)"):
                tx[b"k"] = "v"
            with pytest.raises(TypeError, match=r"key\.encode\(\)"):
                tx.get("k")
            with pytest.raises(kvstore.KeyTooLongError):
                tx.put(bytes(65_536), b"")
            with pytest.raises(ValueError, match="prefix"):
                tx.scan(b"a", prefix=b"a")
        assert contents(db) == {b"k": b"v"}

    @pytest.mark.parametrize("seed", range(4))
    def test_reads_beside_a_model(self, seed):
        """Over tables, layers and its own writes, while others write, too."""
        rng = random.Random(seed)
        with in_memory() as db:
            model = {}
            for n in range(120):
                batch = random_batch(rng)
                db.write(batch)
                apply(model, batch)
                if n % 50 == 20:
                    db.checkpoint()
            with db.transaction() as tx:
                for _ in range(300):
                    if rng.random() < 0.3:
                        batch = random_batch(rng, most=2)
                        tx.write(batch)
                        apply(model, batch)
                    if rng.random() < 0.1:
                        db[b"other"] = b"%d" % rng.randrange(100)
                    low, high = sorted(b"key-%02d" % rng.randrange(32) for _ in range(2))
                    reverse, limit = rng.random() < 0.5, rng.choice([None, 1, 4])
                    expected = model_scan(model, low, high, reverse=reverse, limit=limit)
                    assert list(tx.scan(low, high, reverse=reverse, limit=limit)) == expected
                    assert tx.get(low) == model.get(low)
                    assert tx.count(low, high) == len(model_scan(model, low, high))
            assert {k: v for k, v in contents(db).items() if k != b"other"} == model


class TestTheEnd:
    def test_without_its_block(self, db):
        """What was put into one without ``with`` would be silently dropped."""
        tx = db.transaction()
        for call in (lambda: tx.put(b"a", b"1"), lambda: tx.get(b"a"), lambda: list(tx.scan())):
            with pytest.raises(kvstore.StoreError, match="with"):
                call()
        with tx:
            tx[b"b"] = b"2"
        assert contents(db) == {b"b": b"2"}

    def test_an_exception_drops_all(self, db):
        with pytest.raises(ZeroDivisionError), db.transaction() as tx:  # noqa: PT012
            tx[b"a"] = b"1"
            raise ZeroDivisionError
        assert list(db) == []
        assert db.last_entry_id == 0

    def test_rollback_drops_all(self, db):
        db[b"a"] = b"1"
        with db.transaction() as tx:
            tx[b"a"] = b"2"
            tx[b"b"] = b"2"
            tx.rollback()
        assert contents(db) == {b"a": b"1"}

    def test_rollback_never_conflicts(self, db):
        with db.transaction() as tx:
            tx.get(b"a")
            tx[b"a"] = b"2"
            db[b"a"] = b"1"
            tx.rollback()
        assert contents(db) == {b"a": b"1"}

    def test_an_exception_comes_through_though_it_would_have_conflicted(self, db):
        with pytest.raises(ZeroDivisionError), db.transaction() as tx:  # noqa: PT012
            tx[b"a"] = tx.get(b"a", b"0")
            db[b"a"] = b"1"
            raise ZeroDivisionError

    @pytest.mark.parametrize("how", ["commit", "rollback", "exception", "conflict"])
    def test_then_everything_is_refused(self, db, how):
        db[b"a"] = b"1"
        with contextlib.suppress(ZeroDivisionError, kvstore.ConflictError), db.transaction() as tx:
            tx[b"b"] = tx[b"a"]
            if how == "rollback":
                tx.rollback()
            if how == "exception":
                raise ZeroDivisionError
            if how == "conflict":
                db[b"a"] = b"2"
        before = contents(db)
        for call in (
            lambda: tx.get(b"a"),
            lambda: tx[b"a"],
            lambda: b"a" in tx,
            lambda: tx.get_many([b"a"]),
            lambda: list(tx.scan()),
            lambda: list(tx),
            tx.count,
            tx.cursor,
            lambda: tx.put(b"a", b""),
            lambda: tx.delete(b"a"),
            lambda: tx.write({b"a": b""}),
            lambda: tx.add(b"x", b""),
            lambda: tx.replace(b"a", b"1", b""),
            lambda: tx.pop(b"a"),
            tx.__enter__,
        ):
            with pytest.raises(kvstore.StoreError):
                call()
        assert contents(db) == before

    def test_reads_after_rollback_are_refused_inside_the_block_too(self, db):
        with db.transaction() as tx:
            tx.rollback()
            with pytest.raises(kvstore.StoreError):
                tx.get(b"a")
            with pytest.raises(kvstore.StoreError):
                tx.put(b"a", b"")

    def test_a_block_does_not_begin_twice(self, db):
        with db.transaction() as tx, pytest.raises(kvstore.StoreError):
            tx.__enter__()

    def test_a_closed_store(self, db):
        tx = begin(db)
        tx[b"a"] = b"1"
        db.close()
        with pytest.raises(kvstore.StoreClosedError):
            tx.get(b"a")
        with pytest.raises(kvstore.StoreClosedError):
            commit(tx)
        for call in (db.transaction, lambda: db.transact(lambda tx: None)):
            with pytest.raises(kvstore.StoreClosedError):
                call()

    def test_a_read_only_store(self, opened):
        with opened() as db:
            db[b"a"] = b"1"
        with opened("r") as db, db.transaction() as tx:
            assert tx[b"a"] == b"1"
            with pytest.raises(kvstore.ReadOnlyError):
                tx.put(b"a", b"2")
            with pytest.raises(kvstore.ReadOnlyError):
                tx.add(b"b", b"2")

    def test_the_errors(self):
        assert issubclass(kvstore.ConflictError, kvstore.StoreError)
        assert issubclass(kvstore.TransactionTooOldError, kvstore.ConflictError)


#: Ways to read in a transaction: each depends on b"m", or on its absence, and on no other letter.
READS = {
    "get": lambda tx: tx.get(b"m"),
    "in": lambda tx: b"m" in tx,
    "get_many": lambda tx: tx.get_many([b"m"]),
    "scan": lambda tx: list(tx.scan(b"l", b"n")),
    "scan to and with": lambda tx: list(tx.scan(b"l", b"m", include_stop=True)),
    "scan from": lambda tx: list(tx.scan(b"m", b"mm")),
    "scan backwards": lambda tx: list(tx.scan(b"l", b"n", reverse=True)),
    "prefix": lambda tx: list(tx.scan(prefix=b"m")),
    "keys": lambda tx: list(tx.keys(b"l", b"n")),
    "values": lambda tx: list(tx.values(b"l", b"n")),
    "count": lambda tx: tx.count(b"l", b"n"),
    "cursor": lambda tx: list(tx.cursor(b"l", b"n")),
    "cursor prefix": lambda tx: tx.cursor(prefix=b"m").last(),
    "seek": lambda tx: tx.cursor(stop=b"n").seek(b"l"),
    "seek_last": lambda tx: tx.cursor(b"l").seek_last(b"mm"),
    "add": lambda tx: tx.add(b"m", b"mine"),
    "replace": lambda tx: tx.replace(b"m", b"other", b"mine"),
    "pop": lambda tx: tx.pop(b"m"),
}
#: What others may do in the meantime, and whether b"m" is there before.
CHANGES = {
    "put": (True, lambda db: db.put(b"m", b"theirs")),
    "delete": (True, lambda db: db.delete(b"m")),
    "insert": (False, lambda db: db.put(b"m", b"theirs")),
    "batch": (False, lambda db: db.write({b"a": b"", b"m": b"theirs", b"z": b""})),
    "add": (False, lambda db: db.add(b"m", b"theirs")),
    "pop": (True, lambda db: db.pop(b"m")),
    "replace": (True, lambda db: db.replace(b"m", b"1", b"theirs")),
    "transact": (True, lambda db: db.transact(lambda tx: tx.put(b"m", b"theirs"))),
    "put and delete": (False, lambda db: (db.put(b"m", b""), db.delete(b"m"))),
    "the same value": (True, lambda db: db.put(b"m", b"1")),
}


class TestConflicts:
    @pytest.fixture
    def db(self):
        with in_memory() as db:
            db.write({b"b": b"1", b"x": b"1"})
            yield db

    @pytest.mark.parametrize("settled", [False, True], ids=["recent", "in tables"])
    @pytest.mark.parametrize("change", CHANGES)
    @pytest.mark.parametrize("read", READS)
    def test_whatever_was_read_may_not_change(self, db, read, change, settled):
        there, others = CHANGES[change]
        if there:
            db[b"m"] = b"1"
        if settled:
            db.checkpoint()
        with pytest.raises(kvstore.ConflictError), db.transaction() as tx:  # noqa: PT012
            READS[read](tx)
            tx[b"mine"] = b"1"
            others(db)
            if settled:
                db.checkpoint()
        assert b"mine" not in db
        assert db.get(b"m") != b"mine"

    @pytest.mark.parametrize("read", READS)
    def test_what_was_not_read_may(self, db, read):
        with db.transaction() as tx:
            READS[read](tx)
            tx[b"mine"] = b"1"
            db.write({b"k": b"", b"n": b"", b"b": None, b"x": b"2", b"": b""})
        assert db[b"mine"] == b"1"

    def test_a_lost_update(self, db):
        one, other = begin(db), begin(db)
        for tx in (one, other):
            tx[b"b"] = b"%d" % (int(tx[b"b"]) + 1)
        commit(other)
        with pytest.raises(kvstore.ConflictError):
            commit(one)
        assert db[b"b"] == b"2"

    def test_write_skew(self, db):
        """Each reads both and clears one: the two together would break what each had checked."""
        db.write({b"on call 1": b"yes", b"on call 2": b"yes"})
        one, other = begin(db), begin(db)
        for tx, key in ((one, b"on call 1"), (other, b"on call 2")):
            assert list(tx.values(prefix=b"on call")).count(b"yes") == 2
            tx[key] = b"no"
        commit(one)
        with pytest.raises(kvstore.ConflictError):
            commit(other)
        assert list(db.values(prefix=b"on call")) == [b"no", b"yes"]

    def test_a_phantom(self, db):
        """Each counts the bookings of a room and adds one where there is none."""
        one, other = begin(db), begin(db)
        for tx, name in ((one, b"one"), (other, b"other")):
            assert tx.count(prefix=b"room/") == 0
            tx[b"room/" + name] = b""
        commit(one)
        with pytest.raises(kvstore.ConflictError):
            commit(other)
        assert list(db.keys(prefix=b"room/")) == [b"room/one"]

    def test_a_read_before_the_others_write_and_one_after_it(self, db):
        """The second read still shows the first state, and either counts."""
        with pytest.raises(kvstore.ConflictError), db.transaction() as tx:  # noqa: PT012
            db[b"b"] = b"2"
            assert tx[b"b"] == b"1"
            tx[b"mine"] = b""
        assert b"mine" not in db

    def test_blind_writes_never_conflict(self, db):
        one, other = begin(db), begin(db)
        for tx, value in ((one, b"one"), (other, b"other")):
            tx.put(b"b", value)
            tx.delete(b"x")
            tx.write({b"y": value})
        db[b"b"] = b"between"
        commit(other)
        commit(one)
        assert contents(db) == {b"b": b"one", b"y": b"one"}

    def test_reading_what_it_wrote_itself_is_no_read(self, db):
        with db.transaction() as tx:
            tx[b"b"] = b"mine"
            assert tx[b"b"] == b"mine"
            db[b"b"] = b"theirs"
        assert db[b"b"] == b"mine"

    def test_a_scan_counts_as_far_as_it_went(self, db):
        db.write({b"%03d" % n: b"" for n in range(1000)})
        changes = {b"0021": False, b"003": False, b"002": True, b"001+": True, b"00": True}
        for changed, fails in changes.items():
            with contextlib.ExitStack() as stack:
                if fails:
                    stack.enter_context(pytest.raises(kvstore.ConflictError))
                tx = stack.enter_context(db.transaction())
                scan = tx.scan(b"00")
                while next(scan)[0] != b"002":
                    pass
                scan.close()
                tx[b"mine"] = changed
                db[changed] = b"new"
            assert (db.get(b"mine") == changed) is not fails

    def test_a_limit_bounds_it_too(self, db):
        db.write({b"%03d" % n: b"" for n in range(100)})
        for arguments, safe, hit in (
            ({"start": b"010", "limit": 5}, b"015", b"014"),
            ({"stop": b"050", "limit": 5, "reverse": True}, b"044", b"045"),
        ):
            with db.transaction() as tx:
                assert len(list(tx.scan(**arguments))) == 5
                tx[b"mine"] = b""
                db[safe] = b"new"
            with pytest.raises(kvstore.ConflictError), db.transaction() as tx:  # noqa: PT012
                assert tx.count(**arguments) == 5
                tx[b"mine"] = b""
                db[hit] = b"new"

    def test_a_scan_that_found_its_end_counts_to_the_end(self, db):
        for arguments, inserted in (
            ({"start": b"x"}, b"z"),
            ({"start": b"x", "limit": 5}, b"zz"),
            ({"stop": b"c", "reverse": True}, b"a"),
            ({"start": b"c", "stop": b"d"}, b"cc"),
        ):
            with pytest.raises(kvstore.ConflictError), db.transaction() as tx:  # noqa: PT012
                list(tx.scan(**{"limit": 1000, **arguments}))
                tx[b"mine"] = b""
                db[inserted] = b"new"

    def test_read_only_ones_never_fail(self, db):
        with db.transaction() as tx:
            before = [*tx.scan(), tx[b"b"], tx.get(b"absent")]
            db.write({b"b": b"2", b"x": None, b"absent": b""})
            db.checkpoint()
            db.compact()
            assert [*tx.scan(), tx[b"b"], tx.get(b"absent")] == before
        assert db[b"b"] == b"2"

    def test_a_conflict_leaves_nothing_behind(self, db):
        for _ in range(3):
            with pytest.raises(kvstore.ConflictError), db.transaction() as tx:  # noqa: PT012
                tx[b"b"] = tx[b"x"]
                db[b"x"] = b"2"
        before = db.last_entry_id
        with db.transaction() as tx:
            tx[b"b"] = tx[b"x"]
        assert db.last_entry_id == before + 1
        assert contents(db) == {b"b": b"2", b"x": b"2"}

    def test_a_commit_looks_at_each_written_key_once(self, db):
        """Others wait meanwhile; it was once for each interval that had been scanned."""
        db.write({b"%03d" % n: b"" for n in range(300)})
        with db.transaction() as tx:
            for n in range(300):
                assert len(list(tx.scan(b"%03d" % n, limit=1))) == 1
            tx[b"mine"] = b""
            db.write({b"x%05d" % n: b"" for n in range(5000)})
            assert lines_run(lambda: commit(tx)) < 50_000

    def test_over_a_very_long_life(self, db):
        """What it is not known any more is a conflict; what is known is right."""
        for changed in (False, True):
            db[b"k"] = b"before"
            tx = begin(db)
            assert tx[b"k"] == b"before"
            tx[b"mine"] = b"%d" % changed
            for n in range(30):
                db.write({b"%d" % each: b"%d" % n * 20 for each in range(500)})
                if n == 10 and changed:
                    db[b"k"] = b"after"
                db.checkpoint()
            if changed:
                with pytest.raises(kvstore.ConflictError):
                    commit(tx)
            else:
                with contextlib.suppress(kvstore.TransactionTooOldError):
                    commit(tx)
            assert db.get(b"mine") != b"1"


class TestTransact:
    def test_it_returns_what_the_function_does(self, db):
        db[b"a"] = b"1"

        def move(tx):
            tx[b"b"] = tx.pop(b"a")
            return "moved"

        assert db.transact(move) == "moved"
        assert contents(db) == {b"b": b"1"}

    def test_it_tries_again_with_a_new_state(self, db):
        db[b"a"] = b"0"
        seen = []

        def change(tx):
            seen.append(tx[b"a"])
            if len(seen) < 4:
                db[b"a"] = b"%d" % len(seen)
            tx[b"b"] = tx[b"a"]
            return len(seen)

        assert db.transact(change) == 4
        assert seen == [b"0", b"1", b"2", b"3"]
        assert db[b"b"] == b"3"

    @pytest.mark.parametrize("attempts", [1, 3, None])
    def test_in_the_end_the_last_conflict_is_raised(self, db, attempts):
        raised = []

        def never(tx):
            tx.get(b"a")
            tx[b"b"] = b""
            db[b"a"] = b"%d" % len(raised)
            raised.append(None)

        given = {} if attempts is None else {"attempts": attempts}
        with pytest.raises(kvstore.ConflictError):
            db.transact(never, **given)
        assert len(raised) == (attempts or 10)
        assert b"b" not in db

    def test_a_conflict_from_inside_counts(self, db):
        """The function may meet one in what it calls; the last of them comes out as it is."""
        errors = [kvstore.ConflictError("one"), kvstore.ConflictError("two")]
        rest = iter(errors)

        def fails(tx):
            tx[b"a"] = b""
            raise next(rest)

        with pytest.raises(kvstore.ConflictError) as caught:
            db.transact(fails, attempts=2)
        assert caught.value is errors[-1]
        assert list(db) == []

    def test_any_other_exception_ends_it(self, db):
        calls = []

        def fails(tx):
            calls.append(tx)
            tx[b"a"] = b""
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            db.transact(fails)
        assert len(calls) == 1
        assert list(db) == []

    def test_rollback_ends_it_without_an_error(self, db):
        def give_up(tx):
            tx[b"a"] = b""
            tx.rollback()
            return "nothing"

        assert db.transact(give_up) == "nothing"
        assert list(db) == []

    @pytest.mark.parametrize("attempts", [0, -1])
    def test_it_wants_an_attempt(self, db, attempts):
        with pytest.raises(ValueError, match="attempts"):
            db.transact(lambda tx: None, attempts=attempts)

    def test_the_transaction_is_over_afterwards(self, db):
        tx = db.transact(lambda tx: tx)
        with pytest.raises(kvstore.StoreError):
            tx.get(b"a")


class Recorded:
    """A transaction that notes what it was asked and what it answered, to be played again."""

    def __init__(self, db, state):
        self.db = db
        self.began_at = dict(state)
        self.began_id = db.last_entry_id
        self.tx = begin(db)
        self.steps = []

    def step(self, rng):
        key, other = (b"%d" % rng.randrange(20) for _ in range(2))
        low, high = sorted((key, other))
        value = b"%d" % rng.randrange(3)
        expected = rng.choice([None, b"%d" % rng.randrange(3)])
        reverse, limit = rng.random() < 0.5, rng.choice([1, 1, 2, None])
        way = rng.choice(["get", "get", "get", "scan", "count", *CHANGING])
        arguments = (key, low, high, value, reverse, limit, expected)
        self.steps.append((way, arguments, ask(self.tx, way, *arguments)))

    def changes(self):
        """Whether it has written anything."""
        return any(
            way in ("put", "delete") or (way == "pop" and answer is not None) or answer is True
            for way, _, answer in self.steps
        )

    def end(self, state):
        """Commit; what became of it, and the state afterwards."""
        before = self.db.last_entry_id
        try:
            commit(self.tx)
        except kvstore.ConflictError:
            assert self.db.last_entry_id == before > self.began_id, "nobody wrote in the meantime"
            return "conflict", state
        if self.db.last_entry_id == before:
            assert self.replay(self.began_at) == self.began_at
            return "read only", state
        return "committed", self.replay(state)

    def replay(self, state):
        """The state after it, if it runs alone on this one; every answer must be the same."""
        alone = Alone(state)
        for way, arguments, answer in self.steps:
            assert ask(alone, way, *arguments) == answer, (way, arguments)
        return alone.state


CHANGING = ["put", "delete", "add", "pop", "replace"]


def ask(tx, way, key, low, high, value, reverse, limit, expected):
    if way == "get":
        return tx.get(key)
    if way == "scan":
        return list(tx.scan(low, high, reverse=reverse, limit=limit))
    if way == "count":
        return tx.count(low, high)
    if way == "put":
        return tx.put(key, value)
    if way == "delete":
        return tx.delete(key)
    if way == "add":
        return tx.add(key, value)
    if way == "pop":
        return tx.pop(key)
    return tx.replace(key, expected, value)


class Alone:
    """A dict with the methods of a transaction."""

    def __init__(self, state):
        self.state = dict(state)
        self.get = self.state.get

    def scan(self, low, high, reverse=False, limit=None):
        return iter(model_scan(self.state, low, high, reverse=reverse, limit=limit))

    def count(self, low, high):
        return len(model_scan(self.state, low, high))

    def put(self, key, value):
        self.state[key] = value

    def delete(self, key):
        self.state.pop(key, None)

    def add(self, key, value):
        return self.replace(key, None, value)

    def pop(self, key):
        return self.state.pop(key, None)

    def replace(self, key, expected, value):
        if self.state.get(key) != expected:
            return False
        self.state[key] = value
        return True


@pytest.mark.parametrize("seed", range(8))
def test_all_that_commit_could_have_run_one_after_another(seed):
    """Random transactions, several at a time: each, alone at its commit, had the same answers."""
    rng = random.Random(seed)
    outcomes = {"committed": 0, "read only": 0, "conflict": 0}
    with in_memory() as db:
        state, running = {}, []
        for _ in range(2500):
            action = rng.random()
            if action < 0.15 and len(running) < 5:
                running.append(Recorded(db, state))
            elif action < 0.75 and running:
                rng.choice(running).step(rng)
            elif action < 0.85 and running:
                one = running.pop(rng.randrange(len(running)))
                outcome, state = one.end(state)
                outcomes[outcome] += 1
                assert contents(db) == state
            elif action > 0.99:
                db.checkpoint()
        for one in running:
            one.tx.rollback()
    assert min(outcomes.values()) > 5


@pytest.mark.parametrize("durability", [BUFFER, FSYNC], ids=lambda each: each.value)
@pytest.mark.parametrize("seed", range(3))
def test_the_log_is_the_order_in_which_they_could_have_run(seed, durability):
    """The same of many threads, over checkpoints: played again in the order of their entries."""
    committed = []
    with in_memory(durability=durability) as db:
        done = threading.Event()

        def worker(name):
            rng = random.Random(seed * 100 + name)
            for _ in range(60):
                one = Recorded(db, {})
                for _ in range(rng.randrange(1, 6)):
                    one.step(rng)
                with contextlib.suppress(kvstore.ConflictError):
                    commit(one.tx)
                    if one.changes():
                        committed.append((one.tx.entry_id, one))

        def workers():
            try:
                run(*(lambda name=name: worker(name) for name in range(4)))
            finally:
                done.set()

        def checkpointer():
            while not done.is_set():
                db.checkpoint()

        run(workers, checkpointer)
        state = {}
        for _, one in sorted(committed, key=lambda each: each[0]):
            state = one.replay(state)
        assert contents(db) == state
    assert len({entry_id for entry_id, _ in committed}) == len(committed) > 20


class TestThreads:
    @pytest.fixture(params=[BUFFER, FSYNC], ids=lambda each: each.value)
    def shared(self, request):
        with in_memory(durability=request.param) as db:
            yield db

    def test_no_update_is_lost(self, shared):
        def increment(tx):
            tx[b"n"] = b"%d" % (int(tx.get(b"n", b"0")) + 1)

        def worker():
            for _ in range(40):
                shared.transact(increment, attempts=10_000)

        run(*[worker] * 6)
        assert shared[b"n"] == b"240"

    def test_no_phantom_comes_between(self, shared):
        """Each takes the next free number: in the end there are as many as were taken."""

        def take(tx):
            number = tx.count(prefix=b"ticket/")
            assert tx.add(b"ticket/%05d" % number, b"")

        def worker():
            for _ in range(25):
                shared.transact(take, attempts=10_000)

        run(*[worker] * 4)
        assert list(shared.keys(prefix=b"ticket/")) == [b"ticket/%05d" % n for n in range(100)]

    def test_no_skew_breaks_a_rule(self, shared):
        """At least one is on call, whatever anybody does; checkpoints come between."""
        keys = [b"doctor/%d" % n for n in range(4)]
        shared.write(dict.fromkeys(keys, b"on"))
        done = threading.Event()

        def worker(name):
            rng = random.Random(name)

            def change(tx):
                key = rng.choice(keys)
                on_call = list(tx.values(prefix=b"doctor/")).count(b"on")
                assert on_call > 0
                tx[key] = b"off" if on_call > 1 and tx[key] == b"on" else b"on"

            for _ in range(80):
                shared.transact(change, attempts=10_000)

        def workers():
            try:
                run(*(lambda name=name: worker(name) for name in range(4)))
            finally:
                done.set()

        def checkpointer():
            while not done.is_set():
                shared.checkpoint()
                assert b"on" in shared.get_many(keys)

        run(workers, checkpointer)

    def test_those_that_touch_different_keys_do_not_hinder_each_other(self, shared):
        together = threading.Barrier(8)

        def worker(name):
            key = b"%d" % name
            together.wait(PATIENCE)
            for n in range(30):
                shared.transact(
                    lambda tx, n=n: tx.put(key, tx.get(key, b"") + b"%d" % n), attempts=1
                )

        run(*(lambda name=name: worker(name) for name in range(8)))
        expected = b"".join(b"%d" % n for n in range(30))
        assert contents(shared) == {b"%d" % name: expected for name in range(8)}
