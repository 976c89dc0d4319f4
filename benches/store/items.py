"""The keys and values that are written and read: random, and the same in every process.

They come in blocks of a thousand, each made from its number alone: so a process can make any of
them again, at a fraction of what it costs an engine to take them, and keeps none.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Final

KEY_BYTES: Final = 16
VALUE_BYTES: Final = 100
ITEM_BYTES: Final = KEY_BYTES + VALUE_BYTES
BLOCK: Final = 1000

Items = Sequence[tuple[bytes, bytes]]

_VALUES: Final = random.Random(0).randbytes(1 << 20)
_FIRST_ABSENT: Final = 1 << 40
_FROM_EACH_BLOCK: Final = 10


def keys(block: int) -> list[bytes]:
    """The keys of a block."""
    data = random.Random(block).randbytes(KEY_BYTES * BLOCK)
    return [data[at : at + KEY_BYTES] for at in range(0, KEY_BYTES * BLOCK, KEY_BYTES)]


def items(block: int) -> list[tuple[bytes, bytes]]:
    """The keys of a block with their values."""
    start = block * 7919 % (len(_VALUES) - VALUE_BYTES * BLOCK)
    ends = range(start, start + VALUE_BYTES * BLOCK, VALUE_BYTES)
    return list(zip(keys(block), [_VALUES[at : at + VALUE_BYTES] for at in ends], strict=True))


def picked(count: int, among: int, seed: int) -> list[bytes]:
    """Keys in random order, some of the first ``among``. Keys may come twice."""
    pick = random.Random(f"picked {seed}")
    found: list[bytes] = []
    while len(found) < count:
        found += pick.choices(keys(pick.randrange(among // BLOCK)), k=_FROM_EACH_BLOCK)
    pick.shuffle(found)
    return found[:count]


def absent(count: int, seed: int) -> list[bytes]:
    """Keys that are in no block of small number."""
    first = _FIRST_ABSENT + seed * count
    return [key for block in range(first, first + 1 + count // BLOCK) for key in keys(block)][
        :count
    ]
