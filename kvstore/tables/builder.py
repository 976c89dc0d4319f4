"""Writing a table: sorted lists of keys and values in, a synced file out.

No step of the interpreter is taken for a single record: encoded lengths, offsets, checksums of keys
and the blocks themselves are made by calls that walk lists in C.

Memory: what is not yet a full block, the output gathered up to 1 MiB, 16 bytes a key for its
directory, and a separator for each block. A large value passes through in pieces.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import accumulate, islice
from operator import add, lt
from typing import Final

from crc32c import crc32c
from msgpack import ExtType

from kvstore.tables import format as fmt
from kvstore.tables.blobs import PIECE_BYTES, BlobSource
from kvstore.tables.compression import codec_of
from kvstore.tables.filters import HashSorter, hashes_of, make_filter
from kvstore.tables.format import Footer, Section, Stored
from kvstore.tables.records import TableRecord, lower_bound, upper_bound
from kvstore.tables.slots import RecordList, checks_of, places_in_block
from kvstore.values import Value
from wal.files import Buffer, FileSystem

_WRITE_BYTES: Final = 1 << 20
LARGEST_INLINE: Final = 1 << 20
"""A longer value never lies in a block, whatever ``large_value_bytes`` says."""
_SIZES: Final = [fmt.encoded_bytes(bytes(length)) for length in range(1024)]
_DIRECTORY_BYTES: Final = 5 / 4 + 3 / 2 + 12
"""Filter, sieve, slots and records, for each key."""


class TableBuilder:
    """Builds one table. Any error leaves the file to :meth:`abandon`.

    >>> from wal.files import MemoryFileSystem
    >>> builder = TableBuilder(MemoryFileSystem(), "tmp-1", bytes(16))
    >>> builder.add([b"a", b"b"], [b"1", None])
    >>> record = builder.finish(first_entry_id=1, last_entry_id=2)
    >>> record.items, record.tombstones, record.low, record.high
    (2, 1, b'a', b'b')
    """

    def __init__(
        self,
        files: FileSystem,
        path: str,
        table_id: bytes,
        *,
        compression: str | None = None,
        block_bytes: int = fmt.BLOCK_BYTES,
        large_value_bytes: int = 64 << 10,
    ) -> None:
        self._files = files
        self._path = path
        self._id = table_id
        self._compression = compression
        self._codec = codec_of(compression)
        self._block_bytes = block_bytes
        self._large = min(large_value_bytes, LARGEST_INLINE)
        self._output = _Output(files, path)
        self._output.write(fmt.encode_header(table_id))
        self._hashes = HashSorter()
        self._records = RecordList()
        # What is not in a block yet; _sizes are the encoded bytes of each record.
        self._keys: list[bytes] = []
        self._values: list[Stored] = []
        self._sizes: list[int] = []
        self._pending = 0
        self._separators: list[bytes] = []
        self._offsets = array("Q")
        self._lengths = array("I")
        self._first: bytes | None = None
        self._last: bytes | None = None
        self._items = self._tombstones = self._value_bytes = 0

    @property
    def size(self) -> int:
        """About how long the file would be if it were finished now. Never less than is written."""
        return self._output.offset + self._pending + int(self._items * _DIRECTORY_BYTES)

    def add(self, keys: list[bytes], values: list[Value]) -> None:
        """Add records. Keys ascend over all calls; ValueError if they do not.

        A value is bytes, None (deleted), or a :class:`~kvstore.tables.blobs.BlobSource`, which a
        table's blobs are too. Bytes of ``large_value_bytes`` and more become blobs.
        """
        if not keys:
            return
        self._check_order(keys)
        stored, value_sizes = self._store(values)
        sizes = list(map(add, _encoded_sizes(keys), value_sizes))
        self._keys += keys
        self._values += stored
        self._sizes += sizes
        self._pending += sum(sizes)
        self._items += len(keys)
        if self._pending >= self._block_bytes:
            self._write_blocks()

    def finish(self, first_entry_id: int, last_entry_id: int) -> TableRecord:
        """Write the rest, sync and close. The table is durable once its directory is synced too.

        The record has number 0: the caller gives the table its number and its name.
        """
        self._write_blocks(everything=True)
        sections, buckets = self._write_sections()
        footer = Footer(
            items=self._items,
            tombstones=self._tombstones,
            blocks=len(self._separators),
            first_entry_id=first_entry_id,
            last_entry_id=last_entry_id,
            compression=self._compression,
            sections=tuple(sections),
            buckets=buckets,
        )
        data, crc = fmt.encode_footer(self._id, self._output.offset, footer)
        self._output.write(data)
        self._output.finish()
        return TableRecord(
            number=0,
            table_id=self._id,
            size=self._output.offset,
            footer_crc=crc,
            first_entry_id=first_entry_id,
            last_entry_id=last_entry_id,
            items=self._items,
            tombstones=self._tombstones,
            low=lower_bound(self._first or b""),
            high=upper_bound(self._last or b""),
            compression=self._compression,
            value_bytes=self._value_bytes,
        )

    def abandon(self) -> None:
        """Close and remove the file, whatever state it is in."""
        self._output.close()
        with suppress(OSError):
            self._files.remove(self._path)

    # ------------------------------------------------------------------ records

    def _check_order(self, keys: list[bytes]) -> None:
        previous = self._keys[-1] if self._keys else self._last
        rising = all(map(lt, keys, islice(keys, 1, None)))
        if not rising or (previous is not None and keys[0] <= previous):
            raise ValueError("the keys do not ascend")
        if self._first is None:
            self._first = keys[0]

    def _store(self, values: list[Value]) -> tuple[list[Stored], list[int]]:
        """The values as blocks have them, and their encoded lengths."""
        if set(map(type, values)) == {bytes}:
            lengths = list(map(len, values))  # type: ignore[arg-type]
            if max(lengths) < self._large:
                self._value_bytes += sum(lengths)
                return values, _sizes_of(lengths)
        stored = list(map(self._store_one, values))
        return stored, list(map(fmt.encoded_bytes, stored))

    def _store_one(self, value: Value) -> Stored:
        if value is None:
            self._tombstones += 1
            return None
        if isinstance(value, bytes):
            self._value_bytes += len(value)
            if len(value) < self._large:
                return value
            return self._store_blob(len(value), _pieces(value))
        if isinstance(value, BlobSource):
            self._value_bytes += value.length
            return self._store_blob(value.length, value.pieces())
        raise TypeError(f"a table's value cannot be of type {type(value).__name__}")

    def _store_blob(self, length: int, pieces: Iterator[bytes]) -> ExtType:
        start = self._output.offset
        crc = fmt.seed(self._id, start)
        for piece in pieces:
            crc = crc32c(piece, crc)
            self._output.write(piece)
        if self._output.offset - start != length:
            raise ValueError("a large value has another length than it said")
        return ExtType(fmt.BLOB_EXT, fmt.BLOB_REFERENCE.pack(start, length, crc))

    # ------------------------------------------------------------------ blocks

    def _write_blocks(self, *, everything: bool = False) -> None:
        """Write all full blocks, or all there is."""
        ends = list(accumulate(self._sizes))
        start = base = 0
        while start < len(ends):
            stop = self._end_of_block(ends, start, base)
            if stop > len(ends) and not everything:
                break
            stop = min(stop, len(ends))
            self._write_block(start, stop)
            self._pending -= ends[stop - 1] - base
            base, start = ends[stop - 1], stop
        del self._keys[:start], self._values[:start], self._sizes[:start]

    def _end_of_block(self, ends: list[int], start: int, base: int) -> int:
        """Where the block that begins at ``start`` ends; beyond all while it is not full."""
        stop = bisect_left(ends, base + self._block_bytes, start) + 1
        if stop - start < fmt.LEAST_RECORDS:
            most = base + fmt.LONGER_BLOCKS * self._block_bytes
            stop = min(start + fmt.LEAST_RECORDS, bisect_left(ends, most, start) + 1)
        return min(stop, start + fmt.MOST_RECORDS)

    def _write_block(self, start: int, stop: int) -> None:
        keys, values, sizes = (
            self._keys[start:stop],
            self._values[start:stop],
            self._sizes[start:stop],
        )
        offset = self._output.offset
        pieces = fmt.encode_block(keys, values, sizes, fmt.seed(self._id, offset), self._codec)
        crcs = list(map(crc32c, keys))
        self._hashes.add(hashes_of(crcs))
        self._records.add(self._places(offset, sizes), checks_of(crcs, values))
        self._separators.append(_separator(self._last, keys[0]))
        self._offsets.append(offset)
        self._output.write(*pieces)
        self._lengths.append(self._output.offset - offset)
        self._last = keys[-1]

    def _places(self, offset: int, sizes: list[int]) -> Iterable[int]:
        """Where the records of the next block are, as slots have it."""
        if self._codec is not None:
            return places_in_block(len(self._separators), len(sizes))
        return fmt.offsets_of(sizes, offset)

    # ------------------------------------------------------------------ sections

    def _write_sections(self) -> tuple[list[Section], int]:
        index = fmt.encode_index(self._separators, self._offsets, self._lengths)
        sections = [self._write_section(fmt.INDEX, index)]
        hashed = make_filter(self._hashes) if self._items else None
        if hashed is None:
            return sections, 0
        sections.append(self._write_section(fmt.FILTER, hashed.filter))
        sections.append(self._write_section(fmt.SIEVE, hashed.sieve))
        if self._records.fits:
            sections.append(self._write_section(fmt.SLOTS, hashed.slots))
            sections.append(self._write_section(fmt.RECORDS, self._records.data()))
        return sections, hashed.buckets

    def _write_section(self, kind: int, data: bytes) -> Section:
        offset = self._output.offset
        crcs = fmt.section_crcs(self._id, offset, data)
        self._output.write(data, crcs)
        return Section(kind, offset, len(data), required=True, crc=crc32c(crcs))


def _encoded_sizes(keys: list[bytes]) -> list[int]:
    return _sizes_of(list(map(len, keys)))


def _sizes_of(lengths: list[int]) -> list[int]:
    """The encoded lengths of byte strings of these lengths."""
    if max(lengths) < len(_SIZES):
        return list(map(_SIZES.__getitem__, lengths))
    return [n + (2 if n < 1 << 8 else 3 if n < 1 << 16 else 5) for n in lengths]


def _separator(last: bytes | None, first: bytes) -> bytes:
    """The shortest prefix of ``first`` that is above ``last``, the key before it.

    >>> _separator(b"apple", b"apricot"), _separator(b"a", b"abc"), _separator(None, b"abc")
    (b'apr', b'ab', b'')
    """
    if last is None:
        return b""
    shared = next((at for at, (a, b) in enumerate(zip(last, first, strict=False)) if a != b), -1)
    return first[: shared + 1] if shared >= 0 else first[: len(last) + 1]


def _pieces(value: bytes) -> Iterator[bytes]:
    for at in range(0, len(value), PIECE_BYTES):
        yield value[at : at + PIECE_BYTES]


class _Output:
    """The file, written from front to back in large pieces."""

    def __init__(self, files: FileSystem, path: str) -> None:
        self._file = files.create(path)
        self._gathered: list[Buffer] = []
        self._written = 0
        self.offset = 0
        """Of what is written next."""

    def write(self, *pieces: bytes) -> None:
        self._gathered += pieces
        self.offset += sum(map(len, pieces))
        if self.offset - self._written >= _WRITE_BYTES:
            self._flush()

    def _flush(self) -> None:
        self._file.write_at(self._written, [b"".join(self._gathered)])
        self._written = self.offset
        self._gathered = []

    def finish(self) -> None:
        self._flush()
        self._file.sync()
        self.close()

    def close(self) -> None:
        self._file.close()
        self._gathered = []
