"""Sorted sources merged page by page, beside a model of dicts laid over each other."""

from __future__ import annotations

import gc
import random

import pytest

from kvstore.pages import LARGEST, first_pages, laid_on, merge_pages, without_tombstones
from kvstore.values import MISSING, PlainPage, int_to_position, position_to_int
from wal import LogPosition


def in_pages(source, rng, longest, reverse):
    """A dict as the pages of a source, cut at random places."""
    keys = sorted(source)
    pages = []
    while keys:
        cut = rng.randrange(1, longest + 1)
        pages.append((keys[:cut], [source[key] for key in keys[:cut]]))
        keys = keys[cut:]
    return iter(pages[::-1] if reverse else pages)


def laid_over(sources, drop_tombstones):
    """What a reader sees of sources, newest first."""
    seen = {}
    for source in reversed(sources):
        seen.update(source)
    return {k: v for k, v in seen.items() if v is not None or not drop_tombstones}


def items_of(pages, reverse=False):
    """All items in the order of the walk; each page must be what a page is."""
    found = []
    for keys, values in pages:
        assert keys, "an empty page"
        assert keys == sorted(set(keys))
        items = list(zip(keys, values, strict=True))
        found += items[::-1] if reverse else items
    return found


def random_source(rng, universe):
    size = rng.choice([0, 1, rng.randrange(1, universe)])
    keys = rng.sample(range(universe), size)
    return {
        b"%03d" % key: None if rng.random() < 0.3 else b"%d" % rng.randrange(10**6) for key in keys
    }


@pytest.mark.parametrize("drop_tombstones", [True, False])
@pytest.mark.parametrize("reverse", [False, True])
def test_beside_the_model(reverse, drop_tombstones):
    for seed in range(300):
        rng = random.Random(seed)
        universe = rng.choice([5, 40, 300])
        sources = [random_source(rng, universe) for _ in range(rng.randrange(6))]
        pages = [in_pages(each, rng, rng.choice([1, 3, 50]), reverse) for each in sources]
        merged = merge_pages(pages, reverse=reverse, drop_tombstones=drop_tombstones)
        expected = sorted(laid_over(sources, drop_tombstones).items(), reverse=reverse)
        assert items_of(merged, reverse) == expected, seed


def asked(source, counts):
    """A dict as a source that can be asked for the first items of a range."""
    keys = sorted(source)

    def some(low, high, most, *, reverse):
        counts.append(most)
        found = [key for key in keys if low <= key and (high is None or key < high)]
        found = found[-most:] if reverse else found[:most]
        page = found, [source[key] for key in found]
        return page if None in page[1] else PlainPage(page)

    return some


@pytest.mark.parametrize("reverse", [False, True])
def test_the_first_items_beside_the_model(reverse):
    for seed in range(600):
        rng = random.Random(seed)
        universe = rng.choice([5, 40, 300])
        sources = [random_source(rng, universe) for _ in range(rng.randrange(6))]
        low = rng.choice([b"", b"%03d" % rng.randrange(universe)])
        high = rng.choice([None, b"%03d" % rng.randrange(universe)])
        expected = [
            (key, value)
            for key, value in sorted(laid_over(sources, True).items(), reverse=reverse)
            if low <= key and (high is None or key < high)
        ]
        some = [asked(each, []) for each in sources]
        shares = [rng.choice([1, 3, 10, 100]) for _ in sources]
        found = items_of(first_pages(some, shares, low, high, reverse=reverse), reverse)
        assert found == expected, seed


@pytest.mark.parametrize("reverse", [False, True])
def test_many_tombstones_are_passed_in_growing_steps(reverse):
    source = {b"%05d" % n: None for n in range(1, 10_000)} | {b"00000": b"", b"10000": b""}
    counts = []
    pages = first_pages([asked(source, counts)], [1], b"", None, reverse=reverse)
    assert len(items_of(pages, reverse)) == 2
    assert counts == [min(2**n, LARGEST) for n in range(len(counts))]
    assert len(counts) < 30


def test_the_first_items_take_nothing_that_is_not_wanted():
    """One source that has enough is asked once, and the others only for what lies before."""
    older = {b"%03d" % n: b"old" for n in range(500)}
    newer = {b"%03d" % n: b"new" for n in range(5, 500, 50)}
    wanted = []

    def bounded(low, high, most, *, reverse):
        wanted.append((low, high, most))
        return asked(newer, [])(low, high, most, reverse=reverse)

    pages = first_pages([bounded, asked(older, [])], [8, 100], b"010", None, reverse=False)
    keys, values = page = next(pages)
    assert keys == sorted(older)[10:110]
    assert [key for key, value in zip(keys, values, strict=True) if value == b"new"] == [
        b"055",
        b"105",
    ]
    assert type(page) is PlainPage
    assert wanted == [(b"010", b"109\0", 8)]


@pytest.mark.parametrize("sizes", [(1, 200), (200, 1), (100, 100), (0, 9), (9, 0)])
def test_pages_laid_over_each_other(sizes):
    for seed in range(100):
        rng = random.Random(seed)
        newer, older = (
            {b"%03d" % key: rng.choice([None, bytes(key)]) for key in rng.sample(range(300), size)}
            for size in sizes
        )
        pages = [(sorted(each), [each[key] for key in sorted(each)]) for each in (newer, older)]
        before = repr(pages)
        keys, values = laid_on(*pages)
        assert list(zip(keys, values, strict=True)) == sorted({**older, **newer}.items())
        assert repr(pages) == before


@pytest.mark.parametrize("reverse", [False, True])
def test_it_reads_one_page_of_each_source_ahead_and_no_more(reverse):
    """The memory of a merge is bounded by the pages, whatever the length of the sources."""
    rng = random.Random(0)
    taken = [0] * 3

    def counted(number, source):
        for page in in_pages(source, rng, 10, reverse):
            taken[number] += len(page[0])
            yield page

    sources = [{b"%04d" % key: b"" for key in range(n, 3000, 3)} for n in range(3)]
    merged = merge_pages([counted(*each) for each in enumerate(sources)], reverse=reverse)
    yielded = 0
    for keys, _ in merged:
        yielded += len(keys)
        assert sum(taken) <= yielded + 3 * 10
    assert yielded == 3000


def test_a_source_is_not_asked_before_it_must_be():
    """Where a caller looks at the first items only, the rest is never made."""

    def endless():
        number = 0
        while True:
            yield [b"%08d" % number], [b""]
            number += 1

    merged = merge_pages([endless(), iter([([b"0"], [b"newest"])])])
    assert items_of(page for page, _ in zip(merged, range(3), strict=False)) == [
        (b"0", b"newest"),
        (b"00000000", b""),
        (b"00000001", b""),
    ]


def test_pages_that_nothing_overlaps_go_through_as_they_are():
    low, high = ([b"a", b"b"], [b"1", b"2"]), ([b"c", b"d"], [b"3", b"4"])
    merged = list(merge_pages([iter([high]), iter([low])]))
    assert [page[0] for page in merged] == [low[0], high[0]]
    assert merged[0][0] is low[0]
    assert merged[1][0] is high[0]
    (alone,) = merge_pages([iter([low])])
    assert alone[0] is low[0]


def test_only_tombstones_are_nothing():
    gone = ([b"a", b"b"], [None, None])
    assert list(merge_pages([iter([gone])])) == []
    assert list(merge_pages([iter([gone]), iter([([b"a"], [b"1"])])])) == []
    assert list(merge_pages([iter([gone])], drop_tombstones=False)) == [gone]
    assert list(merge_pages([])) == []
    assert list(merge_pages([iter([]), iter([])], reverse=True)) == []


def test_the_pages_of_the_sources_are_left_as_they_are():
    """They may belong to a cache, and to other readers at the same time."""
    newer, older = ([b"a", b"c"], [None, b"3"]), ([b"a", b"b", b"d"], [b"1", b"2", None])
    before = repr((newer, older))
    for reverse in (False, True):
        assert items_of(merge_pages([iter([newer]), iter([older])], reverse=reverse), reverse)
    assert repr((newer, older)) == before


def test_values_of_every_kind_pass_through():
    class Blob:
        length = 3

        def read(self):
            return b"abc"

    blob, position = Blob(), position_to_int(LogPosition(1, 2, 3))
    sources = [([b"a", b"b"], [b"", position]), ([b"a", b"c"], [b"hidden", blob])]
    merged = items_of(merge_pages([iter([each]) for each in sources]))
    assert merged == [(b"a", b""), (b"b", position), (b"c", blob)]


def test_without_tombstones():
    page = ([b"a", b"b"], [b"", 0])
    assert without_tombstones(page) is page
    assert without_tombstones(([b"a", b"b", b"c"], [None, b"", None])) == ([b"b"], [b""])


def test_positions_as_ints():
    for position in (LogPosition(0, 0, 0), LogPosition(2**64 - 1, 2**40 - 1, 2**24 - 1)):
        number = position_to_int(position)
        assert type(number) is int
        assert int_to_position(number) == position


def test_a_dict_of_values_is_not_tracked_by_the_garbage_collector():
    """Else each full collection would walk through all recent mutations."""
    values = {b"a": b"1", b"b": None, b"c": position_to_int(LogPosition(1, 2, 3))}
    assert not any(map(gc.is_tracked, values.values()))
    assert repr(MISSING) == "MISSING"
