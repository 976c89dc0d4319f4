"""Power loss before every call of the file system: what is found keeps every promise.

A history of some hundred calls is cut short before each of them in turn; what the disk may then
hold is enumerated, opened, and held against what the log's caller was promised
(:mod:`tests.wal.promises`).
"""

from __future__ import annotations

import contextlib
import itertools
import random

import pytest

import wal
from tests.campaigns import seed
from tests.wal.promises import (
    BUFFER,
    FSYNC,
    SMALL,
    WRITE,
    Caller,
    Keeper,
    Known,
    end,
    examine,
    look_beside,
    no_power_no_noise,
)
from tests.wal.writers import finish_in_time, found_in, write_from_many
from wal.files.faulty import FaultyFileSystem, PowerLoss

__all__ = ["no_power_no_noise"]


def first_life(caller):
    caller.open()
    caller.append(100)
    caller.append(40, 0, 700)
    caller.stream(300, 200, 90)
    caller.append()
    caller.roll_back(60)  # dropped in the buffer
    caller.append(10, durability=WRITE)
    caller.append(20, durability=BUFFER)
    caller.append(30)
    caller.checkpoint()
    caller.roll_back(3000, 2500)  # bytes of it are in the file: the segment ends there
    caller.append(50)
    for _ in range(3):
        caller.append(900, 800)  # two to a segment
    caller.wait_for([caller.submit(200) for _ in range(3)])
    caller.close()


def second_life(caller):
    caller.open()
    caller.append(25, durability=BUFFER)
    caller.append(26, durability=WRITE)
    caller.sync()
    caller.stream(2500, 1500, 2001)  # longer than a segment
    caller.append(1000, durability=BUFFER)
    caller.checkpoint()
    for size in (1500, 1700, 1600, 1800):
        caller.append(size, durability=WRITE)
    caller.append(15)
    caller.append(16, durability=BUFFER)
    caller.close()


def third_life(caller):
    caller.open()
    caller.append(35)
    caller.checkpoint()
    caller.append(36, durability=WRITE)
    caller.close()


def history(caller):
    first_life(caller)
    second_life(caller)
    third_life(caller)


def cut_short(play, number, system, known=None, **options):
    """Play a history up to the power loss before a call; the caller, and whether there was one."""
    caller = Caller(system, known, **options)
    system.stop_at(number)
    try:
        play(caller)
    except (PowerLoss, wal.WalError) as error:
        if not system.lost_power:
            raise AssertionError(f"before call {number}: {error!r}") from error
    if system.lost_power:  # if need be without a word: a background thread met it
        caller.give_up()
    return caller, system.lost_power


def every_crash(play, fresh=FaultyFileSystem, known=None, *, start=1, step=1, **options):
    """Each crash of a history on a fresh system: its number, and the caller that it struck."""
    for number in itertools.count(start, step):
        caller, crashed = cut_short(play, number, fresh(), known and known.copy(), **options)
        if not crashed:
            caller.give_up()
            assert number > 1, "nothing was counted"
            return
        yield number, caller


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


@pytest.fixture
def tried(record_property):
    """Tell how many states were tried."""

    def tell(count, at_least):
        record_property("states", count)
        print(f"{count} states")  # noqa: T201
        assert count >= at_least

    return tell


def test_the_history_without_a_crash():
    """Otherwise what follows would prove little."""
    system = FaultyFileSystem()
    caller = Caller(system)
    history(caller)
    assert caller.known.acknowledged == len(caller.known.written) > 25
    assert len(caller.manager.archived) >= 1
    kinds = {call.kind for call in system.calls}
    assert kinds >= {"write_at", "sync", "rename", "sync_directory", "allocate", "create", "lock"}


def test_power_lost_before_each_call(tried):
    tried(examine_every_crash(history, limit=9), 400)


@pytest.mark.long
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"preallocate_bytes": 16384},
        {"keep_free_segments": 0, "version_info": b"version"},
        {"checkpoint_after_bytes": 700, "buffer_bytes": 1 << 20},
        {"max_sealed_segments": 1, "keep_free_segments": 3},
    ],
)
def test_power_lost_before_each_call_in_every_state(tried, options):
    tried(examine_every_crash(history, limit=400, rng_seed=seed(), **options), 400)


# -- one operation, every state --------------------------------------------------------------------


def begin(caller):
    caller.open()
    caller.append(100)
    caller.stream(200, 30)


def checkpoint(caller):
    begin(caller)
    caller.append(40, durability=BUFFER)
    caller.checkpoint()
    caller.append(41)


def checkpoint_twice(caller):
    """The second one recycles a file that held other entries, and into that the third goes."""
    begin(caller)
    for size in (60, 61, 62):
        caller.checkpoint()
        caller.append(size)


def rotate(caller):
    begin(caller)
    for size in (1800, 1801, 1802, 1803):
        caller.append(size, durability=WRITE)
    caller.append(10)


def roll_back_what_was_written(caller):
    """Shorter entries follow a longer one that was taken back, of which bytes are in the file."""
    begin(caller)
    caller.roll_back(2000, 3001)
    for _ in range(4):
        caller.append(30)


def outgrow(caller):
    begin(caller)
    caller.stream(3000, 2500)
    caller.stream(5000)
    caller.append(30)


def shut_down_and_reopen(caller):
    begin(caller)
    caller.append(70, durability=WRITE)
    caller.close()
    caller.open()
    caller.append(71)
    caller.close()


def nothing_but_promises(caller):
    """Not one sync asked for: all of it may be lost, but only from the end."""
    caller.open()
    for size in (500, 501, 502):
        caller.append(size, durability=WRITE)
        caller.append(size, size, durability=BUFFER)
    caller.stream(900, 901, durability=WRITE)
    caller.append(10, durability=WRITE)
    caller.close()


OPERATIONS = [
    checkpoint,
    checkpoint_twice,
    rotate,
    roll_back_what_was_written,
    outgrow,
    shut_down_and_reopen,
    nothing_but_promises,
]


@pytest.mark.parametrize("play", OPERATIONS)
def test_power_lost_between_any_two_steps(play, tried):
    tried(examine_every_crash(play, limit=25), 20)


@pytest.mark.long
@pytest.mark.parametrize("play", OPERATIONS)
def test_power_lost_between_any_two_steps_in_every_state(play, tried):
    tried(examine_every_crash(play, limit=2000, rng_seed=seed()), 20)


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


def test_killed_then_power_lost(tried):
    tried(kill_then_lose_power(history, step=3, limit=8), 100)


@pytest.mark.long
@pytest.mark.parametrize("play", [history, *OPERATIONS])
def test_killed_then_power_lost_in_every_state(play, tried):
    tried(kill_then_lose_power(play, step=1, limit=100, rng_seed=seed()), 30)


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


def test_power_lost_during_recovery(tried):
    tried(cut_recoveries_short(history, start=5, step=19, first=3, second=3), 200)


@pytest.mark.long
@pytest.mark.parametrize("play", [history, *OPERATIONS])
def test_power_lost_during_recovery_in_every_state(play, tried):
    rng_seed = seed()
    tried(cut_recoveries_short(play, start=1, step=4, first=6, second=6, rng_seed=rng_seed), 200)


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
def test_killed_then_power_lost_during_recovery(play, tried):
    tried(cut_settlings_short(play, start=13, step=4, limit=3), 100)


@pytest.mark.long
@pytest.mark.parametrize("play", [history, *OPERATIONS])
def test_killed_then_power_lost_during_recovery_in_every_state(play, tried):
    rng_seed = seed()
    tried(cut_settlings_short(play, start=1, step=2, limit=6, rng_seed=rng_seed), 200)


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


def test_power_lost_while_segments_are_given_up(tried):
    tried(give_segments_up(limit=8), 40)


@pytest.mark.long
def test_power_lost_while_segments_are_given_up_in_every_state(tried):
    tried(give_segments_up(limit=400, rng_seed=seed()), 40)


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


def test_power_lost_among_many_writers(tried):
    tried(lose_power_among_many(range(1, 100, 4), limit=12), 50)


@pytest.mark.long
def test_power_lost_among_many_writers_in_every_state(tried):
    numbers = random.Random(seed()).choices(range(1, 200), k=1000)
    tried(lose_power_among_many(numbers, limit=60), 1500)


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


def test_random_lives(tried):
    tried(sum(random_lives(random.Random(number), 4) for number in range(25)), 100)


@pytest.mark.long
def test_many_random_lives(tried):
    first = seed()
    tried(sum(random_lives(random.Random(first + n), 8) for n in range(600)), 10000)
