"""Hash slots: where a key's record is, without a search, from 4 bytes a key beside the filter.

A slot is a u32: the number of the key's block, and in the lowest 12 bits that of its record in the
block. It stands at the place of the key's mark among the filter's marks, so that the filter's look
into a bucket finds both. A look-up tries the records of at most :data:`MOST_PROBES` equal marks
(1.03 on average) and then bisects the index: keys that were made to collide cost no more than that.

Tables that a merge made have slots; they cost half as much again to build as a filter alone.
"""

from __future__ import annotations

import struct
from itertools import repeat
from operator import lshift, or_
from typing import Final

from kvstore.tables.filters import POSITION_BITS
from kvstore.tables.format import MOST_RECORDS, RECORD_BITS

MOST_PROBES: Final = 16
SLOT: Final = struct.Struct("<I")
MOST_BLOCKS: Final = 1 << (POSITION_BITS - RECORD_BITS)


def with_positions(hashes: list[int], block: int) -> list[int]:
    """The hashes of a block's keys, each with its record's position in the lower 32 bits.

    >>> [hex(number) for number in with_positions([5, 6], 1)]
    ['0x500001000', '0x600001001']
    """
    first = block << RECORD_BITS
    places = range(first, first + len(hashes))
    return list(map(or_, map(lshift, hashes, repeat(POSITION_BITS)), places))


def place_of(slot: int) -> tuple[int, int]:
    """The block and the record that a slot names.

    >>> place_of(0x1001)
    (1, 1)
    """
    return slot >> RECORD_BITS, slot & (MOST_RECORDS - 1)
