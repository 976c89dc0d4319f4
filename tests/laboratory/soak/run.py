"""A soak: a random workload against models for a given time, and all measured each second.

Two owners of keys, two tellers with transactions that conflict, one who fills and clears
namespaces, an event loop with tasks, a follower of the change feed, one who backs up and one who
tidies work on one store at once, while another process reads it. The run is a row of *sittings*: at
the end of each all stop, everything is compared, and the store is closed and opened again. The set
of keys is steady, so what grows is a leak.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter

import kvstore
from tests.laboratory.soak import samples
from tests.laboratory.soak.actors import ACCOUNT, ACCOUNTS, EACH, Owner, Settler, Teller, difference
from tests.laboratory.soak.tasks import Tasks
from tests.laboratory.soak.upkeep import Follower, Keeper, Tidier, everything

OPTIONS = {"memtable_bytes": 8 << 20, "cache_bytes": 4 << 20, "retain_bytes": 4 << 20}
PATIENCE = 120.0
_ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), *[os.pardir] * 3))


class Soak:
    """One run in a directory of its own."""

    def __init__(self, directory, seed, *, sitting=20.0, keys=12000, segment=1 << 20, most=4):
        """Sittings of so many seconds, owners of so many keys; ``most`` snapshots each."""
        self.seed = seed
        self.store = os.path.join(directory, "store")
        self.backup = os.path.join(directory, "backup")
        self.stopping = threading.Event()
        self.failures = []
        self.samples = []
        self.rests = []
        self.sittings = 0
        self._sitting = sitting
        self._options = OPTIONS | {"log_segment_bytes": segment}
        self._begun = time.monotonic()
        self.follower = Follower(self, "follower")
        self.owners = [Owner(self, f"owner{n}", keys) for n in range(2)]
        for owner in self.owners:
            owner.most_kept = most
        self.actors = [
            *self.owners,
            *(Teller(self, f"teller{n}") for n in range(2)),
            Settler(self, "settler"),
            Tasks(self, "tasks"),
            Keeper(self, "keeper"),
            Tidier(self, "tidier"),
        ]

    def fail(self, who, why):
        """Somebody has found something wrong: the run ends."""
        self.failures.append(f"{who}, sitting {self.sittings}:\n{why}")
        self.stopping.set()

    # -- the run -----------------------------------------------------------------------------------

    def run(self, seconds):
        """Work for so long; raises AssertionError for whatever was wrong."""
        until = time.monotonic() + seconds
        with kvstore.open(self.store, **self._options) as db:
            db.write({ACCOUNT + b"%02d" % n: b"%d" % EACH for n in range(ACCOUNTS)})
        with Reader(self) as reader:
            while not self.failures and (time.monotonic() < until or self.sittings < 2):
                self._sit(reader, min(self._sitting, max(0.5, until - time.monotonic())))
                self.rests.append(samples.at_rest())
        found = self.failures + samples.complaints(self.samples, self.rests)
        if found:
            raise AssertionError(f"seed {self.seed}: " + "\n".join(found))

    def _sit(self, reader, seconds):
        self.sittings += 1
        self.stopping.clear()
        with kvstore.open(self.store, **self._options) as db:
            workers = [self._start(actor, db) for actor in self.actors]
            following = self._start(self.follower, db)
            until = time.monotonic() + seconds
            while time.monotonic() < until and not self.stopping.is_set():
                self._sample(db, reader)
                self.stopping.wait(max(0.0, min(1.0, until - time.monotonic())))
            self.stopping.set()
            for worker in workers:
                worker.join(PATIENCE)
                if worker.is_alive():
                    raise AssertionError(f"seed {self.seed}: {worker.name} hangs")
            self._compare(db, following)

    def _start(self, actor, db):
        thread = threading.Thread(target=actor.run, args=(db,), name=actor.name, daemon=True)
        thread.start()
        return thread

    def _compare(self, db, following):
        """Nobody writes: the replica of the change feed must be the store."""
        db.sync()
        until = time.monotonic() + PATIENCE
        while not self.failures and not self.follower.caught_up(db):
            if time.monotonic() > until:
                self.fail("follower", f"at {self.follower.at} instead of {db.last_entry_id}")
            time.sleep(0.02)
        self.follower.stop()
        following.join(PATIENCE)
        found = everything(db)
        if not self.failures and self.follower.replica != found:
            self.fail("follower", difference(self.follower.replica, found))

    # -- what is measured --------------------------------------------------------------------------

    def _sample(self, db, reader):
        sample = {"time": round(time.monotonic() - self._begun, 2), "sitting": self.sittings}
        sample |= samples.own_resources() | samples.store_resources(db)
        sample |= {f"reader {name}": value for name, value in reader.latest.items()}
        sample["store bytes"] = samples.bytes_under(self.store)
        sample["backup bytes"] = samples.bytes_under(self.backup)
        sample["live bytes"] = self.follower.bytes
        sample["steps"] = sum(actor.counts["steps"] for actor in self.actors)
        self.samples.append(sample)

    def counts(self):
        """What all have done."""
        found = Counter(sittings=self.sittings)
        for actor in [*self.actors, self.follower]:
            found.update(actor.counts)
        return dict(found)

    def summary(self):
        """Counts, and how each bounded series began and ended."""
        long = len(self.samples) >= 10
        return {
            "seed": self.seed,
            "seconds": round(self.samples[-1]["time"]),
            "counts": self.counts(),
            "medians of the second and the last fifth": {
                name: samples.medians(self.samples, name)
                for name in [*samples.BOUNDED, "live bytes"]
                if long and sum(name in sample for sample in self.samples) >= 10
            },
            "after each closing": self.rests,
        }


class Reader:
    """The process that reads beside the writer."""

    def __init__(self, soak):
        self.latest = {}
        self._soak = soak
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.laboratory.soak.reader", soak.store],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=_ROOT,
        )
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self):
        for line in self._process.stdout:
            told = json.loads(line)
            if "failure" in told:
                self._soak.fail("the reading process", told["failure"])
            else:
                self.latest = told

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.stdin.close()
        self._process.wait(PATIENCE)
        self._thread.join(PATIENCE)
        self._process.stdout.close()
        if self._process.returncode:
            self._soak.fail("the reading process", f"ended with {self._process.returncode}")
