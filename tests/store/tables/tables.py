"""Tables to test with, in memory or in files."""

from __future__ import annotations

import os
import random
from dataclasses import replace

from crc32c import crc32c

from kvstore.tables.blobs import TableBlob
from kvstore.tables.builder import TableBuilder
from kvstore.tables.cache import Cache
from kvstore.tables.table import Table

ID = bytes(range(16))


def some_items(count, seed=1, most_key=30, most_value=300):
    """Ascending keys of many lengths, the empty one too; a few tombstones."""
    rng = random.Random(seed)
    keys = {b""} | {rng.randbytes(rng.randrange(most_key)) for _ in range(count)}
    return {
        key: None if rng.random() < 0.1 else rng.randbytes(rng.randrange(most_value))
        for key in sorted(keys)
    }


def write(files, directory, items, *, number=1, table_id=ID, step=100, **options):
    """A table file with these items; its record."""
    path = os.path.join(directory, f"tmp-{number}")
    builder = TableBuilder(files, path, table_id, **options)
    keys, values = list(items), list(items.values())
    for at in range(0, len(keys), step):
        builder.add(keys[at : at + step], values[at : at + step])
    record = replace(builder.finish(1, 9), number=number)
    files.rename(path, os.path.join(directory, record.name))
    return record


def table(files, directory, items, *, cache=None, **options):
    record = write(files, directory, items, **options)
    return Table(files, directory, record, cache or Cache(1 << 20))


def get(table, key):
    """As the store looks a key up."""
    return table.get(key, crc32c(key))


def plain(value):
    """A value with a blob read."""
    return value.read() if isinstance(value, TableBlob) else value


def contents(pages):
    """All items of some pages, blobs read."""
    return {k: plain(v) for page in pages for k, v in zip(*page, strict=True)}
