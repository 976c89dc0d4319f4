"""Where a store stands and what it has done, as an immutable value."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Final

from kvstore.config import ITEM_OVERHEAD

if TYPE_CHECKING:
    from kvstore.background.catalog import Catalog
    from kvstore.engine import Engine
    from kvstore.memory.memtable import Memtable
    from wal import LogStats

_SAMPLE: Final = 512
_HEAD: Final = 9  # bytes of a log entry's head; and one more for each mutation


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreStats:
    """Where a store stands. A snapshot: it never changes. All bytes are whole numbers of bytes.

    What was written, found or waited for counts from the opening.
    """

    last_entry_id: int
    """The last log entry that is visible."""
    durable_entry_id: int
    """The last log entry that is known to survive a power loss."""
    checkpoint_entry_id: int
    """Every log entry up to this one is in the tables."""
    replayed_entries: int
    """Log entries that opening the store had to apply."""

    memtable_items: int
    """Mutations in memory that are in no table yet."""
    memtable_bytes: int
    """About how much memory they take."""

    log_bytes: int
    """What the log holds that is not checkpointed."""
    segments_waiting: int
    """Files of the log that are full, or were sealed, and await their checkpoint."""

    runs: int
    """Runs of tables: at most so many have to be asked for a key."""
    tables: int
    table_items: int
    """What the tables hold, deletions that still hide something included."""
    table_tombstones: int
    """Of these, the deletions."""
    table_bytes: int
    value_bytes: int
    """Of these, the values."""

    cache_hits: int
    """Rows and blocks of tables that were found in memory."""
    cache_misses: int
    """Rows and blocks that had to be read."""
    cache_bytes: int
    """What is kept in memory of tables."""

    user_bytes: int
    """Keys and values written, but for one or two bytes in each."""
    log_bytes_written: int
    checkpoint_bytes_written: int
    """Into tables made from the log."""
    merge_bytes_written: int
    """Into tables made from tables."""

    stalls: int
    """How often a writer had to wait for checkpoints."""
    stall_seconds: float
    """Time that writers spent in these waits, all together."""

    @property
    def checkpoint_lag(self) -> int:
        """Log entries behind the last checkpoint."""
        return max(0, self.last_entry_id - self.checkpoint_entry_id)

    @property
    def write_amplification(self) -> float:
        """Bytes written to the disk, for the log and for tables, for each byte of ``user_bytes``.

        0.0 while nothing was written. What was written last is in no table yet, so it grows for a
        while after a load.
        """
        written = self.log_bytes_written + self.checkpoint_bytes_written + self.merge_bytes_written
        return written / self.user_bytes if self.user_bytes else 0.0


def make_stats(engine: Engine, catalog: Catalog, replayed: int) -> StoreStats:
    """The statistics of an open store. O(1), but for the number of tables."""
    log, cache, memtable = engine.log.stats(), engine.cache.statistics(), engine.memtable
    runs = catalog.runs
    return StoreStats(
        last_entry_id=memtable.last_id,
        durable_entry_id=log.durable_entry_id,
        checkpoint_entry_id=catalog.manifest.last_entry_id,
        replayed_entries=replayed,
        memtable_items=memtable.items(),
        memtable_bytes=_memory_of(memtable),
        log_bytes=log.bytes_live,
        segments_waiting=log.segments_sealed,
        runs=len(runs),
        tables=sum(len(run.tables) for run in runs),
        table_items=sum(run.items for run in runs),
        table_tombstones=sum(run.tombstones for run in runs),
        table_bytes=sum(run.size for run in runs),
        value_bytes=sum(table.record.value_bytes for run in runs for table in run.tables),
        cache_hits=cache.hits,
        cache_misses=cache.misses,
        cache_bytes=cache.bytes + cache.piece_bytes,
        user_bytes=user_bytes(log),
        log_bytes_written=log.bytes_written,
        checkpoint_bytes_written=catalog.checkpoint_bytes,
        merge_bytes_written=catalog.merge_bytes,
        stalls=log.waits,
        stall_seconds=log.wait_seconds,
    )


def user_bytes(log: LogStats) -> int:
    """The bytes of keys and values in what was logged: the entries' chunks without their heads.

    An entry has a head and, for each put, two more chunks. Deletions, which have but one, are taken
    for half a mutation; that is half a byte each.
    """
    mutations = (log.chunks - log.commits) // 2
    return max(0, log.chunk_bytes - _HEAD * log.commits - mutations)


def _memory_of(memtable: Memtable) -> int:
    """An estimate, from the first mutations of each layer."""
    total = 0
    for layer in memtable.state.layers:
        with memtable.visibility:
            count = len(layer.values)
            sample = list(islice(layer.values.items(), _SAMPLE))
        size = sum(len(key) + (len(value) if type(value) is bytes else 0) for key, value in sample)
        total += count * ITEM_OVERHEAD + (size * count // len(sample) if sample else 0)
    return total
