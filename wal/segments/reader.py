"""Scanning a segment file: the frames that are whole and valid, from an offset on.

A scan reads windows of the file and yields frames until the first that is not whole and valid; what
that means (a torn tail, or damage) is for the caller to judge. Memory is bounded by the window: a
streamed entry that does not fit in one is checked in pieces and its chunks are read lazily.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

from crc32c import crc32c

from wal.errors import CorruptLogError
from wal.files import File
from wal.positions import STREAMED, LogPosition
from wal.segments import format as fmt
from wal.segments.chunks import PIECE, ChunkReader
from wal.segments.format import SegmentHeader
from wal.segments.frames import Extent, Frame, Group, StreamedEntry
from wal.segments.uniform import Columns, columns_of

WINDOW: Final = 4 << 20
_LARGE: Final = 4096  # from here on a memoryview costs less than a copy of the slice
_MORE: Final = "more"  # the window ends inside the frame

_ENTRY_AND_CRC: Final = struct.Struct("<4sBQQI")
_ENTRY_AND_CHUNK: Final = struct.Struct("<4sBQQIBI")
_CRC_AND_NEXT: Final = struct.Struct("<IBI")


class FrameSource:
    """The frames of one segment file, from a given offset on."""

    __slots__ = ("file", "header", "mark", "path", "seed")

    def __init__(self, file: File, path: str, header: SegmentHeader) -> None:
        self.file = file
        self.path = path
        self.header = header
        self.mark = header.mark
        self.seed = header.seed

    def frames(self, start: int, stop: int, after: int, *, check: bool = True) -> Iterator[Frame]:
        """Every frame from ``start`` to ``stop`` with ids above ``after``, up to the first flaw.

        ``check=False`` passes over the checksums of streamed chunks, for a second reading of what a
        first one has checked (a chunk's own ``read`` checks it in any case).
        """
        limit = self.header.id_limit
        data, base, at = b"", start, 0
        while True:
            frame: Frame | str | None = _MORE
            if len(data) >= at + fmt.ENTRY_BYTES:
                if data[at + 4] == fmt.GROUP_TAG:
                    frame = _group(self, data, base, at)
                else:
                    frame = _streamed(self, data, base, at, check)
            if isinstance(frame, str):
                offset = base + at
                if at or not data:
                    data, base, at = (
                        self.file.read_at(offset, min(WINDOW, stop - offset)),
                        offset,
                        0,
                    )
                    if len(data) < fmt.ENTRY_BYTES:
                        return
                    continue
                if data[4] == fmt.GROUP_TAG:
                    return  # a group is smaller than a window: the file ends inside it
                frame = self._long_streamed(offset, stop)
            if frame is None or frame.first_id <= after or frame.last_id >= limit:
                return
            if frame.last_id > after:  # it is not, for a witness
                after = frame.last_id
            yield frame
            at = frame.end - base
            if at > len(data):
                data, base, at = b"", frame.end, 0

    def group_at(self, offset: int, stop: int) -> Group | None:
        """The group frame at an offset, if a whole valid one is there and ends before ``stop``."""
        head = self.file.read_at(offset, fmt.GROUP_BYTES)
        header = fmt.decode_group_header(fmt.seed_at(self.seed, offset), head, 0)
        if header is None or offset + fmt.GROUP_BYTES + header.length + fmt.CRC.size > stop:
            return None
        rest = self.file.read_at(offset + fmt.GROUP_BYTES, header.length + fmt.CRC.size)
        group = _group(self, head + rest, offset, 0)
        return group if isinstance(group, Group) else None

    def _long_streamed(self, offset: int, stop: int) -> StreamedEntry | None:
        """The streamed entry at ``offset`` that is larger than a window: checked in pieces."""
        read = self.file.read_at
        head = read(offset, fmt.ENTRY_BYTES)
        opened = _entry_header(self, head, offset)
        if opened is None:
            return None
        extents: list[Extent] = []
        crcs = bytearray()
        at = offset + fmt.ENTRY_BYTES
        while True:
            mark = read(at, fmt.CHUNK.size)
            if len(mark) < fmt.CHUNK.size:
                return None
            tag, length = fmt.CHUNK.unpack(mark)
            if tag == fmt.END_TAG:
                end = fmt.encode_end(self.seed, offset, head, bytes(crcs), len(extents))
                if read(at, len(end)) != end or at + len(end) > stop:
                    return None
                at += len(end)
                return StreamedEntry(self, offset, at, opened[0], opened[1], extents)
            past = at + fmt.CHUNK.size + length
            if tag != fmt.CHUNK_TAG or past + fmt.CRC.size > stop:
                return None
            crc = fmt.chunk_crc(self.seed, at, mark)
            for piece in range(at + fmt.CHUNK.size, past, PIECE):
                crc = crc32c(read(piece, min(PIECE, past - piece)), crc)
            stored = read(past, fmt.CRC.size)
            if stored != fmt.CRC.pack(crc):
                return None
            extents.append((at, length, crc, None, 0))
            crcs += stored
            at = past + fmt.CRC.size

    def chunk(self, extent: Extent) -> ChunkReader:
        """A reader of a streamed chunk."""
        offset, length, crc, window, start = extent
        position = LogPosition(self.header.segment_id, offset, STREAMED)
        data = None if window is None else window[start : start + length]
        head = fmt.chunk_crc(self.seed, offset, fmt.CHUNK.pack(fmt.CHUNK_TAG, length))
        return ChunkReader(position, length, data, crc, head, self.file, self.path)

    def read(self, extent: Extent) -> bytes:
        """A streamed chunk's data; CorruptLogError where its checksum does not match."""
        offset, length, crc, window, start = extent
        if window is None:
            return self.chunk(extent).read()
        data = window[start : start + length]
        head = window[start - fmt.CHUNK.size : start]
        if crc32c(data, fmt.chunk_crc(self.seed, offset, head)) != crc:
            raise CorruptLogError(self.path, offset, "the chunk's checksum does not match")
        return data

    def torn_bytes(self, start: int, stop: int) -> int:
        """How many bytes of a torn frame lie behind ``start``: up to the last that is not zero.

        None where no frame of this segment begins there: then they are of the file's earlier life.
        """
        if self.file.read_at(start, 4) != self.header.mark:
            return 0
        end = start
        for offset in range(start, stop, PIECE):
            data = self.file.read_at(offset, min(PIECE, stop - offset)).rstrip(b"\0")
            if not data:
                break
            end = offset + len(data)
        return end - start

    def evidence(self, start: int, stop: int) -> int:
        """The largest durable id of any header between two offsets that is valid by its own crc."""
        best = 0
        overlap = fmt.GROUP_BYTES - 1
        for offset in range(start, stop, PIECE):
            data = self.file.read_at(offset, min(PIECE + overlap, stop - offset))
            best = max(best, fmt.evidence_in(self.header, self.seed, data, offset))
        return best


def _group(source: FrameSource, data: bytes, base: int, at: int) -> Group | str | None:
    """The group frame at ``data[at:]``; None if it is not valid, or _MORE."""
    if len(data) < at + fmt.GROUP_BYTES:
        return _MORE
    offset = base + at
    start = crc32c(offset.to_bytes(8, "little"), source.seed)
    head = fmt.decode_group_header(start, data, at)
    if head is None or head.mark != source.mark:
        return None
    begin = at + fmt.GROUP_BYTES
    end = begin + head.length
    if len(data) < end + fmt.CRC.size:
        return _MORE
    payload = data[begin:end]
    if fmt.CRC.unpack_from(data, end)[0] != crc32c(payload, start):
        return None
    content: Columns | list[fmt.Item] | None = columns_of(payload, head.count, head.chunks)
    if content is None:
        content = fmt.decode_payload(payload, head.count, head.chunks)
        if content is None:
            return None
    return Group(source, offset, base + end + fmt.CRC.size, head, content)


def _entry_header(source: FrameSource, data: bytes, offset: int) -> tuple[int, int] | None:
    """The ids in the streamed entry's header: its own and the durable one; None if not valid."""
    if len(data) < fmt.ENTRY_BYTES:
        return None
    mark, tag, entry_id, durable_id, crc = _ENTRY_AND_CRC.unpack_from(data)
    if mark != source.mark or tag != fmt.ENTRY_TAG or durable_id >= entry_id:
        return None
    if crc != crc32c(data[: fmt.ENTRY.size], fmt.seed_at(source.seed, offset)):
        return None
    return entry_id, durable_id


def _streamed(
    source: FrameSource, data: bytes, base: int, at: int, check: bool
) -> StreamedEntry | str | None:
    """The streamed entry at ``data[at:]``; None if it is not valid, or _MORE.

    One flat function that takes several fields with each unpack, without helpers, and with the
    format's sizes written out: small entries are recovered in less than half the time so.
    """
    size = len(data)
    if at + 30 > size:
        return _MORE
    mark, tag, entry_id, durable_id, crc, kind, length = _ENTRY_AND_CHUNK.unpack_from(data, at)
    if tag != 1 or mark != source.mark or durable_id >= entry_id:
        return None
    seed = source.seed
    pos = at + 25
    running = 0
    if check:
        running = crc32c(data[at : at + 21], crc32c((base + at).to_bytes(8, "little"), seed))
        if crc != running:
            return None
        running = crc32c(data[at + 21 : pos], running)  # the end's checksum goes on from here
    extents: list[Extent] = []
    while kind == 2:
        past = pos + 5 + length
        if past + 9 > size:
            return _MORE
        crc, next_kind, next_length = _CRC_AND_NEXT.unpack_from(data, past)
        if check:
            body = data[pos:past] if length < _LARGE else memoryview(data)[pos:past]
            if crc != crc32c(body, crc32c((base + pos).to_bytes(8, "little"), seed)):
                return None
            running = crc32c(data[past : past + 4], running)
        extents.append((base + pos, length, crc, data, pos + 5))
        pos = past + 4
        kind = next_kind
        length = next_length
    if kind != 3 or length != len(extents):
        return None
    end = pos + 9
    if end > size:
        return _MORE
    if check and data[pos + 5 : end] != crc32c(data[pos : pos + 5], running).to_bytes(4, "little"):
        return None
    return StreamedEntry(source, base + at, base + end, entry_id, durable_id, extents)
