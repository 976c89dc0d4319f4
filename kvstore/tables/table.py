"""Writing a table, and loading it whole.

A loaded table is held in memory as a :class:`~kvstore.runs.Run`; its file is read once, with every
checksum verified, and is not kept open. So a store needs memory for all its data, and time to open
in proportion to it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from crc32c import crc32c

from kvstore.errors import CorruptStoreError
from kvstore.runs import Run, Values
from kvstore.tables import format as fmt
from kvstore.tables.format import DamageError
from wal.files import File, FileSystem

_WRITE_BYTES: Final = 1 << 20
_SUFFIX: Final = ".table"


@dataclass(frozen=True)
class TableRecord:
    """What the manifest says about a table."""

    number: int
    size: int
    crc: int
    """That of the footer, which vouches for all other bytes."""


@dataclass(frozen=True)
class Table:
    """An immutable table, in memory and in its file."""

    record: TableRecord
    run: Run


def table_name(number: int) -> str:
    """The file name of a table.

    >>> table_name(7)
    '000000000007.table'
    """
    return f"{number:012d}{_SUFFIX}"


def number_of(name: str) -> int | None:
    """The number in a table's file name, None for any other name.

    >>> number_of("000000000007.table"), number_of("notes.txt")
    (7, None)
    """
    digits = name.removesuffix(_SUFFIX)
    return int(digits) if digits != name and digits.isdecimal() else None


def write_table(files: FileSystem, directory: str, number: int, run: Run) -> Table:
    """Write a new table and sync it, but not its directory. An error leaves no file."""
    path = os.path.join(directory, table_name(number))
    file = files.create(path)
    try:
        try:
            values = run.values
            pieces = fmt.encode_table(number, ((key, values[key]) for key in run.keys))
            size, crc = _write(file, pieces)
            file.sync()
        finally:
            file.close()
    except BaseException:
        with suppress(OSError):
            files.remove(path)
        raise
    return Table(TableRecord(number, size, crc), run)


def _write(file: File, pieces: Iterator[bytes]) -> tuple[int, int]:
    """Write the pieces one behind the other; their length, and the crc that ends the last."""
    offset, size, piece = 0, 0, b""
    gathered: list[bytes] = []
    for piece in pieces:
        gathered.append(piece)
        size += len(piece)
        if size >= _WRITE_BYTES:
            file.write_at(offset, gathered)
            offset, size, gathered = offset + size, 0, []
    if gathered:
        file.write_at(offset, gathered)
    return offset + size, fmt.CRC.unpack(piece[-fmt.CRC.size :])[0]


def load_table(files: FileSystem, directory: str, record: TableRecord) -> Table:
    """Read a table with every checksum verified; CorruptStoreError for any damage."""
    path = os.path.join(directory, table_name(record.number))
    try:
        file = files.open(path, writable=False)
    except FileNotFoundError:
        raise CorruptStoreError(path, 0, "the table is missing") from None
    try:
        return Table(record, _Loading(file, record).run())
    except DamageError as damage:
        raise CorruptStoreError(path, damage.offset, damage.reason) from None
    finally:
        file.close()


class _Loading:
    """One reading of a table file."""

    def __init__(self, file: File, record: TableRecord) -> None:
        self._file = file
        self._record = record
        self._end = record.size - fmt.FOOTER_BYTES  # of the blocks

    def run(self) -> Run:
        record, size = self._record, self._file.size()
        if size != record.size or size < fmt.LEAST_TABLE_BYTES:
            reason = f"the file must have {record.size} bytes and has {size}"
            raise DamageError(reason, min(size, record.size))
        fmt.check_header(self._read(0, fmt.HEADER_BYTES), record.number)
        footer = self._read(self._end, fmt.FOOTER_BYTES)
        if footer[-fmt.CRC.size :] != fmt.CRC.pack(record.crc):
            raise DamageError("the footer is not the one that the manifest names", self._end)
        totals = fmt.decode_footer(footer, record.number, self._end)
        values: Values = {}
        blocks = crcs = 0
        for flat, crc in self._blocks():
            values.update(zip(flat[::2], flat[1::2], strict=False))  # type: ignore[arg-type]
            blocks, crcs = blocks + 1, crc32c(crc, crcs)
        keys = list(values)
        if (blocks, len(keys), crcs) != totals:
            raise DamageError("the blocks are not those that the footer counts", self._end)
        return Run(values, keys)

    def _blocks(self) -> Iterator[tuple[list[bytes | None], bytes]]:
        """Each block's content and its crc."""
        offset, end = fmt.HEADER_BYTES, self._end
        while offset < end:
            head = self._read(offset, fmt.BLOCK.size)
            start = offset + fmt.BLOCK.size
            length = fmt.block_length(head)
            if length > end - start:
                raise DamageError("a block's length goes beyond the file", offset)
            body = self._read(start, length)
            yield fmt.decode_block(self._record.number, offset, head, body), body[-fmt.CRC.size :]
            offset = start + length

    def _read(self, offset: int, length: int) -> bytes:
        data = self._file.read_at(offset, length)
        if len(data) != length:
            raise DamageError("the file is cut short", offset)
        return data
