"""Bugs that were found in the log, each by the case that showed it."""

from __future__ import annotations

import threading

import wal
from tests.wal.support import PATIENCE, Gate, Worker
from wal.files.faulty import FaultyFileSystem


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
