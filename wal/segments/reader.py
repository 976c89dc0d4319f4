"""Reading segments: scanning frames, entries, and single chunks by position.

A scan reads windows of the file and yields the frames that are whole and valid, until the first
that is not; what that means (a torn tail, or damage) is for the caller to judge. Memory is bounded
by the window: a streamed entry that does not fit in one is checked in pieces and its chunks are
read lazily.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import accumulate, repeat
from typing import TYPE_CHECKING, Final

from crc32c import crc32c

from wal.errors import CorruptLogError
from wal.files import File
from wal.positions import STREAMED, EntryId, LogPosition
from wal.segments import format as fmt
from wal.segments.format import Item, SegmentHeader

if TYPE_CHECKING:
    from types import TracebackType

    from wal.segments.lifecycle import Segment, SegmentRegistry

    Pin = tuple[SegmentRegistry, Segment]

WINDOW: Final = 4 << 20
PIECE: Final = 1 << 20
_LARGE: Final = 4096  # from here on a memoryview costs less than a copy of the slice

_ENTRY_AND_CRC: Final = struct.Struct("<4sBQQI")
_ENTRY_AND_CHUNK: Final = struct.Struct("<4sBQQIBI")
_CRC_AND_NEXT: Final = struct.Struct("<IBI")


class ChunkReader:
    """One chunk's data, in memory or still in its segment file.

    ``position`` is its :class:`LogPosition`, ``length`` its bytes. Also a context manager: leaving
    it lets go of the segment that a :meth:`WriteAheadLog.read_at` pinned. ``bytes(chunk)`` is all
    of it, and it equals bytes of the same content.
    """

    __slots__ = (
        "_at",
        "_crc",
        "_data",
        "_file",
        "_head",
        "_path",
        "_pin",
        "_running",
        "length",
        "position",
    )

    def __init__(
        self,
        position: LogPosition,
        length: int,
        data: bytes | None,
        crc: int | None = None,
        head: int = 0,
        file: File | None = None,
        path: str = "",
    ) -> None:
        self.position = position
        self.length = length
        self._data = data
        self._crc = crc  # the stored checksum; None where a group's has vouched for the data
        self._head = head  # the checksum of tag and length, which the data continues
        self._file = file
        self._path = path
        self._at = 0
        self._running = head
        self._pin: Pin | None = None

    def hold(self, pin: Pin) -> ChunkReader:
        """Keep a pin until the reader is closed."""
        self._pin = pin
        return self

    def read(self, size: int = -1) -> bytes:
        """The next ``size`` bytes, or all that are left; ``b""`` at the end.

        Raises CorruptLogError once the last byte was read and the checksum does not match: data
        read in one call is always right, data read in pieces is vouched for by the last one.
        """
        left = self.length - self._at
        size = left if size < 0 else min(size, left)
        piece = self._slice(self._at, size)
        if self._crc is not None and size:
            self._running = crc32c(piece, self._running)
        self._at += size
        if self._at == self.length and self._crc is not None and self._running != self._crc:
            raise self._damage("the chunk's checksum does not match")
        return piece

    def crc_is_valid(self) -> bool:
        """Whether the whole chunk matches its checksum. Leaves the place of read."""
        if self._crc is None:
            return True
        running = self._head
        try:
            for at in range(0, self.length, PIECE):
                running = crc32c(self._slice(at, min(PIECE, self.length - at)), running)
        except CorruptLogError:
            return False
        return running == self._crc

    def _slice(self, at: int, size: int) -> bytes:
        if self._data is not None:
            data = self._data
            return data if size == len(data) else data[at : at + size]
        if self._file is None:
            raise ValueError("read of a closed chunk")
        piece = self._file.read_at(self.position.offset + fmt.CHUNK.size + at, size)
        if len(piece) != size:
            raise self._damage("the file ends inside a chunk")
        return piece

    def _damage(self, reason: str) -> CorruptLogError:
        return CorruptLogError(self._path, self.position.offset, reason)

    def close(self) -> None:
        """Let go of the segment. What is in memory stays readable."""
        self._file = None
        pin, self._pin = self._pin, None
        if pin is not None:
            registry, segment = pin
            registry.unpin(segment)

    def __enter__(self) -> ChunkReader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if self._pin is not None:
            self.close()

    def __bytes__(self) -> bytes:
        position, running = self._at, self._running
        self._at, self._running = 0, self._head
        try:
            return self.read()
        finally:
            self._at, self._running = position, running

    def __eq__(self, other: object) -> bool:
        if isinstance(other, ChunkReader):
            return bytes(self) == bytes(other)
        if isinstance(other, (bytes, bytearray, memoryview)):
            return len(other) == self.length and bytes(self) == other
        return NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<ChunkReader of {self.length} bytes at {tuple(self.position)}>"


Extent = tuple[int, int, int, bytes | None, int]
"""A streamed chunk that a scan met: the offset of its tag, its length, its crc, and where its data
was in the window: the window (or None) and the place in it. A bare tuple: one is made for every
chunk that is recovered."""


class Frame:
    """A whole valid frame: a group of appended entries (``items``), or one streamed entry."""

    __slots__ = (
        "durable_id",
        "end",
        "extents",
        "first_chunks",
        "first_id",
        "items",
        "last_id",
        "offset",
        "source",
    )

    def __init__(
        self,
        source: FrameSource,
        offset: int,
        end: int,
        first_id: int,
        last_id: int,
        durable_id: int,
        items: list[Item] | None,
        extents: list[Extent] | None,
    ) -> None:
        self.source = source
        self.offset = offset
        self.end = end
        self.first_id = first_id
        self.last_id = last_id
        self.durable_id = durable_id
        self.items = items
        self.extents = extents
        self.first_chunks: list[int] | None = None

    def entries(self) -> Iterator[Entry]:
        """The frame's entries, in order."""
        items = self.items
        if items is None:
            return iter((StreamedEntry(self.first_id, b"", self),))
        # 172 ns an entry; a generator that calls the class takes 276 (CPython 3.11).
        return map(Entry, range(self.first_id, self.last_id + 1), items, repeat(self))

    def first_chunk(self, entry_id: int) -> int:
        """The number, in the group, of an entry's first chunk."""
        if self.first_chunks is None:
            counts = (1 if isinstance(item, bytes) else len(item) for item in self.items or ())
            self.first_chunks = [0, *accumulate(counts)]
        return self.first_chunks[entry_id - self.first_id]


class Entry:
    """A committed entry as it is handed to ``recover``, ``checkpoint_to`` and ``entries()``.

    ``id`` is its :data:`EntryId`. Chunks may be read in any order, in part, or not at all. They
    can be read as long as the segment is there: during the callback, or until the iteration goes
    on; chunks of up to some MiB are in memory and stay.
    """

    __slots__ = ("_frame", "_item", "id")

    id: EntryId

    def __init__(self, id: int, item: Item, frame: Frame) -> None:
        self.id = id  # type: ignore[assignment]
        self._item = item
        self._frame = frame

    def chunks(self) -> list[ChunkReader]:
        """The entry's chunks, in order."""
        frame = self._frame
        segment_id, offset = frame.source.header.segment_id, frame.offset
        first = frame.first_chunk(self.id)
        return [
            ChunkReader(LogPosition(segment_id, offset, first + n), len(data), data)
            for n, data in enumerate(self.read_all())
        ]

    def read_all(self) -> list[bytes]:
        """Every chunk's data, in order: :meth:`chunks` without an object for each."""
        item = self._item
        return [item] if isinstance(item, bytes) else list(item)

    @property
    def segment_id(self) -> int:
        """The segment that holds the entry."""
        return self._frame.source.header.segment_id

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id}>"


class StreamedEntry(Entry):
    """An entry written through ``begin_entry``, or appended but too large for a group."""

    __slots__ = ()

    def chunks(self) -> list[ChunkReader]:
        """The entry's chunks, in order; data that the scan did not keep is read on demand."""
        frame = self._frame
        return [frame.source.chunk(extent) for extent in frame.extents or ()]

    def read_all(self) -> list[bytes]:
        """Every chunk's data, in order."""
        return [chunk.read() for chunk in self.chunks()]


_MORE: Final = object()  # the window ends inside the frame


class FrameSource:
    """The frames of one segment file, from a given offset on."""

    __slots__ = ("file", "header", "path", "seed")

    def __init__(self, file: File, path: str, header: SegmentHeader) -> None:
        self.file = file
        self.path = path
        self.header = header
        self.seed = header.seed

    def frames(self, start: int, stop: int, after: int, *, check: bool = True) -> Iterator[Frame]:
        """Every frame from ``start`` to ``stop`` with ids above ``after``, up to the first flaw.

        ``check=False`` passes over the checksums of streamed chunks, for a second reading of what a
        first one has checked (a chunk's own ``read`` checks it in any case).
        """
        mark, limit = self.header.mark, self.header.id_limit
        data, base, at = b"", start, 0
        while True:
            frame: object = _MORE
            if len(data) >= at + fmt.ENTRY_BYTES:
                if data[at : at + 4] != mark:
                    return
                if data[at + 4] == fmt.GROUP_TAG:
                    frame = _group(self, data, base, at)
                else:
                    frame = _streamed(self, data, base, at, check)
            if frame is _MORE:
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
            if type(frame) is not Frame or frame.first_id <= after or frame.last_id >= limit:
                return
            after = max(after, frame.last_id)
            yield frame
            at = frame.end - base
            if at > len(data):
                data, base, at = b"", frame.end, 0

    def _long_streamed(self, offset: int, stop: int) -> Frame | None:
        """The streamed entry at ``offset`` that is larger than a window: checked in pieces."""
        read = self.file.read_at
        head = read(offset, fmt.ENTRY_BYTES)
        opened = _entry_header(self.seed, head, offset)
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
                return Frame(self, offset, at, opened[0], opened[0], opened[1], None, extents)
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


def _group(source: FrameSource, data: bytes, base: int, at: int) -> object:
    """The group frame at ``data[at:]``: a Frame, None if it is not valid, or _MORE."""
    if len(data) < at + fmt.GROUP_BYTES:
        return _MORE
    offset = base + at
    head = fmt.decode_group_header(source.seed, offset, data, at)
    if head is None:
        return None
    start = at + fmt.GROUP_BYTES
    end = start + head.length
    if len(data) < end + fmt.CRC.size:
        return _MORE
    payload = data[start:end]
    if fmt.CRC.unpack_from(data, end)[0] != crc32c(payload, fmt.seed_at(source.seed, offset)):
        return None
    items = fmt.decode_payload(payload, head.count, head.chunks)
    if items is None:
        return None
    last_id = head.first_id + head.count - 1
    end += base + fmt.CRC.size
    return Frame(source, offset, end, head.first_id, last_id, head.durable_id, items, None)


def _entry_header(seed: int, data: bytes, offset: int) -> tuple[int, int] | None:
    """The ids in the streamed entry's header: its own and the durable one; None if not valid."""
    if len(data) < fmt.ENTRY_BYTES:
        return None
    _, tag, entry_id, durable_id, crc = _ENTRY_AND_CRC.unpack_from(data)
    if tag != fmt.ENTRY_TAG or durable_id >= entry_id:
        return None
    if crc != crc32c(data[: fmt.ENTRY.size], fmt.seed_at(seed, offset)):
        return None
    return entry_id, durable_id


def _streamed(source: FrameSource, data: bytes, base: int, at: int, check: bool) -> object:
    """The streamed entry at ``data[at:]``: a Frame, None if it is not valid, or _MORE.

    One flat function that takes several fields with each unpack, without helpers: small entries are
    recovered in half the time so.
    """
    size = len(data)
    if at + _ENTRY_AND_CHUNK.size > size:
        return _MORE
    _, tag, entry_id, durable_id, crc, kind, length = _ENTRY_AND_CHUNK.unpack_from(data, at)
    if tag != fmt.ENTRY_TAG or durable_id >= entry_id:
        return None
    seed = source.seed
    entry_seed, vouched = 0, []
    if check:
        entry_seed = crc32c((base + at).to_bytes(8, "little"), seed)
        if crc != crc32c(data[at : at + 21], entry_seed):
            return None
        vouched.append(data[at : at + 25])
    unpack = _CRC_AND_NEXT.unpack_from
    extents: list[Extent] = []
    pos = at + 25
    while kind == fmt.CHUNK_TAG:
        past = pos + 5 + length
        if past + 9 > size:
            return _MORE
        crc, next_kind, next_length = unpack(data, past)
        if check:
            body = data[pos:past] if length < _LARGE else memoryview(data)[pos:past]
            if crc != crc32c(body, crc32c((base + pos).to_bytes(8, "little"), seed)):
                return None
            vouched.append(data[past : past + 4])
        extents.append((base + pos, length, crc, data, pos + 5))
        pos = past + 4
        kind = next_kind
        length = next_length
    if kind != fmt.END_TAG or length != len(extents):
        return None
    if pos + 9 > size:
        return _MORE
    if check:
        vouched.append(data[pos : pos + 5])
        if data[pos + 5 : pos + 9] != crc32c(b"".join(vouched), entry_seed).to_bytes(4, "little"):
            return None
    return Frame(source, base + at, base + pos + 9, entry_id, entry_id, durable_id, None, extents)
