"""Building tables out of immutable files: pure work, wherever it runs.

A *job* is a plain value that says all there is to know: which files to read, what to make of them.
It changes nothing but the ``tmp-`` files that it creates, which no manifest names; the same job
makes tables of the same contents. So it may run in a thread or in another process, be killed at any
moment, and be run again.

=====================================  =========================================================
a crash, or a kill                     leaves
=====================================  =========================================================
while tables are written               ``tmp-`` files, removed at the next opening
after they are synced                  the same: only who asked for the job renames them
while a next opening is under way      a ``tmp-`` file of a name that nobody else has: removed at
                                       that opening or the one after it
=====================================  =========================================================

Memory: a :class:`SegmentJob` holds the keys and small values of one log segment; a
:class:`MergeJob` a block of each input and one of its output. Large values pass through in pieces.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import astuple, dataclass
from itertools import islice
from typing import Final, cast

from kvstore.directory import temporary_name
from kvstore.errors import CorruptStoreError, translate
from kvstore.mutations import HEAD_BYTES, PUT, VERSION, MalformedEntryError, decode, single_puts
from kvstore.pages import merge_pages, without_tombstones
from kvstore.tables.builder import TableBuilder
from kvstore.tables.cache import Cache
from kvstore.tables.records import TABLE_ID_BYTES, TableRecord
from kvstore.tables.runs import SortedRun
from kvstore.tables.table import Table
from kvstore.values import Page, Value
from wal import (
    ChunkReader,
    CorruptLogError,
    Entry,
    Group,
    SegmentDescription,
    SegmentReader,
    WalError,
)
from wal.files import FileSystem

FILE_BYTES: Final = 256 << 20
_PAGE: Final = 4096  # items
_BLOCKS: Final = 64
_PIECE: Final = 1 << 20
_SINGLE: Final = HEAD_BYTES + 1
_DATA: Final = {bytes}


class StoppedError(Exception):
    """The job was given up, for the store is being closed. It has left nothing behind."""


@dataclass(frozen=True)
class Shape:
    """How new tables are made."""

    compression: str | None = None
    large_value_bytes: int = 64 << 10
    file_bytes: int = FILE_BYTES
    """A run is cut into files of about so many bytes."""


@dataclass(frozen=True)
class Built:
    """A table that is written and synced, and has neither its number nor its name yet."""

    name: str
    record: TableRecord


def never() -> bool:
    """For a job that nobody gives up."""
    return False


# ------------------------------------------------------------------ jobs


@dataclass(frozen=True)
class SegmentJob:
    """The mutations of a sealed log segment, those above entry ``after``, as a run of tables."""

    directory: str
    segment: SegmentDescription
    after: int
    drop_tombstones: bool
    shape: Shape

    @property
    def size(self) -> int:
        """The bytes to be read."""
        return self.segment.end

    def run(self, files: FileSystem, stopped: Callable[[], bool] = never) -> list[Built]:
        """Do it. CorruptStoreError for damage, OSError, StoppedError: nothing is left behind."""
        segment, large = self.segment, self.shape.large_value_bytes
        try:
            with SegmentReader.open(files, segment) as entries:
                page = _sorted(_newest(entries, self.after, large))
                if self.drop_tombstones:
                    page = without_tombstones(page)
                ids = (self.after + 1, segment.last_id)
                return _write(_sliced(page), _RunWriter(files, self, ids), stopped)
        except WalError as error:
            raise translate(error) from error

    def pack(self) -> list[object]:
        """As a list for msgpack."""
        told = [*astuple(self.segment)]
        return [self.directory, told, self.after, self.drop_tombstones, [*astuple(self.shape)]]

    @classmethod
    def unpack(cls, packed: list[object]) -> SegmentJob:
        """From such a list, of a trusted sender."""
        directory, segment, after, drop, shape = cast("list[list[object]]", packed)
        described = SegmentDescription(*segment)  # type: ignore[arg-type]
        return cls(directory, described, after, drop, Shape(*shape))  # type: ignore[arg-type]


@dataclass(frozen=True)
class MergeJob:
    """Some runs of tables, newest first, as one run."""

    directory: str
    runs: tuple[tuple[TableRecord, ...], ...]
    drop_tombstones: bool
    shape: Shape

    @property
    def size(self) -> int:
        """The bytes to be read."""
        return sum(record.size for run in self.runs for record in run)

    def run(self, files: FileSystem, stopped: Callable[[], bool] = never) -> list[Built]:
        """Do it. CorruptStoreError for damage, OSError, StoppedError: nothing is left behind."""
        cache = Cache(0)
        runs = [
            SortedRun([Table(files, self.directory, record, cache) for record in run])
            for run in self.runs
        ]
        pages = merge_pages(
            [_joined(run.pages(b"", None, fill_cache=False)) for run in runs],
            drop_tombstones=self.drop_tombstones,
        )
        try:
            return _write(pages, _RunWriter(files, self, self._ids()), stopped)
        finally:
            for run in runs:
                for table in run.tables:
                    table.close()

    def _ids(self) -> tuple[int, int]:
        records = [record for run in self.runs for record in run]
        first = min((record.first_entry_id for record in records), default=0)
        return first, max((record.last_entry_id for record in records), default=0)

    def pack(self) -> list[object]:
        """As a list for msgpack."""
        runs = [[record.pack() for record in run] for run in self.runs]
        return [self.directory, runs, self.drop_tombstones, [*astuple(self.shape)]]

    @classmethod
    def unpack(cls, packed: list[object]) -> MergeJob:
        """From such a list, of a trusted sender."""
        directory, runs, drop, shape = cast("list[list[object]]", packed)
        records = tuple(tuple(map(TableRecord.unpack, cast("list[object]", run))) for run in runs)
        return cls(directory, records, drop, Shape(*shape))  # type: ignore[arg-type]


Job = SegmentJob | MergeJob


# ------------------------------------------------------------------ what a log entry says


class LogBlob:
    """A large value that is still in its log segment: can be copied as long as that is open."""

    __slots__ = ("chunk",)

    def __init__(self, chunk: ChunkReader) -> None:
        self.chunk = chunk

    @property
    def length(self) -> int:
        """The value's bytes."""
        return self.chunk.length

    def read(self) -> bytes:
        """All of it."""
        return bytes(self.chunk)

    def pieces(self) -> Iterator[bytes]:
        """All of it, once, piece by piece; CorruptLogError behind the last if it is damaged."""
        return iter(lambda: self.chunk.read(_PIECE), b"")


def values_of(entry: Entry, large: int, path: str) -> dict[bytes, Value]:
    """The batch in a log entry. Values of ``large`` bytes and more may be a :class:`LogBlob`.

    Raises FormatVersionError where it is of another time, and CorruptStoreError, which names the
    path, where it is no batch.
    """
    chunks = entry.read_below(large)
    try:
        if set(map(type, chunks)) <= _DATA:
            return decode(chunks)  # type: ignore[return-value, arg-type]
        return _with_blobs(chunks)
    except MalformedEntryError as error:
        records = entry.chunks()
        offset = records[0].position.offset if records else 0
        reason = f"entry {entry.id} of segment {entry.segment_id} is no mutation: {error}"
        raise CorruptStoreError(path, offset, reason) from None


def _is_put(chunks: Sequence[bytes | ChunkReader]) -> bool:
    """Whether this is a single put with all its data at hand: most entries are."""
    head, key, value = chunks
    return (
        type(head) is type(key) is type(value) is bytes
        and len(head) == _SINGLE
        and head[0] == VERSION
        and head[HEAD_BYTES] == PUT
    )


def _with_blobs(chunks: Sequence[bytes | ChunkReader]) -> dict[bytes, Value]:
    head, *rest = [chunk if isinstance(chunk, bytes) else LogBlob(chunk) for chunk in chunks]
    batch = decode([_data(head), *rest])  # type: ignore[list-item]
    return {_data(key): value for key, value in batch.items()}


def _data(part: bytes | LogBlob) -> bytes:
    """A head or a key, which may be long too."""
    return part if isinstance(part, bytes) else part.read()


def _newest(entries: SegmentReader, after: int, large: int) -> dict[bytes, Value]:
    """What the entries above ``after`` leave of each key that they touch."""
    newest: dict[bytes, Value] = {}
    try:
        for frame in entries.frames():
            puts = None
            if isinstance(frame, Group) and frame.first_id > after:
                puts = single_puts(frame)
            if puts is not None:
                newest.update(puts)
                continue
            for entry in frame.entries():
                if entry.id > after:
                    _take_over(newest, entry, large, entries.path)
    except CorruptLogError as error:
        raise translate(error) from error
    return newest


def _take_over(newest: dict[bytes, Value], entry: Entry, large: int, path: str) -> None:
    chunks = entry.read_below(large)
    if len(chunks) == 3 and _is_put(chunks):
        newest[chunks[1]] = chunks[2]  # type: ignore[index]
    else:
        newest.update(values_of(entry, large, path))


# ------------------------------------------------------------------ pages into tables


def _sorted(values: dict[bytes, Value]) -> Page:
    keys = sorted(values)
    return keys, list(map(values.__getitem__, keys))


def _sliced(page: Page) -> Iterator[Page]:
    keys, values = page
    for at in range(0, len(keys), _PAGE):
        yield keys[at : at + _PAGE], values[at : at + _PAGE]


def _joined(pages: Iterator[Page]) -> Iterator[Page]:
    """The same in larger pages, so that sorting meets long ascending stretches."""
    for first in pages:
        keys, values = [*first[0]], [*first[1]]
        for page in islice(pages, _BLOCKS):
            keys += page[0]
            values += page[1]
            if len(keys) >= _PAGE:
                break
        yield keys, values


def _write(pages: Iterator[Page], writer: _RunWriter, stopped: Callable[[], bool]) -> list[Built]:
    try:
        for keys, values in pages:
            if stopped():
                raise StoppedError
            writer.add(keys, values)
        return writer.finish()
    except BaseException:
        writer.abandon()
        raise


class _RunWriter:
    """Ascending pages into as many tables as it takes."""

    def __init__(self, files: FileSystem, job: Job, ids: tuple[int, int]) -> None:
        self._files = files
        self._directory = job.directory
        self._shape = job.shape
        self._ids = ids
        self._table: TableBuilder | None = None
        self._name = ""
        self._built: list[Built] = []

    def add(self, keys: list[bytes], values: list[Value]) -> None:
        table = self._table
        if table is None:
            table = self._table = self._begin()
        table.add(keys, values)
        if table.size >= self._shape.file_bytes:
            self._finish_table(table)

    def finish(self) -> list[Built]:
        """All of them, written and synced; none if there were no keys."""
        if self._table is not None:
            self._finish_table(self._table)
        return self._built

    def abandon(self) -> None:
        """Remove what was written, as far as that can be done."""
        if self._table is not None:
            self._table.abandon()
        for built in self._built:
            with suppress(OSError):
                self._files.remove(os.path.join(self._directory, built.name))

    def _begin(self) -> TableBuilder:
        self._name = temporary_name()
        return TableBuilder(
            self._files,
            os.path.join(self._directory, self._name),
            os.urandom(TABLE_ID_BYTES),
            compression=self._shape.compression,
            large_value_bytes=self._shape.large_value_bytes,
        )

    def _finish_table(self, table: TableBuilder) -> None:
        self._built.append(Built(self._name, table.finish(*self._ids)))
        self._table = None
