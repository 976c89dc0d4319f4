"""Faults put into the store on purpose, each in one place: the machine has to notice every one.

Each takes pytest's ``monkeypatch``. All are promises broken in a way that a store could get wrong.
"""

from __future__ import annotations

import kvstore.background.building
import kvstore.background.catalog
import kvstore.background.checkpointing
import kvstore.commit
import kvstore.memory.layers
import kvstore.reading
import kvstore.transactions
import kvstore.upkeep.backup
import wal.group_commit
import wal.judgement
import wal.recovery
import wal.rounds

FSYNC, WRITE, BUFFER = wal.Durability.FSYNC, wal.Durability.WRITE, wal.Durability.BUFFER


def leave_out_the_sync(patch):
    """Acknowledged under FSYNC is not durable."""
    patch.setattr(wal.rounds.Rounds, "_sync", lambda self, segment: None)


def publish_before_the_sync(patch):
    """Seen, and acknowledged, when it is written; the sync follows."""
    sync = wal.rounds.Rounds._sync

    def hasty(self, segment):
        self.buffer.durable_id = self._written_id
        self._complete()
        sync(self, segment)

    patch.setattr(wal.rounds.Rounds, "_sync", hasty)


def take_write_for_buffer(patch):
    """Acknowledged under WRITE is lost with the process."""
    append = wal.group_commit.GroupCommit.append_ready

    def lazy(self, item, size, durability=None, *more):
        return append(self, item, size, BUFFER if durability is WRITE else durability, *more)

    patch.setattr(wal.group_commit.GroupCommit, "append_ready", lazy)


def commit_by_halves(patch):
    """A batch is two entries."""
    commit = kvstore.commit.Commits.commit

    def torn(self, mutations, durability, decide=None):
        items = list(mutations.items())
        half = len(items) // 2
        if half:
            commit(self, dict(items[:half]), durability, decide)
            decide = None
        return commit(self, dict(items[half:]), durability, decide)

    patch.setattr(kvstore.commit.Commits, "commit", torn)


def show_without_settling(patch):
    """What a killed process left in the cache is shown, and may be gone later."""
    patch.setattr(wal.recovery, "_rewrite_tail", lambda judgement, scanned: None)


def give_ids_out_twice(patch):
    """Ids go on behind what was found, as if nothing had been given out behind it."""
    patch.setattr(wal.judgement.Judgement, "next_id", lambda self: self.last_id + 1)


def drop_a_key_in_checkpoints(patch):
    """Of a larger segment one key gets into no table."""
    newest = kvstore.background.building._newest

    def forgetful(entries, after, large):
        found = newest(entries, after, large)
        if len(found) > 3:
            found.popitem()
        return found

    patch.setattr(kvstore.background.building, "_newest", forgetful)


def drop_tombstones_in_checkpoints(patch):
    """What was deleted comes back out of older tables."""
    job = kvstore.background.checkpointing.SegmentJob

    def sparing(*args, drop_tombstones, **options):
        return job(*args, drop_tombstones=True, **options)

    patch.setattr(kvstore.background.checkpointing, "SegmentJob", sparing)


def leave_the_manifest_unsynced(patch):
    """The log lets go of what a manifest has whose name is not durable."""
    from kvstore.tables.manifest import NAME, TEMPORARY

    def hasty(files, directory):
        files.rename(f"{directory}/{TEMPORARY}", f"{directory}/{NAME}")

    patch.setattr(kvstore.background.catalog, "put_in_place", hasty)


def leave_tables_unsynced(patch):
    """A manifest names tables whose names are not durable."""
    install = kvstore.background.catalog.Catalog._install_locked

    def hasty(self, built):
        with_sync, files = self.directory, self.directory.files
        try:
            self.directory = type(with_sync)(_WithoutDirectorySync(files), with_sync.path)
            return install(self, built)
        finally:
            self.directory = with_sync

    patch.setattr(kvstore.background.catalog.Catalog, "_install_locked", hasty)


class _WithoutDirectorySync:
    def __init__(self, files):
        self._files = files

    def __getattr__(self, name):
        return getattr(self._files, name)

    def sync_directory(self, path):
        pass


def ignore_include_start(patch):
    """A scan begins with its start, asked for or not."""
    as_range = kvstore.reading.as_range

    def inclusive(start, stop, prefix, include_start, include_stop):
        return as_range(start, stop, prefix, True, include_stop)

    patch.setattr(kvstore.reading, "as_range", inclusive)


def show_the_present_in_snapshots(patch):
    """A snapshot's look-ups find what was written since."""
    find = kvstore.memory.layers.Layer.find
    patch.setattr(
        kvstore.memory.layers.Layer, "find", lambda self, key, epoch: find(self, key, None)
    )


def overlook_conflicts(patch):
    """A transaction commits though what it read has changed."""
    patch.setattr(kvstore.transactions.Observed, "touched_by", lambda self, keys: None)


def overlook_phantoms(patch):
    """A transaction commits though a key appeared where it has walked."""
    settle = kvstore.transactions.Observed.settle

    def forgetful(self):
        self.intervals.clear()
        settle(self)

    patch.setattr(kvstore.transactions.Observed, "settle", forgetful)


def leave_a_backup_unsynced(patch):
    """A backup is called done before its tables have durable names."""
    write = kvstore.upkeep.backup._Backup.write

    def hasty(self, runs):
        self._files = _WithoutDirectorySync(self._files)
        write(self, runs)

    patch.setattr(kvstore.upkeep.backup._Backup, "write", hasty)


#: Noticed within some histories.
EASY = (
    leave_out_the_sync,
    give_ids_out_twice,
    drop_a_key_in_checkpoints,
    drop_tombstones_in_checkpoints,
    leave_the_manifest_unsynced,
    leave_tables_unsynced,
    overlook_conflicts,
    show_the_present_in_snapshots,
)
#: Noticed within some hundred.
HARD = (
    publish_before_the_sync,
    take_write_for_buffer,
    overlook_phantoms,
    commit_by_halves,
    show_without_settling,
    ignore_include_start,
    leave_a_backup_unsynced,
)
