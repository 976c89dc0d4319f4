"""Directories: what says where a table's keys are, in memory, asked in as few steps as can be.

A reader loads its directory whole when it is first asked for a key: 15 bytes a key, verified. All
that a look-up needs is then an index into an array away. Where the cache has no room for it the
same is read from 4 KiB pieces of the file, at several times the cost.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

from kvstore.tables import format as fmt
from kvstore.tables.filters import HASH_BITS, STARTS, absolute_starts
from kvstore.tables.format import DamageError, Footer
from kvstore.tables.slots import RECORD, SLOT

if TYPE_CHECKING:
    from kvstore.tables.cache import Claim

ReadSection = Callable[[int, int], bytes]
"""Verified bytes of a section, from one offset in the file to another."""

_START_BYTES: Final = 4


class Directory:
    """A table's directory: ``marks[starts[b]:starts[b + 1]]`` are those of bucket b.

    The bit of a hash ``h`` is in ``sieve[h & mask]``. ``records[slots[n]]`` is the record of mark
    n; both are empty if the table has none.
    """

    __slots__ = ("_claim", "buckets", "marks", "mask", "records", "sieve", "slots", "starts")

    def __init__(self, footer: Footer, read: ReadSection, claim: Claim) -> None:
        self._claim = claim
        self.buckets = footer.buckets
        marks_at = _marks_at(footer)
        filter_at = marks_at - 2 * (footer.buckets + 1)
        offsets = _native(array("h", read(filter_at, marks_at)))
        try:
            self.starts = absolute_starts(offsets, footer.items)
        except OverflowError:
            raise DamageError("a filter makes no sense", filter_at) from None
        self.marks = read(marks_at, marks_at + footer.items)
        self.sieve = _section(footer, fmt.SIEVE, read)
        self.mask = len(self.sieve) - 1
        self.slots = _native(array("I", _section(footer, fmt.SLOTS, read)))
        self.records = _native(array("Q", _section(footer, fmt.RECORDS, read)))


def _section(footer: Footer, kind: int, read: ReadSection) -> bytes:
    section = footer.section(kind)
    return b"" if section is None else read(section.offset, section.end)


def directory_bytes(footer: Footer) -> int:
    """How much memory a table's directory takes."""
    sections = (footer.section(kind) for kind in (fmt.SIEVE, fmt.SLOTS, fmt.RECORDS))
    rest = sum(section.length for section in sections if section is not None)
    return _START_BYTES * (footer.buckets + 1) + footer.items + rest


def _marks_at(footer: Footer) -> int:
    hashes = footer.section(fmt.FILTER)
    assert hashes is not None
    return hashes.offset + 2 * (footer.buckets + 1)


def probe(footer: Footer, read: ReadSection, hashed: int) -> Iterator[int | None]:
    """The records of the keys that may have a hash, read from the file; None for each without."""
    items, buckets = footer.items, footer.buckets
    marks_at = _marks_at(footer)
    slots, records = footer.section(fmt.SLOTS), footer.section(fmt.RECORDS)
    bucket = hashed * buckets >> HASH_BITS
    at = marks_at - 2 * (buckets + 1) + 2 * bucket
    first, last = STARTS.unpack(read(at, at + STARTS.size))
    first += bucket * items // buckets
    last += (bucket + 1) * items // buckets
    marks = read(marks_at + first, marks_at + last)
    found = marks.find(hashed & 0xFF)
    while found >= 0:
        if slots is None or records is None:
            yield None
        else:
            at = slots.offset + SLOT.size * (first + found)
            at = records.offset + RECORD.size * SLOT.unpack(read(at, at + SLOT.size))[0]
            if at >= records.end:
                raise DamageError("a slot names a record that is not there", slots.offset)
            yield RECORD.unpack(read(at, at + RECORD.size))[0]
        found = marks.find(hashed & 0xFF, found + 1)


def _native(numbers: array[int]) -> array[int]:
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers
