"""A log opened beside its live writer: recovers and reads, takes no lock, writes nothing.

What the writer does meanwhile (rotate, checkpoint, recycle) can make a reading fail that is not
damage; so a reading counts only if every header is still the same after it, and one that failed is
repeated from the listing, with a pause, before it is called damage.
"""

from __future__ import annotations

import os
import time
import weakref
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Final, NoReturn

from wal.config import Configuration, Durability
from wal.errors import (
    CorruptLogError,
    LogClosedError,
    LogNotFoundError,
    PositionNotFoundError,
    ReadOnlyLogError,
)
from wal.files import FileSystem
from wal.group_commit import Decide
from wal.judgement import Judgement, Listing
from wal.log import WriteAheadLog
from wal.log_manager import LogManager
from wal.positions import EntryId, LogPosition
from wal.reading import LogReader
from wal.recovery import consult, show
from wal.segments.chunks import ChunkReader
from wal.segments.frames import Entry, Frame
from wal.segments.lifecycle import Segment, SegmentRegistry, State, segment_name
from wal.segments.retention import Chain, Finder, dead_segment, kept_finder
from wal.statistics import CommitCounters, LogStats, make_stats
from wal.tickets import Entries, OnCommit

_ATTEMPTS: Final = 20
_PAUSE: Final = 0.005
_LISTINGS: Final = 3


def judge_beside_writer(configuration: Configuration) -> Judgement:
    """A reading that no writer disturbed; CorruptLogError if none could be had."""
    files = configuration.file_system
    directory = files.resolve(os.fspath(configuration.directory))
    if not files.exists(directory):
        raise LogNotFoundError(directory)
    for attempt in range(_ATTEMPTS):
        last = attempt == _ATTEMPTS - 1
        try:
            judgement = Judgement(files, directory, read_only=True)
            judgement.read()
        except (CorruptLogError, FileNotFoundError):
            if last:
                raise
            time.sleep(_PAUSE)
            continue
        if judgement.problem() is None and not _disturbed(judgement):
            return judgement
        if last:
            return judgement
        judgement.close()
        time.sleep(_PAUSE)
    raise AssertionError("unreachable")


def _disturbed(judgement: Judgement) -> bool:
    """Whether a segment was recycled while it was read."""
    for scanned in judgement.scanned:
        segment = scanned.segment
        if segment is not None:
            now = segment.file.read_at(0, segment.header.size)
            if now != segment.header.encode():
                return True
    return False


def open_read_only(configuration: Configuration, manager: LogManager) -> ReadOnlyLog:
    """Open the log as it stands; entries that a power loss could still undo are not shown."""
    judgement = judge_beside_writer(configuration)
    try:
        for scanned in consult(judgement, manager):
            scanned.abandoned = True
            if scanned.segment is not None:
                scanned.segment.abandoned = True
        show(judgement, manager)
    except BaseException:
        judgement.close()
        raise
    return ReadOnlyLog(configuration, judgement)


class ReadOnlyLog(WriteAheadLog):
    """What a log held when it was opened. Every writing method raises ReadOnlyLogError."""

    def __init__(self, configuration: Configuration, judgement: Judgement) -> None:
        self.configuration = configuration
        self._registry = SegmentRegistry()
        self._durable_id = min(judgement.last_id, judgement.evidence)
        self._directory = judgement.directory
        self._checkpointed_id = judgement.marker.checkpointed_id
        self._reader = LogReader(self._registry)
        # One that is dropped gives its files back as soon as nobody reads them.
        weakref.finalize(self, self._registry.close).atexit = False
        for scanned in judgement.scanned:
            segment = scanned.segment
            if segment is not None:
                _limit(segment, scanned.frames, judgement.evidence)
                self._registry.add(segment)
        kept = _kept(configuration.file_system, judgement)
        self._registry.add_before(kept.segments)
        self.kept_damage = kept.damage

    def begin_entry(self) -> NoReturn:
        """Raises ReadOnlyLogError."""
        raise _refusal()

    def append(
        self,
        chunks: Iterable[bytes],
        on_commit: OnCommit | None = None,
        durability: Durability | None = None,
        decide: Decide | None = None,
    ) -> NoReturn:
        """Raises ReadOnlyLogError."""
        raise _refusal()

    def submit(
        self,
        chunks: Iterable[bytes],
        on_commit: OnCommit | None = None,
        durability: Durability | None = None,
        decide: Decide | None = None,
        *,
        wait: bool = True,
    ) -> NoReturn:
        """Raises ReadOnlyLogError."""
        raise _refusal()

    def submit_ready(
        self,
        entries: Entries,
        size: int,
        count: int,
        durability: Durability | None = None,
        *,
        wait: bool = True,
    ) -> NoReturn:
        """Raises ReadOnlyLogError."""
        raise _refusal()

    def checkpoint_active(self, wait: bool = False) -> NoReturn:
        """Raises ReadOnlyLogError."""
        raise _refusal()

    def read_at(self, position: LogPosition) -> ChunkReader:
        """As of a log that is written; PositionNotFoundError too once the writer took the file."""
        try:
            chunk = self._reader.read_at(position)
        except CorruptLogError:
            self._check_held(position.segment_id)
            raise
        try:
            self._check_held(position.segment_id)
        except BaseException:
            chunk.close()
            raise
        return chunk

    def entries(self, after: int | None = None) -> Iterator[Entry]:
        """As of a log that is written; PositionNotFoundError too once the writer took the file."""
        return self._held_entries(self._reader.entries(after))

    def _held_entries(self, entries: Iterator[Entry]) -> Iterator[Entry]:
        try:
            yield from entries
        except PositionNotFoundError:
            self._forget_taken()
            raise
        except CorruptLogError as damage:
            self._forget_taken()
            self._check_held(int(os.path.basename(damage.path).split("-")[1]))
            raise

    def _check_held(self, segment_id: int) -> None:
        """Tell damage from a file that the writer took: it takes the name before any byte."""
        files, name = self.configuration.file_system, segment_name(segment_id)
        if files.exists(os.path.join(self._directory, name)):
            return
        if segment_id not in Listing.of(files, self._directory).kept:  # renamed before this look
            raise PositionNotFoundError(f"{name} is not in the log any more")

    def _forget_taken(self) -> None:
        """Tell nobody any more to read what the writer kept when this was opened, and does not now.

        What was live then stays open, and readable as long as its bytes are there.
        """
        listing = Listing.of(self.configuration.file_system, self._directory)
        there = listing.segments.keys() | listing.kept.keys()
        passed = (State.KEPT, State.CHECKPOINTED)
        taken = [s.id for s in self._registry if s.state in passed and s.id not in there]
        if taken:
            self._registry.forget(max(taken))

    def sync(self) -> None:
        """Nothing to do: what is shown is durable."""
        self._reader.check_usable()

    @property
    def last_entry_id(self) -> EntryId:
        """The last entry that is shown."""
        return EntryId(self._durable_id)

    @property
    def durable_entry_id(self) -> EntryId:
        """The last entry that is shown."""
        return EntryId(self._durable_id)

    def stats(self) -> LogStats:
        """Where the log stands; it has done nothing."""
        count = self._registry.count()
        last, checkpointed = self._durable_id, self._checkpointed_id
        return make_stats(
            CommitCounters(),
            segments_active=0,
            segments_sealed=count[State.SEALED],
            segments_kept=count[State.KEPT],
            bytes_live=self._registry.live_bytes(),
            last_entry_id=last,
            durable_entry_id=last,
            checkpointed_entry_id=checkpointed,
        )

    def shutdown(self, timeout: float | None = None) -> None:
        """Close the files. Idempotent."""
        if self._reader.closed is None:
            self._reader.closed = LogClosedError("the log was shut down")
            self._registry.close()


def _limit(segment: Segment, frames: list[Frame], evidence: int) -> None:
    """Show nothing of a segment that a power loss could still undo."""
    segment.become(State.SEALED)
    if segment.last_id <= evidence:
        return
    segment.end, segment.last_id = segment.header.size, segment.header.previous_last_id
    for frame in frames:
        if frame.last_id <= evidence:
            segment.end, segment.last_id = frame.end, max(segment.last_id, frame.last_id)
    segment.committed_end = segment.durable_end = segment.end


def _kept(files: FileSystem, judgement: Judgement) -> Chain:
    """The segments that the writer keeps for reading, or is about to, as far as they are found."""
    listing, directory = judgement.listing, judgement.directory
    marker = judgement.marker
    for _ in range(_LISTINGS):
        finders: dict[int, Finder] = {
            segment_id: kept_finder(files, directory, name)
            for segment_id, name in listing.kept_below(marker.oldest_live).items()
        }
        for segment_id, name in listing.segments.items():
            if segment_id < marker.oldest_live:
                path = os.path.join(directory, name)
                finders[segment_id] = partial(_dead, files, path, segment_id)
        chain = Chain(beside_writer=True)
        chain.follow(marker.checkpointed_id, finders)
        if not chain.gap and not isinstance(chain.unreadable, FileNotFoundError):
            break
        listing = Listing.of(files, directory)  # a file that is renamed meanwhile may be missed
    if chain.damage is not None and not files.exists(chain.damage.path):
        chain.damage = None  # the writer took it meanwhile: it is kept no more
    return chain


def _dead(files: FileSystem, path: str, segment_id: int) -> Segment | None:
    file = files.open(path, writable=False)
    segment = dead_segment(file, path, segment_id)
    if segment is None:
        file.close()
    return segment


def _refusal() -> ReadOnlyLogError:
    return ReadOnlyLogError("the log is open read-only")
