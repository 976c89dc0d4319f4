"""A store, or a namespace, as a MutableMapping; with a codec on top."""

from __future__ import annotations

import collections
import random
import threading
from collections.abc import MutableMapping

import pytest

import kvstore
from kvstore import JSON, UTF8, Codec
from tests.store.support import BUFFER, PATIENCE, SMALL, contents
from tests.store.test_threads import run
from wal.files import MemoryFileSystem

HEX = Codec("hex", lambda number: b"%x" % number, lambda data: int(data, 16))


@pytest.fixture(params=["store", "namespace", "namespace with a codec", "transaction"])
def mapping(request, db):
    """One of each kind whose values are str; beside it lie keys that are none of it."""
    db.write({b"\xff\x01\x01": b"root"} if request.param != "store" else {})
    db.namespace(b"n").namespace(b"n")[b"inner"] = b""
    db.namespace(b"m")[b"beside"] = b""
    if request.param == "transaction":
        with db.transaction() as tx:
            yield tx.namespace(b"n").mapping(codec=UTF8)
        return
    yield {
        "store": lambda: db.mapping(codec=UTF8),
        "namespace": lambda: db.namespace(b"n").mapping(codec=UTF8),
        "namespace with a codec": lambda: db.namespace(b"typed", UTF8).mapping(),
    }[request.param]()


class TestContract:
    def test_it_is_one(self, mapping):
        assert isinstance(mapping, MutableMapping)
        assert isinstance(mapping, kvstore.StoreMapping)
        assert "StoreMapping over" in repr(mapping)

    def test_items(self, mapping):
        mapping[b"a"] = "1"
        mapping[b"a"] = "ä"
        assert mapping[b"a"] == mapping.get(b"a") == "ä"
        assert (b"a" in mapping, b"b" in mapping) == (True, False)
        assert (mapping.get(b"b"), mapping.get(b"b", 7)) == (None, 7)
        for call in (lambda: mapping[b"b"], lambda: mapping.__delitem__(b"b")):
            with pytest.raises(KeyError, match="b'b'"):
                call()
        del mapping[b"a"]
        assert b"a" not in mapping

    def test_length_and_truth(self, mapping):
        assert (len(mapping), bool(mapping)) == (0, False)
        mapping.update({b"a": "1", b"b": ""})
        assert (len(mapping), bool(mapping)) == (2, True)

    def test_views(self, mapping):
        mapping.update({b"b": "2", b"a": "1", b"c": "3"})
        assert [*mapping] == [*mapping.keys()] == [b"a", b"b", b"c"]
        assert [*mapping.values()] == ["1", "2", "3"]
        assert [*mapping.items()] == [(b"a", "1"), (b"b", "2"), (b"c", "3")]
        assert [*reversed(mapping)] == [b"c", b"b", b"a"]
        assert [*reversed(mapping.values())] == ["3", "2", "1"]
        assert [*reversed(mapping.items())] == [(b"c", "3"), (b"b", "2"), (b"a", "1")]
        assert len(mapping.items()) == len(mapping.values()) == len(mapping.keys()) == 3
        assert "2" in mapping.values()
        assert "4" not in mapping.values()
        assert (b"b", "2") in mapping.items()
        assert (b"b", "3") not in mapping.items()
        assert mapping.keys() & {b"a", b"x"} == {b"a"}
        assert mapping.items() - {(b"a", "1")} == {(b"b", "2"), (b"c", "3")}

    def test_equality(self, mapping):
        assert mapping == {}
        mapping.update({b"b": "2", b"a": "1"})
        assert mapping == {b"a": "1", b"b": "2"}
        assert mapping != {b"a": "1"}
        assert mapping == mapping
        assert mapping == collections.OrderedDict({b"b": "2", b"a": "1"})
        assert dict(mapping) == {**mapping} == {b"a": "1", b"b": "2"}
        assert mapping != 7

    def test_update(self, mapping):
        mapping.update([(b"a", "1"), (b"b", "2")])
        mapping.update({b"b": "3"})
        mapping.update(mapping)
        mapping.update()
        assert dict(mapping) == {b"a": "1", b"b": "3"}
        with pytest.raises(TypeError, match=r"key\.encode"):
            mapping.update(a="1")

    def test_pop(self, mapping):
        mapping.update({b"a": "", b"b": "2"})
        assert mapping.pop(b"a") == ""
        assert mapping.pop(b"b", "default") == "2"
        assert (mapping.pop(b"a", "default"), mapping.pop(b"a", None)) == ("default", None)
        with pytest.raises(KeyError, match="b'a'"):
            mapping.pop(b"a")

    def test_popitem(self, mapping):
        mapping.update({b"b": "2", b"a": "1"})
        assert [mapping.popitem(), mapping.popitem()] == [(b"a", "1"), (b"b", "2")]
        with pytest.raises(KeyError, match="nothing"):
            mapping.popitem()

    def test_setdefault(self, mapping):
        assert mapping.setdefault(b"a", "1") == "1"
        assert mapping.setdefault(b"a", "2") == "1"
        assert dict(mapping) == {b"a": "1"}

    def test_clear(self, mapping):
        mapping.clear()
        mapping.update({b"%04d" % n: "" for n in range(1500)})
        mapping.clear()
        assert mapping == {}

    def test_wrong_types(self, mapping):
        for call in (
            lambda: mapping["k"],
            lambda: mapping.get("k"),
            lambda: "k" in mapping,
            lambda: mapping.pop("k"),
            lambda: mapping.setdefault("k", "v"),
            lambda: mapping.__setitem__("k", "v"),
            lambda: mapping.__delitem__("k"),
        ):
            with pytest.raises(
                TypeError, match=r"a key must be bytes, not str: use key\.encode\(\)"
            ):
                call()
        for call in (
            lambda: mapping.__setitem__(b"k", b"v"),
            lambda: mapping.setdefault(b"k", None),
            lambda: mapping.update({b"k": 7}),
        ):
            with pytest.raises(TypeError, match="utf8 takes str"):
                call()
        assert mapping == {}

    @pytest.mark.parametrize("seed", range(2))
    def test_beside_a_dict(self, mapping, seed):
        rng = random.Random(seed)
        model = {}
        for n in range(400):
            key = rng.choice([b"", b"\0", b"\xff", b"\xff\xff", b"\xff\x02", b"k%d" % (n % 4)])
            way = rng.randrange(7)
            if way < 2:
                mapping[key] = model[key] = str(n)
            elif way == 2:
                assert mapping.pop(key, None) == model.pop(key, None)
            elif way == 3:
                assert mapping.setdefault(key, str(n)) == model.setdefault(key, str(n))
            elif way == 4 and model:
                popped, value = mapping.popitem()
                assert popped == min(model)
                assert model.pop(popped) == value
            elif way == 5:
                assert (key in mapping) is (key in model)
                assert len(mapping) == len(model)
            elif n % 50 == 0:
                mapping.clear()
                model.clear()
            assert [*mapping.items()] == sorted(model.items())


class TestOverAStore:
    def test_without_a_codec(self, db):
        mapping = db.mapping()
        mapping[b"k"] = bytearray(b"v")
        assert (mapping[b"k"], db[b"k"], [*mapping.values()]) == (b"v", b"v", [b"v"])
        with pytest.raises(TypeError, match=r"value\.encode\(\)"):
            mapping[b"k"] = "v"

    def test_the_codec_is_recorded_nowhere(self, opened):
        with opened() as db:
            db.mapping(codec=HEX)[b"k"] = 255
            db.namespace(b"n").mapping(codec=JSON)[b"k"] = 7
        with opened("r") as db:
            assert db.mapping(codec=HEX)[b"k"] == 255
            assert (db.namespace(b"n")[b"k"], db.mapping()[b"k"]) == (b"7", b"ff")

    def test_a_codec_on_top_of_the_namespaces_own(self, db):
        mapping = db.namespace(b"n", UTF8).mapping(codec=Codec("int", str, int))
        mapping[b"k"] = 7
        assert (mapping.pop(b"k"), mapping.setdefault(b"k", 8)) == (7, 8)
        assert db.namespace(b"n", UTF8)[b"k"] == "8"

    def test_none_as_a_value(self, db):
        mapping = db.mapping(codec=JSON)
        mapping[b"k"] = None
        assert mapping.setdefault(b"k", 7) is None
        assert mapping.get(b"k", 7) is None
        assert mapping.pop(b"k", 7) is None
        assert mapping.setdefault(b"k", None) is None
        assert mapping.popitem() == (b"k", None)

    def test_each_write_is_one_commit(self, db):
        mapping = db.mapping()
        for count, write in (
            (1, lambda: mapping.update({b"a": b"", b"b": b""})),
            (1, lambda: mapping.setdefault(b"c", b"")),
            (0, lambda: mapping.setdefault(b"c", b"")),
            (1, lambda: mapping.pop(b"c")),
            (1, mapping.clear),
            (0, mapping.clear),
        ):
            before = db.last_entry_id
            write()
            assert db.last_entry_id == before + count

    def test_iteration_is_over_the_state_of_its_beginning(self, db):
        mapping = db.mapping(codec=UTF8)
        mapping.update({b"a": "1", b"c": "3"})
        walks = [iter(mapping), iter(mapping.items()), iter(mapping.values()), reversed(mapping)]
        mapping[b"b"] = "2"
        del mapping[b"a"]
        mapping[b"c"] = "4"
        assert [[*walk] for walk in walks] == [
            [b"a", b"c"],
            [(b"a", "1"), (b"c", "3")],
            ["1", "3"],
            [b"c", b"a"],
        ]

    def test_changed_while_it_is_iterated(self, db):
        mapping = db.mapping()
        mapping.update({b"%d" % n: b"" for n in range(5)})
        for key in mapping:
            del mapping[key]
        assert mapping == {}

    def test_read_only_and_closed(self, opened):
        with opened() as db:
            db[b"k"] = b"v"
        with opened("r") as db:
            mapping = db.mapping()
            assert dict(mapping) == {b"k": b"v"}
            for call in (
                lambda: mapping.__setitem__(b"k", b""),
                lambda: mapping.pop(b"k"),
                lambda: mapping.setdefault(b"x", b""),
                mapping.clear,
            ):
                with pytest.raises(kvstore.ReadOnlyError):
                    call()
        for call in (lambda: mapping[b"k"], lambda: len(mapping), lambda: list(mapping)):
            with pytest.raises(kvstore.StoreClosedError):
                call()


class TestThreads:
    @pytest.fixture
    def mapping(self):
        files = MemoryFileSystem()
        with kvstore.open("s", file_system=files, memtable_bytes=SMALL, durability=BUFFER) as db:
            yield db.namespace(b"n").mapping(codec=UTF8)

    @pytest.mark.parametrize("way", ["pop", "popitem"])
    def test_one_gets_each_item(self, mapping, way):
        keys = [b"%d" % n for n in range(150)]
        mapping.update({key: key.decode() for key in keys})
        got = [[], [], []]
        barrier = threading.Barrier(len(got))

        def take(mine):
            barrier.wait(PATIENCE)
            if way == "pop":
                values = [mapping.pop(key, None) for key in keys]
                mine += [value.encode() for value in values if value is not None]
                return
            while mapping:
                try:
                    mine.append(mapping.popitem()[0])
                except KeyError:
                    assert not mapping

        run(*(lambda mine=mine: take(mine) for mine in got))
        assert sorted(key for mine in got for key in mine) == sorted(keys)

    def test_all_get_the_same_default(self, mapping):
        got = [[], [], []]
        barrier = threading.Barrier(len(got))

        def ask(number):
            barrier.wait(PATIENCE)
            got[number] = [mapping.setdefault(b"%d" % n, str(number)) for n in range(150)]

        run(*(lambda number=number: ask(number) for number in range(len(got))))
        assert got[0] == got[1] == got[2] == [mapping[b"%d" % n] for n in range(150)]

    def test_items_beside_one_who_deletes(self, mapping):
        """A look-up for each key would miss those that have gone meanwhile."""
        mapping.update({b"%03d" % n: str(n) for n in range(100)})
        walk = iter(mapping.items())
        first = next(walk)
        mapping.clear()
        assert [first, *walk] == [(b"%03d" % n, str(n)) for n in range(100)]
        assert contents(mapping._store) == {}
