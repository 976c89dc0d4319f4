"""Filters and slots."""

from __future__ import annotations

import random
import struct

from kvstore.tables.filters import HASH_BITS, STARTS, HashSorter, hash_of, hashes_of, make_filter
from kvstore.tables.slots import place_of, slots_of


def made_of(keys, step=1000):
    sorter = HashSorter(with_positions=True)
    for at in range(0, len(keys), step):
        sorter.add(hashes_of(keys[at : at + step]), range(at, at + len(keys[at : at + step])))
    return make_filter(sorter)


class Probe:
    def __init__(self, made, items):
        self.made, self.items = made, items
        self.marks = made.filter[2 * (made.buckets + 1) :]
        self.slots = struct.unpack(f"<{items}I", made.slots)

    def places(self, key):
        """The positions of the keys that have this one's mark, in its bucket."""
        hashed, buckets = hash_of(key), self.made.buckets
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
    sorter = HashSorter(with_positions=True)
    sorter.add([5] * 100, range(100))
    made = make_filter(sorter)
    assert len(made.slots) == 400


def test_hashes_too_uneven_for_a_filter():
    sorter = HashSorter(with_positions=False)
    sorter.add([5] * 100_000)
    assert make_filter(sorter) is None


def test_slots_name_block_and_record():
    assert [place_of(slot) for slot in slots_of(7, 3)] == [(7, 0), (7, 1), (7, 2)]
    assert place_of(slots_of((1 << 20) - 1, 4096)[-1]) == ((1 << 20) - 1, 4095)
