r"""Which keys a table does not have, from some 2.75 bytes for each that it has.

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

Before it stands the *sieve*, one bit for each key in a power of two of bytes, one or two for each
key: in the byte that the hash's lowest bits name, the bit that its highest three do. It lets 6 to
12 % of absent keys pass, but asks less of Python: measured 0.09 us, where a bucket takes 0.3.

Hashes so uneven that a start does not fit into an i16 (keys made to collide) leave the table
without filter and slots, which cost it speed but nothing else.
"""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import repeat
from operator import add, and_, floordiv, mul
from typing import Final

from kvstore.tables.format import u32s
from kvstore.tables.slots import joined

HASH_BITS: Final = 30
MOST_HASH: Final = (1 << HASH_BITS) - 1
FACTOR: Final = 0x9E3779B1
NUMBER_BITS: Final = 32
SIEVE_BITS: Final = HASH_BITS - 3
"""A hash without its highest three."""
_SIEVE_BIT_AT: Final = SIEVE_BITS + NUMBER_BITS
_LARGEST_SIEVE: Final = 1 << SIEVE_BITS
_PER_BUCKET: Final = 8
_RANGE_BITS: Final = 4
_RUN: Final = 1 << 14
STARTS: Final = struct.Struct("<hh")


def hash_of(key_crc: int) -> int:
    """The hash of a key with that crc32c."""
    return key_crc * FACTOR & MOST_HASH


def hashes_of(key_crcs: list[int]) -> list[int]:
    """The hashes of many keys, without a Python step for each."""
    return list(map(and_, map(mul, key_crcs, repeat(FACTOR)), repeat(MOST_HASH)))


class HashSorter:
    """Sorts many hashes, each with the number of its record behind it in 32 bits, in little memory.

    They are sorted in runs that fit into the processor's cache, and each run is cut into 16 ranges;
    a range, many runs one behind the other, is then merged by timsort. 8 bytes a hash.
    """

    def __init__(self) -> None:
        self._hashes = array("I")
        count, bits = 1 << _RANGE_BITS, HASH_BITS - _RANGE_BITS + NUMBER_BITS
        self._ranges = [array("Q") for _ in range(count)]
        self._bounds = [number << bits for number in range(1, count)]
        self.count = 0

    def add(self, hashes: list[int]) -> None:
        """Take in the hashes of the next records."""
        self.count += len(hashes)
        self._hashes.extend(hashes)
        if len(self._hashes) >= _RUN:
            self._spill()

    def _spill(self) -> None:
        numbers = array("I", range(self.count - len(self._hashes), self.count))
        run = array("Q", sorted(joined(self._hashes, numbers)))
        self._hashes = array("I")
        cuts = [0, *map(bisect_left, repeat(run), self._bounds), len(run)]
        for part, start, stop in zip(self._ranges, cuts, cuts[1:], strict=False):
            part += run[start:stop]

    def sorted_ranges(self) -> Iterator[list[int]]:
        """All that was added, ascending, in pieces; only once."""
        self._spill()
        while self._ranges:
            yield sorted(self._ranges.pop(0))


@dataclass(frozen=True)
class HashTable:
    """A filter's data, the slots in the order of its marks, and the sieve."""

    buckets: int
    filter: bytes
    slots: bytes
    sieve: bytes


def make_filter(sorter: HashSorter) -> HashTable | None:
    """The filter, the slots and the sieve of what was sorted; None if the hashes are too uneven.

    >>> sorter = HashSorter()
    >>> sorter.add(hashes_of([1, 2]))
    >>> made = make_filter(sorter)
    >>> made.buckets, len(made.filter), len(made.slots), len(made.sieve)
    (1, 6, 8, 2)
    """
    items = sorter.count
    buckets = max(1, (items + _PER_BUCKET - 1) // _PER_BUCKET)
    starts: list[int] = []
    marks, slots, sieve = bytearray(), bytearray(), bytearray(sieve_bytes(items))
    for numbers in sorter.sorted_ranges():
        bounds = _bounds(numbers, len(starts), buckets)
        starts += [len(marks) + at for at in map(bisect_left, repeat(numbers), bounds)]
        data = u32s(array("Q", numbers))
        marks += data[4::8]
        slots += array("I", data)[::2].tobytes()
        _sift(sieve, numbers)
    starts += repeat(items, buckets + 1 - len(starts))
    try:
        offsets = array("h", [at - b * items // buckets for b, at in enumerate(starts)])
    except OverflowError:
        return None
    return HashTable(buckets, u32s(offsets) + bytes(marks), bytes(slots), bytes(sieve))


def sieve_bytes(items: int) -> int:
    """The length of the sieve of so many keys.

    >>> sieve_bytes(1), sieve_bytes(5)
    (1, 8)
    """
    return min(1 << (items - 1).bit_length(), _LARGEST_SIEVE)


def _sift(sieve: bytearray, numbers: list[int]) -> None:
    mask = len(sieve) - 1
    for number in numbers:  # 0.1 us; in C-level steps, of which there are many, it is no faster
        sieve[number >> NUMBER_BITS & mask] |= 1 << (number >> _SIEVE_BIT_AT)


def _bounds(numbers: list[int], first: int, buckets: int) -> list[int]:
    """The lowest number of each bucket from ``first`` on that does not begin beyond the numbers."""
    if not numbers:
        return []
    last = ((numbers[-1] >> NUMBER_BITS) * buckets) >> HASH_BITS
    return [-(-(b << HASH_BITS) // buckets) << NUMBER_BITS for b in range(first, last + 1)]


def absolute_starts(offsets: array[int], items: int) -> array[int]:
    """The start of each bucket among the marks, from how far each is from where it should be.

    OverflowError where one would lie before the first mark.

    >>> absolute_starts(array("h", [0, -1, 0]), 17)
    array('I', [0, 7, 17])
    """
    buckets = len(offsets) - 1
    even = map(floordiv, range(0, items * buckets + 1, items), repeat(buckets))
    return array("I", map(add, offsets, even))
