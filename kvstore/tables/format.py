r"""The bytes of a table file. Pure: bytes to values and back, no I/O.

A table, all integers little-endian::

    header    magic "KVST"  u8 version=2  3 zero bytes  16s table id (random)  u32 crc
    block*    body  u32 length of the raw body  u32 records  u32 crc(body, both)
    blob*     the bytes of one large value; blobs lie between the blocks, in the order they came
    section*  data  u32 crc for each 4 KiB of the *file* that the data touches
    footer    msgpack map  u32 length of the map  magic "KVSF"  u32 crc(map, length, magic)

A raw body is one flat msgpack array ``k1 v1 k2 v2 …``, keys ascending (as pairs it would decode 3
to 11 times slower), then the u32 offset in it of each record and of the end, last one first: so the
offsets of a record are found from the block's end without knowing how many there are. In a
compressed table the body is what the codec made of that, unless that is no shorter. A block is
closed once it has 16 KiB and 64 records, or 64 KiB, or 4,096 records: so a walk over records of
1 KiB takes a fourth of the steps, while a look-up of one key reads no block.

A value is bin; nil where the key is deleted; or ext 1, a blob: u64 offset, u32 length, u32 crc of
its bytes. Any other ext is of a newer version.

Sections, by the kind that the footer names (an unknown one that is not required is skipped):

====  ========  ===================================================================================
kind  what      data
====  ========  ===================================================================================
1     index     msgpack array of one separator for each block, then u64 offset of each, then u32
                length of each. A separator is at or below its block's first key, and above the last
                key of the block before
2     filter    :mod:`kvstore.tables.filters`
3     slots     :mod:`kvstore.tables.slots`
4     sieve     :mod:`kvstore.tables.filters`
5     records   :mod:`kvstore.tables.slots`
====  ========  ===================================================================================

Every crc is a crc32c that starts from that of the table's id and the offset of what it covers, so
that nothing passes in another place or table. The footer's is repeated by the manifest.
"""

from __future__ import annotations

import struct
import sys
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, islice
from typing import Any, Final, TypeAlias

import msgpack
from crc32c import crc32c
from msgpack import ExtType

from kvstore.errors import FormatVersionError
from kvstore.tables.compression import Codec
from kvstore.values import PlainPage
from wal.untrusted import SHORT, is_affordable

VERSION: Final = 2
BLOCK_BYTES: Final = 16 << 10
LEAST_RECORDS: Final = 64
LONGER_BLOCKS: Final = 4
"""A block of fewer records may be so many times as long."""
RECORD_BITS: Final = 12
MOST_RECORDS: Final = 1 << RECORD_BITS
LARGEST_RAW_BODY: Final = 4 << 20
"""Of a compressed block: what a forged length may cost."""
GRANULE_BITS: Final = 12
GRANULE: Final = 1 << GRANULE_BITS
"""What one crc of a section covers, and what is read of it at once."""

INDEX: Final = 1
FILTER: Final = 2
SLOTS: Final = 3
SIEVE: Final = 4
RECORDS: Final = 5
BLOB_EXT: Final = 1

_MAGIC: Final = b"KVST"
_FOOTER_MAGIC: Final = b"KVSF"
_OFFSET: Final = struct.Struct("<Q")
_HEADER: Final = struct.Struct("<4sB3x16s")
_CRC: Final = struct.Struct("<I")
_SIZES: Final = struct.Struct("<II")
TAIL: Final = struct.Struct("<III")
_FOOTER_TAIL: Final = struct.Struct("<I4sI")
BLOB_REFERENCE: Final = struct.Struct("<QII")

HEADER_BYTES: Final = _HEADER.size + _CRC.size
FOOTER_TAIL_BYTES: Final = _FOOTER_TAIL.size
LEAST_TABLE_BYTES: Final = HEADER_BYTES + FOOTER_TAIL_BYTES

BIN8: Final = 0xC4
BIN16: Final = 0xC5
_BIN32: Final = 0xC6
_NIL: Final = 0xC0
_FIXEXT16: Final = 0xD8
_MOST_EXT_CODE: Final = 0x7F
_MOST_HEAD: Final = 18
"""A value with so many bytes behind its key can be told, if it is not bin."""
_NONE_BYTES: Final = 1
_REFERENCE_BYTES: Final = 2 + BLOB_REFERENCE.size

Bytes = bytes | memoryview
Stored: TypeAlias = "bytes | ExtType | None"
"""A value as a block has it."""
BlobHook = Callable[[int, bytes], object]


class DamageError(ValueError):
    """The bytes are not what was written; ``offset`` is where in the file."""

    def __init__(self, reason: str, offset: int = 0) -> None:
        self.reason = reason
        self.offset = offset
        super().__init__(reason)


def seed(table_id: bytes, offset: int) -> int:
    """What the crc of something at ``offset`` starts from."""
    start: int = crc32c(_OFFSET.pack(offset), crc32c(table_id))
    return start


def crc_at(table_id: bytes, offset: int, data: Bytes) -> int:
    """The crc of what is at ``offset``."""
    crc: int = crc32c(data, seed(table_id, offset))
    return crc


def u32s(numbers: array[int]) -> bytes:
    """Little-endian, on whatever machine. Takes the array over. Also for other item types."""
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers.tobytes()


# ------------------------------------------------------------------ header and footer


def encode_header(table_id: bytes) -> bytes:
    """The first bytes of a table."""
    header = _HEADER.pack(_MAGIC, VERSION, table_id)
    return header + _CRC.pack(crc32c(header, seed(table_id, 0)))


def check_header(data: bytes, table_id: bytes) -> None:
    """Raise DamageError or FormatVersionError unless this is the header of that table."""
    header, crc = data[: _HEADER.size], data[_HEADER.size :]
    if crc != _CRC.pack(crc32c(header, seed(table_id, 0))) or not header.startswith(_MAGIC):
        raise DamageError("not the header of the table that the manifest names")
    if header[4] != VERSION:
        raise FormatVersionError(f"a table has format version {header[4]}; known is {VERSION}")
    if _HEADER.unpack(header)[2] != table_id:
        raise DamageError("the table has another id")


@dataclass(frozen=True)
class Section:
    """Where a section is: ``length`` bytes of data from ``offset``, then its crcs.

    >>> Section(INDEX, 0x0FFF, 2, True, 0).granules
    range(0, 2)
    """

    kind: int
    offset: int
    length: int
    required: bool
    crc: int
    """That of the section's crcs."""

    @property
    def end(self) -> int:
        return self.offset + self.length

    @property
    def granules(self) -> range:
        """The 4 KiB pieces of the file that the data touches."""
        return range(self.offset >> GRANULE_BITS, (self.end + GRANULE - 1) >> GRANULE_BITS)


@dataclass(frozen=True)
class Footer:
    """What a table says about itself."""

    items: int
    tombstones: int
    blocks: int
    first_entry_id: int
    last_entry_id: int
    compression: str | None
    sections: tuple[Section, ...]
    buckets: int
    """Of the filter; 0 if there is none."""

    def section(self, kind: int) -> Section | None:
        """The section of that kind, if the table has one."""
        return next((each for each in self.sections if each.kind == kind), None)


def encode_footer(table_id: bytes, offset: int, footer: Footer) -> tuple[bytes, int]:
    """The last bytes of a table, and their crc."""
    fields = vars(footer) | {
        "sections": [[s.kind, s.offset, s.length, s.required, s.crc] for s in footer.sections]
    }
    body = msgpack.packb(fields)
    body += struct.pack("<I4s", len(body), _FOOTER_MAGIC)
    crc = crc32c(body, seed(table_id, offset))
    return body + _CRC.pack(crc), crc


def footer_bytes(tail: bytes, size: int) -> int:
    """The footer's length, from its last bytes. Not yet vouched for by any checksum."""
    length, magic, _ = _FOOTER_TAIL.unpack(tail[-FOOTER_TAIL_BYTES:])
    if magic != _FOOTER_MAGIC or length > size - LEAST_TABLE_BYTES:
        raise DamageError("not the end of a table", max(0, size - FOOTER_TAIL_BYTES))
    return int(length) + FOOTER_TAIL_BYTES


def decode_footer(data: bytes, table_id: bytes, offset: int, crc: int) -> Footer:
    """A footer that begins at ``offset`` and must have the crc that the manifest knows."""
    found = crc32c(data[: -_CRC.size], seed(table_id, offset))
    if found != crc or data[-_CRC.size :] != _CRC.pack(crc):
        raise DamageError("not the footer that the manifest names", offset)
    body = data[:-FOOTER_TAIL_BYTES]
    try:
        if not is_affordable(body, len(body)):
            raise ValueError("arrays in arrays")
        fields = msgpack.unpackb(body, **_limits(len(body)))
        sections = tuple(_section(*each, before=offset) for each in fields.pop("sections"))
        names = [name for name in Footer.__annotations__ if name != "sections"]
        footer = Footer(**{name: fields[name] for name in names}, sections=sections)
        _check_footer(footer, offset)
    except (ValueError, TypeError, KeyError, AttributeError, msgpack.exceptions.StackError):
        raise DamageError("the footer makes no sense", offset) from None
    for section in footer.sections:
        if section.required and section.kind not in (INDEX, FILTER, SLOTS, SIEVE, RECORDS):
            raise FormatVersionError(f"a table has a section of unknown kind {section.kind}")
    return footer


def _limits(length: int) -> dict[str, int]:
    return {
        "max_bin_len": length,
        "max_str_len": length,
        "max_array_len": length,
        "max_map_len": length,
        "max_ext_len": 0,
    }


def _section(
    kind: int, offset: int, length: int, required: bool, crc: int, *, before: int
) -> Section:
    section = Section(kind, offset, length, required, crc)
    if offset < HEADER_BYTES or length < 0:
        raise ValueError("a section is nowhere")
    if section.end + len(section.granules) * _CRC.size > before:
        raise ValueError("a section goes beyond the footer")
    return section


def _check_footer(footer: Footer, offset: int) -> None:
    lengths = {section.kind: section.length for section in footer.sections}
    numbers = (footer.items, footer.tombstones, footer.blocks, footer.buckets)
    sound = (
        all(type(number) is int and 0 <= number <= offset for number in numbers)
        and type(footer.compression) in (str, type(None))
        and lengths[INDEX] >= INDEX_ENTRY_BYTES * footer.blocks
        and lengths.get(FILTER, 0) == filter_bytes(footer.items, footer.buckets)
        and lengths.get(SLOTS, SLOT_BYTES * footer.items) == SLOT_BYTES * footer.items
        and lengths.get(RECORDS, RECORD_BYTES * footer.items) == RECORD_BYTES * footer.items
        and (SLOTS in lengths) == (RECORDS in lengths)
        and (FILTER in lengths or not {SLOTS, SIEVE} & lengths.keys())
        and (SIEVE in lengths) == bool(footer.buckets)
        and lengths.get(SIEVE, 1).bit_count() == 1
    )
    if not sound:
        raise ValueError("the footer's fields contradict each other")


def filter_bytes(items: int, buckets: int) -> int:
    """The length of a filter: see :mod:`kvstore.tables.filters`."""
    return 2 * (buckets + 1) + items if buckets else 0


# ------------------------------------------------------------------ sections


def section_crcs(table_id: bytes, offset: int, data: Bytes) -> bytes:
    """What follows the data of a section that begins at ``offset``."""
    crcs = array("I")
    view, position = memoryview(data), 0
    while position < len(view):
        end = ((offset + position) | (GRANULE - 1)) + 1 - offset
        crcs.append(crc32c(view[position:end], seed(table_id, offset + position)))
        position = end
    return u32s(crcs)


def decode_section_crcs(data: bytes, section: Section) -> dict[int, int]:
    """For each granule that the section touches, the crc of what it has there."""
    if crc32c(data) != section.crc or len(data) != len(section.granules) * _CRC.size:
        raise DamageError("a section's checksums are damaged", section.end)
    return dict(zip(section.granules, struct.unpack(f"<{len(data) // 4}I", data), strict=True))


INDEX_ENTRY_BYTES: Final = 12
SLOT_BYTES: Final = 4
RECORD_BYTES: Final = 8


def encode_index(separators: list[bytes], offsets: array[int], lengths: array[int]) -> bytes:
    """The data of an index."""
    packed: bytes = msgpack.packb(separators)
    return packed + u32s(offsets) + u32s(lengths)


def decode_index(data: bytes, blocks: int, at: int) -> tuple[list[bytes], array[int], array[int]]:
    """The separators, offsets and lengths of the blocks, from an index at ``at``."""
    cut = len(data) - INDEX_ENTRY_BYTES * blocks
    packed = data[:cut]
    try:
        if not is_affordable(packed, blocks):
            raise ValueError("arrays in arrays")
        separators = msgpack.unpackb(packed, **(_limits(cut) | {"max_array_len": blocks}))
    except (ValueError, msgpack.exceptions.StackError):
        separators = None
    if not isinstance(separators, list) or not set(map(type, separators)) <= {bytes}:
        raise DamageError("the index makes no sense", at)
    if len(separators) != blocks:
        raise DamageError("the index does not have all blocks", at)
    offsets = array("Q", data[cut : cut + 8 * blocks])
    lengths = array("I", data[cut + 8 * blocks :])
    if sys.byteorder == "big":
        offsets.byteswap()
        lengths.byteswap()
    return separators, offsets, lengths


# ------------------------------------------------------------------ blocks


def encoded_bytes(stored: Stored) -> int:
    """How long a key or a stored value is in msgpack.

    >>> [encoded_bytes(each) for each in (b"", bytes(256), None)]
    [2, 259, 1]
    """
    if stored is None:
        return _NONE_BYTES
    if isinstance(stored, ExtType):
        return _REFERENCE_BYTES
    length = len(stored)
    return length + (2 if length < 1 << 8 else 3 if length < 1 << 16 else 5)


def encode_block(
    keys: list[bytes], values: Sequence[Stored], sizes: list[int], start: int, codec: Codec | None
) -> list[bytes]:
    """A block in pieces. ``sizes`` are the encoded bytes of each record, ``start`` its crc's."""
    flat: list[Stored] = [None] * (2 * len(keys))
    flat[::2] = keys
    flat[1::2] = values
    payload = msgpack.packb(flat)
    offsets = array("I", accumulate(sizes, initial=array_head(len(flat))))
    offsets.reverse()
    body: bytes = payload + u32s(offsets)
    sizes_of = _SIZES.pack(len(body), len(keys))
    if codec is not None and len(body) <= LARGEST_RAW_BODY:
        packed = codec.compress(body)
        body = packed if len(packed) < len(body) else body
    return [body, sizes_of, _CRC.pack(crc32c(sizes_of, crc32c(body, start)))]


def offsets_of(sizes: Sequence[int], at: int) -> Iterator[int]:
    """Where the records of an uncompressed block at ``at`` are, from their encoded bytes."""
    return islice(accumulate(sizes, initial=at + array_head(2 * len(sizes))), len(sizes))


def array_head(length: int) -> int:
    """How long msgpack's head of an array is."""
    return 1 if length < 1 << 4 else 3 if length < 1 << 16 else 5


def check_block(block: Bytes, start: int, at: int) -> None:
    """Raise DamageError unless the checksum of the block, which is at ``at``, is right."""
    sound = len(block) >= TAIL.size
    if not sound or crc32c(memoryview(block)[:-4], start) != _CRC.unpack(block[-4:])[0]:
        raise DamageError("a block's checksum does not match", at)


def decode_block(
    block: Bytes, codec: Codec | None, blob: BlobHook, at: int
) -> tuple[list[bytes], list[Any]]:
    """The keys and values of a checked block, as a PlainPage where all values are bytes.

    ``blob`` makes a value of an ext.
    """
    raw, count, _ = TAIL.unpack(block[-TAIL.size :])
    body: Bytes = memoryview(block)[: -TAIL.size]
    if raw != len(body):
        body = memoryview(_decompress(body, raw, codec, at))
    length = raw - 4 * (count + 1)
    try:
        if not 0 <= 2 * count < length:
            raise ValueError("more records than bytes")
        packed = body[:length]
        if 2 * count > SHORT and not is_affordable(bytes(packed), 2 * count):
            raise ValueError("arrays in arrays")
        flat = msgpack.unpackb(
            packed,
            max_bin_len=length,
            max_array_len=2 * count,
            max_str_len=0,
            max_map_len=0,
            max_ext_len=BLOB_REFERENCE.size,
            ext_hook=blob,
        )
        pairs = flat[::2], flat[1::2]
        if len(flat) != 2 * count:
            raise ValueError("not pairs")
        if _are_bytes(flat):
            return PlainPage(pairs)
        if not set(map(type, pairs[0])) <= {bytes}:
            raise ValueError("not pairs")
    except (ValueError, TypeError, msgpack.exceptions.StackError):
        raise DamageError("a block is not a list of keys and values", at) from None
    return pairs


def _are_bytes(decoded: list[object]) -> bool:
    """Whether all that msgpack made of a block are bytes.

    Joining them is the cheapest way to find out: 15 ns a record of 116 bytes, 40 by their types.
    """
    try:
        b"".join(decoded)  # type: ignore[arg-type]
    except TypeError:
        return False
    return True


def _decompress(body: Bytes, raw: int, codec: Codec | None, at: int) -> bytes:
    if codec is None or raw > LARGEST_RAW_BODY:
        raise DamageError("a block's length makes no sense", at)
    data = codec.decompress(bytes(body), raw)
    if data is None or len(data) != raw:
        raise DamageError("a block cannot be decompressed", at)
    return data


def decode_record(data: bytes, read: Callable[[int], bytes], at: int) -> tuple[bytes, Stored]:
    """The key and the value of one record, not yet verified, from its first bytes.

    ``data`` has at least 5 bytes; ``read`` gives more of them, from the record's first on.
    """
    begin, end = _bounds_of_bin(data, 0, at)
    if len(data) < end + _MOST_HEAD:
        data = read(end + _MOST_HEAD)
    key, kind = data[begin:end], data[end]
    if kind == _NIL:
        return key, None
    if kind == _FIXEXT16 and data[end + 1] <= _MOST_EXT_CODE:
        return key, ExtType(data[end + 1], data[end + 2 : end + 2 + BLOB_REFERENCE.size])
    begin, end = _bounds_of_bin(data, end, at)
    if len(data) < end:
        data = read(end)
    return key, data[begin:end]


def _bounds_of_bin(data: bytes, start: int, at: int) -> tuple[int, int]:
    """Where the bytes of the msgpack bin at ``start`` begin and end."""
    digits = {BIN8: 1, BIN16: 2, _BIN32: 4}.get(data[start])
    if digits is None:
        raise DamageError("a record is not a key and a value", at)
    begin = start + 1 + digits
    return begin, begin + int.from_bytes(data[start + 1 : begin], "big")
