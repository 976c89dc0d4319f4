r"""Which keys a table does not have, from 1.25 bytes for each that it has.

A key's hash is the lowest 30 bits of its crc32c times 0x9E3779B1: multiplied, since a crc is linear
and may crowd numbered keys into few of the ranges below; 30, since CPython sorts integers of one
such digit twice as fast. The hashes, sorted, lie in buckets: a hash ``h`` in bucket
``h * buckets >> 30``, eight in each on average. The filter has, little-endian::

    i16 for each bucket and the end   how far its start is from ``bucket * items // buckets``
    u8 for each hash                  its lowest 8 bits, the *mark*, in the order of the sorted ones

An absent key passes if its mark is one of those in its bucket: 8 of 256, 3.1 %. (Measured with nine
kinds of keys: 2.5 to 3.5 %, but 12.7 % of two hundred thousand decimal numbers that follow upon two
million: a tenth have the very crc32c of one of those.) A Bloom filter of
that size would pass fewer, but costs a Python step for each bit of each key to build, and for each
bit to ask; this one is made by sorts and slices and asked with one ``find``. The place of a mark
among all marks is also the place of its slot (:mod:`kvstore.tables.slots`).

Hashes so uneven that a start does not fit into an i16 (keys made to collide) leave the table
without filter and slots, which cost it speed but nothing else.
"""

from __future__ import annotations

import struct
import sys
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import repeat
from operator import and_, mul
from typing import Final

from crc32c import crc32c

from kvstore.tables.format import u32s

HASH_BITS: Final = 30
_MOST: Final = (1 << HASH_BITS) - 1
_FACTOR: Final = 0x9E3779B1
POSITION_BITS: Final = 32
_PER_BUCKET: Final = 8
_RANGE_BITS: Final = 4
_RUN: Final = 1 << 14
STARTS: Final = struct.Struct("<hh")


def hash_of(key: bytes) -> int:
    """A key's hash."""
    hashed: int = crc32c(key) * _FACTOR & _MOST
    return hashed


def hashes_of(keys: list[bytes]) -> list[int]:
    """The hashes of many keys, without a Python step for each."""
    return list(map(and_, map(mul, map(crc32c, keys), repeat(_FACTOR)), repeat(_MOST)))


class HashSorter:
    """Sorts many hashes, with or without a 32-bit position behind each, in little memory.

    They are sorted in runs that fit into the processor's cache, and each run is cut into 16 ranges;
    a range, many runs one behind the other, is then merged by timsort. 4 or 8 bytes a hash.
    """

    def __init__(self, *, with_positions: bool) -> None:
        self.shift = POSITION_BITS if with_positions else 0
        self._type = "Q" if with_positions else "I"
        self._hashes = array("I")
        self._positions = array("I")
        count, bits = 1 << _RANGE_BITS, HASH_BITS - _RANGE_BITS + self.shift
        self._ranges = [array(self._type) for _ in range(count)]
        self._bounds = [number << bits for number in range(1, count)]
        self.count = 0

    def add(self, hashes: list[int], positions: Iterable[int] = ()) -> None:
        """Take in hashes, and as many positions if they were announced."""
        self.count += len(hashes)
        self._hashes.extend(hashes)
        if self.shift:
            self._positions.extend(positions)
        if len(self._hashes) >= _RUN:
            self._spill()

    def _spill(self) -> None:
        numbers = self._hashes
        if self.shift:
            numbers = _interleave(numbers, self._positions)
        run = array(self._type, sorted(numbers))
        self._hashes, self._positions = array("I"), array("I")
        cuts = [0, *map(bisect_left, repeat(run), self._bounds), len(run)]
        for part, start, stop in zip(self._ranges, cuts, cuts[1:], strict=False):
            part += run[start:stop]

    def sorted_ranges(self) -> Iterator[list[int]]:
        """All that was added, ascending, in pieces; only once."""
        self._spill()
        while self._ranges:
            yield sorted(self._ranges.pop(0))


def _interleave(high: array[int], low: array[int]) -> array[int]:
    """``high << 32 | low`` of each two, three times faster than by shifting."""
    halves = array("I", bytes(8 * len(high)))
    first = sys.byteorder == "big"  # the higher half of an u64 comes first there
    halves[not first :: 2] = high
    halves[first::2] = low
    return array("Q", halves.tobytes())


@dataclass(frozen=True)
class HashTable:
    """A filter's data, and the slots' if there were positions."""

    buckets: int
    filter: bytes
    slots: bytes


def make_filter(sorter: HashSorter) -> HashTable | None:
    """The filter (and slots) of what was sorted; None if the hashes are too uneven.

    >>> sorter = HashSorter(with_positions=False)
    >>> sorter.add(hashes_of([b"one", b"two"]))
    >>> made = make_filter(sorter)
    >>> made.buckets, len(made.filter)
    (1, 6)
    """
    items, shift = sorter.count, sorter.shift
    buckets = max(1, (items + _PER_BUCKET - 1) // _PER_BUCKET)
    starts: list[int] = []
    marks, slots = bytearray(), bytearray()
    for numbers in sorter.sorted_ranges():
        bounds = _bounds(numbers, len(starts), buckets, shift)
        starts += [len(marks) + at for at in map(bisect_left, repeat(numbers), bounds)]
        if shift:
            data = u32s(array("Q", numbers))
            marks += data[4::8]
            slots += array("I", data)[::2].tobytes()
        else:
            marks += u32s(array("I", numbers))[::4]
    starts += repeat(items, buckets + 1 - len(starts))
    try:
        offsets = array("h", [at - b * items // buckets for b, at in enumerate(starts)])
    except OverflowError:
        return None
    return HashTable(buckets, u32s(offsets) + bytes(marks), bytes(slots))


def _bounds(numbers: list[int], first: int, buckets: int, shift: int) -> list[int]:
    """The lowest number of each bucket from ``first`` on that does not begin beyond the numbers."""
    if not numbers:
        return []
    last = ((numbers[-1] >> shift) * buckets) >> HASH_BITS
    return [-(-(b << HASH_BITS) // buckets) << shift for b in range(first, last + 1)]
