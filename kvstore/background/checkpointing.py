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
from kvstore.tables.manifest import NAME
from kvstore.values import position_to_int
from wal import Entry, EntryId, LogManager, RecoveredSegment, Recovery, SegmentReader, WriteAheadLog
from wal.files import Lock


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
        self.replayed = 0
        """Log entries that opening the store had to apply."""
        self._begun = False
        self._log_end = 0  # the last entry that the log's segments are known to hold

    # -- replay ------------------------------------------------------------------------------------

    def should_recover_segment(self, segment: RecoveredSegment) -> Recovery:
        """Always, if the log begins where the tables end."""
        if not self._begun:
            self._begun = True
            self._check_reaches(segment.first_after)
        self._log_end = max(self._log_end, segment.last_id)
        return Recovery.RECOVER

    def check_log(self, log: WriteAheadLog) -> None:
        """Raise CorruptStoreError unless the log and the tables belong together.

        A log that ends below what the tables hold is another one, or has lost entries. It would
        give out ids that the manifest covers, and what is written under those would vanish.
        """
        stats = log.stats()
        self._check_reaches(stats.checkpointed_entry_id)
        # What a log opened for reading shows as its last entry may lag behind what it holds.
        self._check_end(max(self._log_end, stats.last_entry_id, stats.checkpointed_entry_id))

    def _check_end(self, entry_id: int) -> None:
        last_id = self.catalog.manifest.last_entry_id
        if entry_id < last_id:
            reason = f"the log ends at entry {entry_id}, but the tables hold those up to {last_id}"
            raise CorruptStoreError(self.catalog.directory.log, 0, reason)

    def _check_reaches(self, entry_id: int) -> None:
        """Raise CorruptStoreError unless the tables hold all that the log has let go of."""
        last_id = self.catalog.manifest.last_entry_id
        if last_id < entry_id:
            path = os.path.join(self.catalog.directory.path, NAME)
            reason = f"its tables end at entry {last_id}, but the log begins after entry {entry_id}"
            raise CorruptStoreError(path, 0, reason)

    def recover(self, entry: Entry) -> None:
        """Take over an entry that no table holds."""
        if entry.id <= self.catalog.manifest.last_entry_id:
            return
        values = values_of(entry, self._shape.large_value_bytes, self.catalog.directory.log)
        for key, value in values.items():
            if isinstance(value, LogBlob):
                # A writer elsewhere takes the file when it likes: who reads beside it keeps a copy.
                held = self._compactor is not None
                values[key] = position_to_int(value.chunk.position) if held else value.read()
        self.memtable.replay(entry.id, entry.segment_id, values)
        self.replayed += 1

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
