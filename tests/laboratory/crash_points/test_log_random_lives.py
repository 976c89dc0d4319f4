"""Power loss in lives of the log that nobody planned: many writers, and random operations.

Proved: the promises of :mod:`tests.wal.promises` hold where threads race for the log, and over
lives that follow each other on one disk, each ended by a close, a kill or a power loss.

Method: threads are stopped by a power loss at any call. Random lives are cut short at a random
call, and a random one of the states found there is what the next life begins with.

Bounds: four writers; up to 25 operations a life, four lives on a disk, eight in the long run.
"""

from __future__ import annotations

import random

import pytest

from tests.campaigns import seed
from tests.wal.histories import cut_short
from tests.wal.promises import BUFFER, FSYNC, WRITE, Known, examine
from tests.wal.writers import finish_in_time, found_in, write_from_many
from wal.files.faulty import FaultyFileSystem

TITLE = "log, random lives"


# -- many writers ----------------------------------------------------------------------------------


def lose_power_among_many(numbers, limit):
    states = 0
    for number in numbers:
        system = FaultyFileSystem()
        writers, manager, log = write_from_many(system, entries=25, stop_after=number)
        finish_in_time(log)
        for state in system.crash_states(seed=number, limit=limit):
            writers.check(found_in(state, manager.store))
            states += 1
    return states


def test_power_lost_among_many_writers(tally):
    states = lose_power_among_many(range(1, 100, 4), limit=12)
    assert states >= 50
    tally(TITLE, states=states)


@pytest.mark.long
def test_power_lost_among_many_writers_in_every_state(tally):
    numbers = random.Random(seed()).choices(range(1, 200), k=1000)
    states = lose_power_among_many(numbers, limit=60)
    assert states >= 1500
    tally(TITLE, states=states)


# -- random histories ------------------------------------------------------------------------------


class RandomPlay:
    """A life of random operations."""

    def __init__(self, rng):
        self.rng = rng

    def __call__(self, caller):
        caller.open()
        for _ in range(self.rng.randrange(25)):
            self.step(caller)
        if self.rng.random() < 0.6:
            caller.close()

    def step(self, caller):
        rng = self.rng
        durability = rng.choice((FSYNC, WRITE, BUFFER))
        sizes = [rng.choice((0, 3, 50, 400, 1300, 5000)) for _ in range(rng.randrange(4))]
        what = rng.randrange(12)
        if what < 6:
            caller.append(*sizes, durability=durability)
        elif what < 8:
            caller.stream(*sizes, durability=durability)
        elif what == 8:
            caller.roll_back(*sizes)
        elif what == 9:
            caller.sync()
        elif what == 10:
            caller.checkpoint()
        else:
            caller.wait_for([caller.submit(*sizes) for _ in range(3)])


def random_lives(rng, lives):
    """Life after life, ended by a close, a kill or a power loss; how many states there were."""
    files, known = FaultyFileSystem(), Known()
    trail, count = [], 0
    for _ in range(lives):
        caller, crashed = cut_short(RandomPlay(rng), rng.randrange(1, 60), files, known)
        if not crashed:
            caller.give_up()
        states = list(files.crash_states(seed=rng.randrange(1 << 30), limit=12))
        for state in states:
            examine(caller.known, state.copy(), f"{'; '.join(trail)}; now {state.label}")
        if rng.random() < 0.5:
            files = files.killed()
            trail.append("killed")
        else:
            state = rng.choice(states)
            files = FaultyFileSystem(state)
            trail.append(state.label)
        known = caller.known
        count += len(states)
    return count


def test_random_lives(tally):
    states = sum(random_lives(random.Random(number), 4) for number in range(25))
    assert states >= 100
    tally(TITLE, states=states)


@pytest.mark.long
def test_many_random_lives(tally):
    first = seed()
    states = sum(random_lives(random.Random(first + n), 8) for n in range(600))
    assert states >= 10000
    tally(TITLE, states=states)
