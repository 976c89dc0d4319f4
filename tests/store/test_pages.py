"""Sorted sources merged page by page, beside a model of dicts laid over each other."""

from __future__ import annotations

import gc
import random

import pytest

from kvstore.pages import merge_pages, without_tombstones
from kvstore.values import MISSING, int_to_position, position_to_int
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
