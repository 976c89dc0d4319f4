"""Damaged tables: an error that names the place, or the right data; never anything else."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from kvstore.errors import CorruptStoreError
from kvstore.tables import format as fmt
from kvstore.tables.cache import Cache
from kvstore.tables.table import Table
from kvstore.values import MISSING
from tests.store.tables.tables import contents, get, plain, some_items, write
from wal.files import MemoryFileSystem

ITEMS = some_items(12, most_key=6, most_value=20) | {b"\xff": b"large" * 20}
ABSENT = [b"absent%d" % number for number in range(20)]


@pytest.fixture(params=[None, "zlib"])
def small(request):
    """A small table's record, and its bytes."""
    files = MemoryFileSystem()
    record = write(
        files, "/", ITEMS, block_bytes=60, large_value_bytes=64, compression=request.param
    )
    return record, files.contents()["/" + record.name]


def reading_of(record, data):
    return Table(MemoryFileSystem({"/" + record.name: data}), "/", record, Cache(1 << 20))


def attempt(read):
    """What a reading gives, or the damage that it meets."""
    try:
        return read()
    except CorruptStoreError as damage:
        return damage


def check(record, data):
    """Every reading is right or damage; whether there was damage."""
    read = reading_of(record, data)
    found = [attempt(lambda: contents(read.pages(b"", None)))]
    assert isinstance(found[0], CorruptStoreError) or found[0] == ITEMS
    for key, value in ITEMS.items():
        got = attempt(lambda key=key: plain(get(read, key)))
        assert isinstance(got, CorruptStoreError) or got == value
        found.append(got)
    for key in ABSENT:
        got = attempt(lambda key=key: get(read, key))
        assert isinstance(got, CorruptStoreError) or got is MISSING
        found.append(got)
    return any(isinstance(each, CorruptStoreError) for each in found)


def test_nothing_damaged(small):
    record, data = small
    assert not check(record, data)
    reading_of(record, data).verify()


@pytest.mark.parametrize(
    "turn", [0, *(pytest.param(turn, marks=pytest.mark.long) for turn in range(1, 8))]
)
def test_every_bit_flipped(small, turn):
    record, data = small
    for at in range(len(data)):
        flipped = bytearray(data)
        flipped[at] ^= 1 << (at + turn) % 8
        damaged = bytes(flipped)
        check(record, damaged)
        with pytest.raises(CorruptStoreError):
            reading_of(record, damaged).verify()


def test_cut_at_every_length(small):
    record, data = small
    for length in range(len(data)):
        for size in (record.size, length):  # the manifest may have been forged to match
            with pytest.raises(CorruptStoreError):
                get(reading_of(replace(record, size=size), data[:length]), b"k")


def test_longer_than_it_was(small):
    record, data = small
    with pytest.raises(CorruptStoreError, match="must have"):
        get(reading_of(record, data + b"\0"), b"k")


def test_two_blocks_exchanged():
    files = MemoryFileSystem()
    items = {b"%03d" % number: b"%03d" % number for number in range(100)}
    record = write(files, "/", items, block_bytes=80)
    data = files.contents()["/" + record.name]
    read = reading_of(record, data)
    get(read, b"000")
    _, offsets, lengths = read._reader.index
    first, second = (slice(offsets[n], offsets[n] + lengths[n]) for n in (1, 2))
    assert lengths[1] == lengths[2]
    swapped = bytearray(data)
    swapped[first], swapped[second] = data[second], data[first]
    read = reading_of(record, bytes(swapped))
    with pytest.raises(CorruptStoreError) as caught:
        list(read.pages(b"", None))
    assert caught.value.offset == offsets[1]
    assert get(read, b"000") == b"000"


def test_another_table_under_the_name(small):
    record, _ = small
    files = MemoryFileSystem()
    write(files, "/", ITEMS, block_bytes=60, large_value_bytes=64, table_id=os.urandom(16))
    other = files.contents()["/" + record.name]
    with pytest.raises(CorruptStoreError):
        get(reading_of(replace(record, size=len(other)), other), b"k")


@pytest.mark.parametrize("kind", [fmt.FILTER, fmt.SIEVE, fmt.SLOTS, fmt.RECORDS])
def test_a_forged_section_raises_nothing_else(kind):
    """Someone who can make the checksums right can hide keys, but do nothing worse."""
    files = MemoryFileSystem()
    record = write(files, "/", ITEMS, block_bytes=60, large_value_bytes=64)
    data = bytearray(files.contents()["/" + record.name])
    read = reading_of(record, bytes(data))
    read.open()
    section = read._reader.footer.section(kind)
    for byte in (0, 1, 0x0F, 0x7F, 0x80, 0xFF):
        data[section.offset : section.end] = bytes([byte]) * section.length
        read = reading_of(record, bytes(data))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("kvstore.tables.reader.TableReader.check_sections", lambda *_: None)
            for key in [*ITEMS, *ABSENT]:
                got = attempt(lambda key=key, read=read: plain(get(read, key)))
                assert isinstance(got, CorruptStoreError) or got in (MISSING, ITEMS.get(key))


@pytest.mark.parametrize(
    "change", [{"items": 1}, {"tombstones": 7}, {"footer_crc": 1}, {"table_id": bytes(16)}]
)
def test_another_record_in_the_manifest(small, change):
    record, data = small
    with pytest.raises(CorruptStoreError):
        get(reading_of(replace(record, **change), data), b"k")


@pytest.mark.parametrize("change", [{"low": b"zzz"}, {"high": b""}])
def test_bounds_that_are_not_those_of_the_keys(small, change):
    record, data = small
    with pytest.raises(CorruptStoreError):
        reading_of(replace(record, **change), data).verify()


def test_values_of_a_kind_that_no_table_has(small):
    record, data = small
    read = reading_of(record, data)
    read.open()

    def decode(*args):
        return [b"k"], [[b"nested"]]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fmt, "decode_block", decode)
        with pytest.raises(CorruptStoreError, match="something else"):
            list(read.pages(b"", None))


@pytest.mark.parametrize(
    "packed", [None, [], [1] * 12, [1, b"short", 1, 1, 1, 1, 1, 1, b"", None, None, 1]]
)
def test_records_that_make_no_sense(packed):
    from kvstore.tables.records import TableRecord

    with pytest.raises(fmt.DamageError):
        TableRecord.unpack(packed)
