"""``docs/store-format.md`` says what the code writes, byte by byte."""

from __future__ import annotations

import re
import struct
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import msgpack
import pytest
from crc32c import crc32c

from kvstore import mutations
from kvstore.directory import Directory
from kvstore.keyspaces import Keyspace, directory_key
from kvstore.names import Entry
from kvstore.tables import format as fmt
from kvstore.tables.builder import TableBuilder
from kvstore.tables.cache import Cache
from kvstore.tables.manifest import NAME, Manifest, read_manifest
from kvstore.tables.records import TableRecord
from kvstore.tables.table import Table
from kvstore.upkeep.restoring import MARK, encode_mark, read_mark
from wal.files import MemoryFileSystem

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "store-format.md").read_text("utf-8")

TABLE_ID, STORE_ID = b"TABLE-ID-16BYTES", b"STORE-ID-16BYTES"
COMMITTED = 1_700_000_000_000_000_000
USERS, ANN = directory_key(0, b"users"), Keyspace(1).stored(b"ann")
LAST = {USERS: Entry(1, "json").pack(), ANN: b'{"age":40}', b"pear": None}
ITEMS = {b"apple": b"red", b"pear": None, b"photo": b"a large value", ANN: LAST[ANN]}
ITEMS[USERS] = LAST[USERS]


def build() -> tuple[bytes, TableRecord]:
    """The page's table, as the builder writes it."""
    files = MemoryFileSystem()
    builder = TableBuilder(files, "tmp", TABLE_ID, large_value_bytes=12)
    builder.add(list(ITEMS), list(ITEMS.values()))
    record = replace(builder.finish(8, 9), number=1)
    return files.open("tmp").read_at(0, record.size), record


TABLE, RECORD = build()
MANIFEST = Manifest(STORE_ID, last_entry_id=9, runs=((RECORD,),), next_number=2)
WRITTEN = {
    "head": mutations.encode_at(COMMITTED, LAST)[0],
    "table": TABLE,
    "manifest": MANIFEST.encode(),
}

pieces = pytest.mark.parametrize("piece", WRITTEN)


def dumped(piece: str) -> bytes:
    """The bytes of one of the page's hex dumps."""
    block = re.search(rf"^```text {piece}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
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


def decoded(piece: str) -> list[Row]:
    """The table of the fields behind a hex dump."""
    behind = PAGE.partition(f"```text {piece}\n")[2]
    table = behind.partition("| Offset | Part | Field | Bytes | Value |")[2]
    rows = []
    for line in table.splitlines()[2:]:
        if not line.startswith("|"):
            break
        offset, part, field, data, value = (cell.strip() for cell in line.strip("|").split("|"))
        rows.append(Row(int(offset), part, field, bytes.fromhex(data.strip("`")), value))
    return rows


@pieces
def test_the_dump_is_what_the_code_writes(piece: str) -> None:
    assert dumped(piece) == WRITTEN[piece]


@pieces
def test_the_fields_are_the_dump(piece: str) -> None:
    at = 0
    for row in decoded(piece):
        assert row.offset == at, row.field
        at += len(row.data)
    assert b"".join(row.data for row in decoded(piece)) == dumped(piece)


@pytest.mark.parametrize(
    "row",
    [row for piece in WRITTEN for row in decoded(piece)],
    ids=lambda row: f"{row.part}-{row.offset}-{row.field}",
)
def test_a_field_has_its_value(row: Row) -> None:
    if row.part in ("payload", "table", "footer") and row.value.isdecimal():
        name = msgpack.packb(row.field)
        packed = row.data.removeprefix(name)
        if row.field == "length":
            packed = msgpack.packb(int.from_bytes(row.data, "little"))
        assert msgpack.unpackb(packed) == int(row.value)
    elif row.value.isdecimal():
        assert int.from_bytes(row.data, "little") == int(row.value)
    elif row.value in ("nil", "false"):
        packed = row.data.removeprefix(msgpack.packb(row.field))
        assert msgpack.unpackb(packed) == {"nil": None, "false": False}[row.value]
    elif covered := re.fullmatch(r"of the (\d+) bytes before", row.value):
        check_crc(row, int(covered[1]))
    elif row.value.startswith("`"):
        for text in re.findall(r"`([^`]+)`", row.value):
            assert text.encode() in row.data


def check_crc(row: Row, length: int) -> None:
    """By the words of the page, without the code."""
    data, start = dumped("table"), row.offset - length
    if row.part == "manifest":
        assert row.data == struct.pack("<I", crc32c(dumped("manifest")[start : row.offset]))
        return
    seed = crc32c(struct.pack("<Q", start), crc32c(TABLE_ID))
    assert row.data == struct.pack("<I", crc32c(data[start : row.offset], seed))


def test_the_footer_vouches_for_the_sections() -> None:
    rows = {(row.part, row.field): row for row in decoded("table")}
    for section in ("index", "filter", "sieve", "slots", "records"):
        kind, offset, length, required, crc = msgpack.unpackb(rows["footer", section].data)
        said = f"kind {kind}, at {offset}, {length} bytes, required"
        assert (said, required) == (rows["footer", section].value, True)
        assert crc == crc32c(rows[section, "crc"].data)
    manifest = {row.field: row.data for row in decoded("manifest") if row.part == "table"}
    footer_crc = msgpack.unpackb(manifest["footer's crc"])
    assert rows["footer", "crc"].data == struct.pack("<I", footer_crc)


def test_filter_and_slots_follow_the_pages_rule() -> None:
    """Computed from the words of the page, without the code."""
    rows = {(row.part, row.field): row for row in decoded("table")}
    hashes = {crc32c(key) * 0x9E3779B1 % 2**30: key for key in ITEMS}
    assert rows["filter", "marks"].data == bytes(hashed & 0xFF for hashed in sorted(hashes))
    sieve = rows["sieve", "bytes"].data
    found = {bit for bit in range(8 * len(sieve)) if sieve[bit // 8] >> bit % 8 & 1}
    assert found == {8 * (hashed % len(sieve)) + (hashed >> 27) for hashed in hashes}
    slots = [row.data for row in decoded("table") if (row.part, row.field) == ("slots", "slot")]
    numbers = [int.from_bytes(slot, "little") for slot in slots]
    assert numbers == [list(ITEMS).index(hashes[hashed]) for hashed in sorted(hashes)]
    records = [row for row in decoded("table") if row.part == "records"]
    for (key, value), check, place in zip(ITEMS.items(), records[::2], records[1::2], strict=False):
        record = dumped("table")[int(place.value) :]
        assert record.startswith(msgpack.packb(key))
        told = int.from_bytes(check.data, "little")
        if value is None:
            assert told == crc32c(key) ^ 0xFFFFFFFF
        elif key == b"photo":
            reference = record[len(msgpack.packb(key)) + 1 :][:17]
            assert told == crc32c(key + reference) ^ 0xFFFFFFFF
        else:
            assert told == crc32c(key + value)


def test_the_log_entry_is_as_the_page_says() -> None:
    _, *chunks = mutations.encode_at(COMMITTED, LAST)
    told = re.search(r"others are (.*?)\.\n", PAGE, re.DOTALL)
    assert told is not None
    spoken = [as_bytes(each) for each in re.findall(r"`([^`]+)`", told[1])]
    assert spoken == chunks


def as_bytes(spoken: str) -> bytes:
    """``FF 02 name``: bytes in hexadecimal, then text."""
    found = re.fullmatch(r"((?:[0-9A-F]{2} )*)(.*)", spoken)
    assert found is not None
    return bytes.fromhex(found[1]) + found[2].encode()


def test_the_code_reads_the_page() -> None:
    mark = encode_mark(STORE_ID)
    assert f"`{mark.decode().rstrip()}`" in PAGE
    files = MemoryFileSystem(
        {
            f"db/{NAME}": dumped("manifest"),
            f"db/{MARK}": mark,
            f"db/tables/{RECORD.name}": dumped("table"),
        }
    )
    directory = Directory(files, "db")
    manifest = read_manifest(files, "db")
    assert manifest == MANIFEST
    assert read_mark(directory) == manifest.store_id
    (record,) = manifest.tables
    table = Table(files, directory.tables, record, Cache(1 << 20))
    table.verify()
    found = {key: table.get(key, crc32c(key)) for key in ITEMS}
    assert found.pop(b"photo").read() == ITEMS[b"photo"]  # type: ignore[union-attr]
    assert found == {key: value for key, value in ITEMS.items() if key != b"photo"}
    table.close()


def layout(heading: str) -> list[tuple[str, str]]:
    """Offset and size of each field in the table below a heading."""
    section = re.split(r"^#{2,3} ", PAGE.partition(f"# {heading}\n")[2], flags=re.MULTILINE)[0]
    rows = re.findall(r"^\| (\d+) \| (\d+) \| ", section, re.MULTILINE)
    assert rows
    return rows


@pytest.mark.parametrize(
    ("heading", "size"),
    [
        ("Log entry", mutations.HEAD_BYTES),
        ("Blob", fmt.BLOB_REFERENCE.size),
        ("MANIFEST", struct.calcsize("<4sB3xI")),
    ],
)
def test_fields_lie_one_behind_the_other(heading: str, size: int) -> None:
    at = 0
    for offset, length in layout(heading):
        assert int(offset) == at
        at += int(length)
    assert at == size


def test_sizes_that_the_page_names() -> None:
    assert f"| header | {fmt.HEADER_BYTES} |" in PAGE
    assert f"| footer | {fmt.FOOTER_TAIL_BYTES} + *n* |" in PAGE
    longest = fmt.LONGER_BLOCKS * fmt.BLOCK_BYTES
    assert (
        f"once it has {fmt.BLOCK_BYTES >> 10} KiB and {fmt.LEAST_RECORDS} records, or"
        f" {longest >> 10} KiB, or {fmt.MOST_RECORDS:,}"
    ) in PAGE
    assert f"at most {fmt.LARGEST_RAW_BODY >> 20} MiB raw" in PAGE
