r"""Groups of entries that are all laid out alike: as many chunks, of the same lengths.

Many logs have them in long runs. Every byte of such a payload that is no data stands in one of a
few columns, a fixed stride apart, so that a slice and a comparison for each column check them all,
and :mod:`struct` cuts the data out. For an entry of three chunks that is 16 ns and 60 ns, where
msgpack and a look at what it made take 200 (CPython 3.11).

>>> import msgpack
>>> columns = columns_of(msgpack.packb([[b"%02d" % n, b"value"] for n in range(20)]), 20, 40)
>>> columns.lengths, columns.byte(0, 1), next(columns.chunks(0, 1))
((2, 5), b'01234567890123456789', (b'00', b'value'))
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

from wal.segments.format import Item

LEAST: Final = 16
"""With fewer entries the columns cost more than they save."""
_MOST_CHUNKS: Final = 15  # those of more are longer arrays, and few
_ARRAY_16: Final = b"\xdc"
_ARRAY_32: Final = b"\xdd"
_SHORT_ARRAY: Final = 0x90  # and the number of items
_BINS: Final = {0xC4: 1, 0xC5: 2, 0xC6: 4}  # in how many bytes the length stands


class Columns:
    """The chunks of such a group. Made by :func:`columns_of`."""

    __slots__ = ("_data", "_starts", "_stride", "lengths")

    def __init__(
        self, data: memoryview, stride: int, starts: list[int], lengths: list[int]
    ) -> None:
        self.lengths = tuple(lengths)
        """Those of the chunks, the same in each entry."""
        self._data = data
        self._stride = stride
        self._starts = starts

    def items(self) -> list[Item]:
        """The entries, as msgpack has them: bytes for one bare chunk, else a list of bytes."""
        entries = self.chunks(*range(len(self.lengths)))
        if self._data[0] in _BINS:
            return [chunk for (chunk,) in entries]
        return [*map(list, entries)]

    def byte(self, chunk: int, index: int) -> bytes:
        """One byte of one chunk, of all entries."""
        return bytes(self._data[self._starts[chunk] + index :: self._stride])

    def chunks(self, *numbers: int) -> Iterator[tuple[bytes, ...]]:
        """Some of the chunks of each entry. The numbers ascend."""
        layout, end = "", 0
        for number in numbers:
            start, length = self._starts[number], self.lengths[number]
            layout += f"{start - end}x{length}s"
            end = start + length
        return struct.iter_unpack(f"{layout}{self._stride - end}x", self._data)


def columns_of(payload: bytes, count: int, chunks: int) -> Columns | None:
    """The columns of a group's payload, which is valid then; None if it has none."""
    each, odd = divmod(chunks, count) if count >= LEAST else (0, 0)
    if odd or not 0 < each <= _MOST_CHUNKS:
        return None
    begin = _array_head(count)
    first = len(begin)
    stride, odd = divmod(len(payload) - first, count)
    heads, starts, lengths = _entry_at(payload, first, first + stride, each)
    if odd or not heads or not payload.startswith(begin):
        return None
    if any(payload[head::stride] != payload[head : head + 1] * count for head in heads):
        return None
    data = memoryview(payload)[first:]
    return Columns(data, stride, [start - first for start in starts], lengths)


def _array_head(count: int) -> bytes:
    if count < 1 << 16:
        return _ARRAY_16 + count.to_bytes(2, "big")
    return _ARRAY_32 + count.to_bytes(4, "big")


def _entry_at(
    payload: bytes, at: int, stop: int, chunks: int
) -> tuple[list[int], list[int], list[int]]:
    """Where an entry's bytes are that are no data, its chunks, their lengths.

    Nothing, unless that is an entry of so many chunks that fills the place.
    """
    heads, starts, lengths = [], [], []
    if payload[at : at + 1] == bytes([_SHORT_ARRAY + chunks]):
        heads.append(at)
        at += 1
    elif chunks > 1:
        return [], [], []
    for _ in range(chunks):
        width = _BINS.get(payload[at], 0) if at < stop else 0
        start = at + 1 + width
        heads += range(at, start)
        starts.append(start)
        lengths.append(int.from_bytes(payload[at + 1 : start], "big"))
        at = start + lengths[-1]
        if not width or at > stop:
            return [], [], []
    return (heads, starts, lengths) if at == stop else ([], [], [])
