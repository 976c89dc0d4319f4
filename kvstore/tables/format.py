r"""The bytes of a table file and of the manifest. Pure: bytes to values and back, no I/O.

A table, all integers little-endian::

    header   magic "KVST"  u8 version=1  3 zero bytes  u64 number  u32 crc
    block*   u64 length  u32 count  payload  u32 crc(length, count, payload)
    footer   u64 blocks  u64 items  u32 crc of the blocks' crcs  u32 crc

A block's payload, of ``length`` bytes, is one flat msgpack array ``k1 v1 k2 v2 …`` of ``count``
items, keys ascending, a value nil where the key is deleted. A block is closed once it has 16 KiB.
Every crc is a crc32c that starts from that of the table's number and the offset of what it covers
(u64 each), so that no block passes in another place or table. The footer's crc thus vouches for the
whole file; the manifest repeats it.

The manifest is one frame, whatever its version::

    magic "KVSM"  u8 version=1  3 zero bytes  u32 length  payload  u32 crc(all before)

A payload is a msgpack map; see :mod:`kvstore.tables.manifest`.

A reader checks the crc first, then the version: a newer file is a FormatVersionError, never taken
for damage, and damage is never taken for a newer file.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import Final

import msgpack
from crc32c import crc32c

from kvstore.errors import FormatVersionError

VERSION: Final = 1
BLOCK_BYTES: Final = 16 << 10
_ITEM_OVERHEAD: Final = 8

_TABLE_MAGIC: Final = b"KVST"
_MANIFEST_MAGIC: Final = b"KVSM"
_SEED: Final = struct.Struct("<QQ")
_HEADER: Final = struct.Struct("<4sB3xQ")
BLOCK: Final = struct.Struct("<QI")
_FOOTER: Final = struct.Struct("<QQI")
_MANIFEST: Final = struct.Struct("<4sB3xI")
CRC: Final = struct.Struct("<I")

HEADER_BYTES: Final = _HEADER.size + CRC.size
FOOTER_BYTES: Final = _FOOTER.size + CRC.size
LEAST_TABLE_BYTES: Final = HEADER_BYTES + FOOTER_BYTES

Pairs = Iterable[tuple[bytes, "bytes | None"]]


class DamageError(ValueError):
    """The bytes are not what was written; ``offset`` is where in the file."""

    def __init__(self, reason: str, offset: int = 0) -> None:
        self.reason = reason
        self.offset = offset
        super().__init__(reason)


def _crc_at(number: int, offset: int, *parts: bytes) -> bytes:
    crc = crc32c(_SEED.pack(number, offset))
    for part in parts:
        crc = crc32c(part, crc)
    return CRC.pack(crc)


# ------------------------------------------------------------------ tables


def encode_table(number: int, pairs: Pairs) -> Iterator[bytes]:
    """A table file piece by piece. ``pairs`` come with their keys ascending."""
    header = _HEADER.pack(_TABLE_MAGIC, VERSION, number)
    yield header + _crc_at(number, 0, header)
    offset, blocks, items, crcs = HEADER_BYTES, 0, 0, 0
    for flat in _flat_blocks(pairs):
        payload = msgpack.packb(flat, use_bin_type=True)
        count = len(flat) // 2
        head = BLOCK.pack(len(payload), count)
        crc = _crc_at(number, offset, head, payload)
        yield from (head, payload, crc)
        crcs = crc32c(crc, crcs)
        offset += len(head) + len(payload) + len(crc)
        blocks, items = blocks + 1, items + count
    footer = _FOOTER.pack(blocks, items, crcs)
    yield footer + _crc_at(number, offset, footer)


def _flat_blocks(pairs: Pairs) -> Iterator[list[bytes | None]]:
    flat: list[bytes | None] = []
    size = 0
    for key, value in pairs:
        flat += (key, value)
        size += len(key) + _ITEM_OVERHEAD + (len(value) if value else 0)
        if size >= BLOCK_BYTES:
            yield flat
            flat, size = [], 0
    if flat:
        yield flat


def check_header(data: bytes, number: int) -> None:
    """Raise DamageError or FormatVersionError unless this is the header of that table."""
    header, crc = data[: _HEADER.size], data[_HEADER.size :]
    if crc != _crc_at(number, 0, header) or not header.startswith(_TABLE_MAGIC):
        raise DamageError(f"not the header of table {number}")
    if header[4] != VERSION:
        raise FormatVersionError(
            f"table {number} has format version {header[4]}; known is {VERSION}"
        )


def decode_footer(data: bytes, number: int, offset: int) -> tuple[int, int, int]:
    """``(blocks, items, crc of the blocks' crcs)`` of a footer that begins at ``offset``."""
    footer, crc = data[: _FOOTER.size], data[_FOOTER.size :]
    if crc != _crc_at(number, offset, footer):
        raise DamageError("the footer's checksum does not match", offset)
    blocks, items, crcs = _FOOTER.unpack(footer)
    return blocks, items, crcs


def block_length(data: bytes) -> int:
    """The bytes behind a block's head: its payload and crc. Not yet vouched for by any checksum."""
    length: int = BLOCK.unpack(data)[0]
    return length + CRC.size


def decode_block(number: int, offset: int, head: bytes, body: bytes) -> list[bytes | None]:
    """The flat content ``k1 v1 k2 v2 …`` of a block that begins at ``offset``."""
    payload, crc = body[: -CRC.size], body[-CRC.size :]
    if crc != _crc_at(number, offset, head, payload):
        raise DamageError("a block's checksum does not match", offset)
    length, count = BLOCK.unpack(head)
    flat = unpack(payload, most_items=min(2 * count, length))
    if not isinstance(flat, list) or len(flat) != 2 * count or not _is_flat(flat):
        raise DamageError("a block is not a list of keys and values", offset)
    return flat


def _is_flat(flat: list[object]) -> bool:
    return set(map(type, flat[::2])) <= {bytes} and set(map(type, flat[1::2])) <= {
        bytes,
        type(None),
    }


# ------------------------------------------------------------------ the manifest


def encode_manifest(payload: dict[str, object]) -> bytes:
    """The manifest file with this payload."""
    body = msgpack.packb(payload, use_bin_type=True)
    frame: bytes = _MANIFEST.pack(_MANIFEST_MAGIC, VERSION, len(body)) + body
    return frame + CRC.pack(crc32c(frame))


def decode_manifest(data: bytes) -> dict[object, object]:
    """The payload of a manifest file."""
    frame, crc = data[: -CRC.size], data[-CRC.size :]
    if len(data) < _MANIFEST.size + CRC.size or crc != CRC.pack(crc32c(frame)):
        raise DamageError("the manifest's checksum does not match")
    magic, version, length = _MANIFEST.unpack_from(frame)
    if magic != _MANIFEST_MAGIC or length != len(frame) - _MANIFEST.size:
        raise DamageError("not a manifest")
    if version != VERSION:
        raise FormatVersionError(f"the manifest has format version {version}; known is {VERSION}")
    payload = unpack(frame[_MANIFEST.size :], most_items=length)
    if not isinstance(payload, dict):
        raise DamageError("the manifest's payload is not a map")
    return payload


def unpack(data: bytes, most_items: int) -> object:
    """Decode msgpack, taking no more memory than its length warrants."""
    try:
        return msgpack.unpackb(
            data,
            raw=False,
            strict_map_key=True,
            max_bin_len=len(data),
            max_str_len=len(data),
            max_array_len=most_items,
            max_map_len=most_items,
            max_ext_len=0,
        )
    except (ValueError, RecursionError, msgpack.exceptions.StackError) as error:
        raise DamageError(f"not valid msgpack: {error}") from None
