"""A sealed segment's entries: for ``checkpoint_to``, in this process or in another one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType

from wal.errors import CorruptLogError
from wal.files import FileSystem
from wal.positions import EntryId
from wal.segments import format as fmt
from wal.segments.frames import Entry, Frame
from wal.segments.lifecycle import Segment
from wal.segments.reader import FrameSource


@dataclass(frozen=True, slots=True)
class SegmentDescription:
    """What another process has to know to read a sealed segment. Plain values: send them as such.

    They stay true until the segment's ``checkpoint_to`` returns.
    """

    path: str
    header: bytes
    """The first bytes of the file. It has others once it is used for another segment."""
    end: int
    """Where the last committed entry ends."""
    last_id: int
    """The last committed entry's id."""


class SegmentReader:
    """The entries of a sealed segment, oldest first; may be iterated more than once.

    Raises CorruptLogError, from the iteration, where the file does not hold what was committed to
    it. One from :meth:`open` has the file open until it is closed; it is a context manager too.
    """

    def __init__(self, segment: Segment) -> None:
        self._source = segment.source
        self._end = segment.committed_end
        self._last_id = segment.last_id
        self._owned = False

    @classmethod
    def open(cls, file_system: FileSystem, description: SegmentDescription) -> SegmentReader:
        """Read a segment that :meth:`describe` described, perhaps in another process.

        Raises FileNotFoundError where the file is gone, CorruptLogError where it is not that
        segment (any more).
        """
        path = description.path
        file = file_system.open(path, writable=False)
        try:
            data = file.read_at(0, fmt.MAX_HEADER_BYTES)
            if not data.startswith(description.header):
                raise CorruptLogError(path, 0, "not the header of the segment to be read")
            reader = cls.__new__(cls)
            reader._source = FrameSource(file, path, fmt.decode_header(path, data))
        except BaseException:
            file.close()
            raise
        reader._end = description.end
        reader._last_id = description.last_id
        reader._owned = True
        return reader

    def describe(self) -> SegmentDescription:
        """What :meth:`open` needs to read the same entries, with the same checks, elsewhere."""
        source = self._source
        return SegmentDescription(source.path, source.header.encode(), self._end, self._last_id)

    @property
    def segment_id(self) -> int:
        """The segment's id."""
        return self._source.header.segment_id

    @property
    def path(self) -> str:
        """The segment's file."""
        return self._source.path

    @property
    def last_id(self) -> EntryId:
        """The last entry's id."""
        return EntryId(self._last_id)

    @property
    def size(self) -> int:
        """The bytes in use, from the start of the file."""
        return self._end

    def __iter__(self) -> Iterator[Entry]:
        for frame in self.frames():
            yield from frame.entries()

    def frames(self) -> Iterator[Frame]:
        """The same entries, those that were written together as a :class:`Group`."""
        source = self._source
        start, last = source.header.size, source.header.previous_last_id
        for frame in source.frames(start, self._end, last):
            yield frame
            start, last = frame.end, max(last, frame.last_id)
        if last != self._last_id:
            reason = f"entries {last + 1} to {self._last_id} cannot be read"
            raise CorruptLogError(source.path, start, reason)

    def close(self) -> None:
        """Close the file, if :meth:`open` opened it. Its entries' large chunks go with it."""
        if self._owned:
            self._source.file.close()

    def __enter__(self) -> SegmentReader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
