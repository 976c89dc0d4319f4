"""Reading a whole table and comparing its parts with each other."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from operator import add, lt
from typing import TYPE_CHECKING

from crc32c import crc32c

from kvstore.tables import format as fmt
from kvstore.tables.blobs import TableBlob
from kvstore.tables.format import DamageError, Stored
from kvstore.tables.records import lower_bound, upper_bound
from kvstore.tables.slots import PLACE_BITS, checks_of, places_in_block
from kvstore.values import Value

if TYPE_CHECKING:
    from kvstore.tables.reader import TableReader
    from kvstore.tables.table import Table


def verify_table(reader: TableReader, table: Table) -> None:
    """Raise DamageError unless every byte that is ever looked at is right, and all parts agree.

    Everything is read once; each key is then looked up in filter and slots.
    """
    reader.verify_sections()
    separators, offsets, _ = reader.index
    items = tombstones = 0
    last: bytes | None = None
    for number, at in enumerate(offsets):
        keys, values = reader.page(number, table, keep=False)
        if not keys or not separators[number] <= keys[0]:
            raise DamageError("the index does not agree with a block", at)
        if last is None:
            if lower_bound(keys[0]) != table.record.low:
                raise DamageError("the first key is not the manifest's", at)
        elif not last < separators[number]:
            raise DamageError("the index does not agree with a block", at)
        if not all(map(lt, keys, islice(keys, 1, None))):
            raise DamageError("a block's keys do not ascend", at)
        for value in values:
            if isinstance(value, TableBlob):
                for _ in value.pieces():
                    pass
        _check_records(reader, number, keys, values)
        items, last = items + len(keys), keys[-1]
        tombstones += values.count(None)
    footer = reader.footer
    if (items, tombstones) != (footer.items, footer.tombstones):
        raise DamageError("the blocks are not those that the footer counts")
    if last is not None and upper_bound(last) != table.record.high:
        raise DamageError("the last key is not the manifest's")


def _check_records(
    reader: TableReader, number: int, keys: list[bytes], values: list[Value]
) -> None:
    """Raise DamageError unless each record of a block is found by its key's hash."""
    if not reader.footer.buckets:
        return
    at = reader.index[1][number]
    stored: list[Stored] = [
        value.stored() if isinstance(value, TableBlob) else value for value in values
    ]
    crcs = list(map(crc32c, keys))
    if reader.codec is not None:
        places: Iterable[int] = places_in_block(number, len(keys))
    else:
        sizes = list(map(add, map(fmt.encoded_bytes, keys), map(fmt.encoded_bytes, stored)))
        places = fmt.offsets_of(sizes, at)
    checks = checks_of(crcs, stored)
    for crc, place, check in zip(crcs, places, checks, strict=True):
        records = reader.records_of(crc)
        if (place << PLACE_BITS | check) not in records and None not in records:
            raise DamageError("a key is not found by its hash", at)
