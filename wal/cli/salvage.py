"""``salvage``: copy every entry that can be read into a new log, and say what could not be.

What counts is what recovery would count, and beyond it whatever is certain: an entry behind damage
is taken where a successor, a witness or the marker says that it was committed. Entries get new ids.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from wal.cli.found import SurveyedSegment
from wal.cli.losses import Loss, is_doubtful, losses
from wal.cli.output import id_range, print_json
from wal.cli.pieces import ForgivingFile, Gap, walk
from wal.cli.survey import Survey
from wal.config import Configuration, Durability
from wal.entry_writer import EntryWriter
from wal.errors import CheckpointError, CorruptLogError, WalError
from wal.files import FileSystem
from wal.log import WriteAheadLog
from wal.log_manager import LogManager
from wal.positions import EntryId
from wal.segments.chunks import ChunkReader
from wal.segments.frames import Entry, Frame, Group
from wal.segments.reader import FrameSource
from wal.segments.sealed import SegmentReader

PIECE: Final = 1 << 20
_MOST_RUNS: Final = 20


class OutputError(WalError):
    """The salvaged log cannot be put there."""


class Run:
    """Entries with consecutive ids, before and now."""

    __slots__ = ("count", "new_first", "old_first")

    def __init__(self, old_first: int, new_first: int) -> None:
        self.old_first = old_first
        self.new_first = new_first
        self.count = 1

    def extend(self, old: int, new: int) -> bool:
        """Take in one more entry, if it follows."""
        if (old, new) != (self.old_first + self.count, self.new_first + self.count):
            return False
        self.count += 1
        return True

    def values(self) -> dict[str, int]:
        """The run as numbers."""
        last = self.count - 1
        return {
            "old_first": self.old_first,
            "old_last": self.old_first + last,
            "new_first": self.new_first,
            "new_last": self.new_first + last,
        }


class Salvage:
    """One salvage: what was copied, what is missing, what is doubtful."""

    def __init__(self, found: Survey, *, doubtful: bool) -> None:
        self.found = found
        self.missing = losses(found)
        self.entries = 0
        self.runs: list[Run] = []
        self.doubtful: list[tuple[int, int]] = []
        self.abandoned = [segment.name for segment in found.live() if segment.state == "abandoned"]
        self.recycled: list[str] = []  # by a writer, after they were surveyed
        self.take_doubtful = doubtful
        self._last_id = 0  # of what was copied, in the old log

    def copy_to(self, log: WriteAheadLog) -> None:
        """Copy everything that counts."""
        for segment in self.found.live():
            if segment.state == "live" and segment.header is not None:
                self._copy_segment(segment, log)
        log.sync()

    def _copy_segment(self, segment: SurveyedSegment, log: WriteAheadLog) -> None:
        assert segment.header is not None
        met = 0
        try:
            file = ForgivingFile(self.found.files.open(segment.path, writable=False))
        except FileNotFoundError:
            self.recycled.append(segment.name)
            return
        try:
            source = FrameSource(file, segment.path, segment.header)
            start = segment.header.size
            after = max(self._last_id, segment.header.previous_last_id)
            for piece in walk(source, start, segment.stop, after, segment.limit):
                if not isinstance(piece, Gap):
                    met += piece.last_id - piece.first_id + 1
                    self._copy_frame(segment, piece, log)
        finally:
            file.close()
        if met < segment.total("entries"):
            self.recycled.append(segment.name)

    def _copy_frame(self, segment: SurveyedSegment, frame: Frame, log: WriteAheadLog) -> None:
        if frame.last_id < frame.first_id:
            return
        if is_doubtful(self.found, segment, frame):
            self.doubtful.append((frame.first_id, frame.last_id))
            if not self.take_doubtful:
                return
        for entry in frame.entries():
            try:
                new = _copy_entry(entry, log, streamed=not isinstance(frame, Group))
            except CorruptLogError as error:  # it was sound when it was surveyed
                self.missing.append(Loss(entry.id, entry.id, error.path, error.offset))
                continue
            self._last_id = entry.id
            self.entries += 1
            if not (self.runs and self.runs[-1].extend(entry.id, new)):
                self.runs.append(Run(entry.id, new))

    def values(self, out: str) -> dict[str, Any]:
        """Everything that ``salvage`` prints, as one value."""
        return {
            "directory": self.found.directory,
            "out": out,
            "sound": self.found.sound,
            "entries": self.entries,
            "ids": [run.values() for run in self.runs],
            "missing": [loss.values() for loss in self.missing],
            "doubtful": [{"first_id": first, "last_id": last} for first, last in self.doubtful],
            "doubtful_copied": self.take_doubtful,
            "abandoned": self.abandoned,
            "recycled": self.recycled,
            "damage": [damage.values() for damage in self.found.damages],
        }


def _copy_entry(entry: Entry, log: WriteAheadLog, *, streamed: bool) -> int:
    if not streamed:
        return log.append(entry.read_all(), durability=Durability.BUFFER)
    with log.begin_entry() as writer:
        for chunk in entry.chunks():
            _copy_chunk(chunk, writer)
        return writer.commit(Durability.BUFFER)


def _copy_chunk(chunk: ChunkReader, writer: EntryWriter) -> None:
    if chunk.length <= PIECE:
        writer.write_chunk(chunk.read())
        return
    with writer.begin_chunk(chunk.length) as copy:
        while piece := chunk.read(PIECE):
            copy.write(piece)


# -- the new log -----------------------------------------------------------------------------------


def salvage(found: Survey, out: str, *, doubtful: bool, files: FileSystem) -> Salvage:
    """Copy what can be read of a log into a new one at ``out``, which must not hold anything."""
    _check_output(found.directory, out, files)
    work = Salvage(found, doubtful=doubtful)
    with _new_log(found, out, files) as log:
        work.copy_to(log)
    return work


def _check_output(directory: str, out: str, files: FileSystem) -> None:
    source, target = os.path.realpath(directory), os.path.realpath(out)
    if target == source or target.startswith(source + os.sep):
        raise OutputError(f"{out}: lies in the log that is to be salvaged")
    try:
        taken = files.exists(out) and bool(files.list(out))
    except NotADirectoryError:
        taken = True
    if taken:
        raise OutputError(f"{out}: exists and is not an empty directory")


class _Keeper(LogManager):
    """Lets no segment of the new log be checkpointed: its owner has not seen it yet."""

    def __init__(self) -> None:
        self.copied = threading.Event()

    def recover(self, entry: Entry) -> None:
        """Not called: the log is new."""

    def checkpoint_to(self, last_id: EntryId, entries: SegmentReader, log: WriteAheadLog) -> None:
        """Wait for the end of the copying, then refuse."""
        self.copied.wait()
        raise _KeptError


class _KeptError(Exception):
    """The segment stays for the owner of the log."""


@contextmanager
def _new_log(found: Survey, out: str, files: FileSystem) -> Iterator[WriteAheadLog]:
    headers = [segment.header for segment in found.live() if segment.header is not None]
    keeper = _Keeper()
    log = Configuration(
        out,
        file_system=files,
        version_info=headers[-1].version_info if headers else b"",
        durability=Durability.BUFFER,
        max_sealed_segments=1 << 60,
    ).open(keeper)
    with _silenced():
        try:
            yield log
        finally:
            keeper.copied.set()
            try:
                log.shutdown()
            except CheckpointError as error:
                if not isinstance(error.__cause__, _KeptError):
                    raise


@contextmanager
def _silenced() -> Iterator[None]:
    """Keep the refusals of :class:`_Keeper`, which are meant, out of the log messages."""

    def meant(record: logging.LogRecord) -> bool:
        return not (record.exc_info and record.exc_info[0] is _KeptError)

    checkpointer = logging.getLogger("wal.checkpointer")
    checkpointer.addFilter(meant)
    try:
        yield
    finally:
        checkpointer.removeFilter(meant)


# -- printing --------------------------------------------------------------------------------------


def print_salvage(work: Salvage, out: str, *, as_json: bool) -> None:
    """What was done."""
    if as_json:
        print_json(work.values(out))
        return
    print(f"{work.entries} entries copied from {work.found.directory} to {out}")
    for run in work.runs[:_MOST_RUNS]:
        ids = run.values()
        old = id_range(ids["old_first"], ids["old_last"])
        print(f"  {old} -> {id_range(ids['new_first'], ids['new_last'])}")
    if len(work.runs) > _MOST_RUNS:
        print(f"  and {len(work.runs) - _MOST_RUNS} more ranges; --json lists them all")
    for loss in work.missing:
        print(f"missing: {id_range(loss.first, loss.last)} ({loss.path} from offset {loss.offset})")
    for first, last in work.doubtful:
        print(f"doubtful: {id_range(first, last)}{' (copied)' if work.take_doubtful else ''}")
    for name in work.abandoned:
        print(f"left out: {name}, which the log's owner had abandoned")
    for name in work.recycled:
        print(f"left out, in part or whole: {name}, which the log's writer recycled meanwhile")
    if not (work.missing or work.doubtful or work.abandoned or work.recycled):
        print("nothing is missing")
