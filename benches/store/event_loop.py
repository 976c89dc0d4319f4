"""The store from asyncio: many tasks, each write of which survives a power loss before the next."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator
from statistics import median
from time import perf_counter

import kvstore.aio
from benches.goals import Figure
from benches.log.floor import floor_of
from benches.measuring import Pair, Sample, summary
from benches.settings import Settings

VALUE = 100
ENTRY = 128
"""About what a put of a 16-byte key takes in the log: the floor writes so much."""

Step = Callable[[kvstore.aio.AsyncStore, int, int], Awaitable[object]]


async def _put(db: kvstore.aio.AsyncStore, task: int, turn: int) -> None:
    await db.put(b"%08d%08d" % (task, turn), bytes(VALUE))


async def _add(db: kvstore.aio.AsyncStore, task: int, turn: int) -> None:
    await db.add(b"%08d%08d" % (task, turn), bytes(VALUE))


async def _change(db: kvstore.aio.AsyncStore, task: int, turn: int) -> None:
    async with db.transaction() as tx:
        value = await tx.get(b"%016d" % task, bytes(VALUE))
        await tx.put(b"%016d" % task, value[50:] + value[:50])


STEPS: dict[str, Step] = {"puts": _put, "adds": _add, "transactions": _change}


async def _repeat(
    db: kvstore.aio.AsyncStore, step: Step, task: int, first: int, deadline: float
) -> list[float]:
    latencies: list[float] = []
    before = perf_counter()
    while before < deadline:
        await step(db, task, first + len(latencies))
        now = perf_counter()
        latencies.append(now - before)
        before = now
    return latencies


async def run_tasks(path: str, step: Step, first: int, settings: Settings) -> Sample:
    """Let tasks repeat a step; ``first`` is the number of the first turn of each."""
    async with kvstore.aio.open(path) as db:
        started = perf_counter()
        deadline = started + settings.loop_seconds
        found = await asyncio.gather(
            *(_repeat(db, step, task, first, deadline) for task in range(settings.tasks))
        )
        seconds = perf_counter() - started
    return Sample(seconds, sorted(latency for each in found for latency in each))


def run(settings: Settings, directory: str) -> Iterator[Figure]:
    path = os.path.join(directory, "store-event-loop")
    pairs: dict[str, list[Pair]] = {name: [] for name in STEPS}
    with floor_of(directory, ENTRY, settings) as floor:
        for n, (name, step) in enumerate(list(STEPS.items()) * settings.rounds):
            below = floor.sample()
            # Never the same keys again: an add would find them.
            cell = asyncio.run(run_tasks(path, step, n << 20, settings))
            pairs[name].append(Pair(below, cell))
    for name, found in pairs.items():
        ratio = median(pair.ratio for pair in found)
        yield Figure(f"store event loop/{name}/{settings.tasks} tasks", ratio, "x", summary(found))
