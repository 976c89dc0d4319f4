"""Reading a whole table and comparing its parts with each other."""

from __future__ import annotations

from itertools import islice
from operator import lt
from typing import TYPE_CHECKING

from kvstore.tables.blobs import TableBlob
from kvstore.tables.format import DamageError
from kvstore.tables.records import lower_bound, upper_bound
from kvstore.values import MISSING

if TYPE_CHECKING:
    from kvstore.tables.reader import TableReader
    from kvstore.tables.table import Table


def verify_table(reader: TableReader, table: Table) -> None:
    """Raise DamageError unless every byte that is ever looked at is right, and all parts agree.

    Everything is read once; each key is then looked up, through filter and slots.
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
        for key, value in zip(keys, values, strict=True):
            found = reader.get(key, table)
            if isinstance(value, TableBlob):
                for _ in value.pieces():
                    pass
                if not isinstance(found, TableBlob):
                    raise DamageError("a key is not found by its hash", at)
            elif found is MISSING or found != value:
                raise DamageError("a key is not found by its hash", at)
        items, last = items + len(keys), keys[-1]
        tombstones += values.count(None)
    footer = reader.footer
    if (items, tombstones) != (footer.items, footer.tombstones):
        raise DamageError("the blocks are not those that the footer counts")
    if last is not None and upper_bound(last) != table.record.high:
        raise DamageError("the last key is not the manifest's")
