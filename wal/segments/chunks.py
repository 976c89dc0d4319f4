"""Reading the data of one chunk: :class:`ChunkReader`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from crc32c import crc32c

from wal.errors import CorruptLogError
from wal.files import File
from wal.positions import LogPosition
from wal.segments import format as fmt

if TYPE_CHECKING:
    from types import TracebackType

    from wal.segments.lifecycle import Segment, SegmentRegistry

    Pin = tuple[SegmentRegistry, Segment]

PIECE: Final = 1 << 20
"""How much of a large chunk is read at a time."""


class ChunkReader:
    """One chunk's data, in memory or still in its segment file.

    ``position`` is its :class:`LogPosition`, ``length`` its bytes. Also a context manager: leaving
    it lets go of the segment that a :meth:`WriteAheadLog.read_at` pinned. ``bytes(chunk)`` is all
    of it, and it equals bytes of the same content.
    """

    __slots__ = (
        "_at",
        "_crc",
        "_data",
        "_file",
        "_head",
        "_path",
        "_pin",
        "_running",
        "length",
        "position",
    )

    def __init__(
        self,
        position: LogPosition,
        length: int,
        data: bytes | None,
        crc: int | None = None,
        head: int = 0,
        file: File | None = None,
        path: str = "",
    ) -> None:
        self.position = position
        self.length = length
        self._data = data
        self._crc = crc  # the stored checksum; None where a group's has vouched for the data
        self._head = head  # the checksum of tag and length, which the data continues
        self._file = file
        self._path = path
        self._at = 0
        self._running = head
        self._pin: Pin | None = None

    def hold(self, pin: Pin) -> ChunkReader:
        """Keep a pin until the reader is closed."""
        self._pin = pin
        return self

    def read(self, size: int = -1) -> bytes:
        """The next ``size`` bytes, or all that are left; ``b""`` at the end.

        Raises CorruptLogError once the last byte was read and the checksum does not match: data
        read in one call is always right, data read in pieces is vouched for by the last one.
        """
        left = self.length - self._at
        size = left if size < 0 else min(size, left)
        piece = self._slice(self._at, size)
        if self._crc is not None and size:
            self._running = crc32c(piece, self._running)
        self._at += size
        if self._at == self.length and self._crc is not None and self._running != self._crc:
            raise self._damage("the chunk's checksum does not match")
        return piece

    def crc_is_valid(self) -> bool:
        """Whether the whole chunk matches its checksum. Leaves the place of read."""
        if self._crc is None:
            return True
        running = self._head
        try:
            for at in range(0, self.length, PIECE):
                running = crc32c(self._slice(at, min(PIECE, self.length - at)), running)
        except CorruptLogError:
            return False
        return running == self._crc

    def _slice(self, at: int, size: int) -> bytes:
        if self._data is not None:
            data = self._data
            return data if size == len(data) else data[at : at + size]
        if self._file is None:
            raise ValueError("read of a closed chunk")
        piece = self._file.read_at(self.position.offset + fmt.CHUNK.size + at, size)
        if len(piece) != size:
            raise self._damage("the file ends inside a chunk")
        return piece

    def _damage(self, reason: str) -> CorruptLogError:
        return CorruptLogError(self._path, self.position.offset, reason)

    def close(self) -> None:
        """Let go of the segment. What is in memory stays readable."""
        self._file = None
        pin, self._pin = self._pin, None
        if pin is not None:
            registry, segment = pin
            registry.unpin(segment)

    def __enter__(self) -> ChunkReader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if self._pin is not None:
            self.close()

    def __bytes__(self) -> bytes:
        position, running = self._at, self._running
        self._at, self._running = 0, self._head
        try:
            return self.read()
        finally:
            self._at, self._running = position, running

    def __eq__(self, other: object) -> bool:
        if isinstance(other, ChunkReader):
            return bytes(self) == bytes(other)
        if isinstance(other, (bytes, bytearray, memoryview)):
            return len(other) == self.length and bytes(self) == other
        return NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<ChunkReader of {self.length} bytes at {tuple(self.position)}>"
