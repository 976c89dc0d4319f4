"""Codecs: values as something else than bytes, recorded with the namespace and held to."""

from __future__ import annotations

import contextlib
import math
import threading

import pytest

import kvstore
from kvstore import BYTES, JSON, MSGPACK, UTF8, Codec
from tests.store.support import PATIENCE, contents
from tests.store.test_threads import run

BUILT_IN = [BYTES, UTF8, JSON, MSGPACK]
DATA = [None, True, 0, -1, 1.5, "ä\0\ud7ff\U0001f600", [], [1, [None]], {}, {"a": {"b": [1]}}]
KEY = b"k"


def refuse(_):
    raise ZeroDivisionError("the codec's own")


REFUSING = Codec("refusing", refuse, bytes)
UNREADABLE = Codec("unreadable", bytes, refuse)


class TestBuiltIn:
    @pytest.mark.parametrize("value", [b"", b"\xff", b"v" * 1000])
    def test_bytes(self, value):
        assert BYTES.decode(BYTES.encode(value)) == value
        assert BYTES.encode(bytearray(value)) == value

    @pytest.mark.parametrize("value", ["", "k", "ä\0\U0001f600"])
    def test_utf8(self, value):
        assert UTF8.decode(UTF8.encode(value)) == value

    @pytest.mark.parametrize("value", DATA)
    @pytest.mark.parametrize("codec", [JSON, MSGPACK])
    def test_data(self, codec, value):
        encoded = codec.encode(value)
        assert type(encoded) is bytes
        decoded = codec.decode(encoded)
        assert (decoded, type(decoded)) == (value, type(value))

    def test_what_msgpack_knows_beyond_json(self):
        assert MSGPACK.decode(MSGPACK.encode({1: b"\xff", b"k": (1, 2)})) == {
            1: b"\xff",
            b"k": [1, 2],
        }

    @pytest.mark.parametrize(
        ("codec", "value", "error"),
        [
            (UTF8, b"k", TypeError),
            (UTF8, None, TypeError),
            (UTF8, "\ud800", UnicodeEncodeError),
            (JSON, b"k", TypeError),
            (JSON, {1, 2}, TypeError),
            (JSON, math.nan, ValueError),
            (JSON, "\ud800", UnicodeEncodeError),
            (MSGPACK, {1, 2}, TypeError),
            (MSGPACK, 1 << 64, OverflowError),
            (BYTES, "k", TypeError),
            (BYTES, None, TypeError),
        ],
    )
    def test_what_they_refuse(self, db, codec, value, error):
        there = db.namespace(b"n", codec)
        for call in (
            lambda: there.put(KEY, value),
            lambda: there.add(KEY, value),
            lambda: there.replace(KEY, None, object()),
            lambda: there.write({b"a": value or 7}),
        ):
            with pytest.raises((error, TypeError)):
                call()
        assert (db.last_entry_id, db.namespaces()) == (0, [])


class TestCodec:
    @pytest.mark.parametrize("name", ["", b"date", None, 1])
    def test_a_name_is_needed(self, name):
        with pytest.raises(TypeError, match="name must be a str"):
            Codec(name, bytes, bytes)

    @pytest.mark.parametrize(("encode", "decode"), [(None, bytes), (bytes, b"")])
    def test_functions_are_needed(self, encode, decode):
        with pytest.raises(TypeError, match="must be a function"):
            Codec("date", encode, decode)

    @pytest.mark.parametrize("codec", ["json", b"json", JSON.name, Codec, {}])
    def test_what_is_no_codec(self, db, codec):
        for call in (
            lambda: db.namespace(b"n", codec),
            lambda: db.namespace(b"n", codec=codec),
            lambda: db.namespace(b"n").namespace(b"m", codec),
            lambda: db.mapping(codec=codec),
            lambda: db.snapshot().namespace(b"n", codec),
            lambda: db.transaction().namespace(b"n", codec),
            lambda: db.batch().namespace(b"n", codec),
        ):
            with pytest.raises(TypeError, match=r"codec must be a kvstore\.Codec"):
                call()

    def test_one_of_your_own(self, opened):
        numbers = Codec(
            "u32", lambda n: n.to_bytes(4, "big"), lambda data: int.from_bytes(data, "big")
        )
        db = opened()
        there = db.namespace(b"n", numbers)
        there[KEY] = 7
        with pytest.raises(OverflowError):
            there[KEY] = -1
        db.close()
        there = opened("r").namespace(b"n", numbers)
        assert (there[KEY], [*there.values()], there.get_many([KEY, b"x"])) == (7, [7], [7, None])

    def test_one_that_does_not_make_bytes(self, db):
        there = db.namespace(b"n", Codec("none", lambda value: value, bytes))
        for value in (None, "text", 7):
            with pytest.raises(TypeError, match="value"):
                there.put(KEY, value)
        there[KEY] = bytearray(b"any buffer will do")
        assert there[KEY] == b"any buffer will do"
        with pytest.raises(TypeError, match=r"value\.encode\(\)"):
            there.replace(KEY, "text", b"")


VALUES = [{"n": n} for n in range(5)]


class TestEveryRead:
    @pytest.fixture(params=["namespace", "snapshot", "transaction", "in tables"])
    def there(self, request, db):
        db.namespace(b"n", JSON).write({b"%d" % n: v for n, v in enumerate(VALUES)})
        with contextlib.ExitStack() as stack:
            if request.param == "in tables":
                db.checkpoint()
            kinds = {"snapshot": db.snapshot, "transaction": db.transaction}
            make = kinds.get(request.param)
            yield (db if make is None else stack.enter_context(make())).namespace(b"n", JSON)

    def test_it(self, there):
        assert there[b"1"] == there.get(b"1") == {"n": 1}
        assert there.get_many([b"4", b"x", b"0"]) == [{"n": 4}, None, {"n": 0}]
        assert [*there.values()] == VALUES
        assert [*there.values(reverse=True)] == VALUES[::-1]
        assert [*there.scan(b"3")] == [(b"3", {"n": 3}), (b"4", {"n": 4})]
        assert [*there.scan(prefix=b"3", reverse=True, limit=1)] == [(b"3", {"n": 3})]
        with there.cursor() as cursor:
            assert cursor.last() == (b"4", {"n": 4})
            assert cursor.prev() == (b"3", {"n": 3})
            assert (cursor.key, cursor.value) == (b"3", {"n": 3})
            assert [*cursor] == [(b"4", {"n": 4})]


class TestRecorded:
    @pytest.mark.parametrize("second", BUILT_IN)
    @pytest.mark.parametrize("first", BUILT_IN)
    def test_the_first_write_settles_it(self, opened, first, second):
        value = {"bytes": b"v", "utf8": "v"}.get(first.name, 7)
        db = opened()
        db.namespace(b"n", second)  # nothing is written yet
        db.namespace(b"n", first).put(KEY, value)

        def check(db):
            expected = contextlib.nullcontext()
            if first is not second:
                expected = pytest.raises(
                    kvstore.CodecMismatchError, match=f"{first.name!r}, not {second.name!r}"
                )
            with expected:
                assert db.namespace(b"n", second)[KEY] == value
            with expected, db.snapshot() as snap:
                assert snap.namespace(b"n", second)[KEY] == value
            with expected, db.transaction(read_only=True) as tx:
                assert tx.namespace(b"n", second)[KEY] == value
            assert db.namespace(b"n", first)[KEY] == value

        check(db)
        db.checkpoint()
        check(db)
        check(opened("r"))
        db.close()
        check(opened())
        check(opened("r"))

    def test_none_is_bytes(self, db):
        db.namespace(b"n")[KEY] = b"v"
        assert db.namespace(b"n", BYTES)[KEY] == b"v"
        assert db.namespace(b"n", None)[KEY] == b"v"
        with pytest.raises(kvstore.CodecMismatchError, match="'bytes', not 'utf8'"):
            db.namespace(b"n", UTF8)

    def test_names_count_and_functions_do_not(self, opened):
        with opened() as db:
            db.namespace(b"n", Codec("mine", str.encode, bytes.decode))[KEY] = "v"
        with opened() as db:
            assert db.namespace(b"n", Codec("mine", bytes, len))[KEY] == 1

    def test_in_a_backup(self, db, files, path):
        db.namespace(b"n", JSON)[KEY] = 7
        db.backup(path + "-backup")
        for flag in "rw":
            with kvstore.open(path + "-backup", flag, file_system=files) as backup:
                with pytest.raises(kvstore.CodecMismatchError):
                    backup.namespace(b"n", MSGPACK)
                assert backup.namespace(b"n", JSON)[KEY] == 7

    @pytest.mark.parametrize(
        "use",
        [
            lambda there: there.put(b"x", "v"),
            lambda there: there.delete(KEY),
            lambda there: there.write({b"x": "v"}),
            lambda there: there.add(b"x", "v"),
            lambda there: there.pop(KEY),
            lambda there: there.clear(),
            lambda there: there.get(KEY),
            lambda there: KEY in there,
            lambda there: list(there),
            lambda there: len(there),
            lambda there: there.cursor(),
            lambda there: there.get_many([KEY]),
            lambda there: there.namespaces(),
            lambda there: there.namespace(b"in it"),
            lambda there: there.namespace(b"in it").put(KEY, b""),
        ],
    )
    def test_who_asked_before_it_was_recorded(self, db, use):
        """What was written with one is never read with another, whenever the handle was made."""
        late, within = db.namespace(b"n", UTF8), db.namespace(b"n", UTF8).namespace(b"in it")
        db.namespace(b"n", JSON)[KEY] = 7
        before = db.last_entry_id
        with pytest.raises(kvstore.CodecMismatchError):
            use(late)
        with pytest.raises(kvstore.CodecMismatchError):
            within.put(KEY, b"")
        with pytest.raises(kvstore.CodecMismatchError), db.batch() as batch:
            batch.namespace(b"n", UTF8)
        assert db.last_entry_id == before
        assert contents(db.namespace(b"n", JSON)) == {KEY: 7}

    def test_a_write_further_in_settles_it_too(self, opened):
        """The directory's entries never change: nobody can overwrite a codec with none."""
        with opened() as db:
            db.namespace(b"n", JSON).namespace(b"m", UTF8)[KEY] = "v"
        with opened() as db:
            with pytest.raises(kvstore.CodecMismatchError):
                db.namespace(b"n")
            there = db.namespace(b"n", JSON)
            assert (contents(there), contents(there.namespace(b"m", UTF8))) == ({}, {KEY: "v"})

    def test_a_transaction_that_came_first_and_commits_last(self, opened):
        with opened() as db:
            tx = db.transaction()
            with tx:
                tx.namespace(b"n", JSON).namespace(b"m")[KEY] = b"v"
                db.namespace(b"n", JSON)[KEY] = 7
            assert db.namespace(b"n", JSON).namespace(b"m")[KEY] == b"v"
        with opened() as db, pytest.raises(kvstore.CodecMismatchError):
            db.namespace(b"n", UTF8)

    def test_a_namespace_of_a_namespace_has_its_own(self, db):
        outer = db.namespace(b"n", JSON)
        inner = outer.namespace(b"n", MSGPACK)
        inner[KEY] = b"\xff"
        outer[KEY] = [1]
        assert (outer[KEY], inner[KEY]) == ([1], b"\xff")

    def test_a_reader_that_is_refreshed(self, opened):
        db = opened()
        reader = opened("r")
        late = reader.namespace(b"n", UTF8)
        assert late.get(KEY) is None
        db.namespace(b"n", JSON)[KEY] = 7
        db.checkpoint()
        reader.refresh()
        with pytest.raises(kvstore.CodecMismatchError):
            late.get(KEY)

    def test_a_reader_that_finds_another_store_after_a_refresh(self, opened):
        db = opened()
        db.namespace(b"a", JSON)[KEY] = 1
        db.namespace(b"b", JSON)[KEY] = 2
        db.checkpoint()
        reader = opened("r")
        first, second = reader.namespace(b"a", JSON), reader.namespace(b"b", JSON)
        assert (first[KEY], second[KEY]) == (1, 2)
        db.close()
        db = opened("n")
        db.namespace(b"b", JSON)[KEY] = 3
        db.namespace(b"a", UTF8)[KEY] = "4"
        db.close()
        reader.refresh()
        assert second[KEY] == 3
        with pytest.raises(kvstore.CodecMismatchError):
            first.get(KEY)
        assert reader.namespace(b"a", UTF8)[KEY] == "4"
        assert [change.namespace for change in reader.changes()] == [(b"b",), (b"a",)]


class TestDroppedFirstWrites:
    """Who has written nothing in the end has chosen no codec."""

    def rolled_back(self, db):
        with db.transaction() as tx:
            tx.namespace(b"n", JSON)[KEY] = 7
            tx.rollback()

    def raised(self, db):
        with contextlib.suppress(ZeroDivisionError), db.transaction() as tx:
            tx.namespace(b"n", JSON).namespace(b"m", JSON).put(KEY, 7)
            raise ZeroDivisionError

    def batch(self, db):
        with contextlib.suppress(ZeroDivisionError), db.batch() as batch:
            batch.namespace(b"n", JSON).put(KEY, 7)
            batch.namespace(b"n", JSON).namespace(b"m", JSON).put(KEY, 7)
            raise ZeroDivisionError

    def encoder(self, db):
        with contextlib.suppress(ZeroDivisionError):
            db.namespace(b"n", REFUSING).put(KEY, 7)

    @pytest.mark.parametrize("drop", [rolled_back, raised, batch, encoder])
    def test_the_next_one_chooses(self, opened, drop):
        db = opened()
        drop(self, db)
        assert db.namespaces() == []
        assert db.last_entry_id == 0
        there = db.namespace(b"n", UTF8)
        assert there.get(KEY) is None
        there[KEY] = "v"
        there.namespace(b"m", MSGPACK)[KEY] = b"w"
        with pytest.raises(kvstore.CodecMismatchError):
            db.namespace(b"n", JSON)
        db.close()
        there = opened("r").namespace(b"n", UTF8)
        assert (there[KEY], there.namespace(b"m", MSGPACK)[KEY]) == ("v", b"w")

    def test_as_long_as_one_may_still_write_it_the_codec_stays(self, db):
        with db.transaction() as first:
            with contextlib.suppress(ZeroDivisionError), db.transaction() as second:
                first.namespace(b"n", JSON)[b"1"] = 1
                first.namespace(b"n", JSON)[b"2"] = 1
                second.namespace(b"n", JSON)[b"3"] = 1
                raise ZeroDivisionError
            with pytest.raises(kvstore.CodecMismatchError):
                db.namespace(b"n", UTF8).put(KEY, "v")
        assert contents(db.namespace(b"n", JSON)) == {b"1": 1, b"2": 1}

    def test_who_was_refused_holds_nothing(self, db):
        with db.transaction() as tx:
            tx.namespace(b"n", JSON)[KEY] = 7
            with pytest.raises(kvstore.CodecMismatchError):
                db.namespace(b"n", UTF8).put(KEY, "v")
            tx.rollback()
        db.namespace(b"n", UTF8).put(KEY, "v")
        assert contents(db.namespace(b"n", UTF8)) == {KEY: "v"}

    def test_one_that_is_dropped_after_another_one_has_written_it(self, db):
        with db.transaction() as tx:
            tx.namespace(b"n", JSON)[KEY] = 7
            db.namespace(b"n", JSON)[KEY] = 8
            assert db.namespace(b"n", JSON)[KEY] == 8
            tx.rollback()
        with pytest.raises(kvstore.CodecMismatchError):
            db.namespace(b"n", UTF8)

    def test_one_transaction_does_not_choose_twice(self, db):
        with db.transaction() as tx:
            tx.namespace(b"n", JSON)[KEY] = 1
            for use in (lambda there: there.get(KEY), lambda there: there.put(KEY, "v")):
                with pytest.raises(kvstore.CodecMismatchError):
                    use(tx.namespace(b"n", UTF8))
        assert contents(db.namespace(b"n", JSON)) == {KEY: 1}

    def test_two_at_once(self, db):
        """Two threads write first, with codecs of their own: one of them may."""
        for n in range(30):
            name, barrier, won = b"%d" % n, threading.Barrier(2), []

            def write(codec, value, name=name, barrier=barrier, won=won):
                there = db.namespace(name, codec)
                barrier.wait(PATIENCE)
                with contextlib.suppress(kvstore.CodecMismatchError):
                    there[KEY] = value
                    won.append((codec, value))

            run(lambda: write(JSON, 7), lambda: write(UTF8, "v"))
            [(codec, value)] = won
            assert db.namespace(name, codec)[KEY] == value


@pytest.mark.parametrize("codec", [JSON, MSGPACK])
class TestNoneAsAValue:
    def test_it_is_told_from_an_absent_key(self, db, codec):
        there = db.namespace(b"n", codec)
        missing = object()
        there[KEY] = None
        assert there[KEY] is None
        assert there.get(KEY, missing) is None
        assert there.get(b"x", missing) is missing
        assert KEY in there
        assert b"x" not in there
        assert [*there.scan()] == [(KEY, None)]
        with pytest.raises(KeyError):
            there[b"x"]
        with there.cursor() as cursor:
            assert cursor.first() == (KEY, None)
            assert (cursor.key, cursor.value) == (KEY, None)
        assert there.pop(KEY, missing) is None
        assert there.pop(KEY, missing) is missing

    def test_write_refuses_it(self, db, codec):
        there = db.namespace(b"n", codec)
        with pytest.raises(TypeError, match="use a batch"):
            there.write({b"a": 1, KEY: None})
        assert (len(there), db.last_entry_id) == (0, 0)
        there.write({b"a": 0, b"b": "", b"c": []})
        assert len(there) == 3

    def test_a_batch_takes_it(self, db, codec):
        there = db.namespace(b"n", codec)
        there[b"gone"] = None
        with there.batch() as batch:
            batch.put(KEY, None)
            batch.delete(b"gone")
        assert contents(there) == {KEY: None}

    def test_add_and_replace(self, db, codec):
        there = db.namespace(b"n", codec)
        assert there.add(KEY, None)
        assert not there.add(KEY, 1)
        assert not there.replace(KEY, None, 1)  # None expects it absent
        assert there[KEY] is None
        there[KEY] = 1
        assert there.replace(KEY, 1, None)  # None deletes
        assert KEY not in there


class TestErrors:
    def writes(self, there):
        yield lambda: there.put(KEY, 1)
        yield lambda: there.__setitem__(KEY, 1)
        yield lambda: there.write({b"a": 1})
        yield lambda: there.add(KEY, 1)
        yield lambda: there.replace(KEY, None, 1)
        yield lambda: there.replace(KEY, 1, None)

    def test_encode_that_raises_leaves_nothing_written(self, db):
        for place in (db.namespace(b"n", REFUSING), db.namespace(b"n").namespace(b"m", REFUSING)):
            for call in self.writes(place):
                with pytest.raises(ZeroDivisionError, match="own"):
                    call()

            def gather(writer):
                with writer:
                    writer.namespace(b"o").put(KEY, b"")
                    writer.namespace(b"n", REFUSING).put(KEY, 1)

            for writer in (db.batch(), place.batch(), db.transaction()):
                with pytest.raises(ZeroDivisionError, match="own"):
                    gather(writer)
        assert (contents(db), db.namespaces(), db.last_entry_id) == ({}, [], 0)

    def test_a_batch_goes_on_after_it(self, db):
        with db.batch() as batch:
            with contextlib.suppress(TypeError):
                batch.namespace(b"n", UTF8).put(KEY, 1)
            batch.namespace(b"n", UTF8).put(KEY, "v")
        assert contents(db.namespace(b"n", UTF8)) == {KEY: "v"}

    def test_decode_that_raises(self, db):
        there = db.namespace(b"n", UNREADABLE)
        there[KEY] = b"v"
        for call in (
            lambda: there[KEY],
            lambda: there.get(KEY, 7),
            lambda: there.get_many([KEY]),
            lambda: next(there.scan()),
            lambda: next(there.values()),
            lambda: there.cursor().first(),
        ):
            with pytest.raises(ZeroDivisionError, match="own"):
                call()
        assert ([*there], len(there), KEY in there) == ([KEY], 1, True)
        with pytest.raises(ZeroDivisionError):
            there.replace(KEY, b"w", b"x")
        assert there.replace(KEY, b"v", b"w")  # the same bytes: nothing to decode
        there.delete(KEY)
        assert len(there) == 0


class TestEqualValues:
    def test_replace_compares_values_and_not_their_bytes(self, db):
        there = db.namespace(b"n", JSON)
        there[KEY] = {"a": 1, "b": 2}
        assert not there.replace(KEY, {"a": 1}, 0)
        assert there.replace(KEY, {"b": 2, "a": 1}, {"a": 1.0})
        assert there.replace(KEY, {"a": 1}, 0)
        assert there[KEY] == 0

    def test_write_takes_values_that_do_not_compare(self, db):
        class Array(list):
            def __eq__(self, other):
                raise ValueError("the truth value is ambiguous")

            __hash__ = None

        there = db.namespace(b"n", JSON)
        there.write({KEY: Array([1, 2])})
        assert there[KEY] == [1, 2]
