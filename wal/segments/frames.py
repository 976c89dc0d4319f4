"""What a scan of a segment yields: frames, and the entries in them.

A frame is a :class:`Group` of appended entries, or a :class:`StreamedEntry`, its own frame:
one object is made for it, not two.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate, repeat
from typing import TYPE_CHECKING

from wal.positions import EntryId, LogPosition
from wal.segments.chunks import ChunkReader
from wal.segments.format import GroupHeader, Item
from wal.segments.uniform import Columns

if TYPE_CHECKING:
    from wal.segments.reader import FrameSource

Extent = tuple[int, int, int, bytes | None, int]
"""A streamed chunk that a scan met: the offset of its tag, its length, its crc, and where its data
was in the window: the window (or None) and the place in it. A bare tuple: one is made for every
chunk that is recovered."""


class Entry:
    """A committed entry as it is handed to ``recover``, ``checkpoint_to`` and ``entries()``.

    ``id`` is its :data:`EntryId`. Chunks may be read in any order, in part, or not at all. They
    can be read as long as the segment is there: during the callback, or until the iteration goes
    on; chunks of up to some MiB are in memory and stay.
    """

    __slots__ = ("id",)

    id: EntryId

    def chunks(self) -> list[ChunkReader]:
        """The entry's chunks, in order, as readers that know their positions."""
        raise NotImplementedError

    def read_all(self) -> list[bytes]:
        """Every chunk's data, in order: :meth:`chunks` without an object for each."""
        raise NotImplementedError

    def read_below(self, length: int) -> list[bytes] | list[bytes | ChunkReader]:
        """Every chunk, in order: its data, but a reader of one of ``length`` bytes and more.

        So an entry that does not fit into memory can be taken over. What was appended as part of a
        group is in memory in any case, and comes as data whatever its length. The list must not be
        changed: it may be the entry's own.
        """
        return self.read_all()

    @property
    def segment_id(self) -> int:
        """The segment that holds the entry."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id}>"


class Group:
    """Entries that were written together, with one header and one checksum: a valid group frame.

    They have the ids from ``first_id`` to ``last_id``.
    """

    __slots__ = (
        "_first_chunks",
        "_items",
        "columns",
        "durable_id",
        "end",
        "first_id",
        "last_id",
        "offset",
        "source",
    )

    def __init__(
        self,
        source: FrameSource,
        offset: int,
        end: int,
        header: GroupHeader,
        content: list[Item] | Columns,
    ) -> None:
        self.source = source
        self.offset = offset
        self.end = end
        self.first_id = header.first_id
        self.last_id = header.first_id + header.count - 1  # below first_id for a witness
        self.durable_id = header.durable_id
        self._items: list[Item] | None
        self.columns: Columns | None
        """The chunks by number, where all entries are laid out alike, and are not few; or None."""
        if isinstance(content, Columns):
            self._items, self.columns = None, content
        else:
            self._items, self.columns = content, None
        self._first_chunks: list[int] | None = None

    def __len__(self) -> int:
        return self.last_id - self.first_id + 1

    @property
    def items(self) -> list[Item]:
        """The entries: bytes for one chunk, else a list of bytes. They must not be changed."""
        if self._items is None:
            assert self.columns is not None
            self._items = self.columns.items()
        return self._items

    def entries(self) -> Iterator[Entry]:
        """The group's entries, in order."""
        # 172 ns an entry; a generator that calls the class takes 276 (CPython 3.11).
        ids = range(self.first_id, self.last_id + 1)
        return map(AppendedEntry, ids, self.items, repeat(self))

    @property
    def segment_id(self) -> int:
        """The segment that holds the entries."""
        return self.source.header.segment_id

    def first_chunk(self, entry_id: int) -> int:
        """The number, in the group, of an entry's first chunk."""
        if self._first_chunks is None:
            counts = (1 if isinstance(item, bytes) else len(item) for item in self.items)
            self._first_chunks = [0, *accumulate(counts)]
        return self._first_chunks[entry_id - self.first_id]

    def chunks(self) -> list[bytes]:
        """The data of every chunk, by number."""
        chunks: list[bytes] = []
        for item in self.items:
            if isinstance(item, bytes):
                chunks.append(item)
            else:
                chunks.extend(item)
        return chunks


class AppendedEntry(Entry):
    """An entry of a group."""

    __slots__ = ("_group", "_item")

    def __init__(self, id: int, item: Item, group: Group) -> None:
        self.id = id  # type: ignore[assignment]
        self._item = item
        self._group = group

    def chunks(self) -> list[ChunkReader]:
        group = self._group
        segment_id, first = group.source.header.segment_id, group.first_chunk(self.id)
        return [
            ChunkReader(LogPosition(segment_id, group.offset, first + n), len(data), data)
            for n, data in enumerate(self.read_all())
        ]

    def read_all(self) -> list[bytes]:
        item = self._item
        return [item] if isinstance(item, bytes) else list(item)

    def read_below(self, length: int) -> list[bytes]:
        item = self._item
        return [item] if isinstance(item, bytes) else item

    @property
    def segment_id(self) -> int:
        return self._group.segment_id


class StreamedEntry(Entry):
    """An entry written through ``begin_entry``, or appended but too large for a group."""

    __slots__ = ("durable_id", "end", "extents", "first_id", "last_id", "offset", "source")

    def __init__(
        self,
        source: FrameSource,
        offset: int,
        end: int,
        entry_id: int,
        durable_id: int,
        extents: list[Extent],
    ) -> None:
        self.source = source
        self.offset = offset
        self.end = end
        self.id = entry_id  # type: ignore[assignment]
        self.first_id = entry_id
        self.last_id = entry_id
        self.durable_id = durable_id
        self.extents = extents

    def entries(self) -> Iterator[Entry]:
        """Itself."""
        return iter((self,))

    def chunks(self) -> list[ChunkReader]:
        return [self.source.chunk(extent) for extent in self.extents]

    def read_all(self) -> list[bytes]:
        return [self.source.read(extent) for extent in self.extents]

    def read_below(self, length: int) -> list[bytes] | list[bytes | ChunkReader]:
        source = self.source
        return [
            source.read(extent) if extent[1] < length else source.chunk(extent)
            for extent in self.extents
        ]

    @property
    def segment_id(self) -> int:
        return self.source.header.segment_id


Frame = Group | StreamedEntry
