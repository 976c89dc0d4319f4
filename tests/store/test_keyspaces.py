"""Stored keys: no space reaches into another one, and each keeps its order."""

from __future__ import annotations

from itertools import pairwise, product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvstore.keyspaces import (
    ROOT,
    Keyspace,
    decode_id,
    directory_bounds,
    directory_key,
    encode_id,
    split_stored,
)
from kvstore.ranges import as_range

NASTY = [
    b"\xff\x02\x00n"[:length] + tail
    for length in range(5)
    for tail in (b"", b"\0", b"\1", b"\1\1\1", b"k", b"\xff", b"\xff\xff")
]
NUMBERS = [1, 2, 127, 254, 255, 256, 257, 65_279, 65_535, 65_536, 1 << 32]
SPACES = [ROOT, *map(Keyspace, NUMBERS)]

KEYS = st.one_of(
    st.binary(max_size=6),
    st.lists(st.sampled_from([0, 1, 2, 254, 255]), max_size=6).map(bytes),
)
IDS = st.integers(1, 1 << 40)


def inside(bounds, stored):
    return bounds.low <= stored and (bounds.high is None or stored < bounds.high)


@pytest.mark.parametrize("number", [0, *NUMBERS])
def test_an_id_is_read_back(number):
    encoded = encode_id(number)
    assert decode_id(b"before" + encoded + b"behind", 6) == (number, 6 + len(encoded))


def test_no_id_begins_another():
    encoded = sorted(map(encode_id, [0, *NUMBERS]))
    assert not any(second.startswith(first) for first, second in pairwise(encoded))


@pytest.mark.parametrize("data", [b"", b"\x01", b"\x02\x01", b"\xff"])
def test_an_id_that_is_cut_short(data):
    with pytest.raises(ValueError, match="cut short"):
        decode_id(data, 0)


def test_what_is_stored_tells_where_it_belongs():
    stored = {space.stored(key): (space.number, key) for space in SPACES for key in set(NASTY)}
    assert len(stored) == len(SPACES) * len(set(NASTY))
    assert all(split_stored(key) == where for key, where in stored.items())


def test_the_directory_is_no_key_of_anybody():
    for number, name in product([0, *NUMBERS], NASTY):
        entry = directory_key(number, name)
        assert split_stored(entry) is None
        assert inside(directory_bounds(), entry)
        assert inside(directory_bounds(number), entry)
        assert not any(inside(space.bounds(b"", None), entry) for space in SPACES)
        others = [other for other in [0, *NUMBERS] if other != number]
        assert not any(inside(directory_bounds(other), entry) for other in others)


def test_each_space_is_one_interval():
    for space, other, key in product(SPACES, SPACES, NASTY):
        assert inside(space.bounds(b"", None), other.stored(key)) is (space is other)


@given(first=KEYS, second=KEYS, number=IDS)
def test_the_order_of_keys_is_that_of_stored_ones(first, second, number):
    for space in (ROOT, Keyspace(number)):
        assert (first < second) is (space.stored(first) < space.stored(second))
        ordered = sorted([first, second])
        assert space.shown([space.stored(key) for key in ordered]) == ordered


@given(key=KEYS, low=KEYS, high=st.none() | KEYS, number=IDS, other=IDS)
def test_bounds(key, low, high, number, other):
    for space in (ROOT, Keyspace(number)):
        bounds = space.bounds(low, high)
        expected = low <= key and (high is None or key < high)
        assert inside(bounds, space.stored(key)) is expected
        if other != number:
            assert not inside(bounds, Keyspace(other).stored(key))


@given(key=KEYS, prefix=KEYS, number=IDS)
def test_bounds_of_a_prefix(key, prefix, number):
    wanted = as_range(None, None, prefix, include_start=True, include_stop=False)
    for space in (ROOT, Keyspace(number)):
        assert inside(space.bounds(*wanted), space.stored(key)) is key.startswith(prefix)


@given(key=KEYS, number=IDS)
def test_split(key, number):
    assert split_stored(ROOT.stored(key)) == (0, key)
    assert split_stored(Keyspace(number).stored(key)) == (number, key)
    assert split_stored(directory_key(number, key)) is None
