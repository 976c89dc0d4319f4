"""A store that is ended again and again, and looked at in between.

:class:`Campaign` begins lives in a directory, ends each at a random moment, by the kill of its
process or by something worse, and has a :class:`Judge` look at what is left: after each end or,
so that the recovery of one end is cut short by the next, after two or three.
"""

from __future__ import annotations

import os
import random
import time

import kvstore
from kvstore.tables.manifest import read_manifest
from tests.laboratory.kills import child
from tests.laboratory.kills.history import contents_of
from tests.laboratory.kills.judge import Judge
from tests.laboratory.kills.nursery import PATIENCE, wait_until_gone
from wal.files import StandardFileSystem

KEPT = 1 << 30  # bytes of the log: all of it


class Campaign:
    """One store's lives. ``where`` is the store's directory, ``notes`` one for what is told.

    ``end(kill, darken)`` ends a life, by calling ``kill`` and whatever else; it returns whether the
    power was cut, just before which it has called ``darken``. ``place`` says, in each message, how
    to repeat it.
    """

    def __init__(self, nursery, where, notes, seed, place, *, end=None, **plan):
        self.nursery = nursery
        self.where = str(where)
        self.notes = str(notes)
        self.rng = random.Random(seed)
        self.place = place
        self.end = end or _just_kill
        self.plan = {
            "path": self.where,
            "seed": seed,
            "retain": KEPT,
            "processes": False,
            "closes": 0.2,
            "spoiled": "",
            "tolerant": False,
            "writers": 1,
            **plan,
        }
        self.judge = Judge(seed, self.plan["writers"])
        self.ends = 0
        self.cuts = 0
        self.during_openings = 0
        self.workers = 0
        self.status = None  # that the last one's process ended with

    def run(self, ends, *, chains=True):
        """So many ends, the last one looked at."""
        while self.ends < ends:
            self._live()
            again = chains and self.plan["retain"] and self.rng.random() < 0.35
            if self.ends == ends or not again:
                self.look()

    def _live(self):
        self.ends += 1
        place = f"{self.place}, end {self.ends}"
        reports = os.path.join(self.notes, f"reports-{self.ends}")
        plan = {**self.plan, "reports": reports, "life": self.judge.next_life}
        self.nursery.begin({**plan, "first": self.judge.next})
        self._wait_for_the_moment(reports)
        assert not _error(reports), f"{place}: {_error(reports)}"
        cut = self.end(self._kill, lambda: child.Reports(reports).tell(child.DARK))
        self.cuts += cut
        told = read_reports(reports)
        assert self.status == -9, f"{place}: ended by itself: {_error(reports)}"
        self.during_openings += child.OPENED not in {what for what, _, _ in told}
        workers = self.judge.hear(told, cut=cut)
        self.workers += len(workers)
        wait_until_gone(workers)

    def _kill(self):
        self.status = self.nursery.kill()

    def _wait_for_the_moment(self, reports):
        """Any time from the fork on; mostly when it writes, often when it opens the store."""
        rng = self.rng
        if rng.random() < 0.4:
            time.sleep(rng.uniform(0.0, 0.012))
            return
        deadline = time.monotonic() + PATIENCE
        while not (os.path.exists(reports) and os.path.getsize(reports)):
            assert not _error(reports), f"{self.place}, end {self.ends}: {_error(reports)}"
            assert time.monotonic() < deadline, f"{self.place}: the store does not open"
            time.sleep(0.002)
        longest = 0.6 if self.plan["processes"] else 0.2
        time.sleep(rng.uniform(0.0, longest))

    def look(self):
        """Open the store, and hold it against what was told. It is free at once, and tidy."""
        place = f"{self.place}, after end {self.ends}"
        try:
            glimpse = self._look_beside() if self.ends % 4 == 0 else None
            with child.open_store(self.where, self.plan, processes=False) as db:
                self.judge.check(db, glimpse, feed=bool(self.plan["retain"]))
                if self.ends % 5 == 0:
                    report = db.verify()
                    assert report.ok, report
            self._check_is_tidy()
        except (AssertionError, kvstore.StoreError, OSError) as error:
            raise AssertionError(f"{place}: {error!r}") from error

    def _look_beside(self):
        """What a reader shows before anybody has recovered it, and up to which entry."""
        try:
            with child.open_store(self.where, self.plan, flag="r") as reader:
                return reader.last_entry_id, contents_of(reader)
        except kvstore.StoreNotFoundError:
            return None

    def _check_is_tidy(self):
        """Nothing is left of what was being built, nor of what was replaced."""
        manifest = read_manifest(StandardFileSystem(), self.where)
        names = os.listdir(os.path.join(self.where, "tables"))
        assert sorted(names) == sorted(record.name for record in manifest.tables)


def _just_kill(kill, _):
    kill()
    return False


def read_reports(path):
    """The records in a file of them; none if it was not even begun."""
    if not os.path.exists(path):
        return []
    with open(path, "rb") as file:
        data = file.read()
    return list(child.RECORD.iter_unpack(data))


def _error(reports):
    path = reports + ".error"
    if not os.path.exists(path):
        return ""
    with open(path, encoding="utf-8") as file:
        return file.read()
