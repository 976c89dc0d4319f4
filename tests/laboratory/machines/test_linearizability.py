"""Whatever many callers do at once: some order of their operations explains all that they saw.

Threads, and tasks of a loop, get, put, delete, add, replace, pop, write batches, scan, take
snapshots and run transactions on three keys, with values that nobody else writes, while another one
checkpoints and merges; a share of the values is large. The histories are decided exactly
(:mod:`tests.laboratory.machines.linearizability`), those of single-key operations key by key.

A life ends in peace, by a kill, by a failing write or sync, or by a power loss before any call of
the disk. Then what is recovered, from each of some states that may be left, is a last read of all
keys: it has all that was acknowledged for good and all that anybody saw, where all writes were to
last; and is otherwise the state of a moment before which all of those took effect that were. Which
order the threads run in is the machine's choice: a run tries others each time, though the
operations are the same.
"""

from __future__ import annotations

import random
import sys

import pytest

from tests.campaigns import scaled, seed
from tests.laboratory.machines.contention import SOME, Lives, Plan, by_tasks, by_threads
from tests.store.support import FSYNC, WRITE

ENDS = ("close", "power", "kill", "latch")
DRIVES = pytest.mark.parametrize("drive", [by_threads, by_tasks])


@pytest.fixture(autouse=True)
def _hasty(quiet):
    """Threads change places all the time."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(usual)


@pytest.fixture
def tell(tally):
    def tell(drive, lives):
        tally(f"linearizability, {drive.__name__.replace('_', ' ')}", **lives.counts)

    return tell


@DRIVES
def test_single_keys(drive, tell):
    lives = Lives("single", drive)
    for durabilities in ((FSYNC,), SOME, SOME):
        lives.live(Plan(callers=5, steps=15, single=True, durabilities=durabilities))
    tell(drive, lives)


@DRIVES
def test_several_keys(drive, tell):
    lives = Lives("several", drive)
    for callers in (2, 3, 4, 6):
        lives.live(Plan(callers=callers, steps=15, durabilities=SOME if callers % 2 else (FSYNC,)))
    tell(drive, lives)


@DRIVES
@pytest.mark.parametrize("durabilities", [(FSYNC,), (FSYNC, WRITE), SOME])
@pytest.mark.parametrize("end", ENDS[1:])
def test_ended_at_once(drive, durabilities, end, tell):
    lives = Lives(end, drive)
    for _ in range(4):
        lives.live(Plan(durabilities=durabilities, end=end))
    tell(drive, lives)


def live_at_random(rng, drive):
    lives = Lives(rng.random(), drive)
    for _ in range(8):
        plan = Plan(
            callers=rng.randrange(2, 7),
            steps=rng.randrange(4, 25),
            durabilities=rng.choice(((FSYNC,), (FSYNC,), (FSYNC, WRITE), SOME)),
            single=rng.random() < 0.3,
            end=rng.choice(ENDS),
            pauses=rng.choice((0, 0.1, 0.5)),
        )
        lives.live(plan)
    return lives


@pytest.mark.long
@pytest.mark.parametrize(("drive", "count"), [(by_threads, 300), (by_tasks, 100)])
def test_many_lives(drive, count, tell):
    rng = random.Random(f"{seed()}/{drive.__name__}")
    for _ in range(scaled(count)):
        tell(drive, live_at_random(rng, drive))
