"""What is refused, wherever it is asked for: wrong types, too long keys, what has ended, forks."""

from __future__ import annotations

import os
from contextlib import contextmanager

import pytest

import kvstore
from tests.store.support import contents

LONGEST = b"k" * 65_535
#: More than an iterator has at hand at once; that much it may still show after the end.
MANY = {b"%05d" % n: b"%d" % n for n in range(5_000)}


@contextmanager
def place_of(db, kind):
    """Something with keys and values in it, of each kind there is."""
    if kind in ("store", "namespace"):
        yield db if kind == "store" else db.namespace(b"n")
    elif kind == "snapshot":
        with db.snapshot() as snap:
            yield snap
    elif kind == "transaction":
        with db.transaction() as tx:
            yield tx
            tx.rollback()
    else:
        with db.transaction(read_only=True) as tx:
            yield tx


WRITERS = ["store", "namespace", "transaction"]
READERS = [*WRITERS, "snapshot", "read-only transaction"]

#: Calls with a str, and what the message must show.
READS = {
    "get": (lambda p: p.get("k"), r"key\.encode\(\)"),
    "in": (lambda p: "k" in p, r"key\.encode\(\)"),
    "[]": (lambda p: p["k"], r"key\.encode\(\)"),
    "get_many": (lambda p: p.get_many([b"a", "k"]), r"key\.encode\(\)"),
    "scan": (lambda p: p.scan("a"), r"start\.encode\(\)"),
    "scan to": (lambda p: p.scan(b"a", "b"), r"stop\.encode\(\)"),
    "keys": (lambda p: p.keys(prefix="a"), r"prefix\.encode\(\)"),
    "values": (lambda p: p.values("a"), r"start\.encode\(\)"),
    "count": (lambda p: p.count(stop="a"), r"stop\.encode\(\)"),
    "cursor": (lambda p: p.cursor(prefix="a"), r"prefix\.encode\(\)"),
    "namespace": (lambda p: p.namespace("users"), r"\.encode\(\)"),
    "an int": (lambda p: p.get(7), "key must be bytes.*int"),
    "a list": (lambda p: p.get([b"k"]), "key must be bytes.*list"),
    "nothing": (lambda p: p.get(None), "key must be bytes.*NoneType"),
    "a limit": (lambda p: p.scan(limit="7"), "limit must be an int"),
    "a codec": (lambda p: p.namespace(b"m", "json"), "codec"),
}
WRITES = {
    "put": (lambda p: p.put("k", b"v"), r"key\.encode\(\)"),
    "put a str": (lambda p: p.put(b"k", "v"), r"value\.encode\(\)"),
    "put None": (lambda p: p.put(b"k", None), "value must be bytes.*NoneType"),
    "put an int": (lambda p: p.put(b"k", 7), "value must be bytes.*int"),
    "[] =": (lambda p: p.__setitem__("k", b"v"), r"key\.encode\(\)"),
    "delete": (lambda p: p.delete("k"), r"key\.encode\(\)"),
    "del": (lambda p: p.__delitem__("k"), r"key\.encode\(\)"),
    "add": (lambda p: p.add("k", b"v"), r"key\.encode\(\)"),
    "add a str": (lambda p: p.add(b"k", "v"), r"value\.encode\(\)"),
    "replace": (lambda p: p.replace("k", None, b"v"), r"key\.encode\(\)"),
    "replace by a str": (lambda p: p.replace(b"k", None, "v"), r"\.encode\(\)"),
    "pop": (lambda p: p.pop("k"), r"key\.encode\(\)"),
    "write": (lambda p: p.write({b"a": b"1", "k": b"v"}), r"key\.encode\(\)"),
    "write a str": (lambda p: p.write({b"a": b"1", b"k": "v"}), r"value\.encode\(\)"),
    "write pairs": (lambda p: p.write([(b"k", b"v")]), "mapping"),
}


@pytest.mark.parametrize("call", READS)
@pytest.mark.parametrize("kind", READERS)
def test_wrong_types_to_read(db, kind, call):
    function, message = READS[call]
    with place_of(db, kind) as place, pytest.raises(TypeError, match=message):
        function(place)


@pytest.mark.parametrize("call", WRITES)
@pytest.mark.parametrize("kind", WRITERS)
def test_wrong_types_to_write(db, kind, call):
    function, message = WRITES[call]
    with place_of(db, kind) as place:
        with pytest.raises(TypeError, match=message):
            function(place)
        assert contents(place) == {}
    assert db.last_entry_id == 0


@pytest.mark.parametrize("kind", READERS)
def test_start_or_stop_together_with_prefix(db, kind):
    with place_of(db, kind) as place:
        for read in (place.scan, place.keys, place.values, place.count, place.cursor):
            for bounds in ({"start": b"a"}, {"stop": b"a"}):
                with pytest.raises(ValueError, match="prefix"):
                    read(**bounds, prefix=b"a")


@pytest.mark.parametrize("kind", WRITERS)
def test_the_longest_key(db, kind):
    """In a namespace too: what that adds to a key does not count."""
    too_long = LONGEST + b"k"
    with place_of(db, kind) as place:
        for write in (
            lambda: place.put(too_long, b""),
            lambda: place.delete(too_long),
            lambda: place.add(too_long, b""),
            lambda: place.replace(too_long, None, b""),
            lambda: place.pop(too_long),
            lambda: place.write({b"a": b"", too_long: b""}),
        ):
            with pytest.raises(kvstore.KeyTooLongError, match="at most 65,535 bytes"):
                write()
        assert contents(place) == {}
        place.put(LONGEST, b"v")
        place.put(b"\xff" * 65_535, b"w")
        assert place.get(LONGEST) == b"v"
        assert contents(place) == {LONGEST: b"v", b"\xff" * 65_535: b"w"}


@pytest.mark.parametrize("kind", READERS)
def test_a_key_that_cannot_be_there_is_not_there(db, kind):
    with place_of(db, kind) as place:
        assert place.get(LONGEST + b"k", b"default") == b"default"
        assert LONGEST + b"k" not in place
        assert list(place.keys(start=LONGEST + b"k")) == []


WAYS_TO_WRITE = {
    "put": lambda tx: tx.put(b"k", b"v"),
    "[] =": lambda tx: tx.__setitem__(b"k", b"v"),
    "delete": lambda tx: tx.delete(b"k"),
    "del": lambda tx: tx.__delitem__(b"missing"),
    "add": lambda tx: tx.add(b"k", b"v"),
    "replace": lambda tx: tx.replace(b"k", None, b"v"),
    "pop": lambda tx: tx.pop(b"k"),
    "write": lambda tx: tx.write({b"k": b"v"}),
    "a namespace": lambda tx: tx.namespace(b"n").put(b"k", b"v"),
}


@pytest.mark.parametrize("write", WAYS_TO_WRITE)
def test_a_write_in_a_read_only_transaction(db, write):
    db[b"k"] = b"old"
    with db.transaction(read_only=True) as tx:
        with pytest.raises(kvstore.ReadOnlyError, match="read-only"):
            WAYS_TO_WRITE[write](tx)
        assert tx[b"k"] == b"old"
    assert contents(db) == {b"k": b"old"}


@pytest.mark.parametrize("kind", ["snapshot", "transaction", "read-only transaction"])
def test_after_the_end(db, kind):
    """Of what has an end."""
    with place_of(db, kind) as place:
        cursor = place.cursor().__enter__()
    for read in (
        lambda: place.get(b"a"),
        lambda: place[b"a"],
        lambda: b"a" in place,
        lambda: list(place.scan()),
        lambda: place.count(),
        lambda: place.namespace(b"n").get(b"a"),
        cursor.first,
        place.__enter__,
    ):
        with pytest.raises(kvstore.StoreError, match=r"closed|ended"):
            read()
    cursor.close()
    cursor.close()


@pytest.mark.parametrize("kind", ["snapshot", "transaction", "read-only transaction"])
def test_iterators_after_the_end(db, kind):
    """They neither end as if that were all, nor show what was written since."""
    db.write(MANY)
    with place_of(db, kind) as place:
        scan, keys = place.scan(), place.keys(reverse=True)
        assert next(scan) == (b"00000", b"0")
        assert next(keys) == b"04999"
        cursor = place.cursor().__enter__()
        assert cursor.first() == (b"00000", b"0")
    db.write(dict.fromkeys(MANY, b"after"))
    for read in (
        lambda: list(scan),
        lambda: list(keys),
        lambda: [cursor.next() for _ in MANY],
    ):
        with pytest.raises(kvstore.StoreError, match=r"closed|ended"):
            read()


@pytest.mark.parametrize("end", ["iterator", "store"])
def test_a_closed_iterator(db, end):
    db.write(MANY)
    scans = [db.scan(), db.keys(), db.values(), db.scan(reverse=True)]
    for scan in scans:
        next(scan)
    if end == "store":
        db.close()
        for scan in scans:
            with pytest.raises(kvstore.StoreClosedError):
                list(scan)
    for scan in scans:
        scan.close()
        scan.close()
        assert next(scan, None) is None


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_what_was_begun_before_a_fork(path):
    """A child must not write to its parent's log, however it comes to; and harms nothing."""
    with kvstore.open(path) as db:
        db.write(MANY)
        with db.snapshot() as snap, db.cursor() as cursor, db.batch() as batch:
            batch.put(b"batch", b"1")
            scan = db.scan()
            next(scan)
            tx = db.transaction().__enter__()
            tx[b"tx"] = tx[b"00001"]
            child = os.fork()
            if child == 0:  # pragma: no cover
                try:
                    _in_the_child(db, snap, cursor, batch, scan, tx)
                    os._exit(0)
                finally:
                    os._exit(1)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
            tx.__exit__(None, None, None)
            assert contents(snap) == MANY
            assert len(list(scan)) == len(MANY) - 1
        expected = MANY | {b"tx": b"1", b"batch": b"1"}
        assert contents(db) == expected
        db.checkpoint()
    with kvstore.open(path, "r") as db:
        assert contents(db) == expected


def _in_the_child(db, snap, cursor, batch, scan, tx):
    for use in (
        lambda: snap.get(b"a"),
        lambda: contents(snap),
        cursor.first,
        lambda: list(scan),
        lambda: batch.__exit__(None, None, None),
        lambda: tx.__exit__(None, None, None),
        lambda: db.namespace(b"n"),
    ):
        with pytest.raises(kvstore.StoreClosedError, match="parent"):
            use()
    snap.close()
    cursor.close()
    scan.close()
    db.close()
