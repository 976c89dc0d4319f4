"""Where things are in the log: entry ids, positions, and the records of written chunks."""

from __future__ import annotations

import struct
from typing import Final, NamedTuple, NewType

EntryId = NewType("EntryId", int)
"""A 64-bit number that only grows. 0 stands for "before the first entry"."""

STREAMED: Final = 0xFF_FFFF
"""The index that marks the position of a streamed chunk (others are chunk numbers in a group)."""

MAX_ID: Final = (1 << 63) - 1
"""No id comes near; a greater one in a file was never written by a log."""

MAX_START: Final = MAX_ID // 2
"""A log that would go on at a greater id is not written to: none comes near, and there must be ids
left for all that follows."""

MAX_OFFSET: Final = (1 << 40) - 1

_PACKED = struct.Struct("<QQ")


class LogPosition(NamedTuple):
    """Where one chunk lies: a segment, the offset of its frame, and its number in the frame.

    For a streamed chunk ``offset`` is that of the chunk's tag and ``index`` is :data:`STREAMED`;
    for a chunk of a group frame it is the group's offset, and ``index`` counts the group's chunks
    from 0.

    >>> LogPosition(7, 4096, 2).to_bytes().hex()
    '07000000000000000010000000020000'
    >>> LogPosition.from_bytes(_)
    Traceback (most recent call last):
        ...
    TypeError: a position is 16 bytes, not str
    >>> LogPosition.from_bytes(LogPosition(7, 4096).to_bytes())
    LogPosition(segment_id=7, offset=4096, index=16777215)
    """

    segment_id: int
    offset: int
    index: int = STREAMED  # type: ignore[assignment]  # tuple.index gives way

    def to_bytes(self) -> bytes:
        """The position in 16 bytes: segment (u64), offset (u40), index (u24), little-endian."""
        if not (0 <= self.offset <= MAX_OFFSET and 0 <= self.index <= STREAMED):
            raise ValueError(f"offset or index out of range: {self!r}")
        return _PACKED.pack(self.segment_id, self.offset | self.index << 40)

    @classmethod
    def from_bytes(cls, data: bytes) -> LogPosition:
        """Undo :meth:`to_bytes`. Raises TypeError or ValueError for anything but 16 bytes."""
        if not isinstance(data, (bytes, bytearray, memoryview)):
            raise TypeError(f"a position is 16 bytes, not {type(data).__name__}")
        if len(data) != _PACKED.size:
            raise ValueError(f"a position is 16 bytes, not {len(data)}")
        segment_id, packed = _PACKED.unpack(data)
        return cls(segment_id, packed & MAX_OFFSET, packed >> 40)


class ChunkRecord(NamedTuple):
    """What is known of a written chunk: its position, the CRC-32C behind it, its length."""

    position: LogPosition
    crc: int
    length: int
