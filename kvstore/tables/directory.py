"""Directories: a table's filter, sieve and slots in memory, to be asked in as few steps as can be.

A reader loads its directory whole when it is first asked for a key: 11 bytes a key, verified. All
that a look-up needs is then an index into an array away. Where the cache has no room for it the
same is read from 64 KiB pieces of the file, at three times the cost.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

from kvstore.tables import format as fmt
from kvstore.tables.filters import HASH_BITS, STARTS, absolute_starts
from kvstore.tables.format import DamageError, Footer
from kvstore.tables.slots import SLOT

if TYPE_CHECKING:
    from kvstore.tables.cache import Claim

ReadSection = Callable[[int, int], bytes]
"""Verified bytes of a section, from one offset in the file to another."""

_START_BYTES: Final = 4


class Directory:
    """A table's directory: ``marks[starts[b]:starts[b + 1]]`` are those of bucket b.

    The bit of a hash ``h`` is in ``sieve[h & mask]``. ``slots`` has the slot of each mark, and is
    None if the table has none.
    """

    __slots__ = ("_claim", "buckets", "marks", "mask", "sieve", "slots", "starts")

    def __init__(self, footer: Footer, read: ReadSection, claim: Claim) -> None:
        self._claim = claim
        self.buckets = footer.buckets
        marks_at, slots_at = places(footer)
        filter_at = marks_at - 2 * (footer.buckets + 1)
        offsets = _native(array("h", read(filter_at, marks_at)))
        try:
            self.starts = absolute_starts(offsets, footer.items)
        except OverflowError:
            raise DamageError("a filter makes no sense", filter_at) from None
        self.marks = read(marks_at, marks_at + footer.items)
        sieve = footer.section(fmt.SIEVE)
        assert sieve is not None
        self.sieve = read(sieve.offset, sieve.end)
        self.mask = len(self.sieve) - 1
        self.slots: array[int] | None = None
        if slots_at:
            end = slots_at + fmt.SLOT_BYTES * footer.items
            self.slots = _native(array("Q", read(slots_at, end)))


def directory_bytes(footer: Footer) -> int:
    """How much memory a table's directory takes."""
    slots = fmt.SLOT_BYTES if footer.section(fmt.SLOTS) else 0
    sieve = footer.section(fmt.SIEVE)
    assert sieve is not None
    return _START_BYTES * (footer.buckets + 1) + (1 + slots) * footer.items + sieve.length


def places(footer: Footer) -> tuple[int, int]:
    """Where the marks and the slots of a table with a filter begin; 0 if it has no slots."""
    hashes, slots = footer.section(fmt.FILTER), footer.section(fmt.SLOTS)
    assert hashes is not None
    marks_at = hashes.offset + 2 * (footer.buckets + 1)
    return marks_at, slots.offset if slots is not None else 0


def probe(footer: Footer, read: ReadSection, hashed: int) -> Iterator[int | None]:
    """The slots of the keys that may have a hash, read from the file; None for each without."""
    items, buckets = footer.items, footer.buckets
    marks_at, slots_at = places(footer)
    bucket = hashed * buckets >> HASH_BITS
    at = marks_at - 2 * (buckets + 1) + 2 * bucket
    first, last = STARTS.unpack(read(at, at + STARTS.size))
    first += bucket * items // buckets
    last += (bucket + 1) * items // buckets
    marks = read(marks_at + first, marks_at + last)
    found = marks.find(hashed & 0xFF)
    while found >= 0:
        at = slots_at + fmt.SLOT_BYTES * (first + found)
        yield SLOT.unpack(read(at, at + SLOT.size))[0] if slots_at else None
        found = marks.find(hashed & 0xFF, found + 1)


def _native(numbers: array[int]) -> array[int]:
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers
