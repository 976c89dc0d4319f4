"""Writing an entry chunk by chunk: :class:`EntryWriter`.

The open entry is alone at the end of the log: appenders wait for ``entry_turn``, so its thread
knows every offset, and takes the append lock only to add bytes that a leader may be about to take.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from threading import get_ident
from typing import TYPE_CHECKING, Final

from crc32c import crc32c

from wal.append_buffer import ForCheckpoint
from wal.chunk_writer import ChunkWriter
from wal.config import Durability
from wal.errors import ChunkLengthError, EntryStateError
from wal.group_commit import IN_ENTRY, GroupCommit, as_bytes, rank_of
from wal.positions import MAX_OFFSET, STREAMED, ChunkRecord, EntryId, LogPosition
from wal.segments import format as fmt
from wal.segments.writer import SegmentWriter

if TYPE_CHECKING:
    from types import TracebackType

    from wal.files import Buffer
    from wal.log import WriteAheadLog
    from wal.segments.format import Appended
    from wal.tickets import OnCommit, Ticket

_RUN: Final = 256 << 10
_GROWTH: Final = 1 << 20  # a segment that an entry outgrows gets at least so much longer


def accept_streamed(
    commits: GroupCommit,
    item: Appended,
    on_commit: OnCommit | None,
    rank: int,
    decide: Callable[[], object] | None = None,
) -> Ticket:
    """Accept an appended entry that is too large for a group, by reference, without waiting."""
    chunks = [item] if isinstance(item, bytes) else item
    framing = fmt.ENTRY_BYTES + fmt.END_BYTES + fmt.CHUNK_OVERHEAD * len(chunks)
    with EntryWriter(commits, framing + sum(map(len, chunks))) as entry:
        if decide is not None:
            decide()  # while it is open nobody else commits
        for run in _runs(chunks):
            entry._write_run(run)
        return entry._submit(on_commit, rank, item)


def _runs(chunks: Sequence[bytes]) -> Iterator[list[bytes]]:
    """Neighbours that are framed in one step; a long chunk by itself."""
    run: list[bytes] = []
    size = 0
    for chunk in chunks:
        if run and size + len(chunk) > _RUN:
            yield run
            run, size = [], 0
        run.append(chunk)
        size += len(chunk)
    yield run


class EntryWriter:
    """An open entry; as a context manager it commits, or rolls back on an exception.

    ``id`` is its EntryId. While it is open every other writer waits. An entry that is dropped
    unfinished is rolled back, with a ResourceWarning.
    """

    _done = True  # until it has begun
    id = EntryId(0)

    def __init__(
        self, commits: GroupCommit, size_hint: int = 0, log: WriteAheadLog | None = None
    ) -> None:
        self._log = log  # a log lives as long as its open entry
        self._commits = commits
        self._buffer = commits.buffer
        self._size_hint = size_hint
        self._writer: SegmentWriter | None = None  # from the first chunk on
        self._header = b""
        self._start = 0
        self._mark = 0
        self._crcs = bytearray()
        self._count = 0
        self._chunk: ChunkWriter | None = None
        self._thread = get_ident()
        self._turn = object()  # owns the turn: not the entry itself, which may be dropped
        self._begin()

    def _begin(self) -> None:
        self._commits.check_barred()
        while True:
            begun = self._begin_in_turn()
            if isinstance(begun, int):
                return
            begun()

    def _begin_in_turn(self) -> int | ForCheckpoint:
        """The entry's id, and the turn is kept; or a wait that must not keep the turn."""
        commits, buffer = self._commits, self._buffer
        try:
            buffer.entry_turn.acquire(self._turn)
            while True:
                with buffer.lock, buffer.whole:
                    begun = buffer.begin_entry_locked()
                    if isinstance(begun, int):
                        commits.barred[self._thread] = IN_ENTRY
                        self.id = EntryId(begun)
                        self._done = False
                        return begun
                if isinstance(begun, ForCheckpoint):
                    return begun
                begun()
        finally:
            if self._done:
                try:  # not _surely(): an interrupt may come at the beginning of any call
                    self._leave()
                except BaseException:
                    self._leave()
                    raise

    # -- chunks ------------------------------------------------------------------------------------

    def write_chunk(self, data: Buffer) -> ChunkRecord:
        """Write a whole chunk of up to 4 GiB - 1 and return its record.

        Bytes are kept by reference until they are written, any other buffer is copied.
        """
        self._check_open()
        body = as_bytes(data)
        if len(body) > fmt.MAX_CHUNK:
            raise ValueError(f"data must be below 4 GiB, not {len(body)} bytes")
        writer = self._prepare(len(body))
        head, offset, running = self._chunk_head(len(body))
        crc = crc32c(body, running)
        tail = fmt.CRC.pack(crc)
        with self._buffer.lock, self._buffer.whole:
            self._check_latch()
            self._buffer.gathered += writer.add(head, body, tail)
            writer.segment.unwritten[offset] = (body, crc)
            return self._record(offset, crc, len(body), tail)

    def _write_run(self, run: list[bytes]) -> None:
        """Write some whole chunks of which nobody is told the positions.

        They need not be found in memory then: 1 us a chunk, where :meth:`write_chunk` takes 15.
        """
        self._check_open()
        longest, size = max(map(len, run)), sum(map(len, run))
        if longest > fmt.MAX_CHUNK:
            raise ValueError(f"data must be below 4 GiB, not {longest} bytes")
        writer = self._prepare(size + fmt.CHUNK_OVERHEAD * (len(run) - 1))
        buffers, crcs = fmt.encode_chunks(writer.seed, writer.end, run)
        if len(run) > 1:
            buffers = [b"".join(buffers)]
        with self._buffer.lock, self._buffer.whole:
            self._check_latch()
            self._buffer.gathered += writer.add(*buffers)
            self._crcs += crcs
            self._count += len(run)

    def begin_chunk(self, length: int) -> ChunkWriter:
        """Begin a chunk of ``length`` bytes whose data follows in pieces."""
        self._check_open()
        if not isinstance(length, int) or isinstance(length, bool):
            raise TypeError(f"length must be an int, not {type(length).__name__}")
        if not 0 <= length <= fmt.MAX_CHUNK:
            raise ValueError(f"length must be 0 to 4 GiB - 1, not {length}")
        writer = self._prepare(length)
        head, offset, running = self._chunk_head(length)
        self._chunk = ChunkWriter(self, writer, offset, length, running)
        self._chunk._add(head)
        return self._chunk

    def _chunk_head(self, length: int) -> tuple[bytes, int, int]:
        """A chunk's first bytes, their offset, and the checksum that its data continues."""
        assert self._writer is not None
        head = fmt.CHUNK.pack(fmt.CHUNK_TAG, length)
        offset = self._writer.end
        return head, offset, fmt.chunk_crc(self._writer.seed, offset, head)

    def _record(self, offset: int, crc: int, length: int, tail: bytes) -> ChunkRecord:
        assert self._writer is not None
        self._crcs += tail
        self._count += 1
        return ChunkRecord(LogPosition(self._writer.segment.id, offset, STREAMED), crc, length)

    # -- room --------------------------------------------------------------------------------------

    def _prepare(self, length: int) -> SegmentWriter:
        """Have a place for a chunk: a header before the first, room in memory and in the file."""
        buffer = self._buffer
        if buffer.gathered >= buffer.buffer_bytes:
            buffer.write_out()
        needed = fmt.CHUNK_OVERHEAD + length + fmt.END_BYTES
        if self._writer is None:
            self._open(max(self._size_hint, fmt.ENTRY_BYTES + needed))
        writer = self._writer
        assert writer is not None
        self._reserve(writer, needed)
        return writer

    def _open(self, size: int) -> None:
        """Frame the entry's header, in a fresh segment where its first chunk fits better."""
        buffer = self._buffer
        with buffer.lock, buffer.whole:
            self._check_latch()
            writer = buffer.make_place_locked(size, self.id)
            self._start, self._mark = writer.end, writer.mark()
            self._header = fmt.encode_entry_header(
                writer.header, writer.seed, writer.end, self.id, buffer.durable_id
            )
            buffer.gathered += writer.add(self._header)
            self._writer = writer

    def _reserve(self, writer: SegmentWriter, needed: int) -> None:
        length = writer.end + needed
        if length > MAX_OFFSET:
            raise ValueError(f"the entry is too large for a segment: {length} bytes")
        if length > writer.file_size:
            # The bytes behind the end are this entry's own: a failure here spoils nothing.
            length = max(length, writer.file_size + _GROWTH)
            self._buffer.grow(writer, length)

    # -- the end -----------------------------------------------------------------------------------

    def commit(
        self,
        durability: Durability | None = None,
        on_commit: OnCommit | None = None,
        on_accept: Callable[[], object] | None = None,
    ) -> EntryId:
        """Commit the entry and return its id, once it has its durability.

        ``on_accept()`` is called when the entry has its place in the log and still waits for its
        durability, with the append lock held: be quick, and call nothing of the log.

        Raises ChunkLengthError (and rolls back) where a chunk is still short; LogFailedError
        leaves the entry in doubt; CallbackError means that it is committed.
        """
        self._check_end()
        rank = self._commits.rank if durability is None else rank_of(durability)
        return self._commits.wait(self._submit(on_commit, rank, on_accept=on_accept))

    def _submit(
        self,
        on_commit: OnCommit | None,
        rank: int,
        item: Appended | None = None,
        on_accept: Callable[[], object] | None = None,
    ) -> Ticket:
        """Close the entry and give it its place among the commits in flight, without waiting."""
        try:
            if self._writer is None:
                self._open(fmt.ENTRY_BYTES + fmt.END_BYTES)
            writer = self._writer
            assert writer is not None
            self._reserve(writer, fmt.END_BYTES)
            return self._end(writer, on_commit, rank, item, on_accept)
        finally:
            try:  # not _surely(): an interrupt may come at the beginning of any call
                if not self._done:
                    self._abandon()
                self._leave()
            except BaseException:
                if not self._done:
                    self._abandon()
                self._leave()
                raise

    def _end(
        self,
        writer: SegmentWriter,
        on_commit: OnCommit | None,
        rank: int,
        item: Appended | None,
        on_accept: Callable[[], object] | None,
    ) -> Ticket:
        buffer = self._buffer
        end = fmt.encode_end(writer.seed, self._start, self._header, bytes(self._crcs), self._count)
        with buffer.lock, buffer.whole:
            self._check_latch()
            buffer.gathered += writer.add(end)
            buffer.entries += 1
            buffer.chunks_framed += self._count
            size = writer.end - self._start
            buffer.chunk_bytes_framed += fmt.data_in_entry(size, self._count)
            writer.segment.committed_end = writer.end
            writer.segment.last_id = buffer.last_id = self.id
            buffer.arm_locked()  # it may have been open for longer than the flusher looks
            buffer.entry_open = False
            self._done = True
            return self._commits.enter_flight_locked(self.id, rank, on_commit, item, on_accept)

    def rollback(self) -> None:
        """Take the entry back: nothing of it is ever recovered, and its id is not used again."""
        if self._done:
            raise EntryStateError(f"entry {self.id} has ended")
        self._abandon()

    def _abandon(self) -> None:
        """Roll back what is not committed; on the flusher's thread for a dropped entry."""
        if not self._done:
            _surely(self._roll_back)

    def _roll_back(self) -> None:
        buffer = self._buffer
        with buffer.lock, buffer.whole:
            if not self._done:
                writer, self._writer = self._writer, None
                if writer is not None:
                    buffer.gathered -= writer.drop_after(self._mark, self._start)
                buffer.entry_open = False
                self._done = True
        self._leave()

    def _leave(self) -> None:
        """Let others go on. May be repeated: only who has the turn gives it back."""
        self._commits.barred.pop(self._thread, None)
        self._buffer.entry_turn.release(self._turn)

    def _check_open(self) -> None:
        if self._done:
            raise EntryStateError(f"entry {self.id} has ended")
        if self._chunk is not None:
            raise EntryStateError(f"entry {self.id} has an open chunk; close that first")

    def _check_end(self) -> None:
        chunk = self._chunk
        if not self._done and chunk is not None and chunk.written < chunk.length:
            self._abandon()
            raise ChunkLengthError(chunk.length, chunk.written)
        self._check_open()

    def _check_latch(self) -> None:
        if self._buffer.failure is not None:
            raise self._buffer.failed()

    def __enter__(self) -> EntryWriter:
        if self._done:
            raise EntryStateError(f"entry {self.id} has ended")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._done:
            return
        try:
            if kind is None:
                self.commit()
        finally:
            self._abandon()

    def __del__(self) -> None:
        if self._done:
            return
        # A finalizer may run inside any lock, so another thread does the rolling back.
        self._commits.barred.pop(self._thread, None)
        self._commits.defer(self._abandon)
        # Last: where warnings are errors it raises.
        message = f"entry {self.id} was dropped unfinished"
        warnings.warn(message, ResourceWarning, stacklevel=2, source=self)

    def __repr__(self) -> str:
        return f"<EntryWriter of entry {self.id}{', ended' if self._done else ''}>"


def _surely(step: Callable[[], None]) -> None:
    """Take a step that may be repeated, also if an interrupt comes in the middle of it."""
    try:
        step()
    except BaseException:
        step()
        raise
