"""How much is measured: the full run, and a quick one that only shows that everything works."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

KIB: Final = 1 << 10
MIB: Final = 1 << 20


@dataclass(frozen=True)
class Settings:
    rounds: int = 7  # of a floor and a cell
    repeats: int = 5  # of what is compared with no floor
    floor_seconds: float = 0.15
    cell_seconds: float = 0.25
    sizes: tuple[int, ...] = (256, KIB, 4 * KIB, MIB)
    threads: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64)
    tasks: int = 1000
    loop_seconds: float = 1.0
    appends: int = 300_000
    recovered_small: int = 1_000_000  # entries of 128 bytes
    recovered_medium: int = 700_000  # entries of 256 bytes
    recovered_large: int = 200  # entries of 1 MiB
    recovered_streamed: int = 300_000  # streamed entries of 128 bytes
    recovery_segment_bytes: int = 256 * MIB
    chunks_to_read: int = 100_000
    reads: int = 50_000
    streamed_bytes: int = 1024 * MIB


FULL: Final = Settings()
QUICK: Final = Settings(
    rounds=1,
    repeats=1,
    floor_seconds=0.01,
    cell_seconds=0.01,
    loop_seconds=0.05,
    appends=5_000,
    recovered_small=5_000,
    recovered_medium=5_000,
    recovered_large=3,
    recovered_streamed=1_000,
    recovery_segment_bytes=8 * MIB,
    chunks_to_read=1_000,
    reads=1_000,
    streamed_bytes=128 * MIB,
)


def label(size: int) -> str:
    """A size as it stands in the name of a figure."""
    if size % MIB == 0:
        return f"{size // MIB} MiB"
    return f"{size // KIB} KiB" if size % KIB == 0 else f"{size} B"
