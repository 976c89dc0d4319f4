"""Filters and slots."""

from __future__ import annotations

import random
import struct
from array import array

from crc32c import crc32c

from kvstore.tables.filters import (
    HASH_BITS,
    STARTS,
    HashSorter,
    absolute_starts,
    hash_of,
    hashes_of,
    make_filter,
)
from kvstore.tables.slots import (
    CHECK_MASK,
    PLACE_BITS,
    RecordList,
    block_and_record,
    places_in_block,
)


def made_of(keys, step=1000):
    sorter = HashSorter()
    for at in range(0, len(keys), step):
        sorter.add(hashes_of(list(map(crc32c, keys[at : at + step]))))
    return make_filter(sorter)


class Probe:
    def __init__(self, made, items):
        self.made, self.items = made, items
        self.marks = made.filter[2 * (made.buckets + 1) :]
        self.slots = struct.unpack(f"<{items}I", made.slots)

    def places(self, key):
        """The positions of the keys that have this one's mark, in its bucket."""
        hashed, buckets = hash_of(crc32c(key)), self.made.buckets
        bucket = hashed * buckets >> HASH_BITS
        first, last = STARTS.unpack_from(self.made.filter, 2 * bucket)
        first += bucket * self.items // buckets
        last += (bucket + 1) * self.items // buckets
        mark = hashed & 0xFF
        return [self.slots[at] for at in range(first, last) if self.marks[at] == mark]


def test_every_key_passes_and_leads_to_its_record():
    keys = [b"%d" % number for number in range(50_000)]
    found = Probe(made_of(keys), len(keys))
    assert all(at in found.places(key) for at, key in enumerate(keys))


def test_few_others_do():
    rng = random.Random(1)
    keys = [rng.randbytes(16) for _ in range(20_000)]
    made = made_of(keys)
    assert len(made.filter) / len(keys) < 1.26
    probe = Probe(made, len(keys))
    passed = sum(bool(probe.places(rng.randbytes(16))) for _ in range(20_000))
    assert passed / 20_000 < 0.04


def test_the_same_from_other_steps():
    keys = [b"%d" % number for number in range(20_000)]
    assert made_of(keys, 1000) == made_of(keys, 17_777)


def test_one_key():
    assert Probe(made_of([b"key"]), 1).places(b"key") == [0]


def test_equal_hashes_by_the_hundred():
    sorter = HashSorter()
    sorter.add([5] * 100)
    assert len(make_filter(sorter).slots) == 400


def test_hashes_too_uneven_for_a_filter():
    sorter = HashSorter()
    sorter.add([5] * 100_000)
    assert make_filter(sorter) is None


def test_records_have_place_and_check():
    records = RecordList()
    records.add([7, (1 << 32) - 1], [1, 2])
    assert records.fits
    told = struct.unpack("<2Q", records.data())
    assert [(each >> PLACE_BITS, each & CHECK_MASK) for each in told] == [
        (7, 1),
        ((1 << 32) - 1, 2),
    ]


def test_places_beyond_4_gib_cannot_be_told():
    records = RecordList()
    records.add([0, 1 << 32], [0, 0])
    assert not records.fits


def test_places_in_blocks():
    assert [block_and_record(at) for at in places_in_block(7, 3)] == [(7, 0), (7, 1), (7, 2)]
    last = places_in_block((1 << 20) - 1, 4096)[-1]
    assert block_and_record(last) == ((1 << 20) - 1, 4095)


def test_where_buckets_start():
    made = made_of([b"%d" % number for number in range(999)])
    offsets = array("h", made.filter[: 2 * (made.buckets + 1)])
    starts = absolute_starts(offsets, 999)
    assert (starts[0], starts[-1]) == (0, 999)
    assert list(starts) == sorted(starts)
