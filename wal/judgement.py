"""Judging a log's files: what is there, what was torn by a crash, and what is damaged.

The judgement tells a crash from damage by *evidence*: the largest id that any valid header, a
witness or the marker says was durable. What cannot be read and lies above the evidence was never
acknowledged (a torn tail, cut off); below it, it is damage. ``docs/durability.md`` has the crash
tables.
"""

from __future__ import annotations

import os
from collections import deque
from dataclasses import dataclass, field
from typing import Final

from wal.checkpoint_marker import BLOCK, FIRST, NAME, Marker, decode_slots
from wal.errors import CorruptLogError
from wal.files import FileSystem
from wal.segments import format as fmt
from wal.segments.frames import Frame
from wal.segments.lifecycle import Segment, is_segment_number, parse_kept_name, segment_name

_LIVE: Final = "wal-"
_ABANDONED: Final = "abandoned-"


@dataclass
class Listing:
    """The names in a log's directory, sorted out."""

    segments: dict[int, str] = field(default_factory=dict)  # id -> file name, wal- and abandoned-
    spares: list[str] = field(default_factory=list)
    kept: dict[int, str] = field(default_factory=dict)  # id -> file name; none of recovery's

    @classmethod
    def of(cls, file_system: FileSystem, directory: str) -> Listing:
        """Read a directory. A directory that is missing is an empty log's."""
        listing = cls()
        names = file_system.list(directory) if file_system.exists(directory) else []
        for name in names:
            prefix = _LIVE if name.startswith(_LIVE) else _ABANDONED
            number = name.removeprefix(prefix)
            if name.startswith("free-"):
                listing.spares.append(name)
            elif name.startswith("kept-"):
                kept = parse_kept_name(name)
                if kept is not None:
                    listing.kept[kept[0]] = name
            elif number != name and is_segment_number(number):
                listing.segments[int(number)] = name
        listing.segments = dict(sorted(listing.segments.items()))
        return listing

    def kept_below(self, oldest_live: int) -> dict[int, str]:
        """The segments that are kept for reading, of those that the marker has passed."""
        return {each: name for each, name in self.kept.items() if each < oldest_live}


def read_marker(file_system: FileSystem, directory: str) -> tuple[Marker | None, bool]:
    """The newest valid marker of a log, and whether a slot is doubtful."""
    path = os.path.join(directory, NAME)
    if not file_system.exists(path):
        return None, False
    file = file_system.open(path, writable=False)
    try:
        return decode_slots(path, file.read_at(0, 2 * BLOCK))
    finally:
        file.close()


@dataclass
class Scanned:
    """One segment file as far as it could be read."""

    segment_id: int
    path: str
    abandoned: bool
    segment: Segment | None = None  # None where not even the header is valid
    damage: CorruptLogError | None = None
    id_limit: int = 0  # no id in it is as large, whatever has become of its header
    last_id: int = 0
    settled: int = 0  # the end of the last frame whose entries are all covered by the evidence
    torn: int = 0  # the bytes between the last frame and the last valid header behind it
    frames: list[Frame] = field(default_factory=list)  # kept for read-only openers


class Judgement:
    """What a log's files say, judged. ``problem`` is the first damage that nobody has abandoned."""

    def __init__(self, file_system: FileSystem, directory: str, *, read_only: bool) -> None:
        self.file_system = file_system
        self.directory = directory
        self.read_only = read_only
        self.scanned: list[Scanned] = []
        self.dead: list[tuple[int, str]] = []
        marker, self.doubtful = read_marker(file_system, directory)
        self.listing = Listing.of(file_system, directory)
        self.is_new = marker is None or (marker == FIRST and not self.listing.segments)
        self.marker = marker or Marker()
        if marker is None and self.listing.segments:
            path = os.path.join(directory, NAME)
            raise CorruptLogError(path, 0, "no valid checkpoint marker, but there are segments")
        self.last_id = self.marker.checkpointed_id
        self.evidence = max(self.marker.checkpointed_id, self.marker.durable_id)
        self.clean = self.marker.clean if not self.doubtful else None

    # -- reading -----------------------------------------------------------------------------------

    def read(self) -> None:
        """Open and scan every live segment. Damage is noted, not raised."""
        try:
            for segment_id, name in self.listing.segments.items():
                path = os.path.join(self.directory, name)
                if segment_id < self.marker.oldest_live:
                    self.dead.append((segment_id, path))
                else:
                    scanned = Scanned(segment_id, path, name.startswith(_ABANDONED))
                    self.scanned.append(scanned)
                    self._open(scanned)
            self._check_newest()
            for index, scanned in enumerate(self.scanned):
                following = self.scanned[index + 1 :]
                self._scan(scanned, following[0] if following else None)
            if self.scanned:
                self._judge_tail(self.scanned[-1])
            self._check_clean()
        except BaseException:
            self.close()
            raise

    def _open(self, scanned: Scanned) -> None:
        file = self.file_system.open(scanned.path, writable=not self.read_only)
        try:
            scanned.id_limit = fmt.id_limit(scanned.segment_id, file.size())
            header = fmt.decode_header(scanned.path, file.read_at(0, fmt.MAX_HEADER_BYTES))
            if header.segment_id != scanned.segment_id:
                reason = f"the header is that of segment {header.segment_id}"
                raise CorruptLogError(scanned.path, 0, reason)
            scanned.id_limit = header.id_limit
            if file.size() < header.file_size:
                reason = f"the file must have {header.file_size} bytes and has {file.size()}"
                raise CorruptLogError(scanned.path, file.size(), reason)
        except CorruptLogError as damage:
            file.close()
            scanned.damage = damage
            return
        except BaseException:
            file.close()
            raise
        scanned.segment = Segment(header, scanned.path, file)
        scanned.segment.abandoned = scanned.abandoned

    def _scan(self, scanned: Scanned, successor: Scanned | None) -> None:
        """Follow the chain through one segment: ``last_id`` and the evidence move on."""
        segment = scanned.segment
        limit = (
            successor.segment.header.previous_last_id if successor and successor.segment else None
        )
        if segment is not None and segment.header.previous_last_id != self.last_id:
            reason = (
                f"it follows entry {segment.header.previous_last_id}, "
                f"but the log before it ends at entry {self.last_id}: a segment is missing"
            )
            scanned.damage = CorruptLogError(scanned.path, 0, reason)
        if limit is not None:  # a segment is durable, whole, before its successor has its name
            self.evidence = max(self.evidence, limit)
        if segment is not None and scanned.damage is None:
            self._scan_frames(scanned, segment, limit)
            if limit is not None and self.last_id != limit:
                reason = f"entries {self.last_id + 1} to {limit} cannot be read"
                scanned.damage = CorruptLogError(scanned.path, segment.end, reason)
        if scanned.damage is not None and scanned.abandoned:
            self.last_id = limit if limit is not None else max(self.last_id, self.evidence)
        elif scanned.damage is not None and limit is not None:
            self.last_id = limit  # go on: the manager may abandon this segment
        scanned.last_id = self.last_id

    def _scan_frames(self, scanned: Scanned, segment: Segment, limit: int | None) -> None:
        start, stop = segment.end, segment.file.size()  # where an earlier scan of it ended
        uncovered: deque[tuple[int, int]] = deque()
        scanned.settled = start
        if limit is None or self.last_id < limit:
            for frame in segment.source.frames(start, stop, self.last_id):
                if limit is not None and frame.last_id > limit:
                    break
                if frame.last_id > self.last_id:  # it is not, for a witness
                    self.last_id = frame.last_id
                if frame.durable_id > self.evidence:
                    self.evidence = frame.durable_id
                segment.end = frame.end
                if self.read_only:
                    scanned.frames.append(frame)
                # A witness is covered by what is behind it: it has no entry, but is read through.
                covered_from = max(frame.first_id, frame.last_id)
                uncovered.append((covered_from, frame.end))
                if uncovered[0][0] <= self.evidence:
                    scanned.settled = uncovered.popleft()[1]
                if self.last_id == limit:
                    break
            while uncovered and uncovered[0][0] <= self.evidence:
                scanned.settled = uncovered.popleft()[1]
        segment.committed_end = segment.durable_end = segment.end
        segment.last_id = self.last_id

    def _judge_tail(self, scanned: Scanned) -> None:
        """Look behind the last frame for headers that prove that more was durable."""
        segment = scanned.segment
        exact = self.clean is not None and segment is not None and self._ends_as_left(segment)
        if segment is not None and scanned.damage is None and not exact:
            size = segment.file.size()
            behind = segment.source.evidence(segment.end, size)  # a torn frame too
            self.evidence = max(self.evidence, behind)
            if self.read_only and self.evidence > self.last_id:
                # What a writer was adding meanwhile: durable by this evidence, it is there now.
                self._scan_frames(scanned, segment, None)
        if self.evidence > self.last_id and scanned.damage is None and not scanned.abandoned:
            reason = (
                f"entries {self.last_id + 1} to {self.evidence} were durable and cannot be read"
            )
            offset = segment.end if segment is not None else 0
            scanned.damage = CorruptLogError(scanned.path, offset, reason)
        if scanned.abandoned:
            scanned.last_id = self.last_id = max(self.last_id, self.evidence)

    def _check_newest(self) -> None:
        """The newest segment that held an entry must exist, and any that the evidence needs."""
        newest = self.marker.newest_nonempty
        live = {scanned.segment_id for scanned in self.scanned}
        missing = newest >= self.marker.oldest_live and newest not in live and newest > 0
        if not missing and not live and self.evidence > self.last_id:
            missing, newest = True, newest or self.marker.oldest_live
        if missing:
            path = os.path.join(self.directory, segment_name(newest))
            raise CorruptLogError(path, 0, "the segment is missing")

    def _check_clean(self) -> None:
        """After a clean shutdown the log must end exactly where it was left."""
        if self.clean is None or self.problem() is not None:
            return
        last = self.scanned[-1] if self.scanned else None
        if last is not None and last.abandoned:
            self.clean = None
            return
        segment = last.segment if last is not None else None
        if segment is None or not self._ends_as_left(segment):
            path = os.path.join(self.directory, segment_name(self.clean.segment_id))
            reason = f"it was left with entry {self.clean.last_id} at {self.clean.length}"
            offset = min(segment.end, self.clean.length) if segment is not None else 0
            damage = CorruptLogError(path, offset, reason)
            if last is None:
                raise damage
            last.damage = damage

    def _ends_as_left(self, segment: Segment) -> bool:
        """Whether the log ends exactly where a clean shutdown left it: nothing lies behind that."""
        return (segment.id, segment.end, self.last_id) == self.clean

    def problem(self) -> CorruptLogError | None:
        """The first damage in a segment that is not abandoned."""
        for scanned in self.scanned:
            if scanned.damage is not None and not scanned.abandoned:
                return scanned.damage
        return None

    def next_id(self) -> int:
        """The first id that was certainly never given out."""
        known = max(self.marker.highest_id, self.last_id) + 1
        if self.clean is not None:
            return known
        return max([known, *(scanned.id_limit for scanned in self.scanned)])

    def close(self) -> None:
        """Close the files, where opening does not go on."""
        for scanned in self.scanned:
            if scanned.segment is not None:
                scanned.segment.file.close()
