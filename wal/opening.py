"""The composition root: from a configuration and a directory to the parts of an open log."""

from __future__ import annotations

import logging
import os
from contextlib import ExitStack
from dataclasses import dataclass

from wal.append_buffer import AppendBuffer
from wal.checkpoint_marker import NAME, CheckpointMarker
from wal.checkpointer import Checkpointer
from wal.config import Configuration
from wal.entry_writer import accept_streamed
from wal.errors import CorruptLogError, WalError
from wal.files import Lock
from wal.flusher import Flusher
from wal.group_commit import GroupCommit
from wal.judgement import Judgement, Listing
from wal.log_manager import LogManager
from wal.positions import MAX_START
from wal.reading import LogReader
from wal.recovery import consult, settle, show, take_segments
from wal.rounds import Rounds
from wal.segments.lifecycle import Segment, SegmentRegistry, State, segment_name
from wal.segments.pool import SparePool
from wal.segments.retention import Retention, dead_segment
from wal.segments.writer import SegmentWriter, plan_segment
from wal.tickets import Committed

logger = logging.getLogger("wal.opening")


@dataclass
class Parts:
    """Everything that a log open for writing is made of."""

    configuration: Configuration
    directory: str
    lock: Lock
    registry: SegmentRegistry
    pool: SparePool
    retention: Retention
    marker: CheckpointMarker
    rounds: Rounds
    commits: GroupCommit
    flusher: Flusher
    checkpointer: Checkpointer
    reader: LogReader


def open_for_writing(configuration: Configuration, manager: LogManager) -> Parts:
    """Lock the directory, recover through the manager, and be ready to append."""
    files = configuration.file_system
    directory = files.resolve(os.fspath(configuration.directory))
    files.make_directory(directory)
    lock = files.lock(os.path.join(directory, "LOCK"), configuration.lock_timeout)
    try:
        judgement = Judgement(files, directory, read_only=False)
        judgement.read()
        try:
            return _Assembly(configuration, directory, manager, judgement).assemble(lock)
        except BaseException:
            judgement.close()
            raise
    except BaseException:
        lock.release()
        raise


def begin(configuration: Configuration, after: int) -> None:
    """See :meth:`wal.WriteAheadLog.begin`."""
    if not isinstance(after, int) or isinstance(after, bool):
        raise TypeError(f"after must be an entry id, not {type(after).__name__}")
    if not 0 <= after < MAX_START:
        raise ValueError(f"after must be an entry id, not {after}")
    files = configuration.file_system
    directory = files.resolve(os.fspath(configuration.directory))
    files.make_directory(directory)
    lock = files.lock(os.path.join(directory, "LOCK"), configuration.lock_timeout)
    try:
        listing = Listing.of(files, directory)
        if listing.segments or listing.kept or files.exists(os.path.join(directory, NAME)):
            raise WalError(f"{directory}: there is a log already")
        CheckpointMarker.create(files, directory, after).close()
    finally:
        lock.release()


class _Assembly:
    """One opening: what was recovered, put together."""

    def __init__(
        self,
        configuration: Configuration,
        directory: str,
        manager: LogManager,
        judgement: Judgement,
    ) -> None:
        self.configuration = configuration
        self.directory = directory
        self.files = configuration.file_system
        self.manager = manager
        self.judgement = judgement
        self.next_id = 0
        self.registry = SegmentRegistry()
        self.pool = SparePool(
            self.files,
            directory,
            configuration.preallocate_bytes,
            configuration.keep_free_segments,
        )
        self.retention = Retention(
            self.files,
            directory,
            self.registry,
            configuration.retain_bytes,
            configuration.retain_seconds,
        )

    def assemble(self, lock: Lock) -> Parts:
        judgement, configuration = self.judgement, self.configuration
        self._check_ids()
        chosen = consult(judgement, self.manager)
        marker = self._marker()
        try:
            settle(judgement, marker, chosen)
            show(judgement, self.manager)
            self.pool.adopt(judgement.listing.spares)
            checkpointer = Checkpointer(
                self.manager,
                marker,
                self.registry,
                self.pool,
                self.retention,
                configuration.max_sealed_segments,
            )
            writer = self._writer(marker, checkpointer)
            flusher = Flusher(configuration.flush_interval)
            buffer = AppendBuffer(
                configuration,
                self.directory,
                self.registry,
                self.pool,
                checkpointer,
                writer,
                self.next_id,
                judgement.last_id,
            )
            buffer.arm = flusher.arm
            rounds = Rounds(
                buffer,
                self.files,
                self.directory,
                _hook(self.manager, "committed"),
                _hook(self.manager, "accepted"),
                checkpointer.enqueue,
                flusher.wake,
            )
            commits = GroupCommit(rounds, configuration.durability, flusher.defer, accept_streamed)
        except BaseException:
            marker.close()
            self.pool.close()
            self.registry.close()
            raise
        return Parts(
            configuration,
            self.directory,
            lock,
            self.registry,
            self.pool,
            self.retention,
            marker,
            rounds,
            commits,
            flusher,
            checkpointer,
            LogReader(self.registry),
        )

    def _check_ids(self) -> None:
        """Before anything is written: what is appended must be readable at the next opening."""
        judgement = self.judgement
        following = (scanned.segment_id + 1 for scanned in judgement.scanned)
        highest = max([judgement.next_id(), *following])
        if highest > MAX_START:
            path = os.path.join(self.directory, NAME)
            reason = f"the log would go on at entry {highest}, beyond all ids that logs come to"
            raise CorruptLogError(path, 0, reason)

    def _marker(self) -> CheckpointMarker:
        if self.judgement.is_new:
            return CheckpointMarker.create(self.files, self.directory)
        file = self.files.open(os.path.join(self.directory, NAME))
        return CheckpointMarker(file, self.judgement.marker)

    def _writer(self, marker: CheckpointMarker, checkpointer: Checkpointer) -> SegmentWriter:
        """Go on in the segment that a clean shutdown left, or begin a fresh one."""
        judgement = self.judgement
        self.next_id = judgement.next_id()
        segments = take_segments(judgement)
        for segment in segments:
            self.registry.add(segment)
        last = segments[-1] if segments else None
        active = None
        if marker.current.clean is not None:
            # Nothing may be written while the clean mark says where the log ends. It may be there
            # even if the last segment was not left so: that may be abandoned now.
            marker.write(clean=None, durable_id=judgement.last_id, highest_id=self.next_id - 1)
        if (
            last is not None
            and last.state is State.ACTIVE
            and last.header.version_info == self.configuration.version_info
        ):
            segments.pop()
            active = SegmentWriter(last, last.file.size(), None)
        if active is None:
            self.next_id = max(self.next_id, last.id + 1 if last is not None else 1)
            active = self._begin_segment(self.next_id)
        dead = self._dead()
        kept = judgement.listing.kept_below(judgement.marker.oldest_live)
        shown = [each for each in dead if each.has_entries and not each.abandoned]
        self.retention.adopt(judgement.marker.checkpointed_id, kept, shown)
        for segment in dead + segments:
            checkpointer.enqueue(segment)
        return active

    def _begin_segment(self, segment_id: int) -> SegmentWriter:
        self.pool.ensure()
        spare = self.pool.take(0)
        assert spare is not None
        path = os.path.join(self.directory, segment_name(segment_id))
        last_id = self.judgement.last_id
        version_info = self.configuration.version_info
        try:
            writer = plan_segment(path, spare, segment_id, last_id, version_info)
            writer.activate(self.files, self.directory)
        except BaseException:
            spare[1].close()
            raise
        self.registry.add(writer.segment)
        return writer

    def _dead(self) -> list[Segment]:
        """Segments that the marker has passed: to be archived again, and kept or recycled."""
        dead: list[Segment] = []
        with ExitStack() as opened:
            for segment_id, path in self.judgement.dead:
                file = self.files.open(path)
                opened.callback(file.close)
                segment = dead_segment(file, path, segment_id)
                if segment is None:
                    file.close()
                    self.files.remove(path)  # it was being recycled when the crash came
                else:
                    dead.append(segment)
            opened.pop_all()
        return dead


def _hook(manager: LogManager, name: str) -> Committed | None:
    """One of the manager's optional hooks, if it has one of its own."""
    if getattr(type(manager), name) is getattr(LogManager, name):
        return None
    hook: Committed = getattr(manager, name)
    return hook
