"""The bytes of a segment file, and nothing else: pure functions between bytes and values.

``docs/wal-format.md`` is the same on one page, with a real segment decoded field by field. Reader
and writer share what is in this module, and no more.

Every CRC-32C but the header's continues from the checksum of (salt, segment id, file offset of the
frame or chunk). So the bytes of an earlier life of the file, of another file, or of another place
in this one never pass, nor does a payload that holds frames of its own log.
"""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Any, Final, NamedTuple

import msgpack
from crc32c import crc32c

from wal.errors import CorruptLogError, FormatVersionError
from wal.files import Buffer
from wal.positions import MAX_ID
from wal.untrusted import SHORT, is_affordable

MAGIC: Final = b"WALS"
VERSION: Final = 1

HEADER: Final = struct.Struct("<4sBBHQQQQQ16s")
ENTRY: Final = struct.Struct("<4sBQQ")  # mark, tag, entry id, durable id; then the crc
CHUNK: Final = struct.Struct("<BI")  # tag, length; then the data and its crc
END: Final = struct.Struct("<BI")  # tag, chunk count; then the crc
GROUP: Final = struct.Struct("<4sBQQIII")  # mark, tag, first id, durable id, count, chunks, length
CRC: Final = struct.Struct("<I")

_GROUP_AND_CRC: Final = struct.Struct(GROUP.format + "I")
_new_tuple: Final = tuple.__new__  # 0.1 us; 0.3 through _make

ENTRY_BYTES: Final = ENTRY.size + CRC.size
CHUNK_OVERHEAD: Final = CHUNK.size + CRC.size
END_BYTES: Final = END.size + CRC.size
GROUP_BYTES: Final = GROUP.size + CRC.size
GROUP_OVERHEAD: Final = GROUP_BYTES + 5 + CRC.size
"""What a group frame adds to its items: its header, the outer array's, the payload's crc."""
ITEM_OVERHEAD: Final = 5
"""What an item (a bin, or an array) can add to its bytes; so can each bin of an array."""

MAX_GROUP_PAYLOAD: Final = 256 << 10
MAX_CHUNK: Final = (1 << 32) - 1

ENTRY_TAG: Final = 1
CHUNK_TAG: Final = 2
END_TAG: Final = 3
GROUP_TAG: Final = 4

_UNPACKING: Final = (ValueError, TypeError, msgpack.UnpackException)

Item = bytes | list[bytes]
"""An appended entry in a group: the one chunk itself, or the list of its chunks."""
Appended = Item | tuple[bytes, ...]
"""An entry to be framed. A tuple cannot change any more: it is passed on without a copy."""


def id_limit(segment_id: int, file_size: int) -> int:
    """The limit of the ids in a new segment, from the length of its file (which only grows).

    Each entry takes at least a byte, so ids outgrow it only through rolled-back entries and files
    that grew; then the limit rotates.
    """
    return segment_id + max(file_size, 1 << 16)


def fresh_salt() -> bytes:
    """16 random bytes of which the first four are not all zero (a zeroed file holds no mark)."""
    while True:
        salt = os.urandom(16)
        if any(salt[:4]):
            return salt


@dataclass(frozen=True, slots=True)
class SegmentHeader:
    """The first bytes of a segment file."""

    segment_id: int
    previous_last_id: int
    id_limit: int
    file_size: int
    version_info: bytes = b""
    created_unix_ns: int = field(default_factory=time.time_ns)
    salt: bytes = field(default_factory=fresh_salt)

    @property
    def mark(self) -> bytes:
        """The four bytes that every entry's and group's frame in this segment begins with."""
        return self.salt[:4]

    @property
    def size(self) -> int:
        """Where the first frame begins."""
        return HEADER.size + len(self.version_info) + CRC.size

    @property
    def seed(self) -> int:
        """The checksum that a frame's own begins from, before the frame's offset is added."""
        return crc32c(self.salt + self.segment_id.to_bytes(8, "little"))

    def encode(self) -> bytes:
        """The header as it stands in the file."""
        head = HEADER.pack(
            MAGIC,
            VERSION,
            len(self.version_info),
            0,
            self.segment_id,
            self.previous_last_id,
            self.id_limit,
            self.file_size,
            self.created_unix_ns,
            self.salt,
        )
        body = head + self.version_info
        return body + CRC.pack(crc32c(body))


MAX_HEADER_BYTES: Final = HEADER.size + 255 + CRC.size


def decode_header(path: str, data: bytes) -> SegmentHeader:
    """Read a header from the first bytes of a file.

    Raises CorruptLogError for anything but a whole valid header, and FormatVersionError for a
    valid one of another version (every version keeps the place of the version byte and of the
    checksum).
    """
    if len(data) < HEADER.size + CRC.size:
        raise CorruptLogError(
            path, 0, f"the file ends inside the segment header ({len(data)} bytes)"
        )
    magic, version, info_length, zero, *numbers, salt = HEADER.unpack_from(data)
    end = HEADER.size + info_length
    if magic != MAGIC or len(data) < end + CRC.size:
        raise CorruptLogError(path, 0, "not a segment header")
    if CRC.unpack_from(data, end)[0] != crc32c(data[:end]):
        raise CorruptLogError(path, 0, "the segment header's checksum does not match")
    if version != VERSION:
        raise FormatVersionError(path, version, VERSION)
    segment_id, previous_last_id, id_limit, file_size, created = numbers
    sound = not zero and any(salt[:4]) and previous_last_id < segment_id < id_limit <= MAX_ID
    if not sound:
        raise CorruptLogError(path, 0, "the segment header contradicts itself")
    return SegmentHeader(
        segment_id, previous_last_id, id_limit, file_size, data[HEADER.size : end], created, salt
    )


def seed_at(seed: int, offset: int) -> int:
    """The checksum that a frame's or chunk's at ``offset`` begins from."""
    return crc32c(offset.to_bytes(8, "little"), seed)


def encode_entry_header(
    header: SegmentHeader, seed: int, offset: int, entry_id: int, durable_id: int
) -> bytes:
    """The frame that opens a streamed entry."""
    head = ENTRY.pack(header.mark, ENTRY_TAG, entry_id, durable_id)
    return head + CRC.pack(crc32c(head, seed_at(seed, offset)))


def chunk_crc(seed: int, offset: int, head: bytes) -> int:
    """The checksum of a chunk's tag and length; its data continues it."""
    return crc32c(head, seed_at(seed, offset))


def encode_chunks(seed: int, offset: int, chunks: Sequence[bytes]) -> tuple[list[bytes], bytes]:
    """Whole chunks of a streamed entry as buffers, and their crcs, as in the file."""
    buffers: list[bytes] = []
    crcs = bytearray()
    for chunk in chunks:
        head = CHUNK.pack(CHUNK_TAG, len(chunk))
        tail = CRC.pack(crc32c(chunk, chunk_crc(seed, offset, head)))
        buffers += (head, chunk, tail)
        crcs += tail
        offset += CHUNK_OVERHEAD + len(chunk)
    return buffers, bytes(crcs)


def encode_end(seed: int, entry_offset: int, entry_header: bytes, crcs: bytes, count: int) -> bytes:
    """The frame that makes a streamed entry valid. ``crcs``: every chunk's, as in the file."""
    end = END.pack(END_TAG, count)
    return end + CRC.pack(crc32c(entry_header + crcs + end, seed_at(seed, entry_offset)))


def encode_group(
    header: SegmentHeader,
    seed: int,
    offset: int,
    first_id: int,
    durable_id: int,
    items: list[Appended],
    chunks: int,
) -> tuple[bytes, bytes, bytes]:
    """A group frame as buffers for one vectored write: header, payload, the payload's crc."""
    payload: bytes = msgpack.packb(items)
    start = seed_at(seed, offset)
    head = GROUP.pack(
        header.mark, GROUP_TAG, first_id, durable_id, len(items), chunks, len(payload)
    )
    return head + CRC.pack(crc32c(head, start)), payload, CRC.pack(crc32c(payload, start))


def framed_size(length: int, chunks: int) -> int:
    """The most that an appended entry takes in a group, from its bytes and how many chunks it has.

    >>> import wal
    >>> chunks = (b"one", b"two")
    >>> wal.framed_size(sum(map(len, chunks)), len(chunks))
    21
    """
    return length + ITEM_OVERHEAD * (chunks + 1)


def data_in_group(size: int, entries: int, chunks: int) -> int:
    """About how many bytes of data there are in a group frame of ``size`` bytes."""
    arrays = 1 + (entries if chunks > entries else 0)
    return size - GROUP_BYTES - CRC.size - arrays - 2 * chunks


def data_in_entry(size: int, chunks: int) -> int:
    """How many bytes of data there are in an entry's frames of ``size`` bytes."""
    return size - ENTRY_BYTES - END_BYTES - chunks * CHUNK_OVERHEAD


class GroupHeader(NamedTuple):
    """What a group's header says."""

    mark: bytes
    tag: int
    first_id: int
    durable_id: int
    count: int  # type: ignore[assignment]  # tuple.count gives way
    chunks: int
    length: int
    crc: int


def decode_group_header(start: int, data: bytes, at: int) -> GroupHeader | None:
    """The group header at ``data[at:]``, if it is valid. ``start`` is :func:`seed_at` its place."""
    if len(data) < at + GROUP_BYTES:
        return None
    group = _new_tuple(GroupHeader, _GROUP_AND_CRC.unpack_from(data, at))
    _, tag, first_id, durable_id, count, chunks, length, crc = group
    sound = (
        tag == GROUP_TAG
        and durable_id < first_id
        and count <= length >= chunks
        and length <= MAX_GROUP_PAYLOAD + ITEM_OVERHEAD
        and crc == crc32c(data[at : at + GROUP.size], start)
    )
    return group if sound else None


def decode_payload(payload: bytes, count: int, chunks: int) -> list[Item] | None:
    """The items of a group, or None where the payload is not exactly what its header announced.

    The limits keep what a hostile payload can make msgpack allocate within a small factor of its
    own size; the shape (``count`` items, bytes or lists of bytes, ``chunks`` in all) is checked
    after.
    """
    longest = count if count > chunks else chunks
    items = _unpack_one_by_one(payload, count) if longest > SHORT else None
    if items is None:
        if not is_affordable(payload, longest):
            return None
        try:
            items = msgpack.unpackb(payload, max_array_len=longest, **_limits(payload))
        except _UNPACKING:
            return None
    if type(items) is not list or len(items) != count:
        return None
    return items if _count_chunks(items) == chunks else None


def _count_chunks(items: Sequence[Any]) -> int:
    """How many chunks some items have, or -1 where one is something else than an item."""
    kinds = set(map(type, items))
    if kinds == {list}:
        # In one walk over all chunks: 90 ns an entry of three; 290 with a step for each entry.
        sound = set(map(type, chain.from_iterable(items))) <= {bytes}
        return sum(map(len, items)) if sound else -1
    if kinds <= {bytes}:
        return len(items)
    lists = [item for item in items if type(item) is not bytes]
    found = _count_chunks(lists) if set(map(type, lists)) == {list} else -1
    return found if found < 0 else found + len(items) - len(lists)


def _unpack_one_by_one(payload: bytes, count: int) -> list[Item] | None:
    """The items of a large group, where none is a long array; None where that cannot be told.

    17 ns an item slower than all at once, but the one long array that is expected is the outer one,
    and it is not nested.
    """
    unpacker = msgpack.Unpacker(
        read_size=len(payload),
        max_buffer_size=len(payload),
        max_array_len=SHORT,
        **_limits(payload),
    )
    try:
        unpacker.feed(payload)
        if unpacker.read_array_header() != count:
            return None
        items = list(islice(unpacker, count))
    except _UNPACKING:
        return None
    return items if unpacker.tell() == len(payload) else None


def _limits(payload: bytes) -> dict[str, int]:
    return {"max_bin_len": len(payload), "max_str_len": 0, "max_map_len": 0, "max_ext_len": 0}


def evidence_in(header: SegmentHeader, seed: int, data: Buffer, offset: int) -> int:
    """The largest durable id of any valid header in ``data``, at ``offset`` in the file.

    Looks at every occurrence of the mark, whatever stands around it: after damage this is what
    tells it from a torn tail. Ids that no log can have written are no evidence.
    """
    data = bytes(data)
    best = 0
    at = data.find(header.mark)
    while at >= 0:
        for layout in (ENTRY, GROUP):
            end = at + layout.size
            if end + CRC.size > len(data):
                continue
            if CRC.unpack_from(data, end)[0] == crc32c(data[at:end], seed_at(seed, offset + at)):
                _, _, entry_id, durable_id, *_ = layout.unpack_from(data, at)
                if best < durable_id < entry_id <= header.id_limit:
                    best = durable_id
        at = data.find(header.mark, at + 1)
    return best
