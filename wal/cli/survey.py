"""A careful look at a log: what recovery would judge, and what lies beyond the first flaw.

It writes nothing and takes no lock, so a writer may be at work. What the writer does meanwhile can
look like damage; so a frame that cannot be read is read again after the evidence against it, and
before anything is called damage the marker, the names and the headers must be what they were when
the look began. Else it begins again.
"""

from __future__ import annotations

import os
import time
from typing import Final

from wal.checkpoint_marker import BLOCK, NAME, Marker, decode_slot
from wal.cli.found import BusyLogError, Damage, Island, NotALogError, SurveyedSegment
from wal.cli.pieces import ForgivingFile, Gap, Piece, sound_frames, walk
from wal.errors import CorruptLogError
from wal.files import FileSystem
from wal.judgement import Listing
from wal.segments import format as fmt
from wal.segments.lifecycle import parse_kept_name, segment_name
from wal.segments.reader import FrameSource

_ATTEMPTS: Final = 20
_PAUSE: Final = 0.005


class Survey:
    """What was found in one look at a log's directory."""

    def __init__(self, files: FileSystem, directory: str) -> None:
        self.files = files
        self.directory = directory
        self.raw_slots = _read_slots(files, directory)
        self.names = Listing.of(files, directory)
        path = os.path.join(directory, NAME)
        self.slots = [decode_slot(path, slot) for slot in self.raw_slots]
        valid = [slot for slot in self.slots if slot is not None]
        self.marker: Marker | None = max(valid, key=lambda slot: slot.sequence, default=None)
        self.damages: list[Damage] = []
        self.segments: list[SurveyedSegment] = []
        marker = self.marker or Marker()
        self.evidence = max(marker.checkpointed_id, marker.durable_id)
        self.last_id = marker.checkpointed_id

    @property
    def sound(self) -> bool:
        """Whether the log opens with all that was acknowledged."""
        return not self.damages

    @property
    def doubtful_slots(self) -> list[bool]:
        """Of each slot whether it is neither valid nor empty: a write of it was torn."""
        return [
            slot is None and any(raw) for slot, raw in zip(self.slots, self.raw_slots, strict=True)
        ]

    @property
    def clean(self) -> bool:
        """Whether the log was shut down cleanly and nobody has opened it for writing since."""
        marker = self.marker
        return marker is not None and marker.clean is not None and not any(self.doubtful_slots)

    def live(self) -> list[SurveyedSegment]:
        """The segments that count, oldest first: live ones, and abandoned ones in their place."""
        return [segment for segment in self.segments if segment.state in ("live", "abandoned")]

    # -- reading -----------------------------------------------------------------------------------

    def read(self) -> None:
        """Look at every segment, in order, and judge."""
        oldest = self.marker.oldest_live if self.marker else 0
        for segment_id, name in self.names.segments.items():
            state = "live" if name.startswith("wal-") else "abandoned"
            state = "dead" if segment_id < oldest else state
            path = os.path.join(self.directory, name)
            segment = SurveyedSegment(segment_id, name, path, state)
            self.segments.append(segment)
            self._read_header(segment)
        self._read_kept()
        self._check_marker()
        live = self.live()
        if self.marker is None:
            self._begin_without_marker(live)
        for index, segment in enumerate(live):
            self._follow(segment, live[index + 1] if index + 1 < len(live) else None)
        for segment in self.segments:
            if segment.state in ("dead", "kept") and segment.header is not None:
                self._scan(segment, last=False)
                self._check_end(segment, last=False)
        self._check_clean(live)

    def _read_kept(self) -> None:
        """The segments that are kept for reading: whatever is wrong with them, the log opens."""
        kept = []
        for segment_id, name in sorted(self.names.kept.items()):
            path = os.path.join(self.directory, name)
            segment = SurveyedSegment(segment_id, name, path, "kept")
            segment.limit = (parse_kept_name(name) or (0, 0))[1]
            self._read_header(segment)
            kept.append(segment)
        self.segments[:0] = kept

    def _read_header(self, segment: SurveyedSegment) -> None:
        file = self._open(segment)
        try:
            segment.size = file.size()
            segment.raw_header = file.read_at(0, fmt.MAX_HEADER_BYTES)
            header = fmt.decode_header(segment.path, segment.raw_header)
            segment.raw_header = segment.raw_header[: header.size]
            if header.segment_id != segment.segment_id:
                reason = f"the header is that of segment {header.segment_id}"
                raise CorruptLogError(segment.path, 0, reason)
            segment.header = header
            if segment.size < header.file_size and segment.state != "kept":
                reason = f"the file must have {header.file_size} bytes and has {segment.size}"
                raise CorruptLogError(segment.path, segment.size, reason)
        except CorruptLogError as error:
            segment.damage = Damage(error.path, error.offset, error.reason)
        finally:
            file.close()

    def _open(self, segment: SurveyedSegment) -> ForgivingFile:
        return ForgivingFile(self.files.open(segment.path, writable=False))

    def _follow(self, segment: SurveyedSegment, successor: SurveyedSegment | None) -> None:
        """Follow the chain through one segment, as recovery does."""
        header = segment.header
        if successor is not None and successor.header is not None:
            segment.limit = successor.header.previous_last_id
        if header is not None:
            if header.previous_last_id != self.last_id:
                reason = (
                    f"it follows entry {header.previous_last_id}, but the log before it ends at "
                    f"entry {self.last_id}: a segment is missing"
                )
                segment.damage = segment.damage or Damage(segment.path, 0, reason)
            self._scan(segment, last=successor is None)
            self.last_id = max(self.last_id, segment.last_id)
            self.evidence = max(self.evidence, segment.evidence)
            self._check_end(segment, last=successor is None)
        if segment.state == "abandoned" or segment.damage is not None:
            unknown = self.evidence if segment.state == "abandoned" else self.last_id
            self.last_id = max(self.last_id, unknown) if segment.limit is None else segment.limit
        if segment.damage is not None and segment.state != "abandoned":
            self.damages.append(segment.damage)

    def _check_end(self, segment: SurveyedSegment, *, last: bool) -> None:
        due = self.evidence if last else segment.limit
        if due is None or segment.damage is not None:
            return
        short = segment.last_id < due if last else segment.last_id != due
        if short:
            known = " were durable and" if last else ""
            reason = f"entries {segment.last_id + 1} to {due}{known} cannot be read"
            segment.damage = Damage(segment.path, segment.end, reason)

    def _scan(self, segment: SurveyedSegment, *, last: bool) -> None:
        """Read all of a segment."""
        header = segment.header
        assert header is not None
        file = self._open(segment)
        try:
            source = FrameSource(file, segment.path, header)
            self._scan_sound_part(segment, source)
            if last:
                self._scan_tail(segment, source)
            for piece in walk(source, segment.end, segment.size, segment.last_id, segment.limit):
                self._collect(segment, piece)
            segment.unreadable = len(file.unreadable)
        finally:
            file.close()

    def _scan_sound_part(self, segment: SurveyedSegment, source: FrameSource) -> None:
        """Take the frames up to the first flaw; called again, those that were written since."""
        start, after = segment.end, segment.last_id
        for frame in sound_frames(source, start, segment.size, after, segment.limit):
            self._collect(segment, frame)
            segment.evidence = max(segment.evidence, frame.durable_id)

    def _scan_tail(self, segment: SurveyedSegment, source: FrameSource) -> None:
        """Gather the evidence behind the last frame, and hold it against what is there after that.

        What it proves durable was written before it was read; so a frame that a writer was just
        writing can be read now. Frames behind a flaw tell nothing that their headers have not told.
        """
        segment.size = max(segment.size, source.file.size())
        behind = source.evidence(segment.end + 1, segment.size)
        segment.evidence = max(segment.evidence, behind)
        self._scan_sound_part(segment, source)
        segment.torn = source.torn_bytes(segment.end, segment.size)

    def _collect(self, segment: SurveyedSegment, piece: Piece) -> None:
        islands = segment.islands
        if isinstance(piece, Gap):
            islands.append(Island(piece.end, piece.end))
        else:
            if not islands:
                islands.append(Island(piece.offset, piece.offset))
            islands[-1].count(piece)

    # -- judging -----------------------------------------------------------------------------------

    def _check_marker(self) -> None:
        path = os.path.join(self.directory, NAME)
        if self.marker is None:
            if self.segments:
                self.damages.append(Damage(path, 0, "no valid checkpoint marker"))
            return
        newest = self.marker.newest_nonempty
        live = {segment.segment_id for segment in self.live()}
        missing = newest >= self.marker.oldest_live and newest not in live and newest > 0
        if not live and self.evidence > self.last_id:
            missing, newest = True, newest or self.marker.oldest_live
        if missing:
            path = os.path.join(self.directory, segment_name(newest))
            self.damages.append(Damage(path, 0, "the segment is missing"))

    def _begin_without_marker(self, live: list[SurveyedSegment]) -> None:
        first = next((s.header for s in live if s.header is not None), None)
        if first is not None:
            self.last_id = self.evidence = first.previous_last_id

    def _check_clean(self, live: list[SurveyedSegment]) -> None:
        mark = self.marker.clean if self.marker and self.clean else None
        if mark is None or not self.sound or (live and live[-1].state == "abandoned"):
            return
        last = live[-1] if live else None
        found = (last.segment_id, last.end, self.last_id) if last else (0, 0, 0)
        if found != tuple(mark):
            path = os.path.join(self.directory, segment_name(mark.segment_id))
            reason = f"it was left with entry {mark.last_id} at {mark.length}"
            self.damages.append(Damage(path, min(found[1], mark.length), reason))

    # -- doubting ----------------------------------------------------------------------------------

    def disturbed(self) -> bool:
        """Whether the marker, a name or a header is not what it was when the look began."""
        try:
            return (
                _read_slots(self.files, self.directory) != self.raw_slots
                or Listing.of(self.files, self.directory).segments != self.names.segments
                or any(self._header_changed(segment) for segment in self.segments)
            )
        except FileNotFoundError:
            return True

    def _header_changed(self, segment: SurveyedSegment) -> bool:
        file = self._open(segment)
        try:
            return file.read_at(0, len(segment.raw_header)) != segment.raw_header
        finally:
            file.close()


def survey(files: FileSystem, directory: str) -> Survey:
    """A look at a log that no writer disturbed, or in which no damage was seen all the same.

    Raises NotALogError, BusyLogError, FormatVersionError.
    """
    if not files.exists(directory):
        raise NotALogError(f"{directory}: there is no such directory")
    for attempt in range(_ATTEMPTS):
        if attempt:
            time.sleep(_PAUSE)
        found = Survey(files, directory)
        if not found.names.segments and not files.exists(os.path.join(directory, NAME)):
            raise NotALogError(f"{directory}: not a log")
        try:
            found.read()
        except FileNotFoundError:
            continue
        if found.sound or not found.disturbed():
            return found
    raise BusyLogError(f"{directory}: the log's writer changed it under {_ATTEMPTS} readings")


def _read_slots(files: FileSystem, directory: str) -> list[bytes]:
    """The two slots of the marker's file as they are; empty ones where it is missing."""
    path = os.path.join(directory, NAME)
    if not files.exists(path):
        return [b"", b""]
    file = files.open(path, writable=False)
    try:
        data = file.read_at(0, 2 * BLOCK)
    finally:
        file.close()
    return [data[:BLOCK], data[BLOCK:]]
