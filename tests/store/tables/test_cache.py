"""The budget of memory."""

from __future__ import annotations

import gc
import weakref

from kvstore.tables.cache import Cache
from kvstore.tables.handles import OpenTables
from kvstore.values import MISSING


def always():
    return True


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
        cache.add_row(b"k", None, always)
        assert cache.row(b"k") is None
        assert cache.row(b"other") is MISSING

    def test_only_while_the_tables_are_those_that_were_read(self):
        cache = Cache(1 << 20)
        cache.add_row(b"k", b"v", lambda: False)
        assert cache.row(b"k") is MISSING

    def test_forgotten_with_the_swap(self):
        cache = Cache(1 << 20)
        cache.add_row(b"k", b"v", always)
        cache.add_row(b"l", b"v", always)
        cache.forget_rows({b"k", b"z"}, lambda: None)
        assert cache.row(b"k") is MISSING
        assert cache.row(b"l") == b"v"
        cache.forget_rows({b"l"}, lambda: None)
        assert cache.statistics().bytes == 0

    def test_what_is_asked_for_outlives_what_is_not(self):
        cache = Cache(40_000)
        cache.add_row(b"asked", b"v", always)
        cache.add_row(b"not", b"v", always)
        for number in range(1000):
            cache.add_row(b"%d" % number, b"v" * 100, always)
            assert cache.row(b"asked") == b"v"
            assert cache.statistics().bytes <= 40_000
        assert cache.row(b"not") is MISSING

    def test_forgotten_in_the_old_generation_too(self):
        cache = Cache(40_000)
        cache.add_row(b"k", b"v", always)
        while b"k" in cache._young.rows:
            cache.add_row(b"%d" % len(cache._young.rows), b"v" * 100, always)
        cache.forget_rows({b"k"}, lambda: None)
        assert cache.row(b"k") is MISSING

    def test_what_is_too_large(self):
        cache = Cache(1000)
        cache.add_row(b"k", bytes(1000), always)
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

    def test_blocks_before_sections(self):
        cache, holder = Cache(1000), Holder()
        hold(cache, holder, ~0, 400)
        for piece in range(8):
            hold(cache, holder, piece, 100)
        assert holder.dropped == [0, 1]
        hold(cache, holder, ~1, 400)
        assert holder.dropped[:3] == [0, 1, ~0]

    def test_rows_take_their_place_but_for_a_quarter(self):
        cache, holder = Cache(40_000), Holder()
        for piece in range(40):
            hold(cache, holder, piece, 1000)
        for number in range(1000):
            cache.add_row(b"%d" % number, b"v" * 100, always)
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
        cache.add_row(b"k", b"v", always)
        assert holder.dropped == [3]
        assert cache.row(b"k") is MISSING


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
