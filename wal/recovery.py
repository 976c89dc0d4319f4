"""Opening a log: what was judged is settled on the disk, and only then shown.

The order matters, and was found by a model of disks and crashes: the marker is settled first; what
the cache shows of the tail is written again before it is synced, because a sync proves nothing
about pages that an earlier, failed sync left clean; the directory is synced; then entries are
shown.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable

from wal.checkpoint_marker import CheckpointMarker
from wal.errors import CorruptLogError
from wal.judgement import Judgement, Scanned
from wal.log_manager import LogManager, RecoveredSegment, Recovery
from wal.positions import EntryId
from wal.segments import format as fmt
from wal.segments.chunks import PIECE
from wal.segments.frames import Frame, Group
from wal.segments.lifecycle import Segment, State, abandoned_name

logger = logging.getLogger("wal.recovery")


def consult(judgement: Judgement, manager: LogManager) -> list[Scanned]:
    """Ask the manager about each segment with something in it; those to abandon now.

    Raises the first damage that the manager does not abandon.
    """
    chosen = []
    previous = judgement.marker.checkpointed_id
    for scanned in judgement.scanned:
        first_after, previous = previous, scanned.last_id
        if scanned.abandoned or (scanned.damage is None and scanned.last_id == first_after):
            continue
        version_info = scanned.segment.header.version_info if scanned.segment else b""
        answer = manager.should_recover_segment(
            RecoveredSegment(
                scanned.segment_id,
                version_info,
                scanned.path,
                EntryId(first_after),
                EntryId(scanned.last_id),
                scanned.damage,
            )
        )
        if not isinstance(answer, Recovery):
            raise TypeError(f"should_recover_segment must return a wal.Recovery, not {answer!r}")
        if answer is Recovery.ABANDON:
            chosen.append(scanned)
        elif scanned.damage is not None:
            raise scanned.damage
    if chosen and chosen[-1] is judgement.scanned[-1]:
        judgement.clean = None
        judgement.last_id = max(judgement.last_id, judgement.evidence)
        chosen[-1].last_id = judgement.last_id  # what follows names it as the id before
    manager.check_extent(EntryId(judgement.marker.checkpointed_id), EntryId(judgement.last_id))
    return chosen


def settle(judgement: Judgement, marker: CheckpointMarker, chosen: list[Scanned]) -> None:
    """Make what was read durable, before any of it is shown."""
    marker.settle()
    last = judgement.scanned[-1] if judgement.scanned else None
    if last is not None and judgement.clean is None and not last.abandoned and last not in chosen:
        _rewrite_tail(judgement, last)
    for scanned in chosen:
        _abandon(judgement, scanned)
    judgement.file_system.sync_directory(judgement.directory)


def _rewrite_tail(judgement: Judgement, scanned: Scanned) -> None:
    segment = scanned.segment
    assert segment is not None
    if scanned.settled == segment.header.size:
        scanned.settled = 0  # the header too: its own sync may be the one that failed
    for offset in range(scanned.settled, segment.end, PIECE):
        piece = segment.file.read_at(offset, min(PIECE, segment.end - offset))
        segment.file.write_at(offset, [piece])
    segment.file.sync()
    torn = segment.source.torn_bytes(segment.end, segment.file.size())
    if torn:
        logger.warning(
            "%s: cut off a torn tail of %d bytes at offset %d; nothing in it was acknowledged",
            segment.path, torn, segment.end,
        )  # fmt: skip


def _abandon(judgement: Judgement, scanned: Scanned) -> None:
    path = os.path.join(judgement.directory, abandoned_name(scanned.segment_id))
    judgement.file_system.rename(scanned.path, path)
    logger.warning("%s: abandoned as %s", scanned.path, path)
    scanned.path = path
    scanned.abandoned = True
    if scanned.segment is not None:
        scanned.segment.path = path
        scanned.segment.abandoned = True


def show(judgement: Judgement, manager: LogManager) -> int:
    """Hand every committed entry that is not abandoned to the manager; how many there were."""
    recover, recover_group = manager.recover, manager.recover_group
    shown = 0
    for scanned in judgement.scanned:
        segment = scanned.segment
        if segment is None or scanned.abandoned:
            continue
        source = segment.source
        start, after = segment.header.size, segment.header.previous_last_id
        frames: Iterable[Frame] = scanned.frames
        if not judgement.read_only:
            frames = source.frames(start, segment.end, after, check=False)
        last = after
        for frame in frames:
            if judgement.read_only and frame.last_id > judgement.evidence:
                break
            if not isinstance(frame, Group):
                recover(frame)
            elif len(frame):  # else it is a witness
                recover_group(frame)
            shown += frame.last_id - frame.first_id + 1
            if frame.last_id > last:
                last = frame.last_id
        if last != segment.last_id and not judgement.read_only:
            reason = f"entries {last + 1} to {segment.last_id} could be read only once"
            raise CorruptLogError(segment.path, start, reason)
    return shown


def take_segments(judgement: Judgement) -> list[Segment]:
    """The segments, oldest first; all but the last of a clean log are sealed."""
    segments = []
    for scanned in judgement.scanned:
        segment = scanned.segment
        if segment is None:
            segment = _unreadable(judgement, scanned)
        segment.last_id = max(scanned.last_id, segment.header.previous_last_id)
        segments.append(segment)
    for segment in segments if judgement.clean is None else segments[:-1]:
        segment.become(State.SEALED)
    return segments


def _unreadable(judgement: Judgement, scanned: Scanned) -> Segment:
    """A stand-in for an abandoned segment without a valid header."""
    previous = min(scanned.last_id, scanned.segment_id - 1)
    header = fmt.SegmentHeader(scanned.segment_id, previous, scanned.segment_id + 1, 0)
    segment = Segment(header, scanned.path, judgement.file_system.open(scanned.path))
    segment.abandoned = True
    return segment
