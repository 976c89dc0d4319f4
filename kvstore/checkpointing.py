"""The store as the log's manager: replay at opening, checkpoints in the background.

A checkpoint turns one log segment into a table, read from the segment's file, not from memory: what
readers see may already be newer. The order of its steps makes each crash harmless:

==========================================  ====================================================
after                                       a crash leaves
==========================================  ====================================================
the table's file is written                 a file that no manifest names: removed at opening
it is synced, then ``tables/`` is           the same
the manifest is renamed                     the old manifest or the new one, each with its tables
the store's directory is synced             the new manifest; the log replays what it skips
memory lets go of the segment               –
tables that were merged are removed         files that no manifest names
==========================================  ====================================================

Only then does ``checkpoint_to`` return, and the log may reuse the segment. The manifest's
``last_entry_id`` makes both replay and checkpoint idempotent.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Iterable, Sequence
from contextlib import suppress

from kvstore.directory import Directory
from kvstore.errors import CorruptStoreError
from kvstore.memtable import Memtable
from kvstore.mutations import MalformedEntryError, decode
from kvstore.runs import Run, Values, merge
from kvstore.tables.manifest import NAME, Manifest, write_manifest
from kvstore.tables.merging import how_many_to_merge
from kvstore.tables.table import Table, number_of, write_table
from wal import Entry, EntryId, LogManager, RecoveredSegment, Recovery, SegmentReader, WriteAheadLog
from wal.files import Lock

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)

logger = logging.getLogger("kvstore.checkpoint")


class Checkpoint(LogManager):
    """What is on disk beside the log: the manifest and its tables. Also what keeps them up to date.

    Changed by ``checkpoint_to`` alone, which the log calls on one thread.
    """

    def __init__(self, directory: Directory, manifest: Manifest, tables: tuple[Table, ...]) -> None:
        self._files = directory.files
        self._directory = directory
        self.manifest = manifest
        self.tables = tables
        self.memtable = Memtable(tables, manifest.last_entry_id)
        self.lock: Lock | None = None  # of the store, kept for as long as checkpoints are made
        self._next_number = manifest.next_number
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
        last_id = self.manifest.last_entry_id
        if entry_id < last_id:
            reason = f"the log ends at entry {entry_id}, but the tables hold those up to {last_id}"
            raise CorruptStoreError(self._directory.log, 0, reason)

    def _check_reaches(self, entry_id: int) -> None:
        """Raise CorruptStoreError unless the tables hold all that the log has let go of."""
        last_id = self.manifest.last_entry_id
        if last_id < entry_id:
            path = os.path.join(self._directory.path, NAME)
            reason = f"its tables end at entry {last_id}, but the log begins after entry {entry_id}"
            raise CorruptStoreError(path, 0, reason)

    def recover(self, entry: Entry) -> None:
        """Take over an entry that no table holds."""
        if entry.id > self.manifest.last_entry_id:
            self.memtable.replay(entry.id, entry.segment_id, self._checked(entry))
            self.replayed += 1

    def committed(self, entry_id: EntryId, segment_id: int, chunks: Sequence[bytes]) -> None:
        """Show what was just committed."""
        self.memtable.apply(entry_id, segment_id, chunks)

    def _checked(self, entry: Entry) -> Values:
        try:
            return decode(entry.read_all())
        except MalformedEntryError as error:
            chunks = entry.chunks()
            offset = chunks[0].position.offset if chunks else 0
            reason = f"entry {entry.id} of segment {entry.segment_id} is no mutation: {error}"
            raise CorruptStoreError(self._directory.log, offset, reason) from None

    # -- checkpoints -------------------------------------------------------------------------------

    def checkpoint_to(self, last_id: EntryId, entries: SegmentReader, log: WriteAheadLog) -> None:
        """Put what a log segment holds into a table, durably."""
        after = self.manifest.last_entry_id
        self._check_end(log.last_entry_id)  # never let go of a log that is not the store's
        if last_id > after:
            fresh: Values = {}
            for entry in entries:
                if entry.id > after:
                    fresh.update(self._checked(entry))
            self._publish(self._with(Run(fresh)), last_id)
        self.memtable.publish(self.tables, entries.segment_id)
        self.remove_orphans()

    def closed(self) -> None:
        """The log has closed: nothing is written any more, and another may open the store."""
        if self.lock is not None:
            self.lock.release()

    def _with(self, fresh: Run) -> tuple[Table, ...]:
        """The tables with new mutations added, some of them merged."""
        sizes = [_estimate(fresh), *(table.record.size for table in self.tables)]
        runs = [fresh, *(table.run for table in self.tables)]
        deletions = sum(run.deletions for run in runs)
        merged = how_many_to_merge(sizes, sum(map(len, runs)), deletions) - 1
        try:
            return self._write(runs, merged)
        except OSError as error:
            if not merged or error.errno not in _NO_ROOM:
                raise
            # Merging needs more room than there is: put off. The fresh run alone may fit.
            logger.warning("%s: no room to merge: %s", self._directory.tables, error)
            return self._write(runs, 0)

    def _write(self, runs: list[Run], merged: int) -> tuple[Table, ...]:
        """The tables with the first runs, the fresh one and ``merged`` more, made into one."""
        kept = self.tables[merged:]
        run = merge(runs[: merged + 1], drop_tombstones=not kept)
        if not run:
            return kept
        number = self._next_number
        self._next_number += 1
        directory = self._directory.tables
        table = write_table(self._files, directory, number, run)
        self._files.sync_directory(directory)
        logger.debug("%s: table %d of %d items, %d merged", directory, number, len(run), merged)
        return (table, *kept)

    def _publish(self, tables: tuple[Table, ...], last_id: int) -> None:
        manifest = self.manifest.with_tables(tables, last_id)
        write_manifest(self._files, self._directory.path, manifest)
        self.manifest = manifest
        self.tables = tables

    def remove_orphans(self) -> None:
        """Remove table files that the manifest does not name; those that cannot be wait."""
        directory = self._directory.tables
        named = {record.number for record in self.manifest.tables}
        with suppress(OSError):
            for number, name in _numbered(self._files.list(directory)):
                self._next_number = max(self._next_number, number + 1)
                if number not in named:
                    with suppress(OSError):
                        self._files.remove(os.path.join(directory, name))


def _numbered(names: Iterable[str]) -> list[tuple[int, str]]:
    return [(number, name) for name in names if (number := number_of(name)) is not None]


def _estimate(run: Run) -> int:
    """About the size of the table that a run would make."""
    return (
        sum(map(len, run.values)) + sum(map(len, filter(None, run.values.values()))) + 4 * len(run)
    )
