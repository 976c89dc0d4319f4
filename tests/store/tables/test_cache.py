"""The budget of memory."""

from __future__ import annotations

import gc
import weakref

from kvstore.tables.cache import Cache
from kvstore.tables.handles import OpenTables
from kvstore.values import MISSING


class Store:
    """Whose rows a test keeps."""

    class state:  # noqa: N801 - as an instance has it
        runs = ()


def keep(cache, key, value):
    cache.misses += 1
    cache.add_row(key, value, Store, Store.state.runs)


class Holder:
    def __init__(self):
        self.dropped = []

    def drop(self, piece):
        self.dropped.append(piece)


def hold(cache, holder, piece, size):
    with cache.lock:
        cache.count_piece(weakref.ref(holder), piece, size)


class TestRows:
    def test_tombstones_are_rows(self):
        cache = Cache(1 << 20)
        keep(cache, b"k", None)
        assert cache.row(b"k") is None
        assert cache.row(b"other") is MISSING

    def test_only_while_the_tables_are_those_that_were_read(self):
        cache = Cache(1 << 20)
        cache.add_row(b"k", b"v", Store, ("others",))
        assert cache.row(b"k") is MISSING

    def test_forgotten_with_the_swap(self):
        cache = Cache(1 << 20)
        keep(cache, b"k", b"v")
        keep(cache, b"l", b"v")
        cache.forget_rows({b"k", b"z"}, lambda: None)
        assert cache.row(b"k") is MISSING
        assert cache.row(b"l") == b"v"
        cache.forget_rows({b"l"}, lambda: None)
        assert cache.statistics().bytes == 0

    def test_what_is_asked_for_outlives_what_is_not(self):
        cache = Cache(40_000)
        keep(cache, b"asked", b"v")
        keep(cache, b"not", b"v")
        for number in range(2000):
            keep(cache, b"%d" % number, b"v" * 100)
            assert cache.row(b"asked") == b"v"
            assert cache.statistics().bytes <= 40_000
        assert cache.row(b"not") is MISSING

    def test_nothing_moves_while_all_fits(self):
        cache = Cache(40_000)
        keys = [b"%02d" % number for number in range(100)]
        for key in keys:
            keep(cache, key, b"v" * 100)
        assert list(cache.rows) == keys

    def test_one_of_four_comes_in_where_another_must_go(self):
        cache = Cache(40_000)
        for number in range(1000):
            keep(cache, b"%d" % number, b"v" * 100)
        came = 0
        for number in range(400):
            keep(cache, b"fresh %d" % number, b"v" * 100)
            came += cache.row(b"fresh %d" % number) is not MISSING
        assert came == 100

    def test_forgotten_in_the_old_generation_too(self):
        cache = Cache(40_000)
        keep(cache, b"k", b"v")
        number = 0
        while b"k" in cache.rows:
            number += 1
            keep(cache, b"%d" % number, b"v" * 100)
        assert b"k" in cache._old.rows
        cache.forget_rows({b"k"}, lambda: None)
        assert cache.row(b"k") is MISSING

    def test_what_is_too_large(self):
        cache = Cache(1000)
        keep(cache, b"k", bytes(1000))
        assert cache.row(b"k") is MISSING


class TestBlocks:
    def test_kept_while_asked_for(self):
        cache = Cache(10_000)
        page = ([b"k"], [b"v"])
        cache.add_block(0, page, 1000)
        for token in range(1, 100):
            cache.add_block(token, ([], []), 1000)
            assert cache.block(0) is page
            assert cache.statistics().bytes <= 10_000
        assert cache.block(1) is None
        assert cache.statistics().hits == 99


class TestPieces:
    def test_first_in_first_out(self):
        cache, holder = Cache(1000), Holder()
        for piece in range(12):
            hold(cache, holder, piece, 100)
        assert holder.dropped == [0, 1]
        assert cache.statistics().piece_bytes == 1000

    def test_rows_take_their_place_but_for_a_quarter(self):
        cache, holder = Cache(40_000), Holder()
        for piece in range(40):
            hold(cache, holder, piece, 1000)
        for number in range(1000):
            keep(cache, b"%d" % number, b"v" * 100)
            told = cache.statistics()
            assert told.bytes + told.piece_bytes <= 40_000
        assert told.piece_bytes == 10_000

    def test_holders_that_are_gone(self):
        cache, holder = Cache(1000), Holder()
        hold(cache, holder, 0, 800)
        del holder
        gc.collect()
        other = Holder()
        hold(cache, other, 0, 800)
        assert cache.statistics().piece_bytes == 800
        assert not other.dropped

    def test_no_budget_at_all(self):
        cache, holder = Cache(0), Holder()
        hold(cache, holder, 3, 1)
        keep(cache, b"k", b"v")
        assert holder.dropped == [3]
        assert cache.row(b"k") is MISSING


class TestDirectories:
    def test_up_to_three_quarters_of_the_budget(self):
        cache = Cache(1000)
        claims = [cache.claim(300) for _ in range(3)]
        assert [claim is not None for claim in claims] == [True, True, False]
        assert cache.statistics().piece_bytes == 600

    def test_given_back_when_nobody_has_them_any_more(self):
        cache = Cache(1000)
        claim = cache.claim(750)
        assert claim is not None
        assert cache.claim(1) is None
        del claim
        gc.collect()
        assert cache.statistics().piece_bytes == 0
        assert cache.claim(500) is not None

    def test_rows_make_room_for_them(self):
        cache = Cache(40_000)
        for number in range(200):
            keep(cache, b"%d" % number, b"v" * 100)
        claim = cache.claim(20_000)
        assert claim is not None
        told = cache.statistics()
        assert told.bytes + told.piece_bytes <= 40_000


class TestHandles:
    class Table:
        def __init__(self):
            self.used = False
            self.is_open = True

        def let_go(self):
            self.is_open = False

    def test_the_unused_close(self):
        handles = OpenTables(most=3)
        tables = [self.Table() for _ in range(5)]
        tables[0].used = True
        for table in tables:
            handles.opened(table)
        assert [table.is_open for table in tables] == [True, False, False, True, True]
        assert len(handles) == 3

    def test_all_are_used(self):
        handles = OpenTables(most=2)
        tables = [self.Table() for _ in range(3)]
        for table in tables:
            table.used = True
            handles.opened(table)
        assert sum(table.is_open for table in tables) == 2

    def test_those_that_are_gone_or_stay_do_not_count(self):
        handles = OpenTables(most=2)
        first, second = self.Table(), self.Table()
        handles.opened(first)
        handles.closed(first)
        handles.opened(self.Table())
        handles.opened(second)
        handles.opened(self.Table())
        assert first.is_open
        assert second.is_open
