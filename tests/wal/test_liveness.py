"""What once made a log hang, or call itself damaged, with nothing wrong on the disk."""

from __future__ import annotations

import gc
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator

import pytest

import wal
from wal.files import MemoryFileSystem
from wal.files.faulty import FaultyFileSystem
from wal.leadership import Leadership, pass_on
from wal.segments.format import SegmentHeader
from wal.segments.lifecycle import Segment
from wal.segments.pool import SparePool
from wal.segments.reader import FrameSource
from wal.tickets import Ticket

PATIENCE = 20.0


class Keeper(wal.LogManager):
    def __init__(self) -> None:
        self.recovered: list[int] = []
        self.checkpointed: list[int] = []

    def recover(self, entry: wal.Entry) -> None:
        self.recovered.append(entry.id)

    def checkpoint_to(
        self, last_id: wal.EntryId, entries: wal.SegmentReader, log: wal.WriteAheadLog
    ) -> None:
        self.checkpointed += [entry.id for entry in entries]


def open_log(
    files: MemoryFileSystem, manager: wal.LogManager | None = None, flush_interval: float = 0.005
) -> wal.WriteAheadLog:
    configuration = wal.Configuration(
        "d", file_system=files, preallocate_bytes=1 << 20, flush_interval=flush_interval
    )
    return configuration.open(manager or Keeper())


def in_time(work: Callable[[], object]) -> None:
    """Run it on a thread of its own, and fail where it hangs."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001  (handed to the test)
            raised.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    assert not thread.is_alive(), "it hangs"
    if raised:
        raise raised[0]


def test_the_flusher_syncs_while_tickets_are_left_to_it() -> None:
    """It claimed the leadership in its own name while it was still to take it up for tickets."""
    log = open_log(MemoryFileSystem())

    def work() -> None:
        end = time.monotonic() + 0.5
        while time.monotonic() < end:
            ticket = log.submit([b"x"])
        ticket.wait(PATIENCE)
        log.shutdown()

    in_time(work)


def witnessed(log: wal.WriteAheadLog) -> None:
    """Wait until the idle log has borne witness."""
    written = log.stats().bytes_written
    deadline = time.monotonic() + PATIENCE
    while log.stats().bytes_written == written:
        assert time.monotonic() < deadline
        time.sleep(0.001)


def rolled_back_then_idle(files: MemoryFileSystem, manager: Keeper) -> wal.WriteAheadLog:
    """Four entries, an id that was given out in vain, and a witness behind it."""
    log = open_log(files, manager, flush_interval=0.1)
    for _ in range(4):
        log.append([b"x"])
    log.begin_entry().rollback()
    witnessed(log)
    return log


def test_a_witness_after_a_rollback_does_not_spoil_the_checkpoint() -> None:
    """It bore the next id, and so counted what was rolled back as committed."""
    manager = Keeper()
    log = rolled_back_then_idle(MemoryFileSystem(), manager)
    log.checkpoint_active(wait=True)
    assert manager.checkpointed == [1, 2, 3, 4]
    log.shutdown()


def test_a_witness_after_a_rollback_agrees_with_the_clean_mark() -> None:
    files = MemoryFileSystem()
    rolled_back_then_idle(files, Keeper()).shutdown()
    manager = Keeper()
    open_log(files, manager).shutdown()
    assert manager.recovered == [1, 2, 3, 4]


def test_entries_go_on_behind_a_witness_after_a_rollback() -> None:
    files = MemoryFileSystem()
    log = rolled_back_then_idle(files, Keeper())
    killed = files.copy()
    log.shutdown()

    class Postponing(Keeper):
        def checkpoint_to(
            self, last_id: wal.EntryId, entries: wal.SegmentReader, log: wal.WriteAheadLog
        ) -> None:
            raise RuntimeError("not now")

    reopened = open_log(killed, Postponing())
    new = reopened.append([b"y"])
    assert [entry.id for entry in reopened.entries()] == [1, 2, 3, 4, new]
    with pytest.raises(wal.CheckpointError):
        reopened.shutdown()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_entry_dropped_where_warnings_are_errors_is_rolled_back() -> None:
    log = open_log(MemoryFileSystem())

    def drop() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            log.begin_entry()
            gc.collect()

    in_time(drop)
    in_time(lambda: log.append([b"x"]))
    log.shutdown()


def test_a_done_callback_that_commits_is_refused() -> None:
    """It runs on the leader's thread and would wait for itself."""
    log = open_log(MemoryFileSystem())
    refused: list[Exception] = []
    asked = threading.Event()
    proceed = threading.Event()

    def commit(ticket: wal.Ticket) -> None:
        try:
            log.append([b"y"])
        except wal.EntryStateError as error:
            refused.append(error)
        asked.set()

    ticket = log.submit([b"x"], on_commit=lambda *_: proceed.wait(PATIENCE))
    ticket.add_done_callback(commit)
    proceed.set()
    assert asked.wait(PATIENCE)
    assert len(refused) == 1
    in_time(lambda: log.append([b"z"]))
    log.shutdown()


def test_a_waiter_that_is_awake_when_it_is_finished_wakes_its_successor() -> None:
    """It saw that it was done before the leader had said whom it was to wake."""
    in_flight: deque[Ticket] = deque()
    leadership = Leadership(in_flight, lambda: None)
    leader, awake, asleep = (
        Ticket(None, wal.EntryId(number), 1, 2, None, None)  # type: ignore[arg-type]
        for number in (1, 2, 3)
    )
    assert leadership.enlist(leader)
    assert not leadership.enlist(awake)
    assert not leadership.enlist(asleep)

    class Served(deque[Ticket]):
        def __iter__(self) -> Iterator[Ticket]:
            for ticket in super().__iter__():
                yield ticket
                if ticket is awake and awake.finished:
                    pass_on(awake)  # its thread leaves wait()

    leadership.finish(Served([awake, asleep]))
    pass_on(awake)
    assert asleep.lock is not None
    assert asleep.lock.acquire(timeout=0)


def test_a_checkpoint_that_opens_an_entry_does_not_stop_the_shutdown() -> None:
    """It waited for its turn, which the shutdown kept until the checkpoint was made."""
    started, proceed = threading.Event(), threading.Event()

    class Writing(Keeper):
        def checkpoint_to(
            self, last_id: wal.EntryId, entries: wal.SegmentReader, log: wal.WriteAheadLog
        ) -> None:
            started.set()
            assert proceed.wait(PATIENCE)
            with log.begin_entry() as entry:
                entry.write_chunk(b"y")

    log = open_log(MemoryFileSystem(), Writing())
    log.append([b"x"])
    log.checkpoint_active()
    assert started.wait(PATIENCE)
    releaser = threading.Timer(0.1, proceed.set)
    releaser.start()
    with pytest.raises(wal.CheckpointError):
        in_time(log.shutdown)
    releaser.join()


def test_a_file_that_could_not_be_removed_is_removed_later() -> None:
    """It was closed by then, and asked for its length when a spare had been taken meanwhile."""
    system = FaultyFileSystem()
    system.make_directory("d")
    pool = SparePool(system, "d", 4096, keep=1)
    pool.ensure()
    file = system.create("d/wal-1")
    file.allocate(4096)
    segment = Segment(SegmentHeader(1, 0, 10, 4096), "d/wal-1", file)
    system.fail(kinds="remove")
    with pytest.raises(OSError, match="d/wal-1"):
        pool.recycle(segment)
    assert pool.take(0) is not None
    pool.recycle(segment)
    assert not system.exists("d/wal-1")
    pool.close()


def test_who_waits_for_a_checkpoint_is_told_of_the_next_failure() -> None:
    """Failures were counted anew after a success, so that as many as before had to follow."""
    broken = {"first", "second"}
    failures = threading.Semaphore(0)

    class Failing(Keeper):
        def checkpoint_to(
            self, last_id: wal.EntryId, entries: wal.SegmentReader, log: wal.WriteAheadLog
        ) -> None:
            if ("first" if last_id == 1 else "second") in broken:
                failures.release()
                raise RuntimeError("not now")

    log = open_log(MemoryFileSystem(), Failing())
    for _ in range(2):
        log.append([b"x"])
        log.checkpoint_active()
    for _ in range(4):
        assert failures.acquire(timeout=PATIENCE)
    broken.discard("first")
    with pytest.raises(wal.CheckpointError):
        in_time(lambda: log.checkpoint_active(wait=True))
    assert failures.acquire(timeout=PATIENCE)
    assert not failures.acquire(blocking=False)
    broken.clear()
    log.shutdown()


def test_a_reader_does_not_take_what_a_writer_adds_for_damage() -> None:
    """Frames that were added between its reading and its search for evidence looked unreadable."""
    files = MemoryFileSystem()
    log = open_log(files, flush_interval=3600)
    log.append([b"first"])
    find = FrameSource.evidence

    def add_meanwhile(source: FrameSource, start: int, stop: int) -> int:
        for _ in range(3):
            log.append([b"more"])
        return find(source, start, stop)

    manager = Keeper()
    configuration = wal.Configuration("d", file_system=files, read_only=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FrameSource, "evidence", add_meanwhile)
        configuration.open(manager).shutdown()
    assert manager.recovered in ([1, 2, 3], [1, 2, 3, 4])
    log.shutdown()
