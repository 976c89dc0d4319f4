"""Power loss while the log recovers, after a power loss or a kill, and while it gives segments up.

Proved: what a recovery that was cut short has shown is still there for the next one, and all that
was acknowledged before; a segment that was given up comes back whole, or not at all.

Method: as in :mod:`tests.laboratory.crash_points.test_log_power_loss`, twice.

Bounds: samples of crash points, states, and calls of the recovery, as the parameters say. In the
long run every call of the recovery.
"""

from __future__ import annotations

import contextlib
import itertools

import pytest

import wal
from tests.campaigns import seed
from tests.wal.histories import OPERATIONS, checkpoint, checkpoint_twice, every_crash, history
from tests.wal.promises import SMALL, Caller, Keeper, end, examine
from wal.files.faulty import FaultyFileSystem, PowerLoss

TITLE = "log, recoveries cut short"


# -- a recovery that is cut short ------------------------------------------------------------------


def recover(caller):
    caller.open()
    caller.append(80)


def cut_recoveries_short(play, *, start, step, first, second, rng_seed=0):
    """Lose power at a call, then at each call of the recovery; what that showed stays shown."""
    states = 0
    for number, caller in every_crash(play, start=start, step=step):
        for state in caller.system.crash_states(seed=rng_seed + number, limit=first):
            known = caller.known

            def fresh(state=state):
                return FaultyFileSystem(state.copy())

            for again, recovering in every_crash(recover, fresh, known):
                label = f"power lost before call {number}, {state.label}; then before call {again}"
                for left in recovering.system.crash_states(seed=rng_seed + again, limit=second):
                    examine(recovering.known, left, f"{label}, {left.label}")
                    states += 1
    return states


def test_power_lost_during_recovery(tally):
    states = cut_recoveries_short(history, start=5, step=31, first=3, second=3)
    assert states >= 200
    tally(TITLE, states=states)


@pytest.mark.long
@pytest.mark.parametrize("play", [history, *OPERATIONS])
def test_power_lost_during_recovery_in_every_state(play, tally):
    rng_seed = seed()
    states = cut_recoveries_short(play, start=1, step=4, first=6, second=6, rng_seed=rng_seed)
    assert states >= 200
    tally(TITLE, states=states)


def settle(caller):
    """All that an opening does, and what it leaves to the background."""
    caller.open()
    caller.append(80)
    caller.checkpoint()


def cut_settlings_short(play, *, start, step, limit, rng_seed=0):
    """Kill at a call, then lose power at each call of what follows, with the cache still there."""
    states = 0
    for number, caller in every_crash(play, start=start, step=step):
        for again, settling in every_crash(settle, caller.system.killed, caller.known):
            for left in settling.system.crash_states(seed=rng_seed + again, limit=limit):
                label = f"killed before call {number}, power lost before call {again}, {left.label}"
                examine(settling.known, left, label)
                states += 1
    return states


@pytest.mark.parametrize("play", [checkpoint, checkpoint_twice])
def test_killed_then_power_lost_during_recovery(play, tally):
    states = cut_settlings_short(play, start=13, step=4, limit=3)
    assert states >= 100
    tally(TITLE, states=states)


@pytest.mark.long
@pytest.mark.parametrize("play", [history, *OPERATIONS])
def test_killed_then_power_lost_during_recovery_in_every_state(play, tally):
    rng_seed = seed()
    states = cut_settlings_short(play, start=1, step=2, limit=6, rng_seed=rng_seed)
    assert states >= 200
    tally(TITLE, states=states)


# -- segments that are given up --------------------------------------------------------------------


class Abandoning(Keeper):
    """Gives up every segment that it is asked about."""

    def should_recover_segment(self, segment):
        return wal.Recovery.ABANDON


def three_segments():
    """What a killed process left, and the entries in it."""
    system = FaultyFileSystem()
    caller = Caller(system, max_sealed_segments=9)
    caller.open()
    caller.manager.checkpoint_to = raise_not_now
    for size in (1500, 1501, 1502, 1503, 1504):
        caller.append(size)
    system.sync_directory("log")
    files = system.killed_state()
    caller.give_up()
    return files, {each.id: each.chunks for each in caller.known.written}


def raise_not_now(*args):
    raise OSError("not now")


def open_once(system, manager):
    """Open, append and shut down; the id that was given out."""
    log = wal.Configuration("log", file_system=system, **SMALL).open(manager)
    try:
        return log.append([b"after"])
    finally:
        end(log)


def give_segments_up(limit, rng_seed=0):
    """Whole segments may come back where the power was lost before their names were durable."""
    files, entries = three_segments()
    states = 0
    for number in itertools.count(1):
        system = FaultyFileSystem(files.copy())
        system.stop_at(number)
        with contextlib.suppress(PowerLoss, wal.WalError):
            open_once(system, Abandoning([]))
        if not system.lost_power:
            return states
        for state in system.crash_states(seed=rng_seed + number, limit=limit):
            recovered = Keeper([])
            new_id = open_once(state.copy(), recovered)
            shown = dict(recovered.recovered)
            new = shown.keys() - entries.keys()
            assert len(new) <= 1, state.label
            assert all(chunks == entries.get(i, [b"after"]) for i, chunks in shown.items())
            assert new_id > max([*entries, *shown])
            again = Abandoning([])
            assert open_once(state, again) > max(entries)
            assert not again.recovered
            later = Keeper([])
            open_once(state, later)
            assert [chunks for _, chunks in later.recovered] in ([[b"after"]], []), state.label
            states += 1
    raise AssertionError("unreachable")


def test_power_lost_while_segments_are_given_up(tally):
    states = give_segments_up(limit=8)
    assert states >= 40
    tally(TITLE, states=states)


@pytest.mark.long
def test_power_lost_while_segments_are_given_up_in_every_state(tally):
    states = give_segments_up(limit=400, rng_seed=seed())
    assert states >= 40
    tally(TITLE, states=states)
