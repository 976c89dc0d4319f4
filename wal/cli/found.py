"""What a look at a log has found: plain values, for the commands to print."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from wal.cli.pieces import chunks_in
from wal.errors import WalError
from wal.segments.format import SegmentHeader
from wal.segments.frames import Frame


class NotALogError(WalError):
    """There is no log in that directory."""


class BusyLogError(WalError):
    """The writer changed the log under every attempt to read it."""


@dataclass(frozen=True)
class Damage:
    """Something acknowledged that is not as it was."""

    path: str
    offset: int
    reason: str

    def values(self) -> dict[str, Any]:
        """For JSON."""
        return {"file": self.path, "offset": self.offset, "reason": self.reason}


@dataclass
class Island:
    """Frames one behind the other, without a flaw."""

    start: int
    end: int
    first_id: int = 0  # 0 while it holds no entry
    last_id: int = 0
    frames: int = 0
    entries: int = 0
    chunks: int = 0

    def count(self, frame: Frame) -> None:
        """Take in the frame that follows."""
        self.end = frame.end
        self.frames += 1
        self.entries += frame.last_id - frame.first_id + 1
        self.chunks += chunks_in(frame)
        if frame.last_id >= frame.first_id:
            self.first_id = self.first_id or frame.first_id
            self.last_id = frame.last_id


@dataclass
class SurveyedSegment:
    """One segment file, as far as it can be read."""

    segment_id: int
    name: str
    path: str
    state: str  # live, dead, abandoned or kept
    size: int = 0
    raw_header: bytes = b""
    header: SegmentHeader | None = None
    damage: Damage | None = None
    islands: list[Island] = field(default_factory=list)
    limit: int | None = None  # a successor's previous_last_id: nothing above it counts
    evidence: int = 0
    torn: int = 0
    unreadable: int = 0  # blocks that the disk could not read

    @property
    def start(self) -> int:
        """Where the first frame belongs."""
        return self.header.size if self.header else 0

    @property
    def sound_part(self) -> Island | None:
        """The frames that follow each other from the start on."""
        islands = self.islands
        return islands[0] if islands and islands[0].start == self.start else None

    @property
    def end(self) -> int:
        """Where they end."""
        part = self.sound_part
        return part.end if part else self.start

    @property
    def last_id(self) -> int:
        """The id that the log has reached there."""
        previous = self.header.previous_last_id if self.header else 0
        part = self.sound_part
        return max(previous, part.last_id) if part else previous

    @property
    def stop(self) -> int:
        """Behind the last frame that can be read, gaps or not."""
        return self.islands[-1].end if self.islands else self.end

    def total(self, what: str) -> int:
        """How many ``frames``, ``entries`` or ``chunks`` can be read, gaps or not."""
        return sum(getattr(island, what) for island in self.islands)
