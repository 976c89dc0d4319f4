"""Hash slots: where a key's record is, without a search, from 4 bytes a key beside the filter.

A slot is a u32: the number of the key's block, and in the lowest 12 bits that of its record in the
block. It stands at the place of the key's mark among the filter's marks, so that the filter's look
into a bucket finds both. A look-up tries the records of at most :data:`MOST_PROBES` equal marks
(1.03 on average) and then bisects the index: keys that were made to collide cost no more than that.

Tables that a merge made have slots; they cost half as much again to build as a filter alone.
"""

from __future__ import annotations

import struct
from typing import Final

from kvstore.tables.filters import POSITION_BITS
from kvstore.tables.format import MOST_RECORDS, RECORD_BITS

MOST_PROBES: Final = 16
SLOT: Final = struct.Struct("<I")
MOST_BLOCKS: Final = 1 << (POSITION_BITS - RECORD_BITS)


def slots_of(block: int, records: int) -> range:
    """The slots of a block's records, in their order.

    >>> list(map(hex, slots_of(1, 2)))
    ['0x1000', '0x1001']
    """
    first = block << RECORD_BITS
    return range(first, first + records)


def place_of(slot: int) -> tuple[int, int]:
    """The block and the record that a slot names.

    >>> place_of(0x1001)
    (1, 1)
    """
    return slot >> RECORD_BITS, slot & (MOST_RECORDS - 1)
