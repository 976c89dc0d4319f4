"""Slots and records: where a key's record is, without a search, and what its checksum is.

A *slot* is a u32: the number of the key's record in the table. It stands at the place of the key's
mark among the filter's marks, so that the filter's look into a bucket finds both. The section of
*records* has a u64 for each record, by its number: in the upper half its place, in the lower one
its *check*. A look-up reads the record alone, not its block, and verifies it with the check; it
tries the records of at most :data:`MOST_PROBES` equal marks (1.03 on average) and then bisects the
index: keys that were made to collide cost no more than that.

Both together take 12 bytes a key. With the places in the order of the marks they would take 8, but
to bring them into that order took a sixth of the time that it takes to build a table.

The place is the record's offset in the file; in a compressed table the number of its block, and in
the lowest 12 bits that of the record in the block. A table with blocks beyond 4 GiB has neither.

The check of a record is the crc32c of the key and then the value. That of a key which is deleted,
or whose value is a blob, is told from that of a key with such bytes for a value.
"""

from __future__ import annotations

import struct
import sys
from array import array
from collections.abc import Iterable
from typing import Final

from crc32c import crc32c
from msgpack import ExtType

from kvstore.tables.format import MOST_RECORDS, RECORD_BITS, Stored, u32s

MOST_PROBES: Final = 16
SLOT: Final = struct.Struct("<I")
RECORD: Final = struct.Struct("<Q")
PLACE_BITS: Final = 32
CHECK_MASK: Final = (1 << 32) - 1
_DELETED: Final = CHECK_MASK


def check_of(key_crc: int, stored: Stored) -> int:
    """The check of a record, from the crc32c of its key and the value as a block has it.

    >>> check_of(crc32c(b"key"), b"value") == crc32c(b"keyvalue")
    True
    >>> check_of(crc32c(b"key"), None) == crc32c(b"key")
    False
    """
    if stored is None:
        return key_crc ^ _DELETED
    if isinstance(stored, ExtType):
        reference: int = crc32c(bytes((stored.code,)) + stored.data, key_crc)
        return reference ^ _DELETED
    check: int = crc32c(stored, key_crc)
    return check


def checks_of(key_crcs: list[int], values: list[Stored]) -> list[int]:
    """The checks of many records, without a Python step for each where all values are bytes."""
    if set(map(type, values)) == {bytes}:
        return list(map(crc32c, values, key_crcs))  # type: ignore[arg-type]
    return list(map(check_of, key_crcs, values))


def places_in_block(block: int, records: int) -> range:
    """The places of the records of a compressed block, in their order.

    >>> list(map(hex, places_in_block(1, 2)))
    ['0x1000', '0x1001']
    """
    first = block << RECORD_BITS
    return range(first, first + records)


def block_and_record(place: int) -> tuple[int, int]:
    """What a place in a compressed table names.

    >>> block_and_record(0x1001)
    (1, 1)
    """
    return place >> RECORD_BITS, place & (MOST_RECORDS - 1)


def joined(high: array[int], low: array[int]) -> array[int]:
    """``high << 32 | low`` of each two u32, three times faster than by shifting.

    >>> joined(array("I", [1]), array("I", [2]))[0] == (1 << 32) | 2
    True
    """
    halves = array("I", bytes(8 * len(high)))
    first = sys.byteorder == "big"  # the higher half of an u64 comes first there
    halves[not first :: 2] = high
    halves[first::2] = low
    return array("Q", halves.tobytes())


class RecordList:
    """The records of a table in the order of their keys, while it is built."""

    def __init__(self) -> None:
        self._places = array("I")
        self._checks = array("I")
        self.fits = True
        """Whether every place could be told."""

    def add(self, places: Iterable[int], checks: list[int]) -> None:
        """Take in the places and checks of some records."""
        self._checks.extend(checks)
        try:
            self._places.extend(places)
        except OverflowError:
            self.fits = False

    def data(self) -> bytes:
        """The section's data."""
        return u32s(joined(self._places, self._checks))
