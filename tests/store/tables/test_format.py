"""The bytes of a table."""

from __future__ import annotations

import struct

import msgpack
import pytest

from kvstore.errors import FormatVersionError
from kvstore.tables import format as fmt
from kvstore.tables.format import DamageError, Footer, Section

ID = bytes(range(16))


def no_blob(code, data):
    raise ValueError


def block_of(keys, values):
    sizes = [fmt.encoded_bytes(k) + fmt.encoded_bytes(v) for k, v in zip(keys, values, strict=True)]
    return b"".join(fmt.encode_block(keys, values, sizes, fmt.seed(ID, 100), None))


class TestHeader:
    def test_of_another_table(self):
        with pytest.raises(DamageError):
            fmt.check_header(fmt.encode_header(ID), bytes(16))

    def test_of_a_newer_version(self, monkeypatch):
        monkeypatch.setattr(fmt, "VERSION", fmt.VERSION + 1)
        header = fmt.encode_header(ID)
        monkeypatch.undo()
        with pytest.raises(FormatVersionError):
            fmt.check_header(header, ID)


class TestBlocks:
    KEYS = (b"", b"k", b"l" * 255, b"m" * 256, b"n" * 70_000)
    VALUES = (b"v" * 65_536, None, b"", b"v" * 256, b"k")

    @pytest.mark.parametrize("room", [5, 300, 1 << 20])
    def test_the_offsets_are_those_of_the_records(self, room):
        block = block_of(list(self.KEYS), list(self.VALUES))
        fmt.check_block(block, fmt.seed(ID, 100), 100)
        body = len(block) - fmt.TAIL.size - 4 * (len(self.KEYS) + 1)
        *starts, end = struct.unpack_from(f"<{len(self.KEYS) + 1}I", block, body)[::-1]
        assert end == body
        for at, key, value in zip(starts, self.KEYS, self.VALUES, strict=True):
            some = block[at : at + room]
            read = fmt.decode_record(some, lambda n, at=at: block[at : at + n], 100)
            assert read == (key, value)

    @pytest.mark.parametrize(
        "data", [b"\xc0abcd", b"\xc4\x01k\xc1" + bytes(20), b"\xc4\x01k\xd8\x81" + bytes(20)]
    )
    def test_no_record(self, data):
        with pytest.raises(DamageError) as caught:
            fmt.decode_record(data, lambda n: data[:n], 100)
        assert caught.value.offset == 100

    def test_decoded_whole(self):
        block = block_of(list(self.KEYS), list(self.VALUES))
        assert fmt.decode_block(block, None, no_blob, 100) == ([*self.KEYS], [*self.VALUES])

    def test_at_another_place(self):
        with pytest.raises(DamageError) as caught:
            fmt.check_block(block_of([b"k"], [b"v"]), fmt.seed(ID, 101), 101)
        assert caught.value.offset == 101

    @pytest.mark.parametrize(
        "flat",
        [
            [1, b"v"],
            ["k", b"v"],
            [b"k"],
            [b"k", msgpack.ExtType(1, b"short")],
            [b"k", b"v", b"l", b"v"],
            {b"k": b"v"},
        ],
    )
    def test_payloads_that_are_no_pairs(self, flat):
        payload = msgpack.packb(flat)
        block = payload + bytes(8) + fmt.TAIL.pack(len(payload) + 8, 1, 0)
        with pytest.raises(DamageError):
            fmt.decode_block(block, None, no_blob, 0)

    @pytest.mark.parametrize(("raw", "count"), [(1 << 31, 1), (9, 1 << 31), (9, 0), (0, 1)])
    def test_forged_lengths(self, raw, count):
        block = msgpack.packb([b"k", b"v"]) + fmt.TAIL.pack(raw, count, 0)
        with pytest.raises(DamageError):
            fmt.decode_block(block, None, no_blob, 0)


class TestFooter:
    INDEX = Section(fmt.INDEX, 28, 13, True, 7)
    FOOTER = Footer(1, 0, 1, 1, 9, None, (INDEX,), 0)

    def decode(self, footer, offset=1000):
        data, crc = fmt.encode_footer(ID, offset, footer)
        assert fmt.footer_bytes(data, offset + len(data)) == len(data)
        return fmt.decode_footer(data, ID, offset, crc)

    def test_there_and_back(self):
        assert self.decode(self.FOOTER) == self.FOOTER

    def test_another_crc(self):
        data, crc = fmt.encode_footer(ID, 1000, self.FOOTER)
        with pytest.raises(DamageError, match="not the footer"):
            fmt.decode_footer(data, ID, 1000, crc ^ 1)

    def test_unknown_sections(self):
        optional = Section(99, 60, 1, False, 0)
        assert self.decode(Footer(1, 0, 1, 1, 9, None, (self.INDEX, optional), 0)).blocks == 1
        required = Section(99, 60, 1, True, 0)
        with pytest.raises(FormatVersionError, match="99"):
            self.decode(Footer(1, 0, 1, 1, 9, None, (self.INDEX, required), 0))

    @pytest.mark.parametrize(
        "footer",
        [
            Footer(1, 0, 1, 1, 9, None, (), 0),
            Footer(1, 0, 2, 1, 9, None, (INDEX,), 0),
            Footer(1, 0, 1, 1, 9, None, (INDEX,), 3),
            Footer(-1, 0, 1, 1, 9, None, (INDEX,), 0),
            Footer(1, 0, 1, 1, 9, None, (Section(fmt.INDEX, 990, 13, True, 7),), 0),
            Footer(1, 0, 1, 1, 9, None, (INDEX, Section(fmt.SLOTS, 60, 4, True, 7)), 0),
            Footer(1 << 40, 0, 1, 1, 9, None, (INDEX,), 0),
            Footer("1", 0, 1, 1, 9, None, (INDEX,), 0),
        ],
    )
    def test_numbers_that_contradict_each_other(self, footer):
        with pytest.raises(DamageError):
            self.decode(footer)

    def test_something_else_at_the_end(self):
        with pytest.raises(DamageError):
            fmt.footer_bytes(bytes(12), 1000)


def test_a_section_has_a_crc_for_each_granule_of_the_file_that_it_touches():
    at, data = fmt.GRANULE - 1, bytes(fmt.GRANULE + 2)
    crcs = fmt.section_crcs(ID, at, data)
    section = Section(fmt.FILTER, at, len(data), True, fmt.crc32c(crcs))
    known = fmt.decode_section_crcs(crcs, section)
    assert list(known) == [0, 1, 2]
    assert known[1] == fmt.crc_at(ID, fmt.GRANULE, bytes(fmt.GRANULE))
    with pytest.raises(DamageError):
        fmt.decode_section_crcs(crcs[:-4], section)


def test_an_index_that_has_fewer_blocks():
    index = fmt.encode_index([b"a"], fmt.array("Q", [1]), fmt.array("I", [2]))
    assert fmt.decode_index(index, 1, 0)[0] == [b"a"]
    for wrong in (index + index[1:], b"\x91\x01" + bytes(12), b"\xc1" + bytes(12)):
        with pytest.raises(DamageError):
            fmt.decode_index(wrong, 1, 0)
