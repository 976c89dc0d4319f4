"""Who follows, copies and tidies the store in a soak: and all that these find must agree."""

from __future__ import annotations

import traceback

import kvstore
from tests.laboratory.soak.actors import ACCOUNTS, EACH, Actor, total


class Follower(Actor):
    """Keeps a replica from the change feed; at each sitting's end it must be what the store is."""

    def __init__(self, soak, name):
        super().__init__(soak, name)
        self.replica = {}
        self.bytes = 0  # of all its keys and values
        self.at = 0  # the last commit that the replica has
        self._feed = None
        self._ended = False

    def run(self, db):
        """Other than the others it goes on until it is told that there is nothing more to come."""
        self._ended = False
        try:
            self._feed = db.changes(after=self.at, follow=True)
            while not self._ended:
                self.step(db)
        except BaseException:  # noqa: BLE001 - whatever it is, it is told of, and ends the run
            self.soak.fail(self.name, traceback.format_exc())
        self._feed = None

    def stop(self):
        """End it, also where it waits for more."""
        self._ended = True
        feed = self._feed
        if feed is not None:
            feed.close()

    def step(self, db):
        try:
            for change in self._feed:
                self._take(change)
        except kvstore.ChangesLostError:
            self._begin_anew(db)

    def _take(self, change):
        for key, value in change.items:
            self._set((change.namespace, key), value)
        if change.completes:
            self.at = change.entry_id
            self.counts["changes"] += 1

    def _set(self, key, value):
        old = self.replica.pop(key, None)
        if old is not None:
            self.bytes -= len(key[1]) + len(old)
        if value is not None:
            self.replica[key] = value
            self.bytes += len(key[1]) + len(value)

    def _begin_anew(self, db):
        """It was slower than the log is long: take a snapshot and go on behind it."""
        with db.snapshot() as snapshot:
            self.replica, self.bytes = {}, 0
            for key, value in everything(snapshot).items():
                self._set(key, value)
            self.at = snapshot.entry_id
        self._feed = db.changes(after=self.at, follow=True)
        self.counts["changes lost"] += 1

    def caught_up(self, db):
        return self.at >= db.last_entry_id


def everything(source, path=()):
    """All keys and values as they are stored, those of namespaces too, by namespace and key."""
    found = {(path, key): value for key, value in source.scan()}
    for name in source.namespaces():
        # The soak's namespaces hold text on the second level, and nothing on the first.
        codec = kvstore.UTF8 if path else None
        inner = everything(source.namespace(name, codec), (*path, name))
        found |= {
            key: value.encode() if isinstance(value, str) else value for key, value in inner.items()
        }
    return found


class Keeper(Actor):
    """Backs up into the same directory again and again, and looks at times whether it is sound."""

    pause = 4.0

    def step(self, db):
        db.backup(self.soak.backup)
        self.counts["backups"] += 1
        if self.rng.random() < 0.4:
            report = kvstore.verify(self.soak.backup)
            if not report.ok:
                raise AssertionError(f"the backup: {report}")
            with kvstore.open(self.soak.backup, "r") as copy:
                self.check(total(copy), ACCOUNTS * EACH, "the sum in a backup")
            self.counts["backups verified"] += 1


class Tidier(Actor):
    """Checkpoints, compactions and verifications, besides those that come by themselves."""

    pause = 2.0

    def step(self, db):
        chance = self.rng.random()
        if chance < 0.6:
            db.checkpoint()
            self.counts["checkpoints asked for"] += 1
        elif chance < 0.8:
            db.compact()
            self.counts["compactions asked for"] += 1
        else:
            report = db.verify()
            if not report.ok:
                raise AssertionError(f"the store: {report}")
            self.counts["verifications"] += 1
