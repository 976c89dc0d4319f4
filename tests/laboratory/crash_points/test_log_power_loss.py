"""Power loss before calls of the log, each life run again and cut short there; and kills.

Proved: what is found keeps every promise of :mod:`tests.wal.promises`; so does what is found after
a kill, and when the power goes after the opening that followed. A log whose power has gone unwinds:
nothing hangs, no thread stays, a commit that was cut short raises.

Method: a life of some hundred calls is run once for each of its calls, and stopped there. What the
disk may then hold is enumerated, opened, and held against what the log's caller was promised.

Bounds: lives of one thread; of each crash point as many states as ``limit`` says. Every state with
a single loss is tried by :mod:`tests.laboratory.crash_points.test_log_crash_points`.
"""

from __future__ import annotations

import pytest

from tests.campaigns import seed
from tests.wal.histories import OPERATIONS, every_crash, history
from tests.wal.promises import Caller, examine, look_beside
from wal.files.faulty import FaultyFileSystem

TITLE = "log, lives cut short"


def examine_all(caller, number, *, limit, rng_seed=0):
    """Examine the states that a power loss may have left; how many there were."""
    count = 0
    for state in caller.system.crash_states(seed=rng_seed + number, limit=limit):
        label = f"power lost before call {number}, {state.label}"
        examine(caller.known, state, label, **caller.options)
        count += 1
    return count


def examine_every_crash(play, *, limit, rng_seed=0, **options):
    crashes = every_crash(play, **options)
    return sum(examine_all(caller, n, limit=limit, rng_seed=rng_seed) for n, caller in crashes)


def test_the_history_without_a_crash():
    """Otherwise what follows would prove little."""
    system = FaultyFileSystem()
    caller = Caller(system)
    history(caller)
    assert caller.known.acknowledged == len(caller.known.written) > 25
    assert len(caller.manager.archived) >= 1
    kinds = {call.kind for call in system.calls}
    assert kinds >= {"write_at", "sync", "rename", "sync_directory", "allocate", "create", "lock"}


def test_power_lost_before_each_call(tally):
    states = examine_every_crash(history, limit=2)
    assert states >= 180
    tally(TITLE, states=states)


@pytest.mark.parametrize("play", OPERATIONS)
def test_power_lost_between_any_two_steps(play, tally):
    states = examine_every_crash(play, limit=8)
    assert states >= 20
    tally(TITLE, states=states)


# -- a process that ends, and then the power -------------------------------------------------------


def kill_then_lose_power(play, *, step, limit, rng_seed=0):
    """What an opening shows out of the cache is durable from then on, though nobody synced it."""
    states = 0
    for number, caller in every_crash(play, step=step):
        system, known = caller.system.killed(), caller.known.copy()
        look_beside(known, system)
        reopened = Caller(system, known).open()
        for state in system.crash_states(seed=rng_seed + number, limit=limit):
            examine(known, state, f"killed before call {number}, reopened, {state.label}")
            states += 1
        reopened.append(50)
        reopened.close()
        examine(known, system.killed_state(), f"killed before call {number}")
    return states


def test_killed_then_power_lost(tally):
    states = kill_then_lose_power(history, step=3, limit=8)
    assert states >= 100
    tally(TITLE, states=states)


@pytest.mark.long
@pytest.mark.parametrize("play", [history, *OPERATIONS])
def test_killed_then_power_lost_in_every_state(play, tally):
    states = kill_then_lose_power(play, step=1, limit=100, rng_seed=seed())
    assert states >= 30
    tally(TITLE, states=states)
