"""Groups whose entries are laid out alike: taken for such only if msgpack says the same."""

from __future__ import annotations

import random

import msgpack
import pytest

from wal.segments import format as fmt
from wal.segments.uniform import LEAST, columns_of


def sizes_of(items: list[fmt.Item]) -> tuple[int, int]:
    return len(items), sum(1 if isinstance(item, bytes) else len(item) for item in items)


def entries(count: int, *lengths: int) -> list[fmt.Item]:
    rng = random.Random(count)
    return [[*map(rng.randbytes, lengths)] for _ in range(count)]


@pytest.mark.parametrize("count", [LEAST, 17, 300, 1 << 16])
@pytest.mark.parametrize("lengths", [(1,), (0,), (10, 16, 100), (0, 255, 256), (2,) * 15])
def test_columns(count: int, lengths: tuple[int, ...]) -> None:
    if count * sum(lengths) > 2 << 20:
        count = 1000
    for items in (entries(count, *lengths), [item[0] for item in entries(count, lengths[0])]):
        found = columns_of(msgpack.packb(items), *sizes_of(items))
        assert found is not None
        assert found.items() == items
        chunked = [[item] if isinstance(item, bytes) else item for item in items]
        assert found.lengths == tuple(map(len, chunked[0]))
        for number, length in enumerate(found.lengths):
            assert list(found.chunks(number)) == [(item[number],) for item in chunked]
            if length:
                assert found.byte(number, 0) == bytes(item[number][0] for item in chunked)
        last = len(found.lengths) - 1
        assert list(found.chunks(0, last) if last else []) == [
            (item[0], item[last]) for item in chunked if last
        ]


def test_a_long_chunk() -> None:
    items = entries(LEAST, 3, 70_000)
    found = columns_of(msgpack.packb(items), LEAST, 2 * LEAST)
    assert found is not None
    assert found.items() == items


@pytest.mark.parametrize(
    "items",
    [
        entries(LEAST - 1, 3),
        entries(40, *[1] * 16),
        [*entries(40, 3, 4), [b"long", b"er"]],
        [*entries(20, 3, 4), *entries(20, 4, 3)],
        [*entries(20, 3), *[b"xyz"] * 20],
        [[]] * 20,
        [[b"x", []]] * 20,
        ["text"] * 20,
        [7] * 20,
        [None] * 20,
        [],
    ],
    ids=str,
)
def test_what_has_no_columns(items: list[fmt.Item]) -> None:
    chunks = sum(len(item) if isinstance(item, list) else 1 for item in items)
    assert columns_of(msgpack.packb(items), len(items), chunks) is None


def test_any_other_bytes() -> None:
    """Whatever is changed: what has columns is a valid payload, with the same entries."""
    rng = random.Random(3)
    agreed = 0
    for _ in range(3000):
        lengths = [rng.choice((0, 1, 2, 3, 130, 220)) for _ in range(rng.randrange(1, 4))]
        items = entries(rng.randrange(LEAST, 20), *lengths)
        if len(lengths) == 1 and rng.random() < 0.5:
            items = [item[0] for item in items]
        count, chunks = sizes_of(items)
        payload = bytearray(msgpack.packb(items))
        for _ in range(rng.randrange(3)):
            payload[rng.randrange(len(payload))] = rng.randrange(256)
        if rng.random() < 0.2:
            del payload[rng.randrange(len(payload)) :]
        count, chunks = rng.choice(((count, chunks), (count, chunks), (chunks, count), (99, 99)))
        found = columns_of(bytes(payload), count, chunks)
        if found is not None:
            assert found.items() == fmt.decode_payload(bytes(payload), count, chunks)
            agreed += 1
    assert 500 < agreed < 2500
