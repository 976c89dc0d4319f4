"""``docs/wal-format.md`` says what the code writes, byte by byte."""

from __future__ import annotations

import re
import struct
from pathlib import Path
from typing import NamedTuple

import msgpack
import pytest
from crc32c import crc32c

from wal.checkpoint_marker import CRC, MAGIC, SLOT, CleanMark, Marker, decode_slot
from wal.files import MemoryFileSystem
from wal.segments import format as fmt
from wal.segments.frames import Group, StreamedEntry
from wal.segments.reader import FrameSource

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "wal-format.md").read_text(encoding="utf-8")

HEADER = fmt.SegmentHeader(
    segment_id=7,
    previous_last_id=6,
    id_limit=65543,
    file_size=4096,
    version_info=b"v1",
    created_unix_ns=1_700_000_000_000_000_000,
    salt=b"WALmark-fixed!01",
)


def example() -> bytes:
    """The page's segment, as the format module writes it."""
    segment = HEADER.encode()
    start = len(segment)
    opened = fmt.encode_entry_header(HEADER, HEADER.seed, start, 7, 6)
    segment += opened
    crcs = b""
    for data in (b"hello", b"wal"):
        head = fmt.CHUNK.pack(fmt.CHUNK_TAG, len(data))
        crc = fmt.CRC.pack(crc32c(data, fmt.chunk_crc(HEADER.seed, len(segment), head)))
        segment += head + data + crc
        crcs += crc
    segment += fmt.encode_end(HEADER.seed, start, opened, crcs, 2)
    group = fmt.encode_group(HEADER, HEADER.seed, len(segment), 8, 7, [b"grouped"], 1)
    return segment + b"".join(group)


def dumped() -> bytes:
    """The bytes of the page's hex dump."""
    block = re.search(r"^```text\n(0000  .*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert block is not None
    data = b""
    for line in block[1].splitlines():
        offset, hexadecimal, text = re.fullmatch(r"([0-9a-f]{4})  (.{47})  (.*)", line).groups()  # type: ignore[union-attr]
        assert int(offset, 16) == len(data)
        row = bytes.fromhex(hexadecimal)
        assert text == "".join(chr(byte) if 32 <= byte < 127 else "." for byte in row)
        data += row
    return data


class Row(NamedTuple):
    offset: int
    part: str
    field: str
    data: bytes
    value: str


def decoded() -> list[Row]:
    """The page's table of the fields in the example."""
    table = PAGE.partition("| Offset | Part | Field | Bytes | Value |")[2]
    rows = []
    for line in table.splitlines()[2:]:
        if not line.startswith("|"):
            break
        offset, part, field, data, value = (cell.strip() for cell in line.strip("|").split("|"))
        rows.append(Row(int(offset), part, field, bytes.fromhex(data.strip("`")), value))
    return rows


def test_the_dump_is_what_the_code_writes() -> None:
    assert dumped() == example()


def test_the_fields_are_the_dump() -> None:
    at = 0
    for row in decoded():
        assert row.offset == at, row.field
        at += len(row.data)
    assert b"".join(row.data for row in decoded()) == dumped()


@pytest.mark.parametrize("row", decoded(), ids=lambda row: f"{row.offset}-{row.field}")
def test_a_field_has_its_value(row: Row) -> None:
    if row.value.isdecimal():
        assert int.from_bytes(row.data, "little") == int(row.value)
    elif row.field == "payload":
        assert row.data == msgpack.packb([b"grouped"])
    elif row.field != "crc":
        assert row.value.startswith(f"`{row.data.decode()}`")


def test_checksums_follow_the_pages_rule() -> None:
    """Computed from the words of the page, without the format module."""
    data = dumped()
    rows = {(row.part, row.offset): row for row in decoded() if row.field == "crc"}

    def seeded(frame: int, covered: bytes) -> bytes:
        segment = crc32c(HEADER.salt + struct.pack("<Q", HEADER.segment_id))
        return struct.pack("<I", crc32c(covered, crc32c(struct.pack("<Q", frame), segment)))

    chunk_crcs = rows["chunk", 105].data + rows["chunk", 117].data
    assert rows["header", 66].data == struct.pack("<I", crc32c(data[:66]))
    assert rows["entry", 91].data == seeded(70, data[70:91])
    assert rows["chunk", 105].data == seeded(95, data[95:105])
    assert rows["chunk", 117].data == seeded(109, data[109:117])
    assert rows["end", 126].data == seeded(70, data[70:95] + chunk_crcs + data[121:126])
    assert rows["group", 163].data == seeded(130, data[130:163])
    assert rows["group", 177].data == seeded(130, data[167:177])


def test_the_decoder_reads_the_page() -> None:
    data = dumped()
    files = MemoryFileSystem({"log/segment": data + bytes(4096 - len(data))})
    header = fmt.decode_header("segment", data)
    assert header == HEADER
    source = FrameSource(files.open("log/segment"), "segment", header)
    streamed, group = source.frames(header.size, 4096, header.previous_last_id)
    assert isinstance(streamed, StreamedEntry)
    assert isinstance(group, Group)
    assert (streamed.id, streamed.durable_id, streamed.read_all()) == (7, 6, [b"hello", b"wal"])
    assert (group.first_id, group.durable_id, group.items) == (8, 7, [b"grouped"])
    (entry,) = group.entries()
    positions = [chunk.position for chunk in [*streamed.chunks(), *entry.chunks()]]
    written = [f"({p.segment_id}, {p.offset}, {p.index})" for p in positions]
    said = f"{written[0]}, {written[1]} and {written[2]}".replace("16777215", "`FFFFFF`")
    assert f"The positions of its chunks are {said}." in PAGE


def layout(heading: str, table: int = 0) -> list[tuple[str, str, str]]:
    """Offset, size and name of each field in a table below a heading."""
    section = re.split(r"^#{2,3} ", PAGE.partition(f"# {heading}\n")[2], flags=re.MULTILINE)[0]
    tables = re.split(
        r"^\| Offset \| Size \| Field \| Meaning \|\n\|[-|]*\n", section, flags=re.MULTILINE
    )
    lines = [line for line in tables[table + 1].splitlines() if line.startswith("|")]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [(row[0], row[1], row[2]) for row in rows]


def fixed(rows: list[tuple[str, str, str]]) -> list[tuple[int, int]]:
    """Those of which the page gives the place and the size as numbers."""
    known = [row for row in rows if row[0].isdecimal() and row[1].isdecimal()]
    return [(int(offset), int(size)) for offset, size, _ in known]


@pytest.mark.parametrize(
    ("heading", "table", "size"),
    [
        ("Header", 0, fmt.HEADER.size),
        ("Streamed entry", 0, fmt.ENTRY_BYTES),
        ("Streamed entry", 1, fmt.CHUNK.size),
        ("Streamed entry", 2, fmt.END_BYTES),
        ("Group", 0, fmt.GROUP_BYTES),
        ("CHECKPOINT", 0, SLOT.size + CRC.size),
    ],
)
def test_fields_lie_one_behind_the_other(heading: str, table: int, size: int) -> None:
    at = 0
    for offset, length in fixed(layout(heading, table)):
        assert offset == at
        at += length
    assert at == size


def test_the_slot_is_as_the_page_says() -> None:
    marker = Marker(9, 10, 11, 12, 13, 14, CleanMark(15, 16, 17))
    slot = marker.encode()
    values = [slot[offset : offset + size] for offset, size in fixed(layout("CHECKPOINT"))]
    assert values[:4] == [MAGIC, b"\x01", b"\x01", b"\0\0"]
    assert [int.from_bytes(value, "little") for value in values[4:-1]] == list(range(9, 18))
    assert values[-1] == struct.pack("<I", crc32c(slot[:80]))
    assert decode_slot("", slot) == marker
    names = [name for _, _, name in layout("CHECKPOINT")][4:10]
    assert [getattr(marker, name) for name in names] == list(range(9, 15))
