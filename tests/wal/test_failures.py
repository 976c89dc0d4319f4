"""The nth call of each kind fails: who waits is told, nobody hangs, nothing promised is lost."""

from __future__ import annotations

import contextlib
import errno
import itertools
import threading
import time

import pytest

import wal
from tests.campaigns import seed
from tests.wal.promises import (
    BUFFER,
    WRITE,
    Caller,
    Keeper,
    Known,
    end,
    examine,
    look_beside,
)
from tests.wal.support import until
from tests.wal.writers import PATIENCE, Writers, finish_in_time, found_in, write_from_many
from wal.files.faults import KINDS
from wal.files.faulty import FaultyFileSystem, PowerLoss
from wal.files.memory import MemoryFileSystem

pytestmark = pytest.mark.usefixtures("no_power_no_noise")

#: How a call may fail: its errno, and what it did before.
WAYS = {
    "EIO": {"error": errno.EIO},
    "ENOSPC": {"error": errno.ENOSPC},
    "EIO in the middle": {"error": errno.EIO, "written": 100},
    "EIO afterwards": {"error": errno.EIO, "after": True},
}
FAILING = [
    "write_at",
    "sync",
    "rename",
    "sync_directory",
    "allocate",
    "create",
    "remove",
    "truncate",
    "read_at",
]


class Watched(MemoryFileSystem):
    """Remembers what was opened."""

    def __init__(self, *args):
        super().__init__(*args)
        self.opened = []

    def open(self, path, *, writable=True):
        self.opened.append(super().open(path, writable=writable))
        return self.opened[-1]

    def create(self, path):
        self.opened.append(super().create(path))
        return self.opened[-1]

    def left_open(self):
        return [file._path for file in self.opened if not is_closed(file)]


def is_closed(file):
    try:
        file.size()
    except ValueError:
        return True
    return False


STEPS = [
    lambda caller: caller.append(100),
    lambda caller: caller.append(40, 0, 700),
    lambda caller: caller.stream(300, 200, 90),
    lambda caller: caller.append(10, durability=WRITE),
    lambda caller: caller.append(20, durability=BUFFER),
    lambda caller: caller.append(1500),
    lambda caller: caller.checkpoint(),
    lambda caller: caller.append(1600),
    lambda caller: caller.append(1601, durability=WRITE),
    lambda caller: caller.append(1602),
    lambda caller: caller.roll_back(3000, 2500),
    lambda caller: caller.stream(2500, 1500, 2001),
    lambda caller: caller.append(50),
    lambda caller: caller.wait_for([caller.submit(200) for _ in range(3)]),
    lambda caller: caller.checkpoint(),
    lambda caller: caller.append(51),
    lambda caller: caller.append(52),
]


def struck(way, **more):
    """For each n a system whose nth call of a kind fails; ends with the first that none strikes."""
    for number in itertools.count(first_of(more["kinds"])):
        system = FaultyFileSystem(Watched())
        fault = system.fail(nth=number, **WAYS[way], **more)
        yield number, system, fault
        if not fault.hits:
            assert number > 1, "there is no such call"
            return


def first_of(kind):
    """The first call to fail: nothing makes up for a failed sync of the log's parent directory."""
    return 2 if kind == "sync_directory" else 1


def play(caller):
    """Every step that can be taken; the latch, if one of them met it."""
    open_somehow(caller)
    for step in STEPS:
        try:
            step(caller)
        except (wal.SegmentAllocationError, wal.CheckpointError):
            continue
        except wal.LogFailedError as latch:
            return latch
    return None


def open_somehow(caller):
    """Open at the first or the second attempt."""
    try:
        caller.open()
    except OSError:
        caller.open()


def check_latched(caller, latch, error):
    """Every commit is refused with one cause; what is durable can be read; shutdown says why."""
    log, cause = caller.log, latch.__cause__
    assert isinstance(cause, OSError)
    assert cause.errno == latch.errno == error
    refused = [
        lambda: log.append([b"x"]),
        lambda: log.append([b"x"], durability=BUFFER),
        lambda: log.submit([b"x"]),
        log.begin_entry,
        log.sync,
        lambda: log.append([bytes(300_000)]),
        log.checkpoint_active,
    ]
    for use in refused:
        with pytest.raises(wal.LogFailedError) as raised:
            use()
        assert raised.value.__cause__ is cause
        assert raised.value.errno == error
    shown = [(entry.id, entry.read_all()) for entry in log.entries()]
    known = {each.id: each.chunks for each in caller.known.written}
    assert all(known.get(entry_id) in (None, chunks) for entry_id, chunks in shown)
    last = max((entry_id for entry_id, _ in shown + caller.known.store), default=0)
    assert last >= log.durable_entry_id
    with pytest.raises(wal.LogFailedError) as raised:
        log.shutdown()
    assert raised.value.__cause__ is cause
    log.shutdown()


def check_disk(caller, number, label, limit):
    """After the failure: the power lost at once, or killed and reopened and then the power lost."""
    system, known = caller.system, caller.known
    assert not system.inner.left_open(), label
    system.heal()
    for state in system.crash_states(seed=number, limit=limit):
        examine(known, state, f"{label}, {state.label}")
    killed, once = system.killed(), known.copy()
    look_beside(once, killed)
    reopened = Caller(killed, once).open()
    for state in killed.crash_states(seed=number, limit=limit):
        examine(once, state, f"{label}, reopened, {state.label}")
    reopened.append(60)
    reopened.close()
    examine(known, system, f"{label}, on the same system")  # its lock is free


def fail_each(way, kind, limit):
    for number, system, fault in struck(way, kinds=kind):
        label = f"{kind} {number}: {way}"
        caller = Caller(system, keep_free_segments=1 if kind == "remove" else 3)
        latch = play(caller)
        if latch is not None:
            assert fault.hits, label
            check_latched(caller, latch, WAYS[way]["error"])
        else:
            with contextlib.suppress(wal.LogFailedError, wal.CheckpointError):
                caller.close()
        check_disk(caller, number, label, limit)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", FAILING)
def test_each_call_fails_once(kind, way):
    if kind in ("remove", "truncate", "read_at") and way != "EIO":
        pytest.skip("tried in one way only")
    fail_each(way, kind, limit=2)


@pytest.mark.long
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", FAILING)
def test_each_call_fails_once_and_then_the_power(kind, way):
    fail_each(way, kind, limit=40)


# -- several writers -------------------------------------------------------------------------------


def fail_among_many(way, kind, limit, numbers):
    for number in numbers:
        system = FaultyFileSystem()
        fault = system.fail(nth=number, kinds=kind, **WAYS[way])
        writers, manager, log = write_from_many(system)
        ended = finish_in_time(log)
        assert {latch.__cause__ for latch in writers.latches} <= {getattr(ended, "__cause__", None)}
        for latch in writers.latches:
            assert latch.errno == WAYS[way]["error"]
        system.heal()
        for state in system.crash_states(seed=number, limit=limit):
            writers.check(found_in(state, manager.store))
        writers.check(found_in(system.killed(), manager.store))
        writers.check(found_in(system, manager.store))
        if not fault.hits:
            return


@pytest.mark.parametrize("kind", FAILING[:6])
def test_each_call_fails_among_many_writers(kind):
    fail_among_many(
        "EIO", kind, 3, range(first_of(kind), 40, 4 if kind in ("write_at", "sync") else 1)
    )


@pytest.mark.long
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", FAILING)
def test_each_call_fails_among_many_writers_in_every_way(kind, way):
    for _ in range(4):
        fail_among_many(way, kind, 20, range(first_of(kind), 200))


def test_an_interrupt_in_the_leader_reaches_the_others_as_the_latch():
    """Its own thread gets the interrupt itself; nobody hangs, and nothing acknowledged is lost."""
    system = FaultyFileSystem()
    log = wal.Configuration("log", file_system=system, flush_interval=3600).open(Keeper([]))
    syncs = itertools.count(1)

    def interrupt(kind, path, number):
        if kind == "sync":
            time.sleep(0.001)
            if next(syncs) == 5:
                raise KeyboardInterrupt

    system.on_call = interrupt
    writers = Writers(log, 6, 30)
    for thread in writers.threads:
        thread.start()
    for thread in writers.threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()
    system.on_call = None
    assert [type(error) for error in writers.strange] in ([KeyboardInterrupt], [])
    assert writers.latches
    assert {type(latch.__cause__) for latch in writers.latches} == {KeyboardInterrupt}
    assert {latch.errno for latch in writers.latches} == {None}
    assert isinstance(finish_in_time(log), wal.LogFailedError)
    found = dict(found_in(system.killed(), []))
    assert all(found[entry_id] == chunks for entry_id, chunks in writers.acknowledged.items())


# -- no room ---------------------------------------------------------------------------------------


def test_no_room_for_a_segment_fails_only_the_commit_that_needs_it():
    system = FaultyFileSystem()
    caller = Caller(system).open()
    system.fail(errno.ENOSPC, kinds="allocate", forever=True)
    failures = []
    for _ in range(8):
        try:
            caller.append(1500)
        except wal.SegmentAllocationError as error:
            failures.append(error)
    assert len(failures) >= 4
    assert {error.errno for error in failures} == {errno.ENOSPC}
    assert all(isinstance(error, OSError) for error in failures)
    assert all("free-" in str(error) for error in failures)
    caller.append(100)  # the active segment still has room for it
    with pytest.raises(wal.SegmentAllocationError):
        caller.stream(3000, 3000)
    caller.append(101)
    # Not one that the background has just tried to make.
    until(lambda: not any(name.startswith("free-") for name in system.inner.list("log")))
    system.heal()
    caller.append(1500)
    caller.stream(3000, 3000)
    caller.close()
    examine(caller.known, system, "after no room")


def test_no_room_for_a_large_appended_entry():
    """It is streamed, and taken back where the file cannot grow."""
    system = FaultyFileSystem()
    caller = Caller(system).open()
    caller.append(10)
    fault = system.fail(errno.ENOSPC, kinds="allocate", forever=True)
    with pytest.raises(wal.SegmentAllocationError):
        caller.append(300_000)
    assert fault.hits
    caller.append(11)
    system.heal()
    caller.append(300_001)
    caller.close()
    examine(caller.known, system, "after no room")


# -- a sync that failed ----------------------------------------------------------------------------


def test_a_failed_sync_then_a_recovery_then_a_power_loss():
    """A recovery that only syncs again shows entries whose pages the failed sync left clean."""
    system = FaultyFileSystem()
    caller = Caller(system).open()
    for size in (100, 200, 300):
        caller.append(size)
    system.fail(errno.EIO, kinds="sync")
    with pytest.raises(wal.LogFailedError):
        caller.append(400)
    with pytest.raises(wal.LogFailedError):
        caller.log.shutdown()
    killed = system.killed()
    reopened = Caller(killed, caller.known.copy()).open()
    assert [len(chunks[0]) for _, chunks in reopened.manager.recovered] == [100, 200, 300, 400]
    states = list(killed.crash_states())
    for state in states:
        examine(reopened.known, state, state.label)
    assert states
    reopened.close()


# -- opening ---------------------------------------------------------------------------------------


def clean_log(caller):
    caller.append(100)
    caller.append(1500)
    caller.stream(200, 30)
    caller.close()


def unclean_log(caller):
    """Several segments, one of them dead and still under its name, and a spare file."""
    for size in (1500, 1501, 1502):
        caller.append(size)
    caller.checkpoint()
    with caller.log.pin(caller.log.stats().last_entry_id + 1):
        for size in (1503, 1504, 1505):
            caller.append(size)
        with next(iter(caller.log.entries())).chunks()[0], contextlib.ExitStack() as stack:
            stack.enter_context(caller.log.pin(next(iter(caller.log.entries())).segment_id))
            caller.checkpoint()
            caller.append(1506, durability=WRITE)
            caller.append(90)
            caller.files = caller.system.killed_state()


def new_log(caller):
    caller.files = MemoryFileSystem()


LEFT_BEHIND = [new_log, clean_log, unclean_log]


def leave_behind(make):
    """A directory as a process left it, and what is known of it."""
    caller = Caller(FaultyFileSystem())
    caller.files = None
    if make is not new_log:
        caller.open()
    make(caller)
    if caller.files is not None:
        known = caller.known.copy() if make is not new_log else Known()
        caller.give_up()
        return caller.files, known
    return caller.system.killed_state(), caller.known


@pytest.mark.parametrize("make", LEFT_BEHIND)
def test_a_failure_while_opening_leaves_nothing_held(make):
    """The error is raised, the lock is free, every file closed, and the next attempt succeeds."""
    files, known = leave_behind(make)
    for number in itertools.count(1):
        watched = Watched(files.contents(), files.directories())
        system = FaultyFileSystem(watched, count=KINDS - {"close"})
        fault = system.fail(errno.EIO, nth=number)
        caller = Caller(system, known.copy())
        raised = None
        try:
            caller.open()
        except OSError as error:
            raised = error
        call = fault.hits and system.calls[-1]
        if raised is None:
            with contextlib.suppress(wal.WalError):
                caller.log.shutdown()
            if not fault.hits:
                break
        else:
            assert raised.errno == errno.EIO
            assert fault.hits
            assert not watched.left_open(), call
        system.heal()
        caller.open()
        caller.append(70)
        caller.close()
        assert not watched.left_open(), call
    assert number > 10


@pytest.mark.parametrize("make", LEFT_BEHIND[1:])
def test_a_manager_that_raises_while_opening(make):
    class Refusing(Keeper):
        def recover(self, entry):
            raise LookupError("no")

    class Unsure(Keeper):
        def should_recover_segment(self, segment):
            raise LookupError("no")

    files, known = leave_behind(make)
    for kind in (Refusing, Unsure):
        watched = Watched(files.contents(), files.directories())
        with pytest.raises(LookupError):
            wal.Configuration("log", file_system=watched).open(kind(known.store))
        assert not watched.left_open()
        examine(known, watched, kind.__name__)


# -- a recovery that fails and is repeated ---------------------------------------------------------


def killed_at(number):
    """The system as a process left it that was killed before a call, and what it knew."""
    system = FaultyFileSystem()
    caller = Caller(system, keep_free_segments=3)
    system.stop_at(number)
    with contextlib.suppress(PowerLoss):
        play(caller)
    crashed = system.lost_power
    caller.give_up()
    return (system.killed(), caller.known) if crashed else None


def fail_recoveries(numbers, way, limit, rng_seed=0):
    """Each call of a recovery fails once; the next opening has everything, and the disk as well."""
    states = 0
    for number in numbers:
        for nth in itertools.count(1):
            left = killed_at(number)
            if left is None:
                return states
            system, known = left
            fault = system.fail(nth=nth, path=inside, **WAYS[way])
            caller = Caller(system, known)
            with contextlib.suppress(OSError, wal.WalError):
                caller.open()
                caller.append(90)
                caller.checkpoint()
                caller.close()
            if not fault.hits:
                break
            caller.give_up()
            system.heal()
            caller.log = None
            label = f"killed before call {number}, call {nth} of the recovery fails"
            try:
                caller.open()
            except wal.WalError as error:
                raise AssertionError(label) from error
            for state in system.crash_states(seed=rng_seed + nth, limit=limit):
                examine(known, state, f"{label}, {state.label}")
                states += 1
            end(caller.log)
    return states


def inside(path):
    """Not the directory that the log's own is in: nothing makes up for a failed sync of that."""
    return "log" in path


@pytest.mark.parametrize("way", ["EIO", "EIO afterwards"])
def test_a_recovery_that_fails_is_repeated(way):
    assert fail_recoveries(range(4, 200, 23), way, limit=2) > 100


@pytest.mark.long
@pytest.mark.parametrize("way", WAYS)
def test_every_recovery_that_fails_is_repeated(way):
    assert fail_recoveries(itertools.count(1, 2), way, limit=12, rng_seed=seed()) > 1000


# -- the background --------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [OSError(errno.EIO, "no"), SystemExit(), AssertionError()])
def test_a_checkpoint_that_raises_is_told_and_tried_again(error):
    """A SystemExit in checkpoint_to ended the checkpointer's thread; who waited hung for ever."""

    class Failing(Keeper):
        attempts = 0

        def checkpoint_to(self, last_id, entries, log):
            self.attempts += 1
            if self.attempts <= 2:
                raise error
            super().checkpoint_to(last_id, entries, log)

    manager = Failing([])
    log = wal.Configuration("log", file_system=MemoryFileSystem()).open(manager)
    log.append([b"x"])
    with pytest.raises(wal.CheckpointError) as raised:
        log.checkpoint_active(wait=True)
    assert raised.value.__cause__ is error
    while not manager.store:
        with contextlib.suppress(wal.CheckpointError):
            log.append([b"y"])
            log.checkpoint_active(wait=True)
    log.shutdown()
    assert manager.store[0] == (1, [b"x"])


def test_the_flusher_outlives_a_system_exit():
    """It ended the flusher's thread, and an entry dropped later was never rolled back."""
    log = wal.Configuration("log", file_system=MemoryFileSystem()).open(Keeper([]))

    def leave(entry_id, segment_id):
        raise SystemExit

    ticket = log.submit([b"x"], on_commit=leave)
    with pytest.raises(wal.LogFailedError):
        ticket.wait(PATIENCE)
    done = threading.Event()
    log._commits.defer(done.set)
    assert done.wait(PATIENCE)
    assert isinstance(finish_in_time(log), wal.LogFailedError)


@pytest.mark.long
def test_failures_at_random():
    """Any one call fails in any way, under any mixture of writers."""
    import random

    rng = random.Random(seed())
    for _ in range(600):
        way = rng.choice(list(WAYS))
        kind = rng.choice(FAILING)
        fail_among_many(way, kind, 10, [rng.randrange(2, 60)])
