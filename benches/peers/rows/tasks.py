"""Durable puts from asyncio by many tasks, beside the floor. No other engine has such a thing."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from benches.peers.processes import Session
from benches.peers.rows import Group, Measured, Row, Task
from benches.peers.rows.durable import beside, floor_sample
from benches.settings import FULL


def _measure(session: Session, task: Task) -> Iterator[Measured]:
    from benches.store.event_loop import STEPS, run_tasks

    settings = replace(FULL, loop_seconds=task.sizes.sync_seconds, tasks=task.sizes.tasks)
    floor = floor_sample(task)
    path = os.path.join(task.place, "store")
    cell = asyncio.run(run_tasks(path, STEPS["puts"], 0, settings))
    yield Measured("asyncio", cell.rate, beside(cell, floor))


GROUPS: Final = [
    Group(
        "asyncio",
        "durable",
        [Row("asyncio", "durable puts by 1,000 tasks of asyncio")],
        _measure,
        engines=lambda engine: engine.has_tasks,
    ),
]
