"""What each operation of a store does and refuses."""

from __future__ import annotations

import array
import collections
import os

import pytest

import kvstore
from kvstore.config import Options
from tests.store.support import BUFFER, FSYNC, WRITE, contents


class TestOneKey:
    def test_put_and_get(self, db):
        assert db.put(b"k", b"v") is None
        assert db.get(b"k") == b"v"
        assert db[b"k"] == b"v"
        assert b"k" in db

    def test_absent(self, db):
        assert db.get(b"k") is None
        assert db.get(b"k", 7) == 7
        assert db.get(b"k", default=b"") == b""
        assert b"k" not in db
        with pytest.raises(KeyError) as caught:
            db[b"k"]
        assert caught.value.args == (b"k",)

    def test_an_empty_key_and_an_empty_value(self, db):
        db[b""] = b""
        assert db.get(b"", 7) == b""
        assert b"" in db
        assert list(db.scan()) == [(b"", b"")]

    def test_put_replaces(self, db):
        db[b"k"] = b"1"
        db[b"k"] = b"2"
        assert contents(db) == {b"k": b"2"}

    def test_delete(self, db):
        db[b"k"] = b"v"
        assert db.delete(b"k") is None
        assert db.get(b"k", 7) == 7
        db.delete(b"k")

    def test_del_wants_the_key_to_be_there(self, db):
        db[b"k"] = b"v"
        del db[b"k"]
        with pytest.raises(KeyError):
            del db[b"k"]

    @pytest.mark.parametrize("durability", [None, FSYNC, WRITE, BUFFER])
    def test_every_write_takes_a_durability(self, db, durability):
        db.put(b"a", b"1", durability=durability)
        db.write({b"b": b"2"}, durability=durability)
        with db.batch(durability=durability) as batch:
            batch.put(b"c", b"3")
        db.delete(b"a", durability=durability)
        assert contents(db) == {b"b": b"2", b"c": b"3"}

    def test_a_wrong_durability_is_refused(self, db):
        with pytest.raises(TypeError, match="Durability"):
            db.put(b"k", b"v", durability="fsync")
        assert b"k" not in db

    def test_durability_is_given_by_name(self, db):
        with pytest.raises(TypeError):
            db.put(b"k", b"v", FSYNC)


class TestTypes:
    @pytest.mark.parametrize(
        "buffer", [bytearray, memoryview, lambda data: array.array("B", data)], ids=str
    )
    def test_any_buffer_will_do(self, db, buffer):
        db.put(buffer(b"k"), buffer(b"v"))
        db.write({b"m": buffer(b"w")})
        assert [type(x) for x in (*db, *db.values())] == [bytes] * 4
        assert db.get(buffer(b"k")) == b"v"
        assert db.get_many([buffer(b"m")]) == [b"w"]
        assert list(db.keys(buffer(b"l"))) == [b"m"]
        assert list(db.keys(prefix=buffer(b"k"))) == [b"k"]
        db.delete(buffer(b"k"))
        assert list(db) == [b"m"]

    def test_a_buffer_is_copied(self, db):
        value = bytearray(b"v")
        db.put(b"k", value)
        value[0] = 0
        assert db[b"k"] == b"v"

    def test_a_subclass_of_bytes_comes_back_as_bytes(self, db):
        class Name(bytes):
            __slots__ = ()

        db.put(Name(b"k"), Name(b"v"))
        ((key, value),) = db.scan()
        assert (type(key), type(value)) == (bytes, bytes)

    @pytest.mark.parametrize(
        ("call", "hint"),
        [
            (lambda db: db.put("k", b"v"), r"key\.encode\(\)"),
            (lambda db: db.put(b"k", "v"), r"value\.encode\(\)"),
            (lambda db: db.get("k"), r"key\.encode\(\)"),
            (lambda db: "k" in db, r"key\.encode\(\)"),
            (lambda db: db["k"], r"key\.encode\(\)"),
            (lambda db: db.delete("k"), r"key\.encode\(\)"),
            (lambda db: db.get_many(["k"]), r"key\.encode\(\)"),
            (lambda db: db.write({"k": b"v"}), r"key\.encode\(\)"),
            (lambda db: db.write({b"k": "v"}), r"value\.encode\(\)"),
            (lambda db: db.batch().__enter__().put("k", b"v"), r"key\.encode\(\)"),
            (lambda db: db.scan("a"), r"start\.encode\(\)"),
            (lambda db: db.scan(stop="a"), r"stop\.encode\(\)"),
            (lambda db: db.keys(prefix="a"), r"prefix\.encode\(\)"),
            (lambda db: db.put(1, b"v"), "key must be bytes.*int"),
            (lambda db: db.put(b"k", None), "value must be bytes.*NoneType"),
            (lambda db: db.write([(b"k", b"v")]), "mapping"),
        ],
    )
    def test_anything_else_is_refused_with_a_hint(self, db, call, hint):
        with pytest.raises(TypeError, match=hint):
            call(db)
        assert list(db) == []

    def test_the_longest_key(self, db):
        key = b"k" * 65_535
        db[key] = b"v"
        assert db[key] == b"v"
        for call in (
            lambda: db.put(key + b"k", b""),
            lambda: db.delete(key + b"k"),
            lambda: db.write({key + b"k": b""}),
            lambda: db.batch().__enter__().put(key + b"k", b""),
        ):
            with pytest.raises(kvstore.KeyTooLongError, match="at most 65,535 bytes"):
                call()
        assert issubclass(kvstore.KeyTooLongError, ValueError)
        assert list(db) == [key]

    def test_a_value_that_is_too_long(self, db, monkeypatch):
        """The limit is 4 GiB; who has the memory to spare?"""
        import kvstore.mutations
        import kvstore.store

        monkeypatch.setattr(kvstore.mutations, "MAX_VALUE", 100)
        monkeypatch.setattr(kvstore.store, "MAX_VALUE", 100)
        db.put(b"k", b"v" * 100)
        for value in (b"v" * 101, bytearray(101), memoryview(bytes(101))):
            with pytest.raises(kvstore.ValueTooLongError, match="4 GiB"):
                db.put(b"k", value)
            with pytest.raises(kvstore.ValueTooLongError):
                db.write({b"k": value})
        assert issubclass(kvstore.ValueTooLongError, ValueError)
        assert len(db[b"k"]) == 100


class TestSeveralKeys:
    def test_get_many(self, db):
        db.write({b"a": b"1", b"b": b"2"})
        db.checkpoint()
        db.write({b"b": None, b"c": b"3"})
        keys = [b"c", b"x", b"a", b"b", b"c"]
        assert db.get_many(keys) == [b"3", None, b"1", None, b"3"]
        assert db.get_many(iter(keys)) == db.get_many(keys)
        assert db.get_many([]) == []

    def test_write(self, db):
        db[b"old"] = b""
        db.write(collections.OrderedDict({b"new": b"1", b"old": None, b"never": None}))
        assert contents(db) == {b"new": b"1"}

    def test_an_empty_write_is_nothing(self, db):
        before = db.last_entry_id
        db.write({})
        with db.batch() as batch:
            pass
        assert (db.last_entry_id, batch.entry_id) == (before, None)

    def test_a_wrong_item_spoils_the_whole_write(self, db):
        with pytest.raises(TypeError):
            db.write({b"a": b"1", b"b": 2})
        assert list(db) == []

    def test_a_batch_shows_at_its_end(self, db):
        db[b"gone"] = b""
        with db.batch() as batch:
            batch.put(b"a", b"1")
            batch.delete(b"gone")
            assert contents(db) == {b"gone": b""}
            assert len(batch) == 2
        assert contents(db) == {b"a": b"1"}
        assert batch.entry_id == db.last_entry_id

    def test_a_batch_is_one_entry(self, db):
        before = db.last_entry_id
        with db.batch() as batch:
            for n in range(100):
                batch.put(b"%d" % n, b"")
        assert batch.entry_id == before + 1

    def test_the_last_mutation_of_a_key_counts(self, db):
        with db.batch() as batch:
            batch.put(b"a", b"1")
            batch.put(b"a", b"2")
            batch.put(b"b", b"1")
            batch.delete(b"b")
            batch.delete(b"c")
            batch.put(b"c", b"3")
        assert contents(db) == {b"a": b"2", b"c": b"3"}

    def test_an_exception_drops_a_batch(self, db):
        with pytest.raises(ZeroDivisionError), db.batch() as batch:  # noqa: PT012
            batch.put(b"a", b"1")
            raise ZeroDivisionError
        assert list(db) == []
        assert batch.entry_id is None

    def test_a_batch_is_used_once(self, db):
        with db.batch() as batch:
            batch.put(b"a", b"1")
        for call in (lambda: batch.put(b"b", b""), lambda: batch.delete(b"a"), batch.__enter__):
            with pytest.raises(kvstore.StoreError, match="ended"):
                call()

    def test_a_batch_without_its_block(self, db):
        """What was put into a batch without ``with`` was silently dropped."""
        batch = db.batch()
        for call in (lambda: batch.put(b"a", b"1"), lambda: batch.delete(b"a")):
            with pytest.raises(kvstore.StoreError, match="use `with"):
                call()
        with batch:
            batch.put(b"b", b"2")
            with pytest.raises(kvstore.StoreError, match="begun"):
                batch.__enter__()
        assert contents(db) == {b"b": b"2"}

    def test_a_large_batch_and_large_values(self, db, opened):
        """Larger than a group, a segment, and all the memory that was allowed."""
        items = {b"key-%05d" % n: bytes([n % 251]) * 300 for n in range(3_000)}
        items[b"large"] = bytes(1 << 20)
        db.write(items)
        assert contents(db) == items
        db.close()
        assert contents(opened("r")) == items


class TestTheRest:
    def test_a_store_is_always_true(self, db):
        assert db
        db.close()
        assert db

    def test_iteration_is_over_keys(self, db):
        db.write({b"b": b"2", b"a": b"1"})
        assert list(db) == [b"a", b"b"]
        assert dict(db) == {b"a": b"1", b"b": b"2"}

    def test_backwards(self, db):
        """``reversed`` took the store for a sequence, and failed with a text about lengths."""
        db.write({b"b": b"2", b"a": b"1", b"c": b"3"})
        assert list(reversed(db)) == [b"c", b"b", b"a"]

    def test_where_it_stands(self, db, path):
        assert (db.path, db.closed, db.read_only) == (path, False, False)
        assert path in repr(db)
        db.close()
        assert db.closed
        assert "closed" in repr(db)

    def test_last_entry_id_grows_with_each_write(self, db):
        ids = [db.last_entry_id]
        for durability in (BUFFER, FSYNC, WRITE, BUFFER):
            db.put(b"k", b"", durability=durability)
            ids.append(db.last_entry_id)
        assert ids == sorted(set(ids))

    def test_stats(self, db):
        assert db.stats().last_entry_id == 0
        db.write({b"a": b"1", b"b": b"2"})
        before = db.stats()
        assert (before.memtable_items, before.tables, before.table_items) == (2, 0, 0)
        db.checkpoint()
        after = db.stats()
        assert (after.memtable_items, after.tables, after.table_items) == (0, 1, 2)
        assert after.table_bytes > 0
        assert after.checkpoint_entry_id == after.durable_entry_id == after.last_entry_id == 1
        with pytest.raises(AttributeError):
            after.tables = 2

    def test_sync_makes_all_durable(self, db):
        db.put(b"k", b"v", durability=BUFFER)
        db.sync()
        assert db.stats().durable_entry_id == db.last_entry_id

    def test_a_path_object_will_do(self, tmp_path):
        with kvstore.open(tmp_path / "p.db") as db:
            db[b"k"] = b"v"
        with kvstore.open(str(tmp_path / "p.db"), "r") as db:
            assert db[b"k"] == b"v"

    def test_options_are_checked(self, path):
        for wrong in (
            {"memtable_bytes": "1"},
            {"durability": "fsync"},
            {"log_segment_bytes": 1e6},
            {"log_segment_bytes": True},
        ):
            with pytest.raises(TypeError):
                kvstore.open(path, **wrong)
        for wrong in ({"flag": "x"}, {"memtable_bytes": 1}, {"log_segment_bytes": 1}):
            with pytest.raises(ValueError, match=r"flag|memtable_bytes|log_segment_bytes"):
                kvstore.open(path, **wrong)
        with pytest.raises(TypeError, match="path"):
            kvstore.open(b"my.db")


class TestSpace:
    def space(self, path):
        names = [os.path.join(at, name) for at, _, found in os.walk(path) for name in found]
        return sum(map(os.path.getsize, names))

    def test_a_small_store_takes_little_space(self, path):
        """Each file of the log had 32 MiB, however little was in the store."""
        with kvstore.open(path) as db:
            db[b"k"] = b"v"
            assert self.space(path) < 9 << 20
        with kvstore.open(path):
            assert self.space(path) < 9 << 20

    @pytest.mark.parametrize(
        ("options", "expected"),
        [
            ({}, 8 << 20),
            ({"log_segment_bytes": 256 << 10}, 256 << 10),
            ({"log_segment_bytes": 1 << 30, "memtable_bytes": 1 << 20}, 512 << 10),
            ({"memtable_bytes": 1 << 20}, 512 << 10),
            ({"memtable_bytes": 128 << 20}, 16 << 20),
            ({"memtable_bytes": 8 << 30}, 64 << 20),
        ],
    )
    def test_the_length_of_the_logs_files(self, options, expected):
        assert Options(**options).segment_bytes == expected

    def test_a_chosen_length(self, path):
        for length in (64 << 10, 128 << 10):
            with kvstore.open(path, log_segment_bytes=length) as db:
                for n in range(10):
                    db.put(b"%d" % n, bytes(20_000), durability=BUFFER)
                db.checkpoint()
                names = os.listdir(os.path.join(path, "wal"))
                sizes = {os.path.getsize(os.path.join(path, "wal", name)) for name in names}
                assert length in sizes
                assert max(sizes) == length
