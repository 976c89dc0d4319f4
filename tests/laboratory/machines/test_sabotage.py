"""Sabotaged stores: each lacks one safeguard, and the checker of histories must notice.

Otherwise they are the real store, under the same callers as in the campaigns, for no more than
:data:`MOST` lives. So the verdict of the campaigns is worth something: a store with such a fault
would not have passed.
"""

from __future__ import annotations

import sys
import threading
import time

import pytest

import kvstore
from kvstore.commit import Commits
from kvstore.memory.memtable import Memtable
from kvstore.transactions import Transaction
from tests.laboratory.machines.callers import SINGLE, Caller, Direct, run_now
from tests.laboratory.machines.contention import (
    OPTIONS,
    SOME,
    Lives,
    Plan,
    by_tasks,
    by_threads,
    found_in,
)
from tests.laboratory.machines.history import History
from tests.laboratory.machines.linearizability import NotLinearizableError, check
from tests.store.support import FSYNC, PATIENCE, WRITE
from tests.wal.support import Worker
from wal.files.faulty import FaultyFileSystem
from wal.group_commit import GroupCommit

A = b"a"
MOST = 40


@pytest.fixture
def hasty(quiet):
    """Threads change places all the time."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(usual)


def caught_within(plan, most=MOST, drive=by_threads):
    """How many lives it took until something was noticed."""
    for number in range(most):
        try:
            Lives(number, drive).live(plan)
        except AssertionError as error:
            if not isinstance(error.__cause__, NotLinearizableError):
                raise
            return number + 1
    raise AssertionError(f"nothing was noticed in {most} lives")


CONTENTION = Plan(callers=4, steps=20, pauses=0.6)


@pytest.mark.usefixtures("hasty")
class TestSabotage:
    def test_conflicts_are_not_looked_for(self, monkeypatch):
        monkeypatch.setattr(Transaction, "_decide", lambda self: None)
        caught_within(CONTENTION)

    def test_nor_by_tasks(self, monkeypatch):
        monkeypatch.setattr(Transaction, "_decide", lambda self: None)
        caught_within(CONTENTION, drive=by_tasks)

    def test_a_decision_rests_on_what_has_changed(self, monkeypatch):
        monkeypatch.setattr(Commits, "unless_changed", lambda *_: lambda: None)
        caught_within(Plan(callers=6, steps=30, single=True, pauses=0.6))

    def test_what_is_in_flight_is_overlooked(self, monkeypatch):
        """Conflicts are looked for among what is visible alone."""
        monkeypatch.setattr(Memtable, "accepted_values", lambda *_: None)
        monkeypatch.setattr(Memtable, "accepted", lambda *_: None)
        caught_within(CONTENTION)

    def test_the_store_is_told_too_late_of_what_is_in_flight(self, monkeypatch):
        """By then a buffered write may be complete: it would stay in flight for ever."""
        usual = GroupCommit.enter_flight_locked

        def enter(self, entry_id, rank, on_commit, item, on_accept=None):
            tell, self._accepted = self._accepted, None
            ticket = usual(self, entry_id, rank, on_commit, item)
            self._accepted = tell
            if not ticket.finished:
                time.sleep(0.0002)
                self._tell_accepted_locked(ticket, item, on_accept)
            return ticket

        monkeypatch.setattr(GroupCommit, "enter_flight_locked", enter)
        caught_within(Plan(steps=20, durabilities=SOME, pauses=0.6))

    def test_a_batch_is_shown_key_by_key(self, monkeypatch):
        def show(self, layer, batch):
            layer.save_locked(batch)
            for key, value in batch.items():
                layer.values[key] = value
                time.sleep(0.001)

        monkeypatch.setattr(Memtable, "_show_locked", show)
        caught_within(Plan(steps=20, only=("get", "get", "get", "batch")))

    def test_reads_come_from_an_older_snapshot(self, monkeypatch):
        """Late reads are of a moment within the call, and allowed; those of one before are not."""
        for late in (True, False):
            history = History()
            opening = kvstore.open("s", file_system=FaultyFileSystem(), **OPTIONS)
            with opening as db, db.snapshot() as old, monkeypatch.context() as sabotage:
                read = delayed if late else lambda self, key, old=old: old.get(key)
                sabotage.setattr(kvstore.Store, "get", read)
                run_now(Caller("one", Direct(db), history, 1, SINGLE).run(30))
            if late:
                check(history.operations, {})
            else:
                with pytest.raises(NotLinearizableError):
                    check(history.operations, {})

    def test_a_weaker_durability_than_was_asked_for(self, monkeypatch):
        usual = kvstore.Store.put
        monkeypatch.setattr(
            kvstore.Store,
            "put",
            lambda self, key, value, durability: usual(self, key, value, durability=WRITE),
        )
        caught_within(Plan(callers=1, steps=30, single=True, end="power", states=6))

    def test_a_write_is_seen_before_it_lasts(self, monkeypatch):
        """Held at its sync, seen by another, lost with the power."""
        for sabotaged in (False, True):
            if sabotaged:
                usual = Memtable.accepted

                def accepted(self, entry_id, segment_id, chunks, usual=usual):
                    usual(self, entry_id, segment_id, chunks)
                    self.state.layers[0].values[chunks[1]] = chunks[2]

                monkeypatch.setattr(Memtable, "accepted", accepted)
            history, recovered = seen_then_lost()
            assert recovered == {}
            if sabotaged:
                with pytest.raises(NotLinearizableError):
                    check(history.operations, {}, recovered=recovered)
            else:
                check(history.operations, {}, recovered=recovered)


def delayed(store, key):
    """A get from a snapshot, some time after it was taken."""
    with store.snapshot() as snapshot:
        time.sleep(0.0001)
        return snapshot.get(key)


def seen_then_lost():
    """A put that is held at its sync, a get meanwhile, and nothing of it after a power loss."""
    system, history = FaultyFileSystem(), History()
    db = kvstore.open("s", file_system=system, **OPTIONS)
    arrived, go_on = threading.Event(), threading.Event()

    def hold(kind, path, number):
        if kind == "sync" and "wal-" in path:
            arrived.set()
            assert go_on.wait(PATIENCE)

    system.on_call = hold
    put = history.begin("one", "put", left={A: b"1"}, durability=FSYNC.value)
    writer = Worker(db.put, A, b"1")
    assert arrived.wait(PATIENCE)
    get = history.begin("other", "get")
    get.seen = {A: db.get(A)}
    history.end(get)
    state = next(system.crash_states())
    go_on.set()
    writer.join()
    assert put.ended is None  # for when the power went nobody had been told
    db.close()
    return history, found_in(state)
