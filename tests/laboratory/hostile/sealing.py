"""Checksums made right again over bytes that were changed: what a forger would do.

Random changes alone meet a checksum and go no further. Each function here takes the bytes of a
file, however broken, walks them as far as they can be walked, puts right the checksums and what
would end the walk (a mark, a length beyond the end), and leaves everything else as hostile as it
is. None of them raises.
"""

from __future__ import annotations

import struct

import msgpack
from crc32c import crc32c

from kvstore.tables import format as tables
from kvstore.tables import manifest as manifests
from wal import checkpoint_marker as marker
from wal.errors import WalError
from wal.segments import format as wal_format

U32 = struct.Struct("<I")


# ------------------------------------------------------------------ the log


def seal_segment(data):
    """A segment's header and all its frames."""
    out = bytearray(data)
    if len(out) < wal_format.HEADER.size + 4:
        return bytes(out)
    out[0:4] = wal_format.MAGIC
    if wal_format.HEADER.size + out[5] + 4 > len(out):
        out[5] = 0
    out[6:8] = b"\0\0"
    size = int.from_bytes(out[32:40], "little")
    out[32:40] = min(size, len(out)).to_bytes(8, "little")
    end = wal_format.HEADER.size + out[5]
    U32.pack_into(out, end, crc32c(bytes(out[:end])))
    try:
        header = wal_format.decode_header("", bytes(out[:1024]))
    except WalError:
        return bytes(out)
    at = header.size
    while at + 5 <= len(out):
        if out[at + 4] == wal_format.GROUP_TAG:
            following = _seal_group(out, at, header)
        elif out[at + 4] == wal_format.ENTRY_TAG:
            following = _seal_entry(out, at, header)
        else:
            break
        if following is None:
            break
        at = following
    return bytes(out)


def _seal_group(out, at, header):
    start = at + wal_format.GROUP_BYTES
    if start + 4 > len(out):
        return None
    out[at : at + 4] = header.mark
    length = min(U32.unpack_from(out, start - 8)[0], len(out) - start - 4)
    U32.pack_into(out, start - 8, length)
    seed = wal_format.seed_at(header.seed, at)
    U32.pack_into(out, start - 4, crc32c(bytes(out[at : start - 4]), seed))
    end = start + length
    U32.pack_into(out, end, crc32c(bytes(out[start:end]), seed))
    return end + 4


def _seal_entry(out, at, header):
    if at + wal_format.ENTRY_BYTES > len(out):
        return None
    out[at : at + 4] = header.mark
    seed = wal_format.seed_at(header.seed, at)
    place = at + wal_format.ENTRY.size
    U32.pack_into(out, place, crc32c(bytes(out[at:place]), seed))
    running = bytes(out[at : place + 4])
    at = place + 4
    while at + 9 <= len(out):
        tag, number = wal_format.CHUNK.unpack_from(out, at)
        if tag == wal_format.END_TAG:
            crc = crc32c(running + bytes(out[at : at + 5]), seed)
            U32.pack_into(out, at + 5, crc)
            return at + 9
        if tag != wal_format.CHUNK_TAG:
            return None
        number = min(number, len(out) - at - 9)
        U32.pack_into(out, at + 1, number)
        end = at + 5 + number
        crc = crc32c(bytes(out[at:end]), wal_format.seed_at(header.seed, at))
        U32.pack_into(out, end, crc)
        running += U32.pack(crc)
        at = end + 4
    return None


def seal_marker(data):
    """Both slots of a CHECKPOINT."""
    out = bytearray(data)
    for at in (0, marker.BLOCK):
        end = at + marker.SLOT.size
        if end + 4 <= len(out) and any(out[at:end]):
            out[at : at + 4] = marker.MAGIC
            out[at + 6 : at + 8] = b"\0\0"
            U32.pack_into(out, end, crc32c(bytes(out[at:end])))
    return bytes(out)


# ------------------------------------------------------------------ the store


def seal_manifest(data):
    """A MANIFEST: magic, length and checksum."""
    payload = data[12:-4]
    head = b"KVSM" + bytes([manifests.VERSION]) + data[5:8].ljust(3, b"\0") + U32.pack(len(payload))
    return head + payload + U32.pack(crc32c(head + payload))


def footer_of(data):
    """The footer of a table as a dict, where it begins; None where it cannot be made out."""
    size = len(data)
    if size < tables.LEAST_TABLE_BYTES:
        return None, 0
    length = min(U32.unpack_from(data, size - 12)[0], size - tables.LEAST_TABLE_BYTES)
    at = size - tables.FOOTER_TAIL_BYTES - length
    try:
        fields = msgpack.unpackb(data[at : at + length], strict_map_key=False)
    except Exception:  # noqa: BLE001 - whatever it is, it is no footer
        return None, at
    return (fields if isinstance(fields, dict) else None), at


def seal_table(data):
    """A table: its header, every block that the index names, every section, the footer."""
    fields, at = footer_of(data)
    if len(data) < tables.LEAST_TABLE_BYTES:
        return data
    table_id = bytes(data[8:24])
    out = bytearray(data[:at])
    out[0:4] = b"KVST"
    U32.pack_into(out, 24, crc32c(bytes(out[:24]), tables.seed(table_id, 0)))
    if fields is None:
        body = bytes(data[at : -tables.FOOTER_TAIL_BYTES])
    else:
        _seal_parts(out, table_id, fields)
        body = msgpack.packb(fields)
    body += struct.pack("<I4s", len(body), b"KVSF")
    return bytes(out) + body + U32.pack(crc32c(body, tables.seed(table_id, len(out))))


def _seal_parts(out, table_id, fields):
    sections = fields.get("sections")
    for section in sections if isinstance(sections, list) else ():
        if not isinstance(section, list) or len(section) != 5:
            continue
        kind, offset, length = section[:3]
        if not all(type(n) is int and 0 <= n <= len(out) for n in (offset, length)):
            continue
        place = tables.Section(kind, offset, length, True, 0)
        if place.end + 4 * len(place.granules) > len(out):
            continue
        if kind == tables.INDEX:
            _seal_blocks(out, table_id, bytes(out[offset : place.end]), fields.get("blocks"))
        crcs = tables.section_crcs(table_id, offset, bytes(out[offset : place.end]))
        out[place.end : place.end + len(crcs)] = crcs
        section[4] = crc32c(crcs)


def _seal_blocks(out, table_id, index, blocks):
    if type(blocks) is not int or not 0 <= 12 * blocks <= len(index):
        return
    cut = len(index) - 12 * blocks
    for number in range(blocks):
        at = int.from_bytes(index[cut + 8 * number : cut + 8 * number + 8], "little")
        place = cut + 8 * blocks + 4 * number
        end = at + int.from_bytes(index[place : place + 4], "little")
        if tables.HEADER_BYTES <= at <= end - 12 and end <= len(out):
            crc = crc32c(bytes(out[at : end - 4]), tables.seed(table_id, at))
            U32.pack_into(out, end - 4, crc)


def seal_nothing(data):
    """For what carries no checksum."""
    return data
