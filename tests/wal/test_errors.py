"""The errors as values: they can be pickled, tell what they say, and keep nothing alive."""

from __future__ import annotations

import errno
import gc
import logging
import os
import pickle  # noqa: TID251 - the errors are ours
import threading
import weakref

import pytest

import wal
from wal.files.faulty import FaultyFileSystem

FULL = OSError(errno.ENOSPC, "No space left on device")

ERRORS = [
    wal.WalError("something"),
    wal.LogLockedError("log/LOCK", 7),
    wal.LogNotFoundError("log"),
    wal.LogClosedError("the log was shut down"),
    wal.LogFailedError("failed", errno.EIO),
    wal.ReadOnlyLogError("read-only"),
    wal.EntryStateError("ended"),
    wal.SegmentAllocationError("log/free-0", FULL),
    wal.CheckpointError("failed"),
    wal.CallbackError(7),
    wal.CorruptLogError("log/wal-1", 42, "torn"),
    wal.FormatVersionError("log/wal-1", 2, 1),
    wal.PositionNotFoundError("gone"),
    wal.ChunkLengthError(5, 3),
]


def test_every_error_is_here():
    kinds = {value for value in vars(wal).values() if isinstance(value, type)}
    errors = {kind for kind in kinds if issubclass(kind, wal.WalError)}
    assert errors == {type(error) for error in ERRORS}


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_errors_cross_processes(error):
    """An error whose class takes other arguments than its text could not be unpickled."""
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert vars(copy) == vars(error)
    if isinstance(error, OSError):
        assert copy.errno == error.errno


def test_the_holder_of_the_lock_may_be_this_process():
    assert f"this process ({os.getpid()})" in str(wal.LogLockedError("LOCK", os.getpid()))


def test_a_missing_log_is_told_as_a_missing_file(tmp_path):
    with pytest.raises(wal.LogNotFoundError) as caught:
        wal.Configuration(tmp_path / "none", read_only=True).open(wal.LogVoid())
    assert isinstance(caught.value, FileNotFoundError)


def test_a_ticket_on_its_way_has_no_result():
    """``result`` told the id of an entry that was not durable."""
    held = threading.Event()
    files = FaultyFileSystem()
    files.on_call = lambda kind, path, number: held.wait(10) if kind == "sync" else None
    held.set()
    log = wal.Configuration("log", file_system=files).open(wal.LogVoid())
    held.clear()
    ticket = log.submit([b"x"])
    with pytest.raises(wal.EntryStateError):
        ticket.result()
    held.set()
    assert ticket.wait(10) == ticket.result() == 1
    log.shutdown()


@pytest.mark.parametrize("missing", ["recover", "checkpoint_to"])
def test_a_manager_must_have_its_two_methods(missing):
    class Manager(wal.LogManager):
        def recover(self, entry):
            pass

        def checkpoint_to(self, last_id, entries, log):
            pass

    delattr(Manager, missing)
    configuration = wal.Configuration("log", file_system=wal.files.MemoryFileSystem())
    with pytest.raises(TypeError, match=missing):
        configuration.open(Manager())


@pytest.mark.parametrize("failing", ["sync", "checkpoint_to"])
def test_a_failed_log_goes_away_when_it_is_dropped(failing, request):
    """The failure that was kept had a traceback, whose frames kept the log, and its lock, alive."""
    logging.disable(logging.CRITICAL)  # what captures the records would keep the traceback
    request.addfinalizer(lambda: logging.disable(logging.NOTSET))

    class Manager(wal.LogManager):
        def recover(self, entry):
            pass

        def checkpoint_to(self, last_id, entries, log):
            raise ValueError("not now")

    files = FaultyFileSystem()
    log = wal.Configuration("log", file_system=files).open(Manager())
    log.append([b"x"])
    if failing == "sync":
        files.fail(errno.EIO, kinds=["sync"])
        with pytest.raises(wal.LogFailedError):
            log.append([b"y"])
    else:
        with pytest.raises(wal.CheckpointError, match="not now"):
            log.checkpoint_active(wait=True)
    gone = weakref.ref(log)
    del log
    gc.collect()
    for _ in range(1000):
        if gone() is None:
            break
        threading.Event().wait(0.01)
    assert gone() is None
    files.heal()
    wal.Configuration("log", file_system=files, lock_timeout=10).open(wal.LogVoid()).shutdown()
