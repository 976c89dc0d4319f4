"""How much is measured: the full run, and a quick one that only shows that everything works."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, TypeVar

KIB: Final = 1 << 10
MIB: Final = 1 << 20
MILLION: Final = 1_000_000
ROOT: Final = Path(__file__).resolve().parent.parent

S = TypeVar("S")


@dataclass(frozen=True)
class Settings:
    # Of the log.
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

    # Of the store.
    engines: tuple[str, ...] = ("kvstore", "lmdb", "plyvel", "rocksdict", "sqlite3")
    store_repeats: int = 3
    opened_keys: int = MILLION  # in the store that is opened, beside one with few
    opened_keys_few: int = 100_000
    openings: int = 5
    cached_keys: int = MILLION  # in the store that is four times larger than its cache
    cached_gets: int = 100_000  # in each round
    random_puts: int = MILLION
    timed_puts: int = 250_000  # different ones, in each round of measuring latencies
    transactions: int = 20_000
    transaction_threads: int = 32
    transaction_seconds: float = 0.5
    table_keys: int = MILLION  # in the store that the plain throughput of reading is measured with
    table_puts: int = 50_000
    table_gets: int = 50_000
    table_scans: int = 1_000


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
    store_repeats=1,
    opened_keys=5_000,
    opened_keys_few=1_000,
    openings=1,
    cached_keys=5_000,
    cached_gets=2_000,
    random_puts=20_000,
    timed_puts=5_000,
    transactions=500,
    transaction_seconds=0.05,
    table_keys=5_000,
    table_puts=1_000,
    table_gets=1_000,
    table_scans=50,
)


def size(argument: str) -> tuple[str, float]:
    """The name and the number of ``name=number``."""
    name, _, number = argument.partition("=")
    return name, float(number)


def with_sizes(settings: S, sizes: dict[str, float]) -> S:
    """The settings with some numbers changed; ValueError for a name that is not one of a number."""
    changed: dict[str, Any] = {}
    for name, size in sizes.items():
        present = getattr(settings, name, None)
        if not isinstance(present, (int, float)):
            raise ValueError(f"there is no number called {name}")
        changed[name] = type(present)(size)
    return replace(settings, **changed)  # type: ignore[type-var]


def at_large(settings: Settings) -> Settings:
    """The same with ten million keys where the goals speak of so many."""
    ten = 10 * MILLION
    return replace(settings, opened_keys=ten, cached_keys=ten, random_puts=ten)


def label(size: int) -> str:
    """A size as it stands in the name of a figure."""
    if size % MIB == 0:
        return f"{size // MIB} MiB"
    return f"{size // KIB} KiB" if size % KIB == 0 else f"{size} B"
