"""Ranges, with all arguments in all combinations, beside a model; and what a scan may see."""

from __future__ import annotations

import itertools
import random

import pytest

import kvstore
from tests.store.support import BUFFER, SMALL, contents, random_history
from wal.files import FaultyFileSystem, MemoryFileSystem

KEYS = [
    b"",
    b"\0",
    b"a",
    b"a\0",
    b"aa",
    b"ab",
    b"b",
    b"b\xff",
    b"b\xff\xff",
    b"c",
    b"\xff",
    b"\xff\xff",
]
BOUNDS = [None, b"", b"a", b"a\0", b"abc", b"b\xff", b"\xff", b"\xff\xff\xff"]


def model_scan(
    items, start=None, stop=None, *, prefix=None, reverse=False, limit=None,
    include_start=True, include_stop=False,
):  # fmt: skip
    found = []
    for key in sorted(items, reverse=reverse):
        above = start is None or key > start or (include_start and key == start)
        below = stop is None or key < stop or (include_stop and key == stop)
        if above and below and (prefix is None or key.startswith(prefix)):
            found.append((key, items[key]))
    return found[:limit]


def in_memory(**options):
    return kvstore.open("s", file_system=MemoryFileSystem(), memtable_bytes=SMALL, **options)


def plain():
    """Everything is in the memtable."""
    db = in_memory()
    db.write({key: b"v" + key for key in KEYS})
    return db


def layered():
    """The same, in tables and layers that overlay each other, some keys deleted on the way."""
    db = in_memory()
    wrong = dict.fromkeys(KEYS, b"old")
    db.write({**wrong, b"aaa": b"gone", b"bb": b"gone"})
    db.checkpoint()
    db.write({key: b"v" + key for key in KEYS[::2]})
    list(db)
    db.write({b"aaa": None, b"c": None})
    db.checkpoint()
    db.write({b"bb": None})
    list(db)
    db.write({key: b"v" + key for key in [*KEYS[1::2], b"c"]})
    return db


@pytest.mark.parametrize("make", [plain, layered])
def test_every_combination(make):
    with make() as db:
        items = {key: b"v" + key for key in KEYS}
        assert contents(db) == items
        ends = [*itertools.product(BOUNDS, BOUNDS, [None]), *((None, None, p) for p in BOUNDS)]
        flags = list(itertools.product((False, True), repeat=3))
        for (start, stop, prefix), (reverse, first, last), limit in itertools.product(
            ends, flags, (None, 0, 1, 3, 100)
        ):
            arguments = {
                "prefix": prefix,
                "reverse": reverse,
                "limit": limit,
                "include_start": first,
                "include_stop": last,
            }
            expected = model_scan(items, start, stop, **arguments)
            assert list(db.scan(start, stop, **arguments)) == expected
            assert list(db.keys(start, stop, **arguments)) == [k for k, _ in expected]
            assert list(db.values(start, stop, **arguments)) == [v for _, v in expected]
            assert db.count(start, stop, **arguments) == len(expected)


@pytest.mark.parametrize("seed", range(4))
def test_a_long_history_with_scans_and_checkpoints_between(seed):
    batches, models = random_history(seed, 400, keys=60, most=4, size=20)
    rng = random.Random(seed)
    with in_memory(durability=BUFFER) as db:
        for batch, model in zip(batches, models[1:], strict=True):
            db.write(batch)
            action = rng.random()
            if action < 0.03:
                db.checkpoint()
            if action < 0.5:
                low, high = sorted((rng.randbytes(1), b"key-%02d" % rng.randrange(70)))
                reverse = rng.random() < 0.5
                limit = rng.choice([None, 1, 5])
                assert list(db.scan(low, high, reverse=reverse, limit=limit)) == model_scan(
                    model, low, high, reverse=reverse, limit=limit
                )
        assert contents(db) == models[-1]
        assert db.get_many(sorted(models[-1])) == [v for _, v in sorted(models[-1].items())]


@pytest.mark.parametrize("reverse", [False, True])
def test_pages_of_all_sizes(reverse):
    """Many runs with many keys, so that pages end at different places in each."""
    rng = random.Random(5)
    with in_memory(durability=BUFFER) as db:
        model = {}
        for size in (5000, 3000, 40, 1, 700, 33):
            batch = {b"%06d" % rng.randrange(20_000): b"%d" % size for _ in range(size)}
            gone = rng.sample(sorted(model), len(model) // 5)
            db.write({**batch, **dict.fromkeys(gone)})
            model.update(batch)
            for key in gone:
                del model[key]
            db.get(b"")
            list(db.scan(limit=1))
        expected = model_scan(model, reverse=reverse)
        assert list(db.scan(reverse=reverse)) == expected
        assert list(db.scan(b"005", b"012", reverse=reverse, limit=2500)) == model_scan(
            model, b"005", b"012", reverse=reverse, limit=2500
        )


def test_a_scan_sees_the_state_of_its_start(db):
    before = {b"%04d" % n: b"before" for n in range(3000)}
    db.write(before)
    for scan in (db.scan(), db.scan(limit=3000), iter(db.scan(b"0", b"9"))):
        first = next(scan)
        db.write({b"%04d" % n: b"after" for n in range(1000)})
        db.write(dict.fromkeys([b"%04d" % n for n in range(1000, 2000)]))
        db[b"0000a"] = b"new"
        db.checkpoint()
        assert [first, *scan] == sorted(before.items())
        db.write({b"0000a": None, **before})
        assert contents(db) == before


def test_a_scan_begins_when_it_is_asked_for(db):
    db[b"a"] = b"1"
    scan, keys = db.scan(), db.keys()
    db[b"a"] = b"2"
    db[b"b"] = b"2"
    assert list(scan) == [(b"a", b"1")]
    assert list(keys) == [b"a"]


@pytest.mark.parametrize("method", ["scan", "keys", "values", "count"])
def test_wrong_arguments_are_refused_at_once(db, method):
    call = getattr(db, method)
    for bounds in ({"start": b"a"}, {"stop": b"a"}, {"start": b"a", "stop": b"b"}):
        with pytest.raises(ValueError, match="prefix"):
            call(prefix=b"a", **bounds)
    with pytest.raises(ValueError, match="limit"):
        call(limit=-1)
    for limit in (1.0, "1", True):
        with pytest.raises(TypeError, match="limit"):
            call(limit=limit)
    with pytest.raises(TypeError):
        call(b"a", b"b", True)


def random_arguments(rng, keys):
    """Arguments of a scan, each there or not."""
    low, high = sorted((rng.choice(keys) + rng.randbytes(rng.randrange(2)), rng.choice(keys)))
    if rng.random() < 0.1:
        low, high = high, low
    bounds = {}
    if rng.random() < 0.2:
        bounds["prefix"] = low[: rng.randrange(5)]
    else:
        bounds["start"] = rng.choice([None, low, low])
        bounds["stop"] = rng.choice([None, high, high])
    return {
        **bounds,
        "reverse": rng.random() < 0.5,
        "limit": rng.choice([None, None, 0, 1, 7, 1000]),
        "include_start": rng.random() < 0.7,
        "include_stop": rng.random() < 0.3,
    }


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("seed", range(3))
def test_random_arguments_over_random_layers(seed, compression):
    """Tables, sealed layers and a live one at once, with all of their edges."""
    rng = random.Random(seed)
    model = {}
    with in_memory(durability=BUFFER, compression=compression) as db:
        for _ in range(40):
            size = rng.choice([1, 5, 40, 600])
            batch = {b"%04d" % rng.randrange(3000): rng.randbytes(20) for _ in range(size)}
            gone = rng.sample(sorted(model), len(model) // 6)
            db.write({**batch, **dict.fromkeys(gone)})
            model.update(batch)
            for key in gone:
                del model[key]
            if rng.random() < 0.2:
                db.checkpoint()
            if rng.random() < 0.05:
                db.compact()
            keys = sorted(model) or [b""]
            for _ in range(6):
                arguments = random_arguments(rng, keys)
                expected = model_scan(model, **arguments)
                assert list(db.scan(**arguments)) == expected, arguments
                assert db.count(**arguments) == len(expected)


class TestAnIterator:
    @pytest.fixture
    def filled(self, db):
        db.write({b"%05d" % n: b"%d" % n for n in range(5000)})
        return db

    @pytest.mark.parametrize("method", ["scan", "keys", "values"])
    @pytest.mark.parametrize("limit", [None, 0, 5000])
    def test_it_can_be_closed_at_any_time(self, filled, method, limit):
        for steps in (0, 1, 4999, 5000) if limit != 0 else (0,):
            scan = getattr(filled, method)(limit=limit)
            for _ in range(steps):
                next(scan)
            scan.close()
            scan.close()
            with pytest.raises((StopIteration, kvstore.StoreError)):
                next(scan)

    def test_it_is_its_own_iterator(self, filled):
        scan = filled.scan()
        assert iter(scan) is scan
        assert next(scan) == (b"00000", b"0")
        assert sum(1 for _ in scan) == 4999
        assert next(scan, None) is None

    def test_a_closed_store_ends_it(self, filled):
        """What it shows until then is right; it does not end as if there were no more."""
        scans = [filled.scan(), filled.scan(reverse=True), filled.keys(), filled.values()]
        for scan in scans:
            next(scan)
        filled.close()
        for scan in scans:
            with pytest.raises(kvstore.StoreClosedError):
                list(scan)

    def test_many_at_a_time(self, filled):
        scans = [filled.scan(b"%05d" % n, reverse=n % 2 == 1) for n in range(50)]
        heads = [next(scan)[0] for scan in scans]
        assert heads == [b"04999" if n % 2 else b"%05d" % n for n in range(50)]
        assert [sum(1 for _ in scan) for scan in scans] == [4999 - n for n in range(50)]


def test_a_scan_looks_no_further_than_it_is_asked():
    """Of a table of many blocks the first items cost a block or two, not a walk."""
    files = FaultyFileSystem(count=["read_at"])
    options = {"file_system": files, "memtable_bytes": SMALL, "processes": False}
    with kvstore.open("s", durability=BUFFER, **options) as db:
        db.write({b"%06d" % n: bytes(100) for n in range(20_000)})
        db.checkpoint()
        db.compact()
    with kvstore.open("s", "r", **options) as db:
        list(db.scan(limit=1))
        list(db.scan(reverse=True, limit=1))

        def blocks_read(arguments, steps):
            before = len(files.calls)
            scan = db.scan(**arguments)
            for _ in range(steps):
                next(scan)
            scan.close()
            return len(files.calls) - before

        for number, reverse in enumerate((False, True)):
            start = {"start": b"%06d" % (5000 + number * 5000), "stop": b"015000"}
            assert blocks_read({**start, "reverse": reverse}, 3) <= 4
            assert blocks_read({**start, "reverse": reverse, "limit": 5}, 5) <= 4


REOPENED = {b"%05d" % n: b"%d" % n * (n % 40) for n in range(3000)}


class TestAfterReopening:
    """All of it is in tables: nothing has to be held, and pages end where the limit does."""

    def reopened(self, **options):
        files = MemoryFileSystem()
        options |= {"file_system": files, "durability": BUFFER, "memtable_bytes": SMALL}
        with kvstore.open("s", processes=False, **options) as db:
            for at in range(3):  # runs that overlap
                db.write(dict(list(REOPENED.items())[at::3]))
                db.write(dict.fromkeys([b"%05d" % n for n in range(at, 3000, 7)], b"old"))
                db.checkpoint()
            db.write({b"%05dgone" % n: b"" for n in range(0, 3000, 2)})
            db.write(REOPENED)
            db.checkpoint()
            db.write(dict.fromkeys([b"%05dgone" % n for n in range(0, 3000, 2)]))
            db.checkpoint()
        return kvstore.open("s", processes=False, **options)

    @pytest.mark.parametrize("compression", [None, "zlib"])
    @pytest.mark.parametrize("compacted", [False, True])
    @pytest.mark.parametrize("cache_bytes", [0, 64 << 20])
    def test_limits_in_both_directions(self, compression, compacted, cache_bytes):
        with self.reopened(compression=compression, cache_bytes=cache_bytes) as db:
            if compacted:
                db.compact()
            for turn, limit in enumerate((1, 2, 9, 100, 500, 2999, 3000, 5000, None)):
                for reverse in (False, True):
                    start, stop = b"%05d" % (turn * 37), b"%05d" % (2950 - turn)
                    for bounds in ({}, {"start": start}, {"stop": stop, "start": start}):
                        found = list(db.scan(**bounds, reverse=reverse, limit=limit))
                        wanted = model_scan(REOPENED, **bounds, reverse=reverse, limit=limit)
                        assert found == wanted

    def test_what_is_written_meanwhile_is_not_in_it(self):
        with self.reopened() as db:
            scans = [db.scan(), db.scan(limit=2900), db.scan(reverse=True)]
            firsts = [next(scan) for scan in scans[1:]]
            db.write(dict.fromkeys(REOPENED, b"new"))
            db[b""] = b"first"
            db.checkpoint()
            db.compact()
            assert list(scans[0]) == list(REOPENED.items())
            assert [firsts[0], *scans[1]] == list(REOPENED.items())[:2900]
            assert [firsts[1], *scans[2]] == list(REOPENED.items())[::-1]
            assert next(db.scan()) == (b"", b"first")

    def test_it_ends_with_the_store(self):
        db = self.reopened()
        scans = [db.scan(), db.keys(limit=2999)]
        for scan in scans:
            next(scan)
        db.close()
        for scan in scans:
            with pytest.raises(kvstore.StoreClosedError):
                list(scan)


@pytest.mark.parametrize("limit", [1, 7, 40, 999, None])
@pytest.mark.parametrize("reverse", [False, True])
def test_a_source_that_has_more_of_a_range_than_its_share(limit, reverse):
    """What is asked for by the sizes of layers and runs may all lie in the smallest of them."""
    with in_memory(durability=BUFFER) as db:
        model = {b"m%05d" % n: b"old" for n in range(5000)}
        db.write(model)
        db.checkpoint()
        for prefix in (b"a", b"z"):
            few = {prefix + b"%03d" % n: b"new" for n in range(60)}
            few |= {b"m%05d" % n: None for n in range(10)}
            db.write({key: value for key, value in few.items() if value is not None})
            db.write(dict.fromkeys([key for key, value in few.items() if value is None]))
            model = {**model, **few}
        model = {key: value for key, value in model.items() if value is not None}
        for start in (None, b"a030", b"m", b"z", b"z050"):
            found = list(db.scan(start, reverse=reverse, limit=limit))
            assert found == model_scan(model, start, reverse=reverse, limit=limit)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("limit", [1, 10, 300])
def test_a_limit_among_many_keys_that_came_later(limit, reverse):
    """Of a layer that still changes far more may be new than what a walk wants."""
    with in_memory(durability=BUFFER) as db:
        old = {b"%05d" % n: b"old" for n in range(0, 10_000, 1000)}
        db.write(old)
        with db.snapshot() as snap:
            begun = snap.scan(reverse=reverse, limit=limit)
            db.write({b"%05d" % n: b"new" for n in range(10_000)})
            db.write(dict.fromkeys(list(old)[3:6]))
            expected = sorted(old.items(), reverse=reverse)[:limit]
            assert list(begun) == expected
            assert list(snap.scan(reverse=reverse, limit=limit)) == expected
        alive = [b"%05d" % n for n in range(10_000) if b"%05d" % n not in list(old)[3:6]]
        assert list(db.keys(reverse=reverse, limit=limit)) == sorted(alive, reverse=reverse)[:limit]


@pytest.mark.parametrize("reverse", [False, True])
def test_a_limit_behind_many_deleted_keys(reverse):
    with in_memory(durability=BUFFER) as db:
        db.write({b"%05d" % n: b"" for n in range(6000)})
        db.checkpoint()
        db.write(dict.fromkeys([b"%05d" % n for n in range(5, 5990)]))
        left = [b"%05d" % n for n in [*range(5), *range(5990, 6000)]]
        wanted = sorted(left, reverse=reverse)
        for limit in (1, 5, 6, 11, 100):
            assert list(db.keys(reverse=reverse, limit=limit)) == wanted[:limit]
