"""Power loss before any call: what was acknowledged is there, and nothing by halves."""

from __future__ import annotations

import contextlib
import errno
import itertools

import pytest

import kvstore
from tests.store.support import BUFFER, FSYNC, SMALL, WRITE, contents, random_history
from wal.files.faulty import FaultyFileSystem, PowerLoss

BATCHES, MODELS = random_history(1, 24, keys=8, most=3, size=30)
DURABILITIES = (FSYNC, FSYNC, FSYNC, WRITE, FSYNC, BUFFER)
CHECKPOINT_AFTER = {3, 4, 8, 11, 13, 15, 16, 19, 21}
COMPACT_AFTER = {9, 13, 22}
CLOSE_AFTER = {6, 14, 18}


pytestmark = pytest.mark.usefixtures("quiet")


class Life:
    """A workload on a failing file system: how much of it was tried, and how much must remain."""

    def __init__(self, system):
        self.system = system
        self.begun = 0
        self.acknowledged = 0
        self.db = None

    def run(self):
        self.open()
        for batch in BATCHES[self.begun :]:
            number = self.begun
            durability = DURABILITIES[number % len(DURABILITIES)]
            self.begun += 1
            self.db.write(batch, durability=durability)
            if durability is FSYNC:
                self.acknowledged = self.begun
            if number in CHECKPOINT_AFTER:
                self.db.checkpoint()
                self.acknowledged = self.begun
            if number in COMPACT_AFTER:
                self.db.compact()
                self.acknowledged = self.begun
            if number in CLOSE_AFTER:
                self.db.close()
                self.acknowledged = self.begun
                self.open()
        self.db.close()
        self.acknowledged = self.begun

    def open(self):
        self.db = kvstore.open("s", file_system=self.system, memtable_bytes=SMALL)

    def give_up(self):
        with contextlib.suppress(PowerLoss, kvstore.StoreError, OSError):
            if self.db is not None:
                self.db.close()

    def check(self, found, label):
        allowed = MODELS[self.acknowledged : self.begun + 1]
        assert found in allowed, f"{label}: {self.acknowledged} to {self.begun} of {found}"


def look_at(state, label, life):
    """Open what a crash left, twice: by then nothing may change any more."""
    with kvstore.open("s", file_system=state, memtable_bytes=SMALL) as db:
        found = contents(db)
        life.check(found, label)
        db.put(b"!", b"goes on")
        db.checkpoint()
    with kvstore.open("s", "r", file_system=state) as db:
        assert contents(db) == {**found, b"!": b"goes on"}, label


def test_the_workload_without_a_crash():
    life = Life(FaultyFileSystem())
    life.run()
    kinds = {call.kind for call in life.system.calls}
    assert {"create", "write_at", "sync", "rename", "sync_directory", "remove"} <= kinds
    merged = {call.path for call in life.system.calls if call.kind == "remove"}
    assert any(path.endswith(".table") for path in merged)
    assert life.db.closed
    look_at(life.system.killed_state(), "in peace", life)


ALL = pytest.param(1, marks=pytest.mark.long, id="every one")


@pytest.mark.parametrize("step", [pytest.param(13, id="some"), ALL])
def test_power_loss_before_a_call(step):
    states = 0
    for number in itertools.count(1, step):
        life = Life(FaultyFileSystem())
        life.system.stop_at(number)
        with contextlib.suppress(PowerLoss, kvstore.StoreError):
            life.run()
        lost = life.system.lost_power
        life.give_up()
        if not lost:
            break
        for state in life.system.crash_states(seed=number, limit=3):
            look_at(state, f"before call {number}, {state.label}", life)
            states += 1
    assert states > 400 // step


@pytest.mark.parametrize(
    "step", [pytest.param(83, id="some"), pytest.param(5, id="many", marks=pytest.mark.long)]
)
@pytest.mark.parametrize("first", ["power", "process"])
def test_a_second_end_during_the_recovery(first, step):
    """Killed or without power, opened, without power again: still a prefix, with all that counts.

    After a kill the second opening finds what was never synced, and must not rest on it.
    """
    for number in itertools.count(5, step):
        life = Life(FaultyFileSystem())
        life.system.stop_at(number)
        with contextlib.suppress(PowerLoss, kvstore.StoreError):
            life.run()
        lost = life.system.lost_power
        life.give_up()
        if not lost:
            break
        if first == "process":
            recovered = [("killed", life.system.killed)]
        else:
            states = life.system.crash_states(seed=number, limit=2)
            recovered = [(s.label, lambda s=s: FaultyFileSystem(s)) for s in states]
        for label, make in recovered:
            for calls in (1, 4, 9, 16, 27):
                look_again_at(make(), calls, f"{number}, {label}", life)


def look_again_at(system, calls, label, life):
    """Lose power after so many calls of a recovery, and look at what that leaves."""
    system.stop_at(calls)
    db = None
    with contextlib.suppress(PowerLoss, kvstore.StoreError):
        db = kvstore.open("s", file_system=system, memtable_bytes=SMALL)
        life.check(contents(db), label)
        db.compact()
    with contextlib.suppress(PowerLoss, kvstore.StoreError, OSError):
        if db is not None:
            db.close()
    for state in system.crash_states(seed=calls, limit=3):
        look_at(state, f"{label}, then call {calls}, {state.label}", life)


@pytest.mark.parametrize("step", [pytest.param(29, id="some"), ALL])
def test_a_kill_before_a_call(step):
    """All that was handed to the operating system is there."""
    for number in itertools.count(1, step):
        life = Life(FaultyFileSystem())
        life.system.stop_at(number)
        with contextlib.suppress(PowerLoss, kvstore.StoreError):
            life.run()
        lost = life.system.lost_power
        life.give_up()
        if not lost:
            break
        look_at(life.system.killed_state(), f"killed before call {number}", life)


@pytest.mark.parametrize("step", [pytest.param(4, id="every fourth"), ALL])
@pytest.mark.parametrize(
    "kind", ["write_at", "sync", "rename", "sync_directory", "create", "remove"]
)
def test_a_failing_call(kind, step):
    """A call of a kind fails once: with or without an error, nothing is lost."""
    for nth in itertools.count(1, step):
        life = Life(FaultyFileSystem())
        fault = life.system.fail(kinds=kind, nth=nth)
        raised = None
        try:
            life.run()
        except (kvstore.StoreError, OSError) as error:
            raised = error
        if not fault.hits:
            assert raised is None
            break
        assert raised is None or raised.errno == errno.EIO
        life.give_up()
        life.system.heal()
        look_at(life.system.killed_state(), f"{kind} {nth}", life)


def test_emptying_is_all_or_nothing():
    """Power loss while flag "n" empties a store: it has everything, or nothing at all."""
    made = FaultyFileSystem()
    with kvstore.open("s", file_system=made, memtable_bytes=SMALL) as db:
        for batch in BATCHES:
            db.write(batch)
            db.checkpoint()
        db[b"late"] = b""
        before = contents(db)
    seen = set()
    for number in itertools.count(1):
        system = FaultyFileSystem(made.killed_state())
        system.stop_at(number)
        life = Life(system)
        with contextlib.suppress(PowerLoss, kvstore.StoreError):
            life.db = kvstore.open("s", "n", file_system=system, memtable_bytes=SMALL)
            assert contents(life.db) == {}
            life.db.close()
        lost = system.lost_power
        life.give_up()
        if not lost:
            break
        for state in system.crash_states(limit=4):
            with kvstore.open("s", file_system=state, memtable_bytes=SMALL) as db:
                found = contents(db)
            assert found in ({}, before), f"before call {number}, {state.label}"
            seen.add(len(found))
    assert seen == {0, len(before)}
