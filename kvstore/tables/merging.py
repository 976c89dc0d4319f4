"""When tables are merged: so that there are few of them, and no byte is written too often.

A checkpoint adds a table. Tables are merged only with their neighbours in age, and only once
:data:`FAN_OUT` of them have gathered. An older one that has more than twice as many bytes as all
that are younger is left alone; so each mutation is written again O(log n) times in all.

Deletions stay in the tables for as long as they may hide something in an older one. Once they are a
third of all items, everything is merged into one table without them: it takes no more items than
three for each deletion, so the rule above stays true.

The choice is made before the new table is written, and the merge writes one table for all of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

FAN_OUT: Final = 4
DWARFED: Final = 2
MOST_TABLES: Final = 12
MOST_DELETIONS: Final = 1 / 3


def how_many_to_merge(sizes: Sequence[int], items: int = 0, deletions: int = 0) -> int:
    """How many of the newest parts become one table; ``sizes`` are all, newest first.

    ``items`` is how many they hold in all, ``deletions`` how many of those are deletions.

    The newest is the one that is about to be written: 1 leaves the others alone.

    >>> how_many_to_merge([10, 10, 10])
    1
    >>> how_many_to_merge([10, 10, 10, 10, 1000])
    4
    >>> how_many_to_merge([10, 10, 10, 10, 35, 1000])
    5
    >>> how_many_to_merge([10, 1000], items=300, deletions=100)
    2
    """
    if deletions and deletions >= items * MOST_DELETIONS:
        return len(sizes)
    total, count = sizes[0], 1
    for size in sizes[1:]:
        if size > DWARFED * total:
            break
        total, count = total + size, count + 1
    if count >= FAN_OUT:
        return count
    return max(2, count) if len(sizes) > MOST_TABLES else 1
