"""How much is measured beside the peers: the full run, and a quick one that shows that it works."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from benches.peers.engines import MIB


@dataclass(frozen=True)
class Sizes:
    keys: int = 1_000_000
    repeats: int = 3
    seconds: float = 2.0  # at most in a cell that counts what it has done
    short_seconds: float = 1.0  # where it is no less told by half of that
    sync_seconds: float = 0.8  # in a cell that waits for the disk
    floor_seconds: float = 0.3
    reads: int = 300_000
    scans: int = 20_000
    hot_keys: int = 10_000
    logged_puts: int = 1_000_000  # in the log that is recovered
    records: int = 200_000  # of YCSB
    record_bytes: int = 1000
    operations: int = 100_000  # of each workload
    tasks: int = 1000
    course_seconds: float = 20.0  # of watching the throughput over time
    most_growth: int = 10_000_000  # keys, where the cost is measured against their number
    cache_bytes: int = 512 * MIB  # for reading after reopening and for YCSB
    memtable_bytes: int = 64 * MIB


FULL: Final = Sizes()
QUICK: Final = Sizes(
    keys=5_000,
    repeats=1,
    seconds=0.05,
    short_seconds=0.05,
    sync_seconds=0.03,
    floor_seconds=0.02,
    reads=2_000,
    scans=50,
    hot_keys=1_000,
    logged_puts=2_000,
    records=1_000,
    operations=1_000,
    tasks=20,
    course_seconds=0.6,
    most_growth=2_000,
)
