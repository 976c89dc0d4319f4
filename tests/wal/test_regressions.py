"""Bugs that were found in the log, each by the case that showed it."""

from __future__ import annotations

import threading

import wal
from tests.wal.support import PATIENCE, Gate, Worker, until
from wal.files.faulty import FaultyFileSystem

KEPT = "kept-%020d"


class TestAcceptedBeforeCommitted:
    """A buffered commit behind one in flight could be completed before it was accepted.

    The leader found it among those in flight while its ``accepted`` was still being called. What
    the owner noted there was never taken back: the store's ``add``, ``replace``, ``pop`` and
    transactions then decided on a value that had long been replaced.
    """

    class Owner(wal.LogManager):
        def __init__(self):
            self.told = []
            self.first_is_complete = threading.Event()
            self.second_is_complete = threading.Event()
            self.meanwhile = lambda: None

        def recover(self, entry):
            raise AssertionError

        def checkpoint_to(self, last_id, entries, log):
            pass

        def accepted(self, entry_id, segment_id, chunks):
            if entry_id == 2:
                self.meanwhile()
                assert self.first_is_complete.wait(PATIENCE)
                self.second_is_complete.wait(0.1)  # it must not be, however long one waits
            self.told.append(("accepted", entry_id))

        def committed(self, entry_id, segment_id, chunks):
            self.told.append(("committed", entry_id))
            (self.first_is_complete if entry_id == 1 else self.second_is_complete).set()

    def test_in_that_order(self):
        system, owner = FaultyFileSystem(), self.Owner()
        configuration = wal.Configuration("log", file_system=system, flush_interval=3600)
        with configuration.open(owner) as log:
            gate = Gate(system, "sync", "wal-")
            owner.meanwhile = gate.open
            first = Worker(log.append, [b"first"])
            gate.arrival()
            log.append([b"second"], durability=wal.Durability.BUFFER)
            first.join()
        assert owner.told == [
            ("accepted", 1),
            ("committed", 1),
            ("accepted", 2),
            ("committed", 2),
        ]


class TestGapBesideTheWriter:
    """A log opened read-only warned of a gap among kept segments, three times at each opening.

    The gap is the writer's doing: somebody reads an old segment, so that its file stays, while a
    newer one is kept no longer and its file is gone. Nothing is dropped by who reads beside it.
    """

    def test_is_not_told(self, place, caplog):
        log = place.open(retain_bytes=1)
        log.append([b"1"])
        log.checkpoint_active(wait=True)
        reading = log.entries()
        next(reading)
        for number in (2, 3):
            log.append([b"%d" % number])
            log.checkpoint_active(wait=True)
        until(lambda: [name[:25] for name in place.names("kept-")] == [KEPT % 1, KEPT % 3])
        beside = place.open(read_only=True)
        assert [entry.read_all() for entry in beside.entries()] == [[b"3"]]
        assert not caplog.records
