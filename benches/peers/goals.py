"""What kvstore should reach beside the peers, as data: a ratio in the row, or a rate of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

PEER: Final = "the best peer"
FLOOR: Final = "the floor"


@dataclass(frozen=True)
class Goal:
    row: str
    bound: float
    beside: str = PEER
    """What the bound is a multiple of; empty: it is a rate itself."""

    def reached(self, value: float) -> bool:
        return value >= self.bound

    def __str__(self) -> str:
        return f">= {self.bound:g} x {self.beside}" if self.beside else f">= {self.bound:,g}"


GOALS: Final = (
    Goal("fillsync-1", 0.9, FLOOR),
    Goal("fillsync-1", 1.1),
    Goal("fillsync-32", 1.5),
    Goal("asyncio", 25, FLOOR),
    Goal("fillbatch-durable", 3),
    Goal("fillbatch", 3),
    Goal("fillseq", 1.5),
    Goal("fillrandom", 1.5),
    Goal("readhot", 3),
    Goal("readwarm", 1.2),
    Goal("readlarger", 0.6),
    Goal("readmissing", 1),
    Goal("readseq", 1.5),
    Goal("scan100", 1.2),
    Goal("ycsb-a", 1.5),
    Goal("ycsb-b", 1.5),
    Goal("ycsb-c", 1.5),
    Goal("ycsb-d", 1.5),
    Goal("ycsb-e", 1),
    Goal("ycsb-f", 1.5),
    Goal("recovery", 800_000, ""),  # only engines with a log are in this row
    Goal("recovery", 3),
    Goal("load", 3),
)
