"""The store as the log's manager: replay at opening, checkpoints in the background.

A checkpoint turns one sealed log segment into a run of tables, read from the segment's *file*: what
readers see may already be newer. Only entries above the manifest's ``last_entry_id`` count, so it
may be repeated, after a failure or a crash, whatever became of the attempt before:

==========================================  ====================================================
after                                       a crash leaves
==========================================  ====================================================
the tables are written and synced           ``tmp-`` files: removed at the next opening
the catalog has changed                     tables and manifest: see the catalog
readers see the tables, and memory lets     –
go of what they hold
``checkpoint_to`` returns, the log's        the segment is replayed, or passed over, by the
marker moves, the segment is used again     manifest's ``last_entry_id``
==========================================  ====================================================

The manifest is durable before the log may let go of the segment, even if this process only found
it there.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from kvstore.background.building import LogBlob, SegmentJob, Shape, values_of
from kvstore.background.catalog import Catalog
from kvstore.background.compaction import Compactor
from kvstore.background.worker import Worker
from kvstore.errors import CorruptStoreError
from kvstore.memory.memtable import Memtable
from kvstore.mutations import single_puts
from kvstore.tables.manifest import NAME
from kvstore.values import position_to_int
from wal import (
    Entry,
    EntryId,
    Group,
    LogManager,
    RecoveredSegment,
    Recovery,
    SegmentReader,
    WriteAheadLog,
)
from wal.files import Lock


def check_is_of_store(segment: RecoveredSegment, store_id: bytes) -> None:
    """CorruptStoreError where a segment of the log was begun by another store.

    Ids alone do not tell: those of two stores that were written alike are the same. A segment
    that says nothing is damaged, or was begun before stores wrote their ids into them.
    """
    if segment.version_info not in (b"", store_id):
        raise CorruptStoreError(segment.path, 0, "the segment is of another store's log")


class Checkpoint(LogManager):
    """Keeps the memtable in step with the log, and moves what is in it to the catalog's tables.

    Without a compactor it only replays: for reading beside a writer.
    """

    def __init__(
        self,
        catalog: Catalog,
        memtable: Memtable,
        shape: Shape,
        worker: Worker | None = None,
        compactor: Compactor | None = None,
    ) -> None:
        """The worker is for checkpoints alone. Both are stopped when the log has closed."""
        self.catalog = catalog
        self.memtable = memtable
        self._shape = shape
        self._worker = worker
        self._compactor = compactor
        self.lock: Lock | None = None
        """The store's, kept for as long as checkpoints are made: let go of when the log closes."""
        self._log = catalog.directory.log
        self._covered = catalog.manifest.last_entry_id
        """The last entry that the tables held when the store was opened."""
        self.replayed = 0
        """Log entries that opening the store had to apply."""

    # -- replay ------------------------------------------------------------------------------------

    def should_recover_segment(self, segment: RecoveredSegment) -> Recovery:
        """Always; CorruptStoreError where the segment is another store's."""
        check_is_of_store(segment, self.catalog.manifest.store_id)
        return Recovery.RECOVER

    def check_extent(self, checkpointed_id: EntryId, last_id: EntryId) -> None:
        """Raise CorruptStoreError unless the log and the tables belong together.

        A log that begins behind the tables has let go of what they do not hold. One that ends
        before them is another one, or has lost entries: it would give out ids that the manifest
        covers, and what is written under those would vanish.
        """
        end = self.catalog.manifest.last_entry_id
        if end < checkpointed_id:
            path = os.path.join(self.catalog.directory.path, NAME)
            reason = f"its tables end at entry {end}, but the log begins after {checkpointed_id}"
            raise CorruptStoreError(path, 0, reason)
        self._check_end(max(checkpointed_id, last_id))

    def _check_end(self, entry_id: int) -> None:
        last_id = self.catalog.manifest.last_entry_id
        if entry_id < last_id:
            reason = f"the log ends at entry {entry_id}, but the tables hold those up to {last_id}"
            raise CorruptStoreError(self.catalog.directory.log, 0, reason)

    def recover(self, entry: Entry) -> None:
        """Take over an entry that no table holds."""
        if entry.id <= self._covered:
            return
        values = values_of(entry, self._shape.large_value_bytes, self._log)
        # A writer elsewhere takes the file when it likes: who reads beside it keeps a copy.
        held = self._compactor is not None
        blobs = {key: value for key, value in values.items() if isinstance(value, LogBlob)}
        for key, blob in blobs.items():
            values[key] = position_to_int(blob.chunk.position) if held else blob.read()
        self.memtable.replay(entry.id, entry.segment_id, values, has_large=bool(blobs) and held)
        self.replayed += 1

    def recover_group(self, group: Group) -> None:
        """Take over many entries at once, where they are single puts that no table holds."""
        puts = single_puts(group) if group.first_id > self._covered else None
        if puts is None:
            super().recover_group(group)
        else:
            self.memtable.replay(group.last_id, group.segment_id, puts)
            self.replayed += len(group)

    def committed(self, entry_id: EntryId, segment_id: int, chunks: Sequence[bytes]) -> None:
        """Show what was just committed."""
        self.memtable.apply(entry_id, segment_id, chunks)

    def accepted(self, entry_id: EntryId, segment_id: int, chunks: Sequence[bytes]) -> None:
        """Know of what is in flight."""
        self.memtable.accepted(entry_id, segment_id, chunks)

    # -- checkpoints -------------------------------------------------------------------------------

    def checkpoint_to(self, last_id: EntryId, entries: SegmentReader, log: WriteAheadLog) -> None:
        """Put what a log segment holds into tables, durably."""
        self._check_end(log.last_entry_id)  # never let go of a log that is not the store's
        after = self.catalog.manifest.last_entry_id
        if last_id > after:
            self._add(entries, after)
        else:
            self.catalog.settle()
            self.memtable.publish(self.catalog.runs, entries.segment_id)

    def _add(self, entries: SegmentReader, after: int) -> None:
        assert self._worker is not None
        assert self._compactor is not None
        self._compactor.make_room(self._worker)
        job = SegmentJob(
            self.catalog.directory.tables,
            entries.describe(),
            after,
            # Nobody else adds runs: if there are none now, there are none behind this one.
            drop_tombstones=not self.catalog.runs,
            shape=self._shape,
        )
        built = self._worker.run(job)
        self.catalog.add(built, entries.last_id, entries.segment_id)
        self._compactor.look()

    def closed(self) -> None:
        """The log has closed: nothing is written any more, and another may open the store."""
        try:
            if self._compactor is not None:
                self._compactor.stop()
            if self._worker is not None:
                self._worker.stop()
        finally:
            if self.lock is not None:
                self.lock.release()
