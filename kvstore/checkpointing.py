"""The store as the log's manager: replay at opening, checkpoints in the background."""

from __future__ import annotations

import os
from collections.abc import Sequence

from kvstore.building import SegmentJob, Shape, values_of
from kvstore.catalog import Catalog
from kvstore.config import Options
from kvstore.errors import CorruptStoreError
from kvstore.memtable import Memtable
from kvstore.tables.manifest import NAME
from kvstore.values import Value, position_to_int
from wal import Entry, EntryId, LogManager, RecoveredSegment, Recovery, SegmentReader, WriteAheadLog
from wal.files import Lock


class Checkpoint(LogManager):
    """Interim: builds tables in the thread."""

    def __init__(self, catalog: Catalog, memtable: Memtable, options: Options) -> None:
        self.catalog = catalog
        self.memtable = memtable
        self.lock: Lock | None = None
        self.replayed = 0
        self._large = options.large_value_bytes
        self._shape = Shape(options.compression, options.large_value_bytes)
        self._begun = False
        self._log_end = 0

    def should_recover_segment(self, segment: RecoveredSegment) -> Recovery:
        if not self._begun:
            self._begun = True
            self._check_reaches(segment.first_after)
        self._log_end = max(self._log_end, segment.last_id)
        return Recovery.RECOVER

    def check_log(self, log: WriteAheadLog) -> None:
        stats = log.stats()
        self._check_reaches(stats.checkpointed_entry_id)
        self._check_end(max(self._log_end, stats.last_entry_id, stats.checkpointed_entry_id))

    def _check_end(self, entry_id: int) -> None:
        last_id = self.catalog.manifest.last_entry_id
        if entry_id < last_id:
            reason = f"the log ends at entry {entry_id}, but the tables hold those up to {last_id}"
            raise CorruptStoreError(self.catalog.directory.log, 0, reason)

    def _check_reaches(self, entry_id: int) -> None:
        last_id = self.catalog.manifest.last_entry_id
        if last_id < entry_id:
            path = os.path.join(self.catalog.directory.path, NAME)
            reason = f"its tables end at entry {last_id}, but the log begins after entry {entry_id}"
            raise CorruptStoreError(path, 0, reason)

    def recover(self, entry: Entry) -> None:
        if entry.id > self.catalog.manifest.last_entry_id:
            found = values_of(entry, self._large, self.catalog.directory.log)
            values: dict[bytes, Value] = {
                key: position_to_int(value.chunk.position) if hasattr(value, "chunk") else value
                for key, value in found.items()
            }
            self.memtable.replay(entry.id, entry.segment_id, values)
            self.replayed += 1

    def committed(self, entry_id: EntryId, segment_id: int, chunks: Sequence[bytes]) -> None:
        self.memtable.apply(entry_id, segment_id, chunks)

    def accepted(self, entry_id: EntryId, segment_id: int, chunks: Sequence[bytes]) -> None:
        self.memtable.accepted(entry_id, segment_id, chunks)

    def checkpoint_to(self, last_id: EntryId, entries: SegmentReader, log: WriteAheadLog) -> None:
        after = self.catalog.manifest.last_entry_id
        self._check_end(log.last_entry_id)
        if last_id > after:
            directory = self.catalog.directory
            job = SegmentJob(
                directory.tables, entries.describe(), after, not self.catalog.runs, self._shape
            )
            built = job.run(directory.files)
            self.catalog.add(built, last_id, entries.segment_id)
        else:
            self.memtable.publish(self.catalog.runs, entries.segment_id)

    def closed(self) -> None:
        if self.lock is not None:
            self.lock.release()
