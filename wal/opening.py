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
from wal.errors import CorruptLogError, FormatVersionError
from wal.files import Lock
from wal.flusher import Flusher
from wal.group_commit import GroupCommit
from wal.judgement import Judgement
from wal.log_manager import LogManager
from wal.reading import LogReader
from wal.recovery import consult, settle, show, take_segments
from wal.rounds import Rounds
from wal.segments import format as fmt
from wal.segments.lifecycle import Segment, SegmentRegistry, State, segment_name
from wal.segments.pool import SparePool
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

    def assemble(self, lock: Lock) -> Parts:
        judgement, configuration = self.judgement, self.configuration
        chosen = consult(judgement, self.manager)
        marker = self._marker()
        try:
            settle(judgement, marker, chosen)
            show(judgement, self.manager)
            self.pool.adopt(judgement.listing.spares)
            checkpointer = Checkpointer(
                self.manager, marker, self.registry, self.pool, configuration.max_sealed_segments
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
            marker,
            rounds,
            commits,
            flusher,
            checkpointer,
            LogReader(self.registry),
        )

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
        if last is not None and last.state is State.ACTIVE:
            # Nothing may be written while the clean mark says that the log ends here.
            marker.write(clean=None, durable_id=judgement.last_id, highest_id=self.next_id - 1)
            if last.header.version_info == self.configuration.version_info:
                segments.pop()
                active = SegmentWriter(last, last.file.size(), None)
        if active is None:
            self.next_id = max(self.next_id, last.id + 1 if last is not None else 1)
            active = self._begin_segment(self.next_id)
        self._adopt_dead(checkpointer)
        for segment in segments:
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

    def _adopt_dead(self, checkpointer: Checkpointer) -> None:
        """Segments that the marker has passed: archived again, where still whole, and recycled."""
        with ExitStack() as opened:
            for segment_id, path in self.judgement.dead:
                file = self.files.open(path)
                opened.callback(file.close)
                try:
                    header = fmt.decode_header(path, file.read_at(0, fmt.MAX_HEADER_BYTES))
                except (CorruptLogError, FormatVersionError):
                    header = None
                if header is None or header.segment_id != segment_id:
                    file.close()
                    self.files.remove(path)  # it was being recycled when the crash came
                    continue
                segment = Segment(header, path, file)
                after = header.previous_last_id
                for frame in segment.source.frames(header.size, file.size(), after):
                    segment.end = segment.committed_end = segment.durable_end = frame.end
                    segment.last_id = max(segment.last_id, frame.last_id)
                segment.abandoned = not os.path.basename(path).startswith("wal-")
                segment.state = State.CHECKPOINTED
                checkpointer.enqueue(segment)
            opened.pop_all()


def _hook(manager: LogManager, name: str) -> Committed | None:
    """One of the manager's optional hooks, if it has one of its own."""
    if getattr(type(manager), name) is getattr(LogManager, name):
        return None
    hook: Committed = getattr(manager, name)
    return hook
