"""What is measured, as figures with names, and the goals: by the name of the figure, as data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

TAIL: Final = 6.0
"""A p99 above so many times its p50 is a long tail."""


@dataclass(frozen=True)
class Figure:
    """One measured number. ``value`` is None where the platform cannot tell, or without peers."""

    name: str
    value: float | None
    unit: str
    details: dict[str, float] = field(default_factory=dict)

    @property
    def noisy(self) -> bool:
        """Whether the floor stalled, so that a ratio to it proves nothing: others used the disk.

        A group of commits waits once for a stall that the floor waits for again and again: such a
        ratio looks better than it is.
        """
        floor = self.details.get("floor_p50_ms"), self.details.get("floor_p99_ms")
        return floor[0] is not None and floor[1] is not None and floor[1] > TAIL * floor[0]


@dataclass(frozen=True)
class Goal:
    bound: float
    at_most: bool = False

    def reached(self, value: float) -> bool:
        return value <= self.bound if self.at_most else value >= self.bound

    def __str__(self) -> str:
        return f"{'<=' if self.at_most else '>='} {self.bound:,g}"


GOALS: Final = {
    # Ratios to the floor of the same size.
    "fsync commits/256 B/1 threads": Goal(0.87),
    "fsync commits/1 KiB/1 threads": Goal(0.87),
    "fsync commits/4 KiB/1 threads": Goal(0.87),
    "fsync commits/1 MiB/1 threads": Goal(0.75),
    "fsync commits/256 B/16 threads": Goal(5.5),
    "fsync commits/4 KiB/16 threads": Goal(4.5),
    "fsync commits/1 MiB/16 threads": Goal(0.9),
    "fsync commits/256 B/32 threads": Goal(7),
    # Cells of the above whose p99 is above 6 times their p50 while the floor's is not.
    "fsync commits/long tails": Goal(0, at_most=True),
    "event loop/256 B/1000 tasks": Goal(25),
    # Per second.
    "buffered appends/128 B": Goal(500_000),
    "buffered appends/128 B/on_commit": Goal(400_000),
    "buffered appends/128 B/committed": Goal(400_000),
    "recovery/128 B/count": Goal(2_000_000),
    "recovery/128 B/read_all": Goal(2_000_000),
    "recovery/256 B/count": Goal(2_000_000),
    "recovery/256 B/read_all": Goal(2_000_000),
    "recovery/streamed 128 B/count": Goal(350_000),
    "recovery/streamed 128 B/read_all": Goal(350_000),
    "random reads/256 B/streamed": Goal(150_000),
    # GB per second.
    "recovery/1 MiB/count": Goal(1.5),
    "recovery/1 MiB/read_all": Goal(1.5),
    # MiB above the memory at the start.
    "streaming memory": Goal(32, at_most=True),
    # Of the store. Milliseconds; the ratio to opening a small one; MiB.
    "store opening/kvstore/many keys": Goal(50, at_most=True),
    "store opening/kvstore/many to few": Goal(1.5, at_most=True),
    "store opening/kvstore/memory": Goal(60, at_most=True),
    # MiB that are resident at the peak, above cache_bytes.
    "store larger than cache/kvstore/memory": Goal(100, at_most=True),
    # Ratios of rates; bytes written to bytes put; tables of disjoint keys count as one run.
    "store random puts/kvstore/last to early": Goal(0.4),
    "store random puts/kvstore/to the best peer": Goal(1),
    "store random puts/kvstore/write amplification": Goal(8, at_most=True),
    "store random puts/kvstore/most runs": Goal(12, at_most=True),
    # With checkpoints and compactions to without.
    "store put latency/p99.9": Goal(5, at_most=True),
    "store put latency/throughput": Goal(0.6),
    # Microseconds; per second; the ratio of 32 threads to one.
    "store transactions/snapshot": Goal(5, at_most=True),
    "store transactions/empty": Goal(8, at_most=True),
    "store transactions/read-modify-write": Goal(50_000),
    "store transactions/fsync, threads to one": Goal(4),
}
