"""What a segment file is made of, damage or not: whole frames, and gaps between them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from crc32c import crc32c

from wal.files import Buffer, File
from wal.segments import format as fmt
from wal.segments.chunks import PIECE
from wal.segments.frames import Frame, Group
from wal.segments.reader import FrameSource

_BLOCK: Final = 4096


class Gap(NamedTuple):
    """Bytes between two frames that are not a frame."""

    start: int
    end: int


Piece = Frame | Gap


def sound_frames(
    source: FrameSource, start: int, stop: int, after: int, limit: int | None = None
) -> Iterator[Frame]:
    """The frames between two offsets with ids above ``after`` and up to ``limit``, to a flaw."""
    if limit is not None and after >= limit:
        return
    for frame in source.frames(start, stop, after):
        if limit is not None and frame.last_id > limit:
            return
        yield frame
        if frame.last_id == limit:
            return


def walk(
    source: FrameSource, start: int, stop: int, after: int, limit: int | None = None
) -> Iterator[Piece]:
    """The same, and on behind each flaw where the next whole valid frame begins.

    What lies behind the last frame is no gap: only the caller knows whether more should follow.
    """
    at = start
    while limit is None or after < limit:
        for frame in sound_frames(source, at, stop, after, limit):
            yield frame
            at, after = frame.end, max(after, frame.last_id)
        found = None if after == limit else find_frame(source, at + 1, stop, after, limit)
        if found is None:
            return
        yield Gap(at, found)
        at = found


def find_frame(
    source: FrameSource, start: int, stop: int, after: int, limit: int | None = None
) -> int | None:
    """Where, from ``start`` on, the first whole valid frame with such ids begins."""
    overlap = fmt.GROUP_BYTES - 1
    mark = source.header.mark
    for base in range(start, stop, PIECE):
        data = source.file.read_at(base, min(PIECE + overlap, stop - base))
        at = data.find(mark, 0, PIECE + len(mark) - 1)
        while at >= 0:
            if opens_frame(source, data, at, base + at):
                for _ in sound_frames(source, base + at, stop, after, limit):
                    return base + at
            at = data.find(mark, at + 1, PIECE + len(mark) - 1)
    return None


def opens_frame(source: FrameSource, data: bytes, at: int, offset: int) -> bool:
    """Whether a header that is valid by its own crc is at ``data[at:]``."""
    start = fmt.seed_at(source.seed, offset)
    if fmt.decode_group_header(start, data, at) is not None:
        return True
    end = at + fmt.ENTRY.size
    if len(data) < end + fmt.CRC.size or data[at + 4] != fmt.ENTRY_TAG:
        return False
    crc: int = fmt.CRC.unpack_from(data, end)[0]
    return crc == crc32c(data[at:end], fmt.seed_at(source.seed, offset))


def chunks_in(frame: Frame) -> int:
    """How many chunks a frame holds."""
    if not isinstance(frame, Group):
        return len(frame.extents)
    return sum(1 if isinstance(item, bytes) else len(item) for item in frame.items)


def kind_of(frame: Frame) -> str:
    """What a frame is called: ``entry`` (streamed), ``group`` or ``witness`` (an empty group)."""
    if not isinstance(frame, Group):
        return "entry"
    return "group" if len(frame) else "witness"


class ForgivingFile:
    """A file opened for reading, in which what the disk cannot read is zeros."""

    def __init__(self, file: File) -> None:
        self._file = file
        self.unreadable: set[int] = set()
        """The offsets of the blocks (of 4 KiB) that could not be read."""

    def read_at(self, offset: int, length: int) -> bytes:
        """See :class:`wal.files.File`."""
        try:
            return self._file.read_at(offset, length)
        except OSError:
            return b"".join(self._blocks(offset, min(length, max(0, self.size() - offset))))

    def _blocks(self, offset: int, length: int) -> Iterator[bytes]:
        end = offset + length
        while offset < end:
            size = min(_BLOCK - offset % _BLOCK, end - offset)
            try:
                yield self._file.read_at(offset, size)
            except OSError:
                self.unreadable.add(offset - offset % _BLOCK)
                yield bytes(size)
            offset += size

    def size(self) -> int:
        """The length in bytes."""
        return self._file.size()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def write_at(self, offset: int, buffers: Sequence[Buffer]) -> None:
        """Not for this one, nor is anything that follows."""
        raise PermissionError("open for reading")

    def allocate(self, length: int) -> None:
        raise PermissionError("open for reading")

    truncate = allocate

    def sync(self) -> None:
        raise PermissionError("open for reading")
