"""Reading a live log: single chunks by position, and entries in order."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from typing import Final

from wal.errors import CorruptLogError, LogClosedError, PositionNotFoundError
from wal.positions import STREAMED, LogPosition
from wal.segments import format as fmt
from wal.segments.chunks import ChunkReader
from wal.segments.frames import Entry
from wal.segments.lifecycle import Segment, SegmentRegistry, State

_FIRST_READ: Final = 512  # one read serves the whole of a small chunk
_IN_MEMORY: Final = 256 << 10  # chunks up to here are read at once
_CACHED_GROUPS: Final = 64
_KEPT_PLACES: Final = 64


class LogReader:
    """``read_at`` and ``entries``. Takes the registry's lock to pin, never the append lock."""

    def __init__(self, registry: SegmentRegistry) -> None:
        self._registry = registry
        self.closed: LogClosedError | None = None
        self._groups: OrderedDict[tuple[int, int], list[bytes]] = OrderedDict()
        self._places: OrderedDict[tuple[int, int], tuple[int, int]] = OrderedDict()
        self._groups_lock = threading.Lock()  # of both

    def check_usable(self) -> None:
        """Raise in the child of a fork, where locks may be held for ever, and after shutdown."""
        if self.closed is not None:
            raise self.closed.with_traceback(None)  # it is raised again and again

    # -- by position -------------------------------------------------------------------------------

    def read_at(self, position: LogPosition) -> ChunkReader:
        """See :meth:`wal.WriteAheadLog.read_at`."""
        if self.closed is not None:
            raise self.closed.with_traceback(None)  # it is raised again and again
        if not isinstance(position, LogPosition):
            raise TypeError(f"position must be a LogPosition, not {type(position).__name__}")
        segment = self._registry.pin(position.segment_id)
        try:
            if position.index == STREAMED:
                chunk = self._streamed(segment, position)
            else:
                chunk = self._grouped(segment, position)
        except BaseException:
            self._registry.unpin(segment)
            raise
        return chunk.hold((self._registry, segment))

    def _streamed(self, segment: Segment, position: LogPosition) -> ChunkReader:
        offset = position.offset
        # The buffer first: what is not in it any more is in the file.
        unwritten = segment.unwritten.get(offset)
        if unwritten is not None:
            data, crc = unwritten
            return self._reader(segment, position, len(data), data, crc)
        head_size = fmt.CHUNK.size
        start = segment.file.read_at(offset, _FIRST_READ)
        if offset < segment.header.size or len(start) < head_size:
            raise self._misplaced(segment, position)
        tag, length = fmt.CHUNK.unpack_from(start)
        past = head_size + length
        if tag != fmt.CHUNK_TAG or offset + past + fmt.CRC.size > segment.end:
            raise self._misplaced(segment, position)
        if past + fmt.CRC.size > len(start) and length <= _IN_MEMORY:
            start = segment.file.read_at(offset, past + fmt.CRC.size)
        if past + fmt.CRC.size <= len(start):
            crc = fmt.CRC.unpack_from(start, past)[0]
            return self._reader(segment, position, length, start[head_size:past], crc)
        crc = fmt.CRC.unpack(segment.file.read_at(offset + past, fmt.CRC.size))[0]
        return self._reader(segment, position, length, None, crc)

    def _reader(
        self, segment: Segment, position: LogPosition, length: int, data: bytes | None, crc: int
    ) -> ChunkReader:
        head = fmt.CHUNK.pack(fmt.CHUNK_TAG, length)
        running = fmt.chunk_crc(segment.source.seed, position.offset, head)
        return ChunkReader(position, length, data, crc, running, segment.file, segment.path)

    def _grouped(self, segment: Segment, position: LogPosition) -> ChunkReader:
        key = (position.segment_id, position.offset)
        with self._groups_lock:
            chunks = self._groups.get(key)
            if chunks is not None:
                self._groups.move_to_end(key)
        if chunks is None:
            chunks = self._read_group(segment, position)
            with self._groups_lock:
                self._groups[key] = chunks
                while len(self._groups) > _CACHED_GROUPS:
                    self._groups.popitem(last=False)
        if position.index >= len(chunks):
            raise PositionNotFoundError(f"{position}: the group has {len(chunks)} chunks")
        data = chunks[position.index]
        return ChunkReader(position, len(data), data)

    def _read_group(self, segment: Segment, position: LogPosition) -> list[bytes]:
        offset = position.offset
        if segment.header.size <= offset < segment.durable_end:
            group = segment.source.group_at(offset, segment.durable_end)
            if group is not None:
                return group.chunks()
        raise self._misplaced(segment, position)

    def _misplaced(self, segment: Segment, position: LogPosition) -> Exception:
        """Nothing valid begins there: because nothing ever did, or because it is damaged?

        The frames before it tell, unless they are damaged themselves: read slowly, only to fail.
        """
        offset = position.offset
        at = segment.header.size
        if not at <= offset < segment.end:
            return PositionNotFoundError(f"{position}: nothing was written there")
        last = segment.header.previous_last_id
        for frame in segment.source.frames(at, segment.end, last):
            at, last = frame.end, frame.last_id
            if offset < at:
                return PositionNotFoundError(f"{position}: no chunk begins there")
        if at >= segment.durable_end or (segment.state is State.KEPT and last >= segment.last_id):
            return PositionNotFoundError(f"{position}: no durable chunk begins there")
        return CorruptLogError(
            segment.path, offset, "no valid chunk, and the frames before it end early"
        )

    # -- in order ----------------------------------------------------------------------------------

    def entries(self, after: int | None) -> Iterator[Entry]:
        """See :meth:`wal.WriteAheadLog.entries`."""
        if after is not None and not isinstance(after, int):
            raise TypeError(f"after must be an entry id or None, not {type(after).__name__}")
        if after is not None and after < 0:
            raise ValueError(f"after must be an entry id, not {after}")
        self.check_usable()
        return self._entries(after)

    def _entries(self, after: int | None) -> Iterator[Entry]:
        cursor = after
        while True:
            self.check_usable()
            segment = self._registry.pin_after(cursor)
            if segment is None:
                return
            try:
                before = cursor
                place = self._place(segment, cursor or 0)
                for entry in _segment_entries(segment, cursor or 0, place):
                    cursor = entry.id
                    yield entry
                if cursor is None or cursor == before or cursor < segment.last_id:
                    return
            finally:
                self._remember(segment, cursor or 0, place)
                self._registry.unpin(segment)

    def _place(self, segment: Segment, after: int) -> list[int]:
        """Where to read on behind an entry: a frame's offset, and the last id before it.

        Who follows the log asks again and again: what was read already is not scanned each time.
        """
        with self._groups_lock:
            known = self._places.get((segment.id, after))
        return [*(known or (segment.header.size, segment.header.previous_last_id))]

    def _remember(self, segment: Segment, after: int, place: list[int]) -> None:
        with self._groups_lock:
            self._places[segment.id, after] = (place[0], place[1])
            while len(self._places) > _KEPT_PLACES:
                self._places.popitem(last=False)

    def oldest_id(self) -> int | None:
        """The id from which on :meth:`entries` has everything; None if it has nothing."""
        self.check_usable()
        return self._registry.oldest_id()


def _segment_entries(segment: Segment, after: int, place: list[int]) -> Iterator[Entry]:
    """The durable entries of a segment above ``after``, from a place on, which follows the frames.

    Where a segment kept by a former process ends is known by its last id alone.
    """
    start, last = place
    while start < segment.durable_end:
        stop = segment.durable_end
        for frame in segment.source.frames(start, stop, last):
            place[:] = start, last
            start, last = frame.end, max(last, frame.last_id)
            if last <= after:
                continue
            for entry in frame.entries():
                if entry.id > after:
                    yield entry
        place[:] = start, last
        if segment.state is State.KEPT and last >= segment.last_id:
            return
        if start < stop:
            break
    else:
        if segment.state is not State.KEPT or last >= segment.last_id:
            return
    raise CorruptLogError(segment.path, start, f"the entries after {last} cannot be read")
