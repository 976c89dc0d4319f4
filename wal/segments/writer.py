"""Framing into one segment, and its activation. Callers hold the append lock."""

from __future__ import annotations

from typing import Final

from wal.files import File, FileSystem
from wal.segments import format as fmt
from wal.segments.format import Appended, SegmentHeader
from wal.segments.lifecycle import Segment

GROUP_TARGET: Final = 64 << 10
"""The payload at which a group is framed: a few hundred small entries share its cost."""


class SegmentWriter:
    """The frames of one segment that gather until a leader writes them.

    Offsets only grow. ``end`` is where the next frame goes, ``committed_end`` where the last
    committed one ended; bytes below ``taken`` were handed to a leader and may be in the file.
    """

    __slots__ = (
        "_buffers",
        "activated",
        "file_size",
        "first_frame",
        "header",
        "id_limit",
        "must_seal",
        "predecessor",
        "seed",
        "segment",
        "segment_id",
        "spare_path",
        "successor_requested",
        "taken",
    )

    def __init__(self, segment: Segment, file_size: int, spare_path: str | None) -> None:
        self.segment = segment
        self.segment_id = segment.header.segment_id
        self.seed = segment.header.seed
        self.file_size = file_size
        self.spare_path = spare_path  # the name that the file has until it is activated
        self.header = segment.header
        self.first_frame = segment.header.size
        self.id_limit = segment.header.id_limit  # ids given out are below that of a durable header
        self.activated = spare_path is None
        self.predecessor: Segment | None = None  # synced whole before this one is activated
        self.must_seal = False
        self.successor_requested = False
        self.taken = segment.end
        self._buffers: list[bytes] = []

    @property
    def end(self) -> int:
        """Where the next frame begins."""
        return self.segment.end

    @property
    def committed_end(self) -> int:
        """Where the last committed frame ended. An entry that is open lies behind it."""
        return self.segment.committed_end

    def mark(self) -> int:
        """A place in the buffer to which :meth:`drop_after` can go back."""
        return len(self._buffers)

    def add(self, *buffers: bytes) -> int:
        """Add bytes at the end; returns how many."""
        self._buffers += buffers
        size = sum(map(len, buffers))
        self.segment.end += size
        return size

    def add_group(self, first_id: int, durable_id: int, items: list[Appended], chunks: int) -> int:
        """Frame a group of appended entries (none: a witness); returns the bytes it takes."""
        segment = self.segment
        head, payload, crc = fmt.encode_group(
            self.header, self.seed, segment.end, first_id, durable_id, items, chunks
        )
        self._buffers += (head, payload, crc)
        size = fmt.GROUP_BYTES + len(payload) + fmt.CRC.size
        segment.end += size
        segment.committed_end = segment.end
        if items:
            segment.last_id = first_id + len(items) - 1
        return size

    def drop_after(self, mark: int, offset: int) -> int:
        """Forget the bytes from ``offset`` on; returns how many were still in the buffer.

        Where a leader has taken some of them they may be in the file, and what is written there
        must never be written over: the segment ends here then.
        """
        segment = self.segment
        if self.taken > offset:
            self.must_seal = True
            mark = 0
        dropped = sum(map(len, self._buffers[mark:]))
        del self._buffers[mark:]
        segment.end = offset
        for chunk_offset in [at for at in segment.unwritten if at >= offset]:
            del segment.unwritten[chunk_offset]
        return dropped

    def take(self) -> Taken:
        """Everything that has gathered, for a leader to write."""
        segment = self.segment
        taken = (self, self.taken, segment.end, self._buffers, list(segment.unwritten))
        self._buffers = []
        self.taken = segment.end
        return taken

    def activate(self, file_system: FileSystem, directory: str) -> None:
        """Make the segment exist: header, sync, name, directory sync. Then entries may follow."""
        assert self.spare_path is not None
        segment = self.segment
        segment.file.write_at(0, [segment.header.encode()])
        segment.file.sync()
        file_system.rename(self.spare_path, segment.path)
        file_system.sync_directory(directory)
        self.activated = True
        self.id_limit = segment.header.id_limit


Taken = tuple[SegmentWriter, int, int, list[bytes], list[int]]
"""What a leader took: whose, from which offset to which, the bytes, the chunks that begin there."""


def plan_segment(
    path: str,
    spare: tuple[str, File],
    segment_id: int,
    previous_last_id: int,
    version_info: bytes,
) -> SegmentWriter:
    """A writer for a segment that does not exist yet: frames may gather before it is activated."""
    spare_path, file = spare
    file_size = file.size()
    header = SegmentHeader(
        segment_id=segment_id,
        previous_last_id=previous_last_id,
        id_limit=fmt.id_limit(segment_id, file_size),
        file_size=file_size,
        version_info=version_info,
    )
    return SegmentWriter(Segment(header, path, file), file_size, spare_path)
