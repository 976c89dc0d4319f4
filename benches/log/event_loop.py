"""Durable commits from asyncio: many tasks, ``submit``, a wake-up of the loop for each group."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Iterator
from functools import partial
from statistics import median
from time import perf_counter

import wal
from benches.goals import Figure
from benches.log.floor import floor_of
from benches.measuring import Pair, Sample, summary
from benches.settings import Settings

SIZE = 256

Done = asyncio.Future[None]


class Waker:
    """Resolves the futures of done tickets on the loop's thread: all that have gathered at once."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._finished: deque[Done] = deque()
        self._scheduled = False

    def finish(self, future: Done, ticket: wal.Ticket) -> None:
        """A done callback; runs on the log's thread."""
        self._finished.append(future)
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon_threadsafe(self._resolve)

    def _resolve(self) -> None:
        self._scheduled = False  # first: what comes from here on schedules anew
        finished = self._finished
        while finished:
            finished.popleft().set_result(None)


async def _commit_until(
    deadline: float, log: wal.WriteAheadLog, data: bytes, waker: Waker, latencies: list[float]
) -> None:
    loop = asyncio.get_running_loop()
    before = perf_counter()
    while before < deadline:
        future = loop.create_future()
        log.submit([data]).add_done_callback(partial(waker.finish, future))
        await future
        now = perf_counter()
        latencies.append(now - before)
        before = now


async def _run_tasks(log: wal.WriteAheadLog, tasks: int, seconds: float) -> Sample:
    data = os.urandom(SIZE)
    waker = Waker(asyncio.get_running_loop())
    latencies: list[float] = []
    started = perf_counter()
    deadline = started + seconds
    await asyncio.gather(
        *(_commit_until(deadline, log, data, waker, latencies) for _ in range(tasks))
    )
    return Sample(perf_counter() - started, sorted(latencies))


def run(settings: Settings, directory: str) -> Iterator[Figure]:
    pairs = []
    path = os.path.join(directory, "event-loop")
    with wal.recover(path, wal.LogVoid()) as log, floor_of(directory, SIZE, settings) as floor:
        asyncio.run(_run_tasks(log, settings.tasks, settings.floor_seconds))
        for _ in range(settings.rounds):
            below = floor.sample()
            cell = asyncio.run(_run_tasks(log, settings.tasks, settings.loop_seconds))
            pairs.append(Pair(below, cell))
    ratio = median(pair.ratio for pair in pairs)
    yield Figure(f"event loop/{SIZE} B/{settings.tasks} tasks", ratio, "x", summary(pairs))
