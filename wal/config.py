"""How a log is opened: :class:`Configuration` and the three durabilities."""

from __future__ import annotations

import enum
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from wal.files import FileSystem
from wal.files.standard import StandardFileSystem

if TYPE_CHECKING:
    from wal.log import WriteAheadLog
    from wal.log_manager import LogManager


class Durability(enum.Enum):
    """What a commit waits for. Each commit may choose its own; see :meth:`WriteAheadLog.append`."""

    FSYNC = "fsync"
    """The entry, and every earlier one, survives power loss."""
    WRITE = "write"
    """The entry is handed to the operating system: it survives a killed process."""
    BUFFER = "buffer"
    """The entry is in this process's memory; written and synced within ``flush_interval``."""

    def __init__(self, value: str) -> None:
        self.rank = ("buffer", "write", "fsync").index(value)
        """The stronger the durability, the higher: what the commit path compares."""


@dataclass(frozen=True)
class Configuration:
    """Everything that can be chosen about a log. Frozen; values are checked when it is made.

    >>> Configuration("a", buffer_bytes=0)
    Traceback (most recent call last):
        ...
    ValueError: buffer_bytes must be at least 4096, not 0
    """

    directory: str | os.PathLike[str]
    """Where the log's files live; created if missing. Nothing else belongs there."""
    file_system: FileSystem = field(default_factory=StandardFileSystem, repr=False)
    preallocate_bytes: int = 32 << 20
    """The length at which segment files are created, zero-filled (at least 4 KiB)."""
    checkpoint_after_bytes: int | None = None
    """A segment with this many bytes in it is sealed and checkpointed; None: when it is full."""
    buffer_bytes: int = 4 << 20
    """How much may gather in memory before who adds to it has to write (at least 4 KiB)."""
    version_info: bytes = b""
    """0 to 255 bytes of yours in each segment's header, for ``should_recover_segment``."""
    durability: Durability = Durability.FSYNC
    """What commits wait for unless they say otherwise."""
    flush_interval: float = 0.05
    """Seconds after which BUFFER and WRITE commits are synced, and idleness is witnessed."""
    max_sealed_segments: int = 8
    """Beyond so many segments waiting for their checkpoint, writers wait (at least 1)."""
    keep_free_segments: int = 2
    """How many recycled files are kept for reuse; more are removed."""
    retain_bytes: int = 0
    """At least so many bytes of checkpointed segments stay readable through ``entries()``.

    Whole segments are kept, as ``kept-`` files, while this or ``retain_seconds`` asks for them.
    """
    retain_seconds: float = 0.0
    """A checkpointed segment stays readable through ``entries()`` for so long after its end."""
    lock_timeout: float = 0.0
    """Seconds to wait for another writer to let go of the log."""
    read_only: bool = False
    """Open beside a live writer: recovers and reads, takes no lock, writes nothing.

    It shows what is known to be durable: up to the last commit that a later one, or the witness of
    an idle log, has confirmed. So it may be about ``flush_interval`` behind the writer.
    """

    def __post_init__(self) -> None:
        directory = os.fspath(self.directory)
        if not isinstance(directory, str):
            raise TypeError(f"directory must be a str or a path, not {type(directory).__name__}")
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if value is None and name == "checkpoint_after_bytes":
                continue
            if not isinstance(value, int) or isinstance(value, bool):
                raise TypeError(f"{name} must be an int, not {type(value).__name__}")
            if value < least:
                raise ValueError(f"{name} must be at least {least}, not {value}")
        for name in ("flush_interval", "retain_seconds", "lock_timeout"):
            value = getattr(self, name)
            if not isinstance(value, (int, float)) or isinstance(value, bool):
                raise TypeError(f"{name} must be a number of seconds, not {type(value).__name__}")
            if not 0 <= value < float("inf"):
                raise ValueError(f"{name} must be a finite number of seconds, not {value}")
        if self.flush_interval == 0:
            raise ValueError("flush_interval must be above 0")
        if not isinstance(self.version_info, bytes):
            raise TypeError(f"version_info must be bytes, not {type(self.version_info).__name__}")
        if len(self.version_info) > 255:
            raise ValueError(f"version_info must be 0 to 255 bytes, not {len(self.version_info)}")
        if not isinstance(self.durability, Durability):
            raise TypeError(
                f"durability must be a wal.Durability, not {type(self.durability).__name__}"
            )

    @property
    def seal_bytes(self) -> int:
        """The fill at which a segment is sealed."""
        if self.checkpoint_after_bytes is None:
            return self.preallocate_bytes
        return min(self.checkpoint_after_bytes, self.preallocate_bytes)

    def open(self, manager: LogManager) -> WriteAheadLog:
        """Open the log, recovering through ``manager``; see :meth:`WriteAheadLog.recover`."""
        from wal.log import WriteAheadLog  # the composition root imports this module

        return WriteAheadLog.open(self, manager)


_LEAST = {
    "preallocate_bytes": 4096,
    "checkpoint_after_bytes": 1,
    "buffer_bytes": 4096,
    "max_sealed_segments": 1,
    "keep_free_segments": 0,
    "retain_bytes": 0,
}
