"""Writing a chunk in pieces, its checksum behind the data: :class:`ChunkWriter`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from crc32c import crc32c

from wal.errors import ChunkLengthError, EntryStateError
from wal.group_commit import as_bytes
from wal.positions import ChunkRecord
from wal.segments import format as fmt
from wal.segments.writer import SegmentWriter

if TYPE_CHECKING:
    from types import TracebackType

    from wal.entry_writer import EntryWriter
    from wal.files import Buffer


class ChunkWriter:
    """A chunk whose data comes in pieces; its checksum goes behind the data.

    Use it as a context manager. Closing it before it has its ``length`` bytes is a
    ChunkLengthError, and the entry is rolled back. ``record`` is its ChunkRecord once it is
    closed.
    """

    def __init__(
        self, entry: EntryWriter, writer: SegmentWriter, offset: int, length: int, running: int
    ) -> None:
        self._entry = entry
        self._writer = writer
        self._offset = offset
        self._running = running
        self._pieces: list[bytes] = []
        self._record: ChunkRecord | None = None
        self.length = length
        self.written = 0

    def write(self, data: Buffer) -> int:
        """Write the next piece; returns its length. One too long writes nothing and rolls back."""
        entry = self._entry
        self._check_open()
        piece = as_bytes(data)
        if self.written + len(piece) > self.length:
            entry._abandon()
            raise ChunkLengthError(self.length, self.written + len(piece))
        try:
            buffer = entry._buffer
            if buffer.gathered >= buffer.buffer_bytes:
                buffer.write_out()
            self._running = crc32c(piece, self._running)
            self._add(piece)
            if self._writer.taken > self._offset:
                self._pieces.clear()  # a leader took some of it: it will be read from the file
            else:
                self._pieces.append(piece)
            self.written += len(piece)
        except BaseException:
            entry._abandon()  # half of a step may be done
            raise
        return len(piece)

    def _add(self, piece: bytes) -> None:
        buffer = self._entry._buffer
        with buffer.lock, buffer.whole:
            self._entry._check_latch()
            buffer.gathered += self._writer.add(piece)

    @property
    def record(self) -> ChunkRecord:
        """The chunk's record; EntryStateError before it is closed."""
        if self._record is None:
            raise EntryStateError("a chunk has its record once it is closed")
        return self._record

    def close(self) -> ChunkRecord:
        """End the chunk and return its record. Raises ChunkLengthError if it is short."""
        if self._record is not None:
            return self._record
        entry = self._entry
        self._check_open()
        if self.written != self.length:
            entry._abandon()
            raise ChunkLengthError(self.length, self.written)
        try:
            tail = fmt.CRC.pack(self._running)
            self._add(tail)
            self._make_readable()
            record = entry._record(self._offset, self._running, self.length, tail)
            entry._chunk = None
            self._record = record
        except BaseException:
            entry._abandon()
            raise
        return record

    def _make_readable(self) -> None:
        """Chunks are read from the buffer or the file: one that is in both goes to the file."""
        buffer, segment = self._entry._buffer, self._writer.segment
        with buffer.lock, buffer.whole:
            buffered = self._writer.taken <= self._offset
            if buffered:
                segment.unwritten[self._offset] = (b"".join(self._pieces), self._running)
        if not buffered:
            buffer.write_out()
        self._pieces.clear()

    def _check_open(self) -> None:
        if self._entry._done:
            raise EntryStateError(f"entry {self._entry.id} has ended")
        if self._entry._chunk is not self:
            raise EntryStateError("the chunk is closed")

    def __enter__(self) -> ChunkWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._entry._done or self._record is not None:
            return
        if kind is None:
            self.close()
        else:
            self._entry._abandon()
