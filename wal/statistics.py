"""Counters of the write path, and the immutable :class:`LogStats` that ``stats()`` returns."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from typing import Final

SYNC_BUCKETS: Final = (0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.05, 0.1, 1.0)
"""Upper bounds (seconds) of the sync latency histogram's buckets; one more takes the rest."""

GROUP_BUCKETS: Final = (1, 2, 4, 8, 16, 32, 64, 256, 1024)
"""Upper bounds of the buckets of the group size histogram; one more takes the rest."""


@dataclass(frozen=True, slots=True)
class LogStats:
    """What a log has done since it was opened, and where it stands. It never changes."""

    commits: int
    """Entries written to the operating system."""
    chunks: int
    """Chunks in them."""
    chunk_bytes: int
    """Bytes of data in the chunks, but for one or two in each of them."""
    bytes_written: int
    """Bytes of frames written, not counting segment headers and the marker."""
    rounds: int
    """Writes by a leader; ``commits / rounds`` is the mean group size."""
    syncs: int
    """Syncs of segments on the write path."""
    sync_seconds: float
    """Time spent in them."""
    sync_latency: tuple[int, ...]
    """How many syncs took up to each of :data:`SYNC_BUCKETS` seconds, then how many took longer."""
    group_sizes: tuple[int, ...]
    """How many rounds wrote up to each of :data:`GROUP_BUCKETS` entries, then larger ones."""
    rotations: int
    """Segments sealed because they were full, or for a checkpoint."""
    checkpoints: int
    """Segments checkpointed."""
    segments_active: int
    """The segment that is written to: 1, and 0 for a read-only log."""
    segments_sealed: int
    """Sealed segments that await their checkpoint."""
    segments_pinned: int
    """Checkpointed segments that readers hold."""
    segments_spare: int
    """Files ready to become segments."""
    segments_kept: int
    """Checkpointed segments that are kept for reading."""
    bytes_live: int
    """Bytes in the segments that are not checkpointed."""
    waits: int
    """How often a writer had to wait for checkpoints: see ``max_sealed_segments``."""
    wait_seconds: float
    """Time that writers spent in these waits, all together."""
    last_entry_id: int
    durable_entry_id: int
    checkpointed_entry_id: int
    checkpoint_lag: int
    """Entry ids between the last checkpoint and the last commit."""


class CommitCounters:
    """What the leader counts. Written by the leader alone, so without a lock."""

    __slots__ = (
        "bytes",
        "chunk_bytes",
        "chunks",
        "commits",
        "groups",
        "latencies",
        "rotations",
        "rounds",
        "seconds",
        "syncs",
    )

    def __init__(self) -> None:
        self.commits = 0
        self.chunks = 0
        self.chunk_bytes = 0
        self.bytes = 0
        self.rounds = 0
        self.syncs = 0
        self.rotations = 0
        self.seconds = 0.0
        self.latencies = [0] * (len(SYNC_BUCKETS) + 1)
        self.groups = [0] * (len(GROUP_BUCKETS) + 1)

    def group(self, entries: int) -> None:
        """A round wrote so many entries."""
        if entries:
            self.rounds += 1
            self.commits += entries
            self.groups[bisect_left(GROUP_BUCKETS, entries)] += 1

    def synced(self, seconds: float) -> None:
        """A sync took so long."""
        self.syncs += 1
        self.seconds += seconds
        self.latencies[bisect_left(SYNC_BUCKETS, seconds)] += 1


def make_stats(
    counters: CommitCounters,
    *,
    segments_active: int,
    segments_sealed: int,
    last_entry_id: int,
    durable_entry_id: int,
    checkpointed_entry_id: int,
    segments_pinned: int = 0,
    segments_spare: int = 0,
    segments_kept: int = 0,
    bytes_live: int = 0,
    waits: int = 0,
    wait_seconds: float = 0.0,
    checkpoints: int = 0,
) -> LogStats:
    """The counters and a log's present state as one value."""
    return LogStats(
        commits=counters.commits,
        chunks=counters.chunks,
        chunk_bytes=counters.chunk_bytes,
        bytes_written=counters.bytes,
        rounds=counters.rounds,
        syncs=counters.syncs,
        sync_seconds=counters.seconds,
        sync_latency=tuple(counters.latencies),
        group_sizes=tuple(counters.groups),
        rotations=counters.rotations,
        checkpoints=checkpoints,
        segments_active=segments_active,
        segments_sealed=segments_sealed,
        segments_pinned=segments_pinned,
        segments_spare=segments_spare,
        segments_kept=segments_kept,
        bytes_live=bytes_live,
        waits=waits,
        wait_seconds=wait_seconds,
        last_entry_id=last_entry_id,
        durable_entry_id=durable_entry_id,
        checkpointed_entry_id=checkpointed_entry_id,
        checkpoint_lag=max(0, last_entry_id - checkpointed_entry_id),
    )
