"""Bugs that were found in the log, each by the case that showed it."""

from __future__ import annotations

import contextlib
import errno
import os
import threading

import pytest

import wal
from tests.wal.support import PATIENCE, Gate, Recorder, Worker, until
from wal.files.faulty import FaultyFileSystem, PowerLoss
from wal.files.memory import MemoryFileSystem

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


class TestCleanMarkOfAnAbandonedSegment:
    """The clean mark stayed when the segment that it speaks of was abandoned.

    A fresh segment was begun all the same. A crash before the first checkpoint, which would have
    taken the mark away, made the next opening raise CorruptLogError: "it was left with entry ...".
    """

    def test_does_not_outlive_it(self):
        states = 0
        for number in range(1, 60):
            system = FaultyFileSystem()
            configuration = wal.Configuration(
                "log", system, preallocate_bytes=4096, flush_interval=3600
            )
            with configuration.open(Counting()) as log:
                log.append([b"1"])
            system.stop_at(len(system.calls) + number)
            with contextlib.suppress(PowerLoss, wal.WalError):
                configuration.open(wal.LogVoid()).shutdown()
            for state in system.crash_states(limit=10):
                manager = Counting()
                look(state, manager)
                assert manager.ids in ([], [1])
                states += 1
            if not system.lost_power:
                break
        assert states > 30


class TestWitnessBehindTheEvidence:
    """A witness was not written again by recovery, though entries are read through it.

    It was never synced, nor was the entry behind it: that sync failed, and the process was killed.
    Recovery took the witness for covered by the evidence, since all entries before it are. The
    entry behind it was shown, and lost with the witness by the next power loss.
    """

    def test_is_made_durable_with_what_is_read_through_it(self):
        system = FaultyFileSystem()
        configuration = wal.Configuration(
            "log", system, preallocate_bytes=4096, flush_interval=0.01
        )
        log = configuration.open(Counting())
        log.append([bytes(368)])  # so that the witness begins in one sector and ends in another
        written = log.stats().bytes_written
        until(lambda: log.stats().bytes_written > written)  # the witness
        system.fail(errno.EIO, kinds="sync")
        with pytest.raises(wal.LogFailedError):
            log.append([b"2"])
        killed = system.killed()
        with contextlib.suppress(wal.LogFailedError):
            log.shutdown()
        manager = Counting()
        configuration = wal.Configuration(
            "log", killed, preallocate_bytes=4096, flush_interval=3600
        )
        log = configuration.open(manager)
        assert manager.ids == [1, 2]
        for state in killed.crash_states():
            manager = Counting()
            look(state, manager)
            assert manager.ids == [1, 2], state.label
        end(log)


class TestDraftOfTheMarker:
    """A draft of the marker of which the sync had failed was completed, not written again.

    Its zeros, which that sync should have made durable, were taken for there. Nothing came of it:
    what is missing there reads as zeros, or makes a slot doubtful, at worst.
    """

    def test_is_written_again_in_full(self):
        system = FaultyFileSystem()
        configuration = wal.Configuration("log", system, preallocate_bytes=4096)
        system.fail(errno.EIO, kinds="sync", path="CHECKPOINT-new")
        with pytest.raises(OSError, match="Input/output"):
            configuration.open(wal.LogVoid())
        written = []
        system.on_call = lambda kind, path, number: written.append((kind, os.path.basename(path)))
        configuration.open(wal.LogVoid()).shutdown()
        draft = [kind for kind, name in written if name == "CHECKPOINT-new"]
        assert draft[:3] == ["exists", "remove", "create"]
        assert draft[3:6] == ["allocate", "write_at", "sync"]


class TestReaderGoesBack:
    """A log opened read-only showed less after a rotation than before, until the next marker.

    That an entry was durable stood only in the witness behind it. Reading a segment that has a
    successor ended with its last entry, before the witness; the successor, whose header proves that
    all before it is durable, was no evidence.
    """

    class Slow(wal.LogManager):
        def __init__(self):
            self.begun, self.may_end = threading.Event(), threading.Event()

        def recover(self, entry):
            raise AssertionError

        def checkpoint_to(self, last_id, entries, log):
            self.begun.set()
            assert self.may_end.wait(PATIENCE)

    def test_what_was_shown_stays(self):
        system, manager = FaultyFileSystem(), self.Slow()
        configuration = wal.Configuration("log", system, preallocate_bytes=4096)
        reading = wal.Configuration("log", system, read_only=True)
        with configuration.open(manager) as log:
            log.append([b"1"])
            until(lambda: shown(reading) == [1])  # the witness is there
            log.checkpoint_active()
            assert manager.begun.wait(PATIENCE)
            assert shown(reading) == [1]
            manager.may_end.set()


def shown(configuration):
    manager = Recorder()
    with configuration.open(manager):
        return [entry_id for entry_id, _ in manager.recovered]


class Counting(wal.LogManager):
    """Knows which entries it was shown. They stay in the log."""

    def __init__(self):
        self.ids = []

    def recover(self, entry):
        self.ids.append(entry.id)

    def checkpoint_to(self, last_id, entries, log):
        raise OSError(errno.EAGAIN, "not now")


def look(files, manager):
    """Open a log and close it again."""
    end(wal.Configuration("log", files, preallocate_bytes=4096).open(manager))


def end(log):
    """Close a log of which the checkpoint may have failed."""
    with contextlib.suppress(wal.CheckpointError):
        log.shutdown()


def test_the_header_of_a_torn_frame_bears_witness_to_a_reader():
    """It was looked for behind the place where the torn frame begins, not at that place.

    So a reader did not show the entry before the torn one, which had been acknowledged.
    """
    system = MemoryFileSystem()
    configuration = wal.Configuration("log", system, flush_interval=3600)
    log = configuration.open(Recorder())
    for number in range(3):
        log.append([b"%d" % number * 50])
    left = system.contents()
    log.shutdown()
    (path,) = (path for path in left if "wal-" in path)
    at = left[path].index(b"2" * 50)
    left[path] = left[path][:at] + bytes(50) + left[path][at + 50 :]
    reader = Recorder()
    wal.Configuration("log", MemoryFileSystem(left), read_only=True).open(reader).shutdown()
    assert [entry_id for entry_id, _ in reader.recovered] == [1, 2]


@pytest.mark.parametrize("retain_bytes", [0, 1 << 20])
def test_a_rename_that_is_done_and_told_to_have_failed(retain_bytes, monkeypatch):
    """The segment was looked for under its old name from then on: no checkpoint ever succeeded.

    Writers were told so once enough segments waited, until the log was opened anew.
    """
    monkeypatch.setattr("wal.checkpointer.FIRST_PAUSE", 0.001)
    system = FaultyFileSystem()
    manager = Recorder()
    configuration = wal.Configuration(
        "log", system, preallocate_bytes=4096, flush_interval=3600, retain_bytes=retain_bytes
    )
    log = configuration.open(manager)
    log.append([b"1"])
    fault = system.fail(errno.EIO, kinds="rename", path=_is_left, after=True)
    with contextlib.suppress(wal.CheckpointError):
        log.checkpoint_active(wait=True)
    until(lambda: fault.hits and log.stats().segments_sealed == 0)
    log.append([b"2"])
    log.checkpoint_active(wait=True)
    assert [entry_id for entry_id, _ in manager.checkpointed] == [1, 2]
    assert [entry.id for entry in log.entries()] == ([1, 2] if retain_bytes else [])
    log.shutdown()
    assert system.exists(f"log/kept-{1:020d}-{1:020d}") == bool(retain_bytes)


def _is_left(path):
    return os.path.basename(path).startswith("wal-")


def test_an_error_at_a_kept_segments_end_that_is_over(monkeypatch):
    """It was kept although the next attempt succeeded, unless a checkpoint came after it.

    So the shutdown raised it, of a log with which nothing was wrong any more.
    """
    monkeypatch.setattr("wal.checkpointer.FIRST_PAUSE", 0.001)
    system = FaultyFileSystem()
    configuration = wal.Configuration(
        "log", system, preallocate_bytes=4096, flush_interval=3600, retain_seconds=0.1
    )
    log = configuration.open(Recorder())
    fault = system.fail(errno.EIO, kinds=("rename", "remove"), path="kept-*")
    log.append([b"1"])
    log.checkpoint_active(wait=True)
    until(lambda: fault.hits and not any("kept-" in name for name in system.list("log")))
    until(lambda: log._checkpointer.error is None)
    log.shutdown()
