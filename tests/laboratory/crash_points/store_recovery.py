"""Opens what a crash has left of a store, holds it against the promise, and goes on in it."""

from __future__ import annotations

import kvstore
from tests.laboratory.crash_points.photographs import Camera
from tests.laboratory.crash_points.store_life import BACKUP, OPTIONS, STORE
from tests.laboratory.crash_points.store_promises import contents
from wal.files.faulty import FaultyFileSystem

LATER = b"!"


def look_beside(system, promise, label):
    """Open for reading only: some state that the store had, or none where it was still made."""
    try:
        db = kvstore.open(promise.path, "r", file_system=system)
    except kvstore.StoreNotFoundError:
        assert not promise.must_exist or promise.allows({}), f"{label}: no store, for a reader"
        return
    with db:
        found = contents(db)
    assert found in promise.models, f"{label}: a reader is shown {found}"


class Recovery:
    """One recovery: what is promised while it goes on, and, if asked for, its photographs."""

    def __init__(self, system, promise, label, turns, *, photographed=False):
        self.system = system
        self.promise = promise
        self._label = label
        self._turns = turns
        self._camera = Camera(system, lambda: [self.promise]) if photographed else None

    def run(self):
        """Open, look, go on writing, checkpoint, close, open again; what is there stays there."""
        try:
            self._run()
        except BaseException as error:
            if isinstance(error, AssertionError):
                raise
            raise AssertionError(f"{self._label}: {error!r}") from error
        return self._camera.photographs if self._camera else []

    def _run(self):
        promise = self.promise
        look_beside(self.system, promise, self._label)
        db = self._open("w" if promise.must_exist else "c")
        found = contents(db)
        promise.check(found, self._label)
        self.promise = promise.shown(found)
        self._turns.settle()
        later = {**found, (LATER,): b"goes on"}
        self.promise = self.promise.begun(later)
        db.put(LATER, b"goes on")
        self.promise = self.promise.done()
        db.checkpoint()
        list(db.changes())
        db.close()
        self._turns.settle()
        if self._camera:
            self._camera.stop()
        with kvstore.open(promise.path, "r", file_system=self.system) as db:
            assert contents(db) == later, f"{self._label}: a reader, later"
            assert db.verify().ok, f"{self._label}: {db.verify()}"
        with self._open("w") as db:
            assert contents(db) == later, f"{self._label}: later"

    def _open(self, flag):
        return kvstore.open(self.promise.path, flag, file_system=self.system, **OPTIONS)


def is_begun(state, promise):
    """Whether there is a store to be recovered, and no backup that is still made."""
    path = promise.path
    return promise.must_exist or path != BACKUP or state.exists(f"{path}/MANIFEST")


def make_again(state, promises, label):
    """A backup that is not complete is no store, says so, and can be made once more."""
    (copy,) = [promise for promise in promises if promise.path == BACKUP]
    for flag in "rw":
        try:
            kvstore.open(BACKUP, flag, file_system=state, **OPTIONS).close()
        except kvstore.CorruptStoreError as error:
            raise AssertionError(f"{label}: {error!r}") from error
        except kvstore.StoreError:
            continue
        raise AssertionError(f"{label}: half a backup was opened")
    with kvstore.open(STORE, "w", file_system=state, **OPTIONS) as db:
        found = contents(db)
        db.backup(BACKUP)
    with kvstore.open(BACKUP, "r", file_system=state) as db:
        assert contents(db) == found, label
    assert copy.models


def recovered(state, promise, label, turns, **options):
    """Recover a state of the disk."""
    if options.get("photographed") and not isinstance(state, FaultyFileSystem):
        state = FaultyFileSystem(state)
    return Recovery(state, promise, label, turns, **options).run()
