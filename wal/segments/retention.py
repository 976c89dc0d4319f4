"""Checkpointed segments that stay for later reading, under ``kept-`` names.

For recovery they do not exist: they lie below the marker's oldest live segment, whatever they hold.
A name says which entries a file ends with, the file's header which it follows; so the kept segments
are a chain that ends at the oldest live one, and whatever lies behind a gap in it is dropped.
"""

from __future__ import annotations

import logging
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from wal.errors import CorruptLogError, FormatVersionError
from wal.files import File, FileSystem
from wal.segments import format as fmt
from wal.segments.kept_file import KeptFile
from wal.segments.lifecycle import Segment, SegmentRegistry, State, kept_name
from wal.telling import tell

logger = logging.getLogger("wal.retention")

_now: Callable[[], int] = time.time_ns
_SECOND: Final = 1_000_000_000

Finder = Callable[[], Segment | None]


class Retention:
    """Which segments are kept, and until when. Opening and the checkpointer's thread use it alone.

    A segment is kept while ``retain_bytes`` are not reached by the newer kept ones, and for
    ``retain_seconds`` after its successor was begun.
    """

    def __init__(
        self,
        files: FileSystem,
        directory: str,
        registry: SegmentRegistry,
        retain_bytes: int,
        retain_seconds: float,
    ) -> None:
        self._files = files
        self._directory = directory
        self._registry = registry
        self._retain_bytes = retain_bytes
        self._retain_ns = int(retain_seconds * _SECOND)
        self._kept: deque[Segment] = deque()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._kept)

    def wants(self, segment: Segment) -> bool:
        """Whether a checkpointed segment is to be kept."""
        return (
            (self._retain_bytes > 0 or self._retain_ns > 0)
            and segment.has_entries
            and not segment.abandoned
            and self._registry.holds(segment)
        )

    def keep(self, segment: Segment) -> None:
        """Give a segment its new name. Pins do not matter. May be called again after an error."""
        path = os.path.join(self._directory, kept_name(segment.id, segment.last_id))
        if segment.path != path:
            segment.rename(self._files, path)
        self._files.sync_directory(self._directory)
        file, used = segment.file, max(segment.end, segment.durable_end)
        length = file.size()
        if used * 2 <= length:  # sealed early: most of the room may be given back
            file.truncate(used)
            length = used
        self._registry.keep(segment, KeptFile(self._files, path, length, file))
        self._add(segment)

    def _add(self, segment: Segment) -> None:
        self._kept.append(segment)
        self._bytes += segment.file.size()

    # -- their end ---------------------------------------------------------------------------------

    def expired(self) -> list[Segment]:
        """The segments that need not be kept any longer, oldest first; kept no more by this."""
        found = []
        while self._kept and self._due() <= 0:
            oldest = self._kept.popleft()
            self._bytes -= oldest.file.size()
            found.append(oldest)
        return found

    def pause(self) -> float | None:
        """Seconds until the oldest segment's time is over; None if no time says when."""
        due = self._due() if self._kept else None
        return None if due is None or due == float("inf") else max(due, 0.0)

    def _due(self) -> float:
        """Seconds until the oldest segment need not be kept."""
        oldest = self._kept[0]
        if self._bytes - oldest.file.size() < self._retain_bytes:
            return float("inf")  # until there are newer ones
        following = self._registry.successor(oldest)
        ended = _now() if following is None else following.header.created_unix_ns
        return (ended + self._retain_ns - _now()) / _SECOND

    def reopen(self, segment: Segment) -> bool:
        """Have a released segment's file open for writing; False if somebody took it away."""
        if isinstance(segment.file, KeptFile):
            try:
                segment.file = self._files.open(segment.path)
            except FileNotFoundError:
                return False
        return True

    def drop_held(self, segments: Iterable[Segment]) -> None:
        """Drop those whose time is over and that readers hold, who end with the log that closes.

        Newer ones may have gone. So the next opening would find a gap, and take it for a loss.
        """
        for segment in segments:
            name = os.path.basename(segment.path)
            if isinstance(segment.file, KeptFile) and name.startswith("kept-"):
                self._drop(name)

    # -- at opening --------------------------------------------------------------------------------

    def adopt(self, last_id: int, kept: Mapping[int, str], dead: Sequence[Segment]) -> None:
        """Go on keeping what a former process kept, up to the entry ``last_id``.

        ``dead`` segments are on their way to be kept; they come into the registry already. Nothing
        that is wrong with a kept file is an error: it is dropped, with all that is older.
        """
        chain = Chain()
        if self._retain_bytes or self._retain_ns:
            finders: dict[int, Finder] = {segment.id: _ready(segment) for segment in dead}
            for segment_id, name in kept.items():
                finders.setdefault(segment_id, kept_finder(self._files, self._directory, name))
            chain.follow(last_id, finders)
        self._registry.add_before(chain.segments)
        for segment in chain.segments:
            if segment.state is State.KEPT:
                self._add(segment)
        if chain.unreadable is None:
            for name in sorted(set(kept.values()) - chain.names()):
                self._drop(name)

    def _drop(self, name: str) -> None:
        path = os.path.join(self._directory, name)
        try:
            self._files.remove(path)
        except OSError as error:
            tell(logger.warning, "could not remove %s: %s", path, error)


@dataclass
class Chain:
    """Segments that follow each other without a gap, up to the one that follows the newest."""

    segments: list[Segment] = field(default_factory=list)  # oldest first
    unreadable: Exception | None = None  # what ended it, if that may be gone at the next try
    gap: bool = False  # it ended though older segments are there
    damage: CorruptLogError | None = None  # what ended it, if that is not as it was written
    beside_writer: bool = False  # who may keep an older file, for a reader, than it has dropped

    def follow(self, last_id: int, finders: Mapping[int, Finder]) -> None:
        """Find segments, from the newest on, of which the newest ends with ``last_id``."""
        for segment_id in sorted(finders, reverse=True):
            segment = self._find(finders[segment_id])
            if segment is None or segment.last_id != last_id:
                self.gap = self.unreadable is None
                if segment is not None and segment.state is State.KEPT:
                    self._tell(segment, last_id)
                break
            self.segments.append(segment)
            last_id = segment.header.previous_last_id
        self.segments.reverse()

    def _tell(self, segment: Segment, last_id: int) -> None:
        if not self.beside_writer:
            message = "%s: entries %d to %d behind it are gone: it is dropped"
            tell(logger.warning, message, segment.path, segment.last_id + 1, last_id)

    def _find(self, finder: Finder) -> Segment | None:
        try:
            return finder()
        except CorruptLogError as damage:
            self.damage = damage
            tell(logger.warning, "%s; the kept entries up to there are dropped", damage)
        except FileNotFoundError as error:  # taken by its writer, beside whom this is read
            self.unreadable = error
        except (OSError, FormatVersionError) as error:
            tell(logger.warning, "kept entries cannot be read: %s", error)
            self.unreadable = error
        return None

    def names(self) -> set[str]:
        """The names of the files."""
        return {os.path.basename(segment.path) for segment in self.segments}


def _ready(segment: Segment) -> Finder:
    return lambda: segment


def kept_finder(files: FileSystem, directory: str, name: str) -> Finder:
    """What finds a kept segment: its header must be that of its name. No frame of it is read."""

    def find() -> Segment:
        path = os.path.join(directory, name)
        file = files.open(path, writable=False)
        try:
            header = fmt.decode_header(path, file.read_at(0, fmt.MAX_HEADER_BYTES))
            length = file.size()
        finally:
            file.close()
        last_id = int(name.rpartition("-")[2])
        if kept_name(header.segment_id, last_id) != name or last_id <= header.previous_last_id:
            raise CorruptLogError(path, 0, f"the header is that of segment {header.segment_id}")
        segment = Segment(header, path, KeptFile(files, path, length))
        segment.end = segment.committed_end = segment.durable_end = length
        segment.last_id = last_id
        segment.state = State.KEPT
        return segment

    return find


def dead_segment(file: File, path: str, segment_id: int) -> Segment | None:
    """A segment that the marker has passed; None if its file is not its own any more."""
    try:
        header = fmt.decode_header(path, file.read_at(0, fmt.MAX_HEADER_BYTES))
    except (CorruptLogError, FormatVersionError):
        return None
    if header.segment_id != segment_id:
        return None
    segment = Segment(header, path, file)
    for frame in segment.source.frames(header.size, file.size(), header.previous_last_id):
        segment.end = segment.committed_end = segment.durable_end = frame.end
        segment.last_id = max(segment.last_id, frame.last_id)
    segment.abandoned = not os.path.basename(path).startswith("wal-")
    segment.state = State.CHECKPOINTED
    return segment
