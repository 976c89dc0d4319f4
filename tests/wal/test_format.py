"""The bytes of a segment and the values in them: there and back, and whatever is not right."""

from __future__ import annotations

import random
import struct
import tracemalloc
from dataclasses import replace

import msgpack
import pytest
from crc32c import crc32c
from hypothesis import given
from hypothesis import strategies as st

from wal.errors import CorruptLogError, FormatVersionError
from wal.files import Buffer, MemoryFileSystem
from wal.positions import MAX_ID
from wal.segments import format as fmt
from wal.segments.format import Item, SegmentHeader
from wal.segments.frames import Frame, Group, StreamedEntry
from wal.segments.reader import WINDOW, FrameSource

U64 = (1 << 64) - 1
SALT = bytes(range(1, 17))
HEADER = SegmentHeader(5, 4, 1 << 20, 1 << 16, b"info", 123, SALT)


def group(items: list[Item], at: int, first_id: int, durable_id: int = 0) -> bytes:
    chunks = sum(1 if isinstance(item, bytes) else len(item) for item in items)
    frame = fmt.encode_group(HEADER, HEADER.seed, at, first_id, durable_id, items, chunks)
    return b"".join(frame)


def streamed(chunks: list[bytes], at: int, entry_id: int, durable_id: int = 0) -> bytes:
    opened = fmt.encode_entry_header(HEADER, HEADER.seed, at, entry_id, durable_id)
    frame, crcs = opened, b""
    for data in chunks:
        head = fmt.CHUNK.pack(fmt.CHUNK_TAG, len(data))
        crc = fmt.CRC.pack(crc32c(data, fmt.chunk_crc(HEADER.seed, at + len(frame), head)))
        frame += head + data + crc
        crcs += crc
    return frame + fmt.encode_end(HEADER.seed, at, opened, crcs, len(chunks))


def read(data: bytes, header: SegmentHeader = HEADER, after: int = 4) -> list[Frame]:
    """The frames in a segment whose bytes behind the header are these."""
    whole = header.encode() + data
    files = MemoryFileSystem({"s": whole})
    source = FrameSource(files.open("s"), "s", header)
    return list(source.frames(header.size, len(whole), after))


START = HEADER.size


# -- the header ------------------------------------------------------------------------------------


@given(
    st.integers(1, MAX_ID - 1),
    st.integers(0, U64),
    st.integers(0, U64),
    st.binary(max_size=255),
    st.integers(0, U64),
    st.binary(min_size=16, max_size=16).filter(lambda salt: any(salt[:4])),
)
def test_header_round_trip(
    segment_id: int, number: int, size: int, info: bytes, created: int, salt: bytes
) -> None:
    previous, limit = number % segment_id, segment_id + 1 + number % (MAX_ID - segment_id)
    header = SegmentHeader(segment_id, previous, limit, size, info, created, salt)
    data = header.encode()
    assert len(data) == header.size <= fmt.MAX_HEADER_BYTES
    assert fmt.decode_header("p", data + b"what follows") == header
    assert header.mark == salt[:4]


def test_every_flipped_bit_of_a_header_is_noticed() -> None:
    data = HEADER.encode()
    for bit in range(len(data) * 8):
        spoiled = bytearray(data)
        spoiled[bit // 8] ^= 1 << bit % 8
        with pytest.raises(CorruptLogError) as raised:
            fmt.decode_header("p", bytes(spoiled) + bytes(300))
        assert (raised.value.path, raised.value.offset) == ("p", 0)


def test_every_shorter_header_is_noticed() -> None:
    data = HEADER.encode()
    for length in range(len(data)):
        with pytest.raises(CorruptLogError):
            fmt.decode_header("p", data[:length])


@pytest.mark.parametrize("version", [0, 2, 255])
def test_another_version_is_told_from_damage(version: int) -> None:
    data = bytearray(HEADER.encode())
    data[4] = version
    with pytest.raises(CorruptLogError):  # a flipped bit, not a version
        fmt.decode_header("p", bytes(data))
    data[-4:] = struct.pack("<I", crc32c(bytes(data[:-4])))
    with pytest.raises(FormatVersionError) as raised:
        fmt.decode_header("p", bytes(data))
    assert (raised.value.version, raised.value.supported) == (version, 1)


@pytest.mark.parametrize(
    "changes",
    [
        {"salt": bytes(4) + SALT[4:]},
        {"previous_last_id": 5},
        {"previous_last_id": 6},
        {"id_limit": 5},
        {"id_limit": 0},
        {"id_limit": MAX_ID + 1},
    ],
)
def test_a_header_that_contradicts_itself(changes: dict[str, int]) -> None:
    data = replace(HEADER, **changes).encode()  # type: ignore[arg-type]
    with pytest.raises(CorruptLogError, match="contradicts itself"):
        fmt.decode_header("p", data)


def test_salts_are_fresh_and_have_a_mark() -> None:
    salts = {fmt.fresh_salt() for _ in range(100)}
    assert len(salts) == 100
    assert all(any(salt[:4]) for salt in salts)


# -- frames ----------------------------------------------------------------------------------------

ITEMS = st.lists(
    st.one_of(st.binary(max_size=300), st.lists(st.binary(max_size=40), max_size=5)), max_size=12
)


@given(ITEMS, st.integers(5, 1 << 19))
def test_group_round_trip(items: list[Item], first_id: int) -> None:
    # An entry of one chunk is written as that chunk; a list of one is read all the same.
    (frame,) = read(group(items, START, first_id, first_id - 1))
    assert isinstance(frame, Group)
    assert (frame.first_id, frame.durable_id) == (first_id, first_id - 1)
    assert frame.items == items
    assert frame.last_id == first_id + len(items) - 1


@given(st.lists(st.binary(max_size=5000), max_size=8))
def test_streamed_round_trip(chunks: list[bytes]) -> None:
    (frame,) = read(streamed(chunks, START, 9, 8))
    assert isinstance(frame, StreamedEntry)
    assert (frame.id, frame.durable_id, frame.read_all()) == (9, 8, chunks)


def test_a_streamed_entry_larger_than_a_window() -> None:
    chunks = [bytes(WINDOW // 2), b"", random.Random(1).randbytes(WINDOW)]
    data = streamed(chunks, START, 9)
    (frame,) = read(data)
    assert isinstance(frame, StreamedEntry)
    assert frame.read_all() == chunks
    for at in (30, WINDOW, len(data) - 5):
        spoiled = bytearray(data)
        spoiled[at] ^= 1
        assert read(bytes(spoiled)) == []


def several() -> bytes:
    """A segment's frames, of both kinds."""
    data = group([b"one", [b"two", b"three"]], START, 5)
    data += streamed([b"four", b""], START + len(data), 7, 6)
    data += group([], START + len(data), 8, 7)
    return data + group([b"last"], START + len(data), 8, 7)


def ids(frames: list[Frame]) -> list[tuple[int, int]]:
    return [(frame.first_id, frame.last_id) for frame in frames]


def test_frames_follow_each_other() -> None:
    assert ids(read(several())) == [(5, 6), (7, 7), (8, 7), (8, 8)]
    assert ids(read(several() + bytes(100))) == ids(read(several()))


def test_every_flipped_bit_of_a_frame_is_noticed() -> None:
    """Whatever is read in front of it is what was written, and nothing behind it is read."""
    data = several()
    frames = read(data)
    for bit in range(len(data) * 8):
        spoiled = bytearray(data)
        spoiled[bit // 8] ^= 1 << bit % 8
        whole = [frame for frame in frames if frame.end <= START + bit // 8]
        assert ids(read(bytes(spoiled))) == ids(whole), f"bit {bit}"


def test_every_cut_is_noticed() -> None:
    data = several()
    frames = read(data)
    for length in range(len(data)):
        whole = [frame for frame in frames if frame.end <= START + length]
        assert ids(read(data[:length])) == ids(whole)
        assert ids(read(data[:length] + bytes(200))) == ids(whole)


def test_frames_of_another_life_place_or_file_do_not_pass() -> None:
    data = group([b"x"], START, 5)
    assert len(read(data)) == 1
    assert read(data, replace(HEADER, salt=SALT[:4] + bytes(12))) == []
    assert read(data, replace(HEADER, segment_id=6, previous_last_id=4)) == []
    assert read(group([b"x"], START + 1, 5)) == []
    inner = group([b"stale"], START + 41, 5)
    (outer,) = read(group([inner], START, 5))
    assert outer.end == START + len(group([inner], START, 5))


def test_ids_must_grow_within_their_bounds() -> None:
    assert read(group([b"x"], START, 4)) == []  # not above the last one
    assert read(group([b"x"], START, 5), after=5) == []
    assert read(group([b"x"], START, HEADER.id_limit)) == []
    assert read(group([b"x", b"y"], START, HEADER.id_limit - 1)) == []
    assert len(read(group([b"x"], START, HEADER.id_limit - 1))) == 1
    assert read(group([b"x"], START, 5, durable_id=5)) == []
    assert read(streamed([b"x"], START, 5, durable_id=5)) == []
    first = group([b"x", b"y"], START, 5)
    assert len(read(first + group([b"z"], START + len(first), 6))) == 1


# -- hostile payloads ------------------------------------------------------------------------------

LIMIT = 256 << 10


def nested(header: bytes) -> bytes:
    return (header * (LIMIT // len(header) + 1))[:LIMIT]


HOSTILE = {
    "not msgpack": b"\xc1",
    "empty": b"",
    "nil": b"\xc0",
    "a bin, not an array": msgpack.packb(b"x"),
    "an item too few": msgpack.packb([b"x"]),
    "an item too many": msgpack.packb([b"x"] * 3),
    "something behind it": msgpack.packb([b"x", b"y"]) + b"\xc0",
    "cut": msgpack.packb([b"x", b"yy"])[:-1],
    "a number": msgpack.packb([b"x", 1]),
    "nil inside": msgpack.packb([b"x", None]),
    "text": msgpack.packb([b"x", "y"]),
    "a map": msgpack.packb([b"x", {}]),
    "a map with something": msgpack.packb([b"x", {b"a": b"b"}]),
    "an ext": msgpack.packb([b"x", msgpack.ExtType(1, b"y")]),
    "a timestamp": msgpack.packb([b"x", msgpack.Timestamp(1)]),
    "an array in an array": msgpack.packb([b"x", [[b"y"]]]),
    "text in an array": msgpack.packb([b"x", ["y"]]),
    "too many chunks": msgpack.packb([b"x", [b"y", b"z"]]),
    "too few chunks": msgpack.packb([b"x", []]),
    "a bin that claims 4 GiB": b"\x92\xc4\x01x\xc6\xff\xff\xff\xff",
    "an array that claims 4 G items": b"\xdd\xff\xff\xff\xff",
    "an inner array that claims 4 G items": b"\x92\xc4\x01x\xdd\xff\xff\xff\xff",
    "a map that claims 4 G items": b"\x92\xc4\x01x\xdf\xff\xff\xff\xff",
    "text that claims 4 GiB": b"\x92\xc4\x01x\xdb\xff\xff\xff\xff",
    "nested one-item arrays": nested(b"\x91"),
    "nested two-item arrays": nested(b"\x92"),
}


@pytest.mark.parametrize("payload", HOSTILE.values(), ids=HOSTILE)
def test_hostile_payloads_are_refused_in_little_memory(payload: bytes) -> None:
    tracemalloc.start()
    try:
        assert fmt.decode_payload(payload, 2, 2) is None
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("claimed", [100, 4096, LIMIT])
def test_hostile_nesting_with_huge_counts_is_bounded(claimed: int) -> None:
    """The worst that a payload of 256 KiB can make msgpack allocate before it gives up."""
    payload = nested(b"\xdd" + claimed.to_bytes(4, "big"))
    tracemalloc.start()
    try:
        assert fmt.decode_payload(payload, claimed, claimed) is None
        assert tracemalloc.get_traced_memory()[1] < 100 << 20
    finally:
        tracemalloc.stop()


def test_hostile_bytes_never_raise() -> None:
    rng = random.Random(7)
    good = msgpack.packb([b"x" * 20, [b"y", b"z"], b""])
    for _ in range(5000):
        payload = bytearray(good if rng.random() < 0.7 else rng.randbytes(rng.randrange(60)))
        for _ in range(rng.randrange(4)):
            if payload:
                payload[rng.randrange(len(payload))] = rng.randrange(256)
        items = fmt.decode_payload(bytes(payload), 3, 4)
        if items is not None:
            assert len(items) == 3
            assert all(isinstance(c, bytes) for i in items if isinstance(i, list) for c in i)


@pytest.mark.parametrize(
    ("count", "chunks", "length", "durable_id"),
    [(11, 1, 10, 0), (1, 11, 10, 0), (1, 1, LIMIT + 6, 0), (1, 1, 10, 5), (U64 >> 32, 1, 10, 0)],
)
def test_group_headers_that_cannot_be(
    count: int, chunks: int, length: int, durable_id: int
) -> None:
    head = fmt.GROUP.pack(HEADER.mark, fmt.GROUP_TAG, 5, durable_id, count, chunks, length)
    start = fmt.seed_at(HEADER.seed, 100)
    head += fmt.CRC.pack(crc32c(head, start))
    assert fmt.decode_group_header(start, head, 0) is None


# -- evidence --------------------------------------------------------------------------------------


def evidence(data: Buffer, offset: int = START) -> int:
    return fmt.evidence_in(HEADER, HEADER.seed, data, offset)


def test_a_header_alone_is_evidence() -> None:
    whole = group([b"x" * 50], START, 9, durable_id=8)
    assert evidence(whole[: fmt.GROUP_BYTES]) == 8
    assert evidence(whole[: fmt.GROUP_BYTES - 1]) == 0
    opened = streamed([b"x"], START, 9, durable_id=7)
    assert evidence(opened[: fmt.ENTRY_BYTES]) == 7
    assert evidence(opened[: fmt.ENTRY_BYTES - 1]) == 0


def test_evidence_is_found_wherever_it_is() -> None:
    data = b"rubbish" + HEADER.mark * 3
    data += group([b"x"], START + len(data), 9, durable_id=6) + HEADER.mark[:2]
    data += streamed([b"y"], START + len(data), 12, durable_id=11)[:30]
    assert evidence(data) == 11
    assert evidence(bytearray(data)) == evidence(memoryview(data)) == 11
    assert evidence(data, START + 1) == 0  # not at that place in the file
    assert fmt.evidence_in(replace(HEADER, salt=SALT[::-1]), 0, data, START) == 0


def test_every_flipped_bit_of_a_header_takes_its_evidence_away() -> None:
    for frame in (group([b"x"], START, 9, 8)[: fmt.GROUP_BYTES], streamed([], START, 9, 8)[:25]):
        for bit in range(len(frame) * 8):
            spoiled = bytearray(frame)
            spoiled[bit // 8] ^= 1 << bit % 8
            assert evidence(bytes(spoiled)) == 0


def test_evidence_across_the_pieces_of_a_search() -> None:
    """A header that lies across two pieces in which a file is searched is found once."""
    from wal.segments.chunks import PIECE

    for shift in range(0, fmt.GROUP_BYTES + 2, 3):
        at = START + PIECE - shift
        whole = HEADER.encode() + bytes(at - START) + group([b"x"], at, 9, durable_id=8)
        files = MemoryFileSystem({"s": whole})
        source = FrameSource(files.open("s"), "s", HEADER)
        assert source.evidence(START, len(whole)) == 8
