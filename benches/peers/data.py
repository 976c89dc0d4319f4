"""Keys and values in the shape of db_bench: numbers of 16 digits, values that compress to half.

All of it is made from numbers alone: every process makes the same again, before it is timed.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from itertools import cycle, islice
from typing import Final

from benches.peers.engines import Items

VALUE_BYTES: Final = 100
ITEM_BYTES: Final = 16 + VALUE_BYTES
BATCH: Final = 1000

_POOL_BYTES: Final = 1 << 20
_PIECE: Final = 50
_STEP: Final = 7919


def key(number: int) -> bytes:
    return b"%016d" % number


def absent(number: int) -> bytes:
    """A key that is never there, between two that may be: as in leveldb, one byte longer."""
    return b"%016d." % number


def shuffled(count: int, seed: int) -> list[int]:
    """The numbers below ``count``, each once."""
    numbers = list(range(count))
    random.Random(seed).shuffle(numbers)
    return numbers


def picked(count: int, among: int, seed: int) -> list[int]:
    """Numbers below ``among``, any of them any number of times."""
    return random.Random(seed).choices(range(among), k=count)


def _pool() -> bytes:
    """Bytes of which every second piece repeats the one before."""
    source = random.Random(0)
    return b"".join(2 * source.randbytes(_PIECE) for _ in range(_POOL_BYTES // (2 * _PIECE)))


_VALUES: Final = _pool()


def values(count: int, length: int = VALUE_BYTES, seed: int = 0) -> Iterable[bytes]:
    """So many values, each an object of its own."""
    last = len(_VALUES) - length
    starts = islice(cycle(range(seed % last, last, _STEP)), count)
    return (_VALUES[start : start + length] for start in starts)


def items(numbers: Sequence[int], length: int = VALUE_BYTES, seed: int = 0) -> Items:
    """The items of these numbers, in their order."""
    return list(zip(map(key, numbers), values(len(numbers), length, seed), strict=True))


def batches(all_items: Items, size: int = BATCH) -> list[Items]:
    return [all_items[at : at + size] for at in range(0, len(all_items), size)]
