"""The workload: a life of a store, and of its backup, that meets all that a store does on the disk.

It knows at each moment what it was promised. Every step is one operation of a few calls; behind it
the background comes to rest. ``tests/laboratory/crash_points/test_store_life.py`` asserts that the
life covers what it is for.
"""

from __future__ import annotations

import errno
from contextlib import contextmanager, suppress

import pytest

import kvstore
from tests.laboratory.crash_points.store_promises import Known, contents

BUFFER = kvstore.Durability.BUFFER
FSYNC = kvstore.Durability.FSYNC
WRITE = kvstore.Durability.WRITE

STORE, BACKUP = "/s", "/b"
OPTIONS = {"memtable_bytes": 64 << 10, "large_value_bytes": 1 << 10, "processes": False}


def text(number, size):
    """Bytes that no other value has."""
    return (b"%d;" % number * (size // 2 + 1))[:size]


class Life:
    """Steps on a file system, and what is known of the two stores there.

    ``patient``: an error of one operation alone, which a fault has caused, is passed over.
    """

    def __init__(self, system, turns, *, patient=False):
        self.system = system
        self.turns = turns
        self.patient = patient
        self.known = {path: Known(path) for path in (STORE, BACKUP)}
        self.db = None
        self.at = self.known[STORE]
        self.failures = []
        self.merges = self.replayed = self.checkpoint_bytes = 0
        self._serial = 0

    def promised(self):
        return [known.promise() for known in self.known.values() if known.touched]

    def run(self):
        for step in STEPS:
            self.take(step)
        return self

    def take(self, step):
        try:
            step(self)
        except (kvstore.StoreError, OSError) as error:
            if not self.patient or getattr(error, "latched", False):
                raise
            self.failures.append(error)
            if self.db is None:
                step(self)  # an opening: the second attempt must succeed
        self.turns.settle()

    # -- operations --------------------------------------------------------------------------------

    def open(self, flag="c", path=STORE, **options):
        known = self.at = self.known[path]
        known.touched = True
        if flag == "n":
            known.begin({})
        self.db = None
        self.db = kvstore.open(path, flag, file_system=self.system, **{**OPTIONS, **options})
        if flag == "n":
            known.acknowledge()
            known.floor = known.begun
        known.exists = True
        known.show(contents(self.db))
        self.replayed += self.db.stats().replayed_entries

    def close(self):
        stats = self.db.stats()
        self.checkpoint_bytes += stats.checkpoint_bytes_written
        self.merges += stats.merge_bytes_written > 0
        self.db.close()
        self.at.acknowledge()

    def put(self, key, size, durability=FSYNC):
        value = self.value(size)
        with self.writing({(key,): value}, durability):
            self.db.put(key, value, durability=durability)

    def write(self, sizes, durability=FSYNC):
        batch = {key: None if size is None else self.value(size) for key, size in sizes.items()}
        with self.writing({(key,): value for key, value in batch.items()}, durability):
            self.db.write(batch, durability=durability)

    def value(self, size):
        self._serial += 1
        return text(self._serial, size)

    @contextmanager
    def writing(self, changes, durability=FSYNC):
        """A mutation: begun, and acknowledged where it has returned."""
        model = {**self.at.now, **changes}
        self.at.begin({key: value for key, value in model.items() if value is not None})
        try:
            yield
        except kvstore.StoreFailedError as error:
            if not error.latched:
                self.at.take_back()
            raise
        if durability is FSYNC:
            self.at.acknowledge()
        self.turns.settle()

    def make_durable(self, operation):
        operation()
        self.at.acknowledge()

    def give_up(self):
        """End a store that has failed."""
        if self.db is not None:
            with suppress(kvstore.StoreError, OSError):
                self.db.close()


# -- the steps -------------------------------------------------------------------------------------


def small_writes(life):
    life.put(b"a", 30)
    life.put(b"b", 40, WRITE)
    life.put(b"c", 50, BUFFER)
    life.write({b"a": None, b"d": 20, b"e": 0})


def in_namespaces(life):
    people = life.db.namespace(b"people")
    value = life.value(25)
    with life.writing({(b"people", b"ann"): value}):
        people.put(b"ann", value)
    with life.writing({(b"people", b"abroad", b"bo"): value}, WRITE):
        people.namespace(b"abroad").put(b"bo", value, durability=WRITE)


def in_transactions(life):
    value = life.value(35)
    changes = {(b"d",): None, (b"f",): value, (b"people", b"ann"): value}
    with life.writing(changes), life.db.transaction() as tx:
        assert tx[b"d"]
        del tx[b"d"]
        tx[b"f"] = value
        tx.namespace(b"people").put(b"ann", value)


def a_conflict(life):
    """The first of the two has a large value: its entry is begun, and taken back."""

    def overtaken(tx):
        tx.get(b"b")
        life.put(b"b", 45)
        tx[b"g"] = bytes(2000)

    with pytest.raises(kvstore.ConflictError):
        life.db.transact(overtaken, attempts=1)


def large_values(life):
    life.put(b"large", 1500)
    life.put(b"longer than a segment", 5000)


def a_large_value(life):
    life.put(b"large", 1600, WRITE)


def rolled_back_from_the_file(life):
    """No room for the second value: the first is in the file by then, and taken back."""
    if life.patient:
        return
    fault = life.system.fail(errno.ENOSPC, nth=2, kinds="allocate")
    with pytest.raises(kvstore.StoreFailedError) as caught:
        life.db.write({b"g": text(1, 5000), b"h": text(2, 9000)})
    assert (fault.hits, caught.value.latched) == (1, False)


def rotations(life):
    for size in (900, 1000, 950, 980, 970, 990):
        life.put(b"k%d" % (size % 7), size)


def unsynced_writes(life):
    life.put(b"w", 600, WRITE)
    life.put(b"x", 600, BUFFER)
    life.put(b"w", 700, BUFFER)


def synced(life):
    life.make_durable(life.db.sync)


def checkpoint(life):
    life.make_durable(life.db.checkpoint)


def compact(life):
    life.make_durable(life.db.compact)


def compact_under_a_snapshot(life):
    """The merged tables' predecessors stay until the snapshot is released."""
    snap = life.db.snapshot()
    before = contents(snap)
    life.write({b"k0": None, b"e": 60})
    life.make_durable(life.db.compact)
    assert contents(snap) == before
    life.turns.settle()
    snap.close()


def a_checkpoint_that_fails_at_first(life):
    """And is repeated by itself, and asked for again."""
    life.put(b"y", 70)
    if not life.patient:
        life.system.fail(errno.EIO, kinds="sync", path="tmp-*")
        with pytest.raises(kvstore.StoreFailedError):
            life.db.checkpoint()
    life.make_durable(life.db.checkpoint)


def a_manifest_that_fails_at_first(life):
    """Which of the two is there is not known: what either names stays."""
    life.put(b"z", 70)
    if not life.patient:
        life.system.fail(errno.EIO, kinds="sync_directory", path="s")
        with pytest.raises(kvstore.StoreFailedError):
            life.db.checkpoint()
    life.make_durable(life.db.checkpoint)


def backup(life):
    """Of all that is in the store: it is made a checkpoint of first."""
    copy = life.known[BACKUP]
    copy.touched = True
    copy.begin(life.at.now)
    life.db.backup(BACKUP)
    life.at.acknowledge()
    copy.acknowledge()
    copy.exists = True


def read_the_changes(life):
    assert list(life.db.changes())


STEPS = [
    Life.open,
    small_writes,
    in_namespaces,
    in_transactions,
    a_conflict,
    checkpoint,
    large_values,
    rolled_back_from_the_file,
    small_writes,
    rotations,
    unsynced_writes,
    checkpoint,
    compact_under_a_snapshot,
    a_checkpoint_that_fails_at_first,
    backup,
    a_large_value,
    Life.close,
    lambda life: life.open("w", retain_bytes=6000),
    unsynced_writes,
    rotations,
    a_manifest_that_fails_at_first,
    rotations,
    checkpoint,
    read_the_changes,
    backup,
    synced,
    Life.close,
    lambda life: life.open("w", BACKUP),
    small_writes,
    checkpoint,
    Life.close,
    Life.open,
    a_large_value,
    compact,
    unsynced_writes,
    Life.close,
    lambda life: life.open("n"),
    small_writes,
    checkpoint,
    Life.close,
]
