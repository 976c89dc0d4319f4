"""What must come of damage to a log, told without reading the damaged log.

The sound files are known: their frames, where each begins and ends, and what each says was durable.
Damage is what differs from them. A frame that differs anywhere is not read; a header of one that is
the same still bears witness. From that follows, by the rules of ``docs/durability.md``, what an
opening has to do: show everything, show all that lies before the first damaged frame, which only
the end of an unclean log may come to, or refuse.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from wal.checkpoint_marker import BLOCK, decode_slots
from wal.files import MemoryFileSystem
from wal.segments import format as fmt
from wal.segments.reader import FrameSource

REFUSED = "refused"


@dataclass(frozen=True)
class Frame:
    start: int
    head: int  # where its own header ends, which bears witness by itself
    end: int
    last_id: int
    durable_id: int


class Segment:
    """A sound segment's frames."""

    def __init__(self, path, data):
        self.path = path
        self.header = fmt.decode_header(path, data[: fmt.MAX_HEADER_BYTES])
        self.id = self.header.segment_id
        file = MemoryFileSystem({path: data}).open(path)
        source = FrameSource(file, path, self.header)
        self.frames = [
            Frame(
                frame.offset,
                frame.offset + (fmt.GROUP_BYTES if type(frame).__name__ == "Group" else 25),
                frame.end,
                frame.last_id,
                frame.durable_id,
            )
            for frame in source.frames(
                self.header.size, len(data), self.header.previous_last_id
            )
        ]  # fmt: skip
        self.size = self.header.size
        self.end = self.frames[-1].end if self.frames else self.size


class Log:
    """The sound log of a store."""

    def __init__(self, files):
        self.files = files
        (self.marker_path,) = (path for path in files if path.endswith("CHECKPOINT"))
        self.marker, _ = decode_slots("", files[self.marker_path])
        segments = [Segment(path, files[path]) for path in sorted(files) if is_segment(path)]
        self.segments = [each for each in segments if each.id >= self.marker.oldest_live]
        self.kept = [
            Segment(path, data)
            for path, data in sorted(files.items())
            if os.path.basename(path).startswith("kept-")
        ]

    def marker_in(self, damaged):
        """The marker that counts; None if none can be read."""
        data = damaged.get(self.marker_path, self.files[self.marker_path])
        return decode_slots("", data or b"")[0]

    def is_clean(self, damaged):
        """Whether the marker says, beyond doubt, that the log was shut down."""
        data = damaged.get(self.marker_path, self.files[self.marker_path])
        marker, doubtful = decode_slots("", data)
        return marker.clean is not None and not doubtful

    @property
    def newest(self):
        return self.segments[-1]

    def evidence(self, damaged=None):
        """The largest id that something undamaged says was durable."""
        damaged = damaged or {}
        marker = self.marker_in(damaged)
        found = [marker.checkpointed_id, marker.durable_id]
        for segment in self.segments:
            sound = self.files[segment.path]
            data = damaged.get(segment.path, sound) or b""
            found += [
                frame.durable_id
                for frame in segment.frames
                if data[frame.start : frame.head] == sound[frame.start : frame.head]
            ]
        return max(found)

    def last_id(self):
        """The last entry in it."""
        ids = [frame.last_id for segment in self.segments for frame in segment.frames]
        return max([self.marker.checkpointed_id, *ids])

    def shown(self, damaged):
        """The last entry that a writer and a reader find where the end of the log is damaged.

        ``damaged`` has the newest segment (its bytes, or None where it is gone), and perhaps the
        marker. Else REFUSED.
        """
        newest = self.newest
        data, sound = damaged[newest.path], self.files[newest.path]
        previous = newest.header.previous_last_id
        if data is None:
            others = self.evidence(damaged)
            known = self.marker_in(damaged).newest_nonempty == newest.id or others > previous
            return REFUSED if known or self.is_clean(damaged) else (previous, min(previous, others))
        if data[: newest.size] != sound[: newest.size] or len(data) < newest.header.file_size:
            return REFUSED
        last = previous
        whole = True
        for frame in newest.frames:
            if data[frame.start : frame.end] != sound[frame.start : frame.end]:
                whole = False
                break
            last = max(last, frame.last_id)
        evidence = self.evidence(damaged)
        if whole:
            return last, min(last, evidence)
        if evidence > last or self.is_clean(damaged):
            return REFUSED
        return last, min(last, evidence)

    def least_size(self, path):
        """A shorter file of that name is damaged, whatever is in it."""
        sizes = {segment.path: segment.header.file_size for segment in self.segments}
        return sizes.get(path, 0)

    def means_something(self, path, offset):
        """Whether a byte of one of the log's files says anything that counts."""
        if path == self.marker_path:
            return offset % BLOCK < 84
        for segment in self.segments + self.kept:
            if segment.path == path:
                return offset < segment.end
        return False


def is_segment(path):
    return os.path.basename(path).startswith("wal-")
