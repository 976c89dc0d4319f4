"""When tables are merged: so that there are few of them, and no byte is written too often.

A checkpoint adds a table. Tables are merged only with their neighbours in age, and only once
:data:`FAN_OUT` of them have gathered. An older one that has more than twice as many bytes as all
that are younger is left alone; so each mutation is written again O(log n) times in all.

The choice is made before the new table is written, and the merge writes one table for all of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

FAN_OUT: Final = 4
DWARFED: Final = 2
MOST_TABLES: Final = 12


def how_many_to_merge(sizes: Sequence[int]) -> int:
    """How many of the newest parts become one table; ``sizes`` are all, newest first.

    The newest is the one that is about to be written: 1 leaves the others alone.

    >>> how_many_to_merge([10, 10, 10])
    1
    >>> how_many_to_merge([10, 10, 10, 10, 1000])
    4
    >>> how_many_to_merge([10, 10, 10, 10, 35, 1000])
    5
    """
    total, count = sizes[0], 1
    for size in sizes[1:]:
        if size > DWARFED * total:
            break
        total, count = total + size, count + 1
    if count >= FAN_OUT:
        return count
    return max(2, count) if len(sizes) > MOST_TABLES else 1
