"""How a store is opened: :class:`Options`, checked once, and the flags of ``dbm``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from wal import Durability
from wal.files import FileSystem, StandardFileSystem

FLAGS: Final = ("r", "w", "c", "n")
LEAST_MEMTABLE_BYTES: Final = 64 << 10
ITEM_OVERHEAD: Final = 190
"""Bytes of memory that a recent mutation takes beside its key and value, roughly."""

COMPRESSIONS: Final = (None, "zlib", "zstd", "lz4")
LEAST_LARGE_VALUE: Final = 1 << 10
LEAST_SEGMENT_BYTES: Final = 32 << 10
_USUAL_SEGMENT: Final = 8 << 20  # smaller ones make loading slower: more tables are merged
_LARGEST_SEGMENT: Final = 64 << 20
_LEAST_SEALED: Final = 4


def check_durability(durability: object) -> None:
    """Raise TypeError for what is none."""
    if not isinstance(durability, Durability):
        name = type(durability).__name__
        raise TypeError(f"durability must be a kvstore.Durability, not {name}")


@dataclass(frozen=True)
class Options:
    """Everything that can be chosen about an open store, beside its path and flag.

    >>> Options(memtable_bytes=1)
    Traceback (most recent call last):
        ...
    ValueError: memtable_bytes must be at least 65536, not 1
    """

    durability: Durability = Durability.FSYNC
    """What writes wait for unless they say otherwise."""
    cache_bytes: int = 64 << 20
    """How much memory rows and blocks of tables may take while they are kept for later reads."""
    memtable_bytes: int = 64 << 20
    """About how much memory recent mutations take before they are moved to a table."""
    large_value_bytes: int = 64 << 10
    """Values of so many bytes and more stay out of memory: in the log, later in tables' blobs."""
    compression: str | None = None
    """How the blocks of new tables are compressed: None, ``"zlib"``, ``"zstd"`` or ``"lz4"``."""
    retain_bytes: int = 0
    """How much of the log is kept for :meth:`Store.changes` after it was checkpointed."""
    retain_seconds: float = 0.0
    """For how long the log is kept for :meth:`Store.changes` after it was checkpointed."""
    processes: bool = True
    """Whether tables are built and merged in processes of their own where that pays."""
    lock_timeout: float = 0.0
    """Seconds to wait for another writer to let go of the store."""
    file_system: FileSystem = field(default_factory=StandardFileSystem, repr=False)
    """Where the store's files live."""
    log_segment_bytes: int | None = None
    """The length of a file of the log; None: 8 MiB, or an eighth of ``memtable_bytes``."""

    def __post_init__(self) -> None:
        check_durability(self.durability)
        _check_size("memtable_bytes", self.memtable_bytes, LEAST_MEMTABLE_BYTES)
        _check_size("cache_bytes", self.cache_bytes, 0)
        _check_size("large_value_bytes", self.large_value_bytes, LEAST_LARGE_VALUE)
        _check_size("retain_bytes", self.retain_bytes, 0)
        _check_seconds("retain_seconds", self.retain_seconds)
        _check_seconds("lock_timeout", self.lock_timeout)
        if self.compression not in COMPRESSIONS:
            known = ", ".join(map(repr, COMPRESSIONS))
            raise ValueError(f"compression must be one of {known}, not {self.compression!r}")
        if self.log_segment_bytes is not None:
            _check_size("log_segment_bytes", self.log_segment_bytes, LEAST_SEGMENT_BYTES)

    @property
    def segment_bytes(self) -> int:
        """How much of the log is checkpointed at a time: it bounds the bytes of keys and values.

        >>> Options().segment_bytes >> 20, Options(memtable_bytes=64 << 10).segment_bytes >> 10
        (8, 32)
        """
        chosen = self.log_segment_bytes
        if chosen is None:
            chosen = min(max(_USUAL_SEGMENT, self.memtable_bytes // 8), _LARGEST_SEGMENT)
        return min(chosen, self.memtable_bytes // 2)

    @property
    def max_sealed_segments(self) -> int:
        """How many segments may await their checkpoint before writers have to wait."""
        return max(_LEAST_SEALED, 2 * self.memtable_bytes // self.segment_bytes)

    @property
    def segment_items(self) -> int:
        """How many mutations are checkpointed at a time: it bounds what they take besides."""
        return self.memtable_bytes // 2 // ITEM_OVERHEAD


def _check_size(name: str, size: object, least: int) -> None:
    if not isinstance(size, int) or isinstance(size, bool):
        raise TypeError(f"{name} must be an int, not {type(size).__name__}")
    if size < least:
        raise ValueError(f"{name} must be at least {least}, not {size}")


def _check_seconds(name: str, seconds: object) -> None:
    if not isinstance(seconds, (int, float)) or isinstance(seconds, bool):
        raise TypeError(f"{name} must be a number of seconds, not {type(seconds).__name__}")
    if not seconds >= 0:
        raise ValueError(f"{name} must not be negative, but is {seconds}")


def check_flag(flag: str) -> str:
    """A flag of ``dbm``; ValueError for anything else."""
    if flag not in FLAGS:
        raise ValueError(f"flag must be one of {', '.join(map(repr, FLAGS))}, not {flag!r}")
    return flag
