"""Large values, outside the blocks: how a table hands them out and how a builder takes them in."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, Protocol, runtime_checkable

from crc32c import crc32c
from msgpack import ExtType

from kvstore.tables.format import BLOB_EXT, BLOB_REFERENCE, DamageError, seed

if TYPE_CHECKING:
    from kvstore.tables.table import Table

PIECE_BYTES: Final = 1 << 20


@runtime_checkable
class BlobSource(Protocol):
    """A large value that is read a piece at a time, so that it is never in memory whole."""

    @property
    def length(self) -> int:
        """The value's bytes, known before."""

    def pieces(self) -> Iterator[bytes]:
        """The value, of any number of bytes at a time; raises at its end if it is damaged."""


class TableBlob:
    """A large value in a table. While somebody has it the table's file stays.

    It is a :class:`kvstore.values.Blob` and a :class:`BlobSource`. CorruptStoreError for damage.
    """

    __slots__ = ("_crc", "_offset", "_table", "length")

    def __init__(self, table: Table, offset: int, length: int, crc: int) -> None:
        self._table = table
        self._offset = offset
        self.length = length
        self._crc = crc

    def __repr__(self) -> str:
        return f"<{self.length} bytes at {self._offset} in {self._table.record.name}>"

    def stored(self) -> ExtType:
        """The reference, as a block has it."""
        return ExtType(BLOB_EXT, BLOB_REFERENCE.pack(self._offset, self.length, self._crc))

    def read(self) -> bytes:
        """The value, its checksum verified."""
        data = self._table.read_at(self._offset, self.length)
        self._check(crc32c(data, self._seed()))
        return data

    def pieces(self) -> Iterator[bytes]:
        """The value in pieces of 1 MiB; its checksum is verified behind the last."""
        crc = self._seed()
        for at in range(0, self.length, PIECE_BYTES):
            piece = self._table.read_at(self._offset + at, min(PIECE_BYTES, self.length - at))
            crc = crc32c(piece, crc)
            yield piece
        self._check(crc)

    def _seed(self) -> int:
        return seed(self._table.record.table_id, self._offset)

    def _check(self, crc: int) -> None:
        if crc != self._crc:
            damage = DamageError("a large value's checksum does not match", self._offset)
            raise self._table.corrupt(damage)
