"""Which record an operation of YCSB is about, as YCSB itself draws them.

Brian F. Cooper et al., "Benchmarking cloud serving systems with YCSB" (2010); the zipfian numbers
by Jim Gray et al., "Quickly generating billion-record synthetic databases" (1994).
"""

from __future__ import annotations

import math
import random
from typing import Final

THETA: Final = 0.99
SCRAMBLED_ITEMS: Final = 10_000_000_000
SCRAMBLED_ZETA: Final = 26.46902820178302
"""zeta(10^10, 0.99), which takes YCSB too long to add up as well."""

_OFFSET_BASIS: Final = 0xCBF29CE484222325
_PRIME: Final = 1099511628211
_MASK: Final = (1 << 64) - 1


def fnv64(number: int) -> int:
    """The FNV-1a hash of a number's eight bytes, little-endian, without its sign, as in YCSB."""
    found = _OFFSET_BASIS
    for byte in number.to_bytes(8, "little"):
        found = (found ^ byte) * _PRIME & _MASK
    return min(found, _MASK + 1 - found)


def zeta(count: int, theta: float = THETA) -> float:
    """The sum of 1 / i ** theta for i from 1 to ``count``."""
    return math.fsum(number**-theta for number in range(1, count + 1))


class Zipfian:
    """Ranks from 0 on, of which rank i comes in proportion to 1 / (i + 1) ** 0.99."""

    def __init__(self, count: int, source: random.Random, zeta_of_count: float = 0.0) -> None:
        self.count = count
        self._source = source
        self._zeta = zeta_of_count or zeta(count)
        self._zeta_of_two = zeta(2)
        self._set_eta()

    def _set_eta(self) -> None:
        scale = 1 - (2 / self.count) ** (1 - THETA)
        self._eta = scale / (1 - self._zeta_of_two / self._zeta)

    def grow(self) -> None:
        """Have one more rank."""
        self.count += 1
        self._zeta += 1 / self.count**THETA
        self._set_eta()

    def next(self) -> int:
        drawn = self._source.random()
        scaled = drawn * self._zeta
        if scaled < 1:
            return 0
        if scaled < 1 + 0.5**THETA:
            return 1
        rank = int(self.count * (self._eta * drawn - self._eta + 1) ** (1 / (1 - THETA)))
        return min(rank, self.count - 1)


class ScrambledZipfian:
    """Some records much more often than others, those spread over all."""

    def __init__(self, count: int, source: random.Random) -> None:
        self.count = count
        self._ranks = Zipfian(SCRAMBLED_ITEMS, source, SCRAMBLED_ZETA)

    def next(self) -> int:
        return fnv64(self._ranks.next()) % self.count


class Latest:
    """The newest records most often."""

    def __init__(self, count: int, source: random.Random) -> None:
        self._ages = Zipfian(count, source)

    def grow(self) -> None:
        """Have one more record."""
        self._ages.grow()

    def next(self) -> int:
        return self._ages.count - 1 - self._ages.next()
