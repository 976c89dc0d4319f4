"""The process that is killed: writers that tell what they are about to do, and what has returned.

It tells by records appended to a file outside the store, one call of the operating system each:
what such a call has taken outlives the process. An intention is told before the call that it is
about, an answer after that has returned. So what was told is never ahead of the store's promises,
and never behind its intentions.
"""

from __future__ import annotations

import logging
import os
import random
import struct
import sys
import threading
import time
import traceback

import kvstore
import kvstore.background.worker
import wal.files.standard
from tests.laboratory.kills.history import BIRTH, COUNTER, LARGE, step
from tests.store.support import BUFFER, SMALL

RECORD = struct.Struct("<cBQ")  # what, which writer, which number

BEGINS = b"B"  # a writer is about to do the step
DONE = b"A"  # and its call has returned
FAILED = b"F"  # or raised: the step is in doubt
REFUSED = b"R"  # or raised, without a latch: nothing was written
OPENED = b"O"  # with the id of the last entry
BORN = b"N"  # the id of the first entry that this opening wrote
SYNCING, SYNCED = b"S", b"Y"  # all that was done before the one is durable at the other
CLOSING, CLOSED = b"C", b"E"
DARK = b"P"  # told by whoever cuts the power, just before: no answer counts from here on
WORKER = b"W"  # a process was started, with this id


class Reports:
    """Records for whoever outlives this process; ``error`` keeps a traceback."""

    def __init__(self, path):
        self._path = path
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | _BINARY, 0o600)

    def tell(self, what, writer=0, number=0):
        os.write(self._file, RECORD.pack(what, writer, number))

    def __del__(self):
        os.close(self._file)

    def error(self):
        with open(self._path + ".error", "a", encoding="utf-8") as file:
            traceback.print_exc(file=file)


_BINARY = getattr(os, "O_BINARY", 0)


def open_store(path, plan, **options):
    """As all of a campaign open it: small files, so that a short life checkpoints and recycles."""
    return kvstore.open(
        path,
        memtable_bytes=SMALL,
        large_value_bytes=LARGE,
        cache_bytes=1 << 20,
        retain_bytes=plan["retain"],
        **options,
    )


def live(plan):
    """Open the store, write until the end comes; now and then close it and open it again."""
    reports = Reports(plan["reports"])
    try:
        _prepare(plan, reports)
        life = plan["life"]
        first = plan["first"]
        while True:
            first = _Opening(plan, reports, life, first).run()
            life += 1
    except BaseException:  # noqa: BLE001 - whoever judges reads of it
        reports.error()
        if plan["tolerant"]:
            time.sleep(60)  # what comes after the disk has gone is of no interest
        os._exit(3)


def _prepare(plan, reports):
    """Have even small jobs done by processes, tell of these, and spoil what is to be spoiled."""
    logging.disable(logging.CRITICAL)  # that writers had to wait is no news
    kvstore.background.worker.Worker.__init__.__kwdefaults__["least_bytes"] = 0
    spawn = kvstore.background.worker._spawn

    def told(niceness):
        process = spawn(niceness)
        reports.tell(WORKER, number=process.pid)
        return process

    kvstore.background.worker._spawn = told
    if plan["spoiled"] == "data":
        wal.files.standard.StandardFileSystem.sync_directory = lambda *_: None
        wal.files.descriptor.DescriptorFile.sync = lambda *_: None


class _Opening:
    """What happens between an opening and a close."""

    def __init__(self, plan, reports, life, first):
        self.plan, self.reports, self.life = plan, reports, life
        self.next = list(first)
        self.stopping = False
        self.failed = False

    def run(self):
        plan, reports = self.plan, self.reports
        rng = random.Random(plan["seed"] * 7919 + self.life)
        self.db = open_store(plan["path"], plan, processes=plan["processes"])
        reports.tell(OPENED, number=self.db.last_entry_id)
        self._do(BIRTH, self.life)
        writers = range(len(self.next))
        threads = [threading.Thread(target=self._write, args=(writer,)) for writer in writers]
        threads.append(threading.Thread(target=self._upkeep, args=(rng.random(),)))
        for thread in threads:
            thread.start()
        time.sleep(rng.uniform(0.02, 0.25) if rng.random() < plan["closes"] else 3600)
        self.stopping = True
        for thread in threads:
            thread.join()
        if self.failed:
            time.sleep(3600)
        reports.tell(CLOSING)
        self.db.close()
        reports.tell(CLOSED)
        return self.next

    def _write(self, writer):
        try:
            while not self.stopping and self._do(writer, self.next[writer]):
                self.next[writer] += 1
        except BaseException:  # noqa: BLE001 - whoever judges reads of it
            self._fail()

    def _do(self, writer, number):
        """One step, with what is to be told of it. False if no other one makes sense."""
        plan, reports = self.plan, self.reports
        done = step(plan["seed"], writer, number)
        durability = BUFFER if plan["spoiled"] == "durability" else done.durability
        reports.tell(BEGINS, writer, number)
        try:
            entry_id = carry_out(self.db, done, durability)
        except kvstore.StoreFailedError as error:
            if not plan["tolerant"]:
                raise
            self.reports.error()
            reports.tell(FAILED if error.latched else REFUSED, writer, number)
            self.failed = error.latched
            return not error.latched
        reports.tell(DONE, writer, number)
        if writer == BIRTH:
            reports.tell(BORN, number=entry_id)
        return True

    def _upkeep(self, seed):
        rng = random.Random(seed)
        works = (self._checkpoint, self._compact, self._sync, self._snapshot)
        try:
            while not self.stopping and not self.failed:
                time.sleep(rng.uniform(0.001, 0.03))
                rng.choice(works)()
        except BaseException:  # noqa: BLE001 - whoever judges reads of it
            self._fail()

    def _checkpoint(self):
        self.reports.tell(SYNCING)
        self.db.checkpoint()
        self.reports.tell(SYNCED)

    def _compact(self):
        self.reports.tell(SYNCING)
        self.db.compact()
        self.reports.tell(SYNCED)

    def _sync(self):
        self.reports.tell(SYNCING)
        self.db.sync()
        self.reports.tell(SYNCED)

    def _snapshot(self):
        with self.db.snapshot() as snapshot:
            before = list(snapshot.scan())
            assert list(snapshot.scan()) == before

    def _fail(self):
        """An error in a thread: the campaign fails of it, unless it was to be expected."""
        self.reports.error()
        if not self.plan["tolerant"]:
            os._exit(3)
        self.failed = True


def carry_out(db, done, durability):
    """Do a step by the call that it is named for. The entry's id, where the call tells it."""
    if done.kind == "transaction":
        ((_, key), value), *_ = done.mutations.items()

        def count(tx):
            tx.put(COUNTER[1], b"%d" % (int(tx.get(COUNTER[1], b"0")) + 1))
            tx.put(key, value)

        return db.transact(count, attempts=1_000_000, durability=durability)
    if done.kind == "batch":
        with db.batch(durability=durability) as batch:
            for (names, key), value in done.mutations.items():
                part = batch
                for name in names:
                    part = part.namespace(name)
                part.delete(key) if value is None else part.put(key, value)
        return batch.entry_id
    (((names, key), value),) = done.mutations.items()
    place = db
    for name in names:
        place = place.namespace(name)
    if value is None:
        return place.delete(key, durability=durability)
    return place.put(key, value, durability=durability)


def main():
    """A process of its own, where a plan cannot be forked to."""
    import json

    live(json.loads(sys.argv[1]))
