"""What must not shake a log: interrupts, failing log handlers, a change of directory."""

from __future__ import annotations

import logging
import threading

import pytest

import wal
from wal.files import MemoryFileSystem
from wal.segments.writer import SegmentWriter


class Keeper(wal.LogManager):
    def __init__(self):
        self.entries = []
        self.failing = 0

    def recover(self, entry):
        self.entries.append((entry.id, entry.read_all()))

    def checkpoint_to(self, last_id, entries, log):
        if self.failing:
            self.failing -= 1
            raise OSError(28, "no space")


def test_an_interrupt_between_bytes_and_offset_latches(monkeypatch):
    """Bytes were added, the offset had not moved: later commits were lost, though acknowledged."""
    files = MemoryFileSystem()
    configuration = wal.Configuration("log", file_system=files)
    log = configuration.open(Keeper())
    log.append([b"before"])

    def interrupted(self, *buffers):
        self._buffers += buffers
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(SegmentWriter, "add", interrupted)
        with pytest.raises(KeyboardInterrupt), log.begin_entry() as entry:
            entry.write_chunk(b"x")
    with pytest.raises(wal.LogFailedError):
        log.append([b"after"])
    with pytest.raises(wal.LogFailedError):
        log.shutdown()
    with configuration.open(manager := Keeper()):
        assert manager.entries == [(1, [b"before"])]


@pytest.mark.parametrize("step", ["_roll_back", "_leave"])
def test_an_interrupt_while_an_entry_ends_lets_others_go_on(step, monkeypatch):
    """The turn of an entry was kept for ever: every writer, and the shutdown, waited."""
    log = wal.Configuration("log", file_system=MemoryFileSystem()).open(Keeper())
    entry = log.begin_entry()
    entry.write_chunk(b"x")
    original = getattr(type(entry), step)
    calls = []

    def interrupted(self):
        calls.append(step)
        if len(calls) == 1:
            raise KeyboardInterrupt
        original(self)

    with monkeypatch.context() as patched:
        patched.setattr(type(entry), step, interrupted)
        with pytest.raises(KeyboardInterrupt):
            entry.rollback()
    done = []
    thread = threading.Thread(target=lambda: done.append(log.append([b"y"])), daemon=True)
    thread.start()
    thread.join(10)
    assert done == [2]
    log.shutdown()


class Failing(logging.Handler):
    def emit(self, record):
        raise RuntimeError("the handler failed")


@pytest.fixture
def failing_handler():
    logger, handler = logging.getLogger("wal"), Failing()
    logger.addHandler(handler)
    logger.propagate = False
    yield
    logger.propagate = True
    logger.removeHandler(handler)


@pytest.mark.usefixtures("failing_handler")
def test_a_log_handler_that_fails_ends_no_thread_and_latches_nothing():
    """It ended the checkpointer's thread, and latched the log from a done callback."""
    manager = Keeper()
    manager.failing = 1
    log = wal.Configuration("log", file_system=MemoryFileSystem()).open(manager)
    log.append([b"x"])
    with pytest.raises(wal.CheckpointError):
        log.checkpoint_active(wait=True)
    ticket = log.submit([b"y"])
    ticket.add_done_callback(lambda ticket: 1 / 0)
    ticket.wait(10)
    log.append([b"z"])
    log.checkpoint_active(wait=True)
    log.shutdown()


def test_a_very_long_flush_interval_is_as_good_as_never():
    """The flusher's wait overflowed and ended its thread: submitted tickets were never done."""
    configuration = wal.Configuration("log", file_system=MemoryFileSystem(), flush_interval=1e12)
    log = configuration.open(Keeper())
    log.append([b"x"], durability=wal.Durability.BUFFER)
    assert log.submit([b"y"]).wait(timeout=1e12) == 2
    log.shutdown(timeout=1e12)


def test_a_log_stays_where_it_was_opened(tmp_path, monkeypatch):
    """After a change of directory a relative log wrote its segments over those of another one."""
    logs = {}
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        logs[name] = wal.Configuration("log", preallocate_bytes=8192).open(Keeper())
        logs[name].append([name.encode()])
    for _ in range(4):
        for log in logs.values():
            log.append([b"x" * 3000])
            log.checkpoint_active()
    for name, log in logs.items():
        log.append([name.encode()])
        log.shutdown()
    for name in logs:
        with wal.Configuration(tmp_path / name / "log").open(manager := Keeper()):
            assert manager.entries[-1][1] == [name.encode()]


def test_the_manager_is_told_of_the_end():
    class Ending(Keeper):
        ended = 0

        def closed(self):
            self.ended += 1

    log = wal.Configuration("log", file_system=MemoryFileSystem()).open(manager := Ending())
    log.shutdown()
    log.shutdown()
    assert manager.ended == 1
