"""The store below its API, for tests: log, memtable, catalog, checkpoints, compaction."""

from __future__ import annotations

import os

import wal
from kvstore.background.building import MergeJob, SegmentJob, Shape
from kvstore.background.catalog import Catalog
from kvstore.background.checkpointing import Checkpoint
from kvstore.background.compaction import Compactor
from kvstore.background.worker import Worker
from kvstore.directory import Directory
from kvstore.memory.memtable import Memtable
from kvstore.mutations import encode
from kvstore.pages import merge_pages
from kvstore.pulse import Pulse
from kvstore.tables.cache import Cache

UNIT = 64 << 10
PATIENCE = 20.0


def pages_as_dict(pages):
    return {key: value for keys, values in pages for key, value in zip(keys, values, strict=True)}


def contents_of(runs):
    """What the runs hold, large values read, deletions gone."""
    pages = merge_pages([run.pages(b"", None) for run in runs])
    return {key: _data(value) for key, value in pages_as_dict(pages).items()}


def _data(value):
    return value if isinstance(value, bytes) else value.read()


class Disk:
    """One opening of a store. ``work``: whether the compactor looks by itself."""

    def __init__(self, files, path, *, work=False, processes=False, shape=None, unit=UNIT):
        self.files = files
        self.directory = Directory(files, files.resolve(str(path)))
        files.make_directory(self.directory.path)
        self.lock = self.directory.lock(0.0)
        shape = shape or Shape()
        try:
            manifest = self.directory.prepare("c")
            self.cache = Cache(1 << 20)
            self.catalog = Catalog(self.directory, manifest, self.cache)
            self.memtable = Memtable(self.catalog.runs, manifest.last_entry_id, self.cache, Pulse())
            self.worker = Worker(files, processes=processes, least_bytes=0)
            self.compaction_worker = Worker(files, processes=processes, least_bytes=0)
            self.compactor = Compactor(self.catalog, shape, unit, self.compaction_worker)
            if not work:
                self.compactor.look = lambda: None
            self.catalog.attach(self.memtable.publish, self.compactor.bury)
            self.catalog.find_orphans()
            self.catalog.remove_orphans()
            self.checkpoint = Checkpoint(
                self.catalog, self.memtable, shape, self.worker, self.compactor
            )
            self.checkpoint.lock = self.lock
        except BaseException:
            self.lock.release()
            raise
        self.compactor.start()
        try:
            self.log = wal.Configuration(
                self.directory.log,
                files,
                preallocate_bytes=4 << 20,
                durability=wal.Durability.FSYNC,
                flush_interval=3600,
            ).open(self.checkpoint)
        except BaseException:
            self.checkpoint.closed()
            raise
        self.compactor.look()

    def write(self, batch):
        """Log a batch; a value of some length makes a streamed entry."""
        return self.log.append(encode(batch))

    def checkpoint_now(self):
        self.log.checkpoint_active(wait=True)

    def write_run(self, batch):
        """A batch that becomes a run of its own."""
        self.write(batch)
        self.checkpoint_now()

    def compact(self):
        self.compactor.compact().wait(PATIENCE)

    def contents(self):
        """All that a reader sees."""
        state = self.memtable.state
        found = contents_of(state.runs)
        for layer in reversed(state.layers):
            found.update(layer.values)
        return {key: self._load(value) for key, value in found.items() if value is not None}

    def _load(self, value):
        if isinstance(value, bytes):
            return value
        from kvstore.values import int_to_position

        with self.log.read_at(int_to_position(value)) as chunk:
            return chunk.read()

    def close(self):
        self.compactor.stop()
        self.log.shutdown()

    def table_names(self):
        return self.files.list(self.directory.tables)

    def named(self):
        return sorted(record.name for record in self.catalog.manifest.tables)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def segment_job(files, path, batches, *, after=0, drop=False, shape=None, durability=None):
    """A job over a sealed segment that holds the batches; the segment's file is a copy."""
    jobs = []

    class Copies(wal.LogManager):
        def recover(self, entry):
            raise AssertionError

        def checkpoint_to(self, last_id, entries, log):
            told = entries.describe()
            copy = os.path.join(path, f"copy-{told.last_id}")
            source = files.open(told.path, writable=False)
            target = files.create(copy)
            target.write_at(0, [source.read_at(0, told.end)])
            source.close()
            target.close()
            described = wal.SegmentDescription(copy, told.header, told.end, told.last_id)
            jobs.append(SegmentJob(path, described, after, drop, shape or Shape()))

    files.make_directory(path)
    configuration = wal.Configuration(
        os.path.join(path, "log"), files, preallocate_bytes=64 << 20, flush_interval=3600
    )
    with configuration.open(Copies()) as log:
        for batch in batches:
            log.append(encode(batch), durability=durability)
        log.checkpoint_active(wait=True)
    (job,) = jobs
    return job


def merge_job(path, runs, *, drop=False, shape=None):
    """A job over runs of records, newest first."""
    return MergeJob(path, tuple(map(tuple, runs)), drop, shape or Shape())
