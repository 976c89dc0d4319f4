"""Lives of a store under many callers at once, each ended by a close, a kill or a power loss.

A life is run by threads or by tasks. The disk holds its callers up at random, at every call that
changes something, so that checkpoints, merges and syncs come between others' steps; threads change
places every microsecond. When a life is over its history is checked, together with what is found in
each of some states that its end may have left; the next life goes on from one of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import random
import threading
import time
from dataclasses import dataclass

import kvstore
import kvstore.aio
from tests.laboratory.machines.callers import (
    EVERY,
    KEYS,
    LARGE,
    SINGLE,
    Caller,
    Direct,
    pause,
    run_now,
)
from tests.laboratory.machines.history import History
from tests.laboratory.machines.linearizability import check
from tests.store.support import BUFFER, FSYNC, PATIENCE, SMALL, WRITE
from wal.files.faulty import FaultyFileSystem, PowerLoss

OPTIONS = {"memtable_bytes": SMALL, "large_value_bytes": LARGE, "processes": False}
LASTING = {"power": {"fsync"}, "kill": {"fsync", "write"}, "latch": {"fsync", "write"}}
"""What outlasts an end. A failed sync is followed by a new process on the same machine."""
SOME = (FSYNC, WRITE, BUFFER)


@dataclass
class Plan:
    """What a life is like."""

    callers: int = 4
    steps: int = 10
    durabilities: tuple = (FSYNC,)
    single: bool = False  # operations of one key only
    only: tuple = ()  # these operations, where not all
    end: str = "close"  # or power, kill, latch
    states: int = 3  # that are looked at after a power loss
    pauses: float = 0.3  # how often a call on the disk is held up


def keep_up(system, rng, share):
    """Hold up some of the calls on a disk."""

    def on_call(kind, path, number):
        if number and rng.random() < share:
            time.sleep(rng.choice((0, 0, 0.0002)))

    system.on_call = on_call


def by_threads(system, history, plan, seed):
    """A life run by threads; its store, still open if it could be opened."""
    db = kvstore.open("s", file_system=system, **OPTIONS)
    end_at(plan, system, seed)
    callers = make_callers(Direct(db), history, plan, seed)
    done = threading.Event()
    keeper = threading.Thread(target=lambda: run_now(upkeep(Direct(db), history, done, seed)))
    errors = []

    def run(caller):
        try:
            run_now(caller.run(plan.steps))
        except BaseException as error:  # noqa: BLE001 - it is raised below
            errors.append(error)

    threads = [threading.Thread(target=run, args=(caller,)) for caller in callers]
    for thread in [keeper, *threads]:
        thread.daemon = True
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    done.set()
    keeper.join(PATIENCE)
    assert not any(thread.is_alive() for thread in [keeper, *threads]), "a thread hangs"
    if errors:
        raise errors[0]
    return db.close


def by_tasks(system, history, plan, seed):
    """A life run by tasks of one loop."""

    async def live():
        db = await kvstore.aio.open("s", file_system=system, **OPTIONS)
        end_at(plan, system, seed)
        done = threading.Event()
        keeper = asyncio.ensure_future(upkeep(db, history, done, seed))
        callers = make_callers(db, history, plan, seed)
        await asyncio.gather(*(caller.run(plan.steps) for caller in callers))
        done.set()
        await keeper
        with contextlib.suppress(PowerLoss, kvstore.StoreError):
            await db.close()
        return db._store.close  # where the power went, to be called again

    return asyncio.run(asyncio.wait_for(live(), PATIENCE))


def end_at(plan, system, seed):
    """Arrange the end of a life that was just opened."""
    rng = random.Random(f"{seed}/end")
    if plan.end in ("power", "kill"):
        system.stop_at(len(system.calls) + rng.randrange(1, 10 + 12 * plan.steps))
    elif plan.end == "latch":
        nth = rng.randrange(1, plan.callers * plan.steps // 2)
        system.fail(errno.EIO, kinds=("sync", "write_at"), path="wal-*", nth=nth)


def surely_close(close):
    """Close a store whose power may be gone: each step that meets that is taken once more."""
    for _ in range(100):
        try:
            return close()
        except kvstore.StoreError:
            return None
        except PowerLoss:
            continue
    raise AssertionError("it cannot be closed")


def make_callers(db, history, plan, seed):
    names = plan.only or (SINGLE if plan.single else EVERY)
    return [
        Caller(name, db, history, f"{seed}/{name}", names, durabilities=plan.durabilities)
        for name in range(plan.callers)
    ]


async def upkeep(db, history, done, seed):
    """Checkpoints and merges, until all callers are done. Each promises that all before it lasts.

    Of a loop it takes a turn now and then; a thread of its own never yields to one.
    """
    rng = random.Random(f"{seed}/upkeep")
    with contextlib.suppress(PowerLoss, kvstore.StoreError):
        while not done.is_set():
            work = rng.choice((db.checkpoint, db.checkpoint, db.sync, db.compact))
            operation = history.begin("upkeep", "checkpoint or sync", durability=FSYNC.value)
            await work()
            history.end(operation)
            await pause(db, 0.0003)


class Lives:
    """Life after life of one store; ``counts`` says how much was tried."""

    def __init__(self, seed, drive):
        self.counts = dict.fromkeys(("lives", "operations", "in doubt", "states"), 0)
        self._seed = seed
        self._rng = random.Random(seed)
        self._drive = drive
        self._system = FaultyFileSystem()
        self._before = {}

    def live(self, plan):
        """One more life, and the judgement of it."""
        self.counts["lives"] += 1
        seed = f"{self._seed}/{self.counts['lives']}"
        system, history = self._system, History()
        keep_up(system, self._rng, plan.pauses)
        close = None
        with contextlib.suppress(PowerLoss):
            close = self._drive(system, history, plan, seed)
        if plan.end in ("power", "kill"):
            system.stop_at(len(system.calls) + 1)
        if close is not None:
            surely_close(close)
        system.heal()
        system.on_call = None
        told = [each for each in history.operations if each.ended is not None]
        self.counts["operations"] += len(told)
        self.counts["in doubt"] += sum(each.ended is None for each in history.operations)
        try:
            self._judge(system, history.operations, plan)
        except AssertionError as error:
            raise AssertionError(f"seed {seed}, {plan}: {error}") from error

    def _judge(self, system, operations, plan):
        """Hold what is found against what was told; go on with it."""
        check(operations, self._before)
        for end, left in self._found(system, plan):
            recovered = found_in(left.killed())
            strict = {each.value for each in plan.durabilities} <= LASTING.get(end, set())
            lasting = None if strict or end == "close" else LASTING[end]
            check(operations, self._before, recovered=recovered, lasting=lasting)
            self.counts["states"] += 1
            self._system, before = left, recovered
        self._before = before

    def _found(self, system, plan):
        """How it ended, and what may be found after that."""
        if plan.end in ("power", "latch"):
            states = [*system.crash_states(seed=self._rng.randrange(1 << 30), limit=12)]
            for state in self._rng.sample(states, k=min(plan.states, len(states))):
                yield "power", FaultyFileSystem(state)
        if plan.end != "power":
            yield plan.end, system.killed()


def found_in(system):
    """What the next opening shows."""
    with kvstore.open("s", file_system=system, **OPTIONS) as db:
        found = dict(db.scan())
    assert found.keys() <= {*KEYS}, "nobody wrote that"
    return found
