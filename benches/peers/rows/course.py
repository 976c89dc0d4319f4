"""For plots: single puts for long, while memtables fill and tables are made and merged."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from itertools import cycle
from time import perf_counter
from typing import Final

from benches.measuring import Sample
from benches.peers.data import batches, items, shuffled
from benches.peers.processes import Session
from benches.peers.rows import Group, Measured, Row, Task

INTERVAL: Final = 0.5
PERCENTS: Final = (50, 90, 99, 99.9, 99.99, 100)


def _over_time(session: Session, task: Task) -> Iterator[Measured]:
    """The same keys over and over, all different in between."""
    parts = batches(items(shuffled(task.keys, task.turn)), 100)
    session.open(os.path.join(task.place, "store"), memtable_bytes=task.sizes.memtable_bytes)
    put_each = session.opened.put_each
    done: list[tuple[float, int]] = []
    gc.collect()
    started = perf_counter()
    for part in cycle(parts):
        put_each(part)
        now = perf_counter() - started
        done.append((now, len(part)))
        if now > task.sizes.course_seconds:
            break
    total = sum(count for _, count in done)
    yield Measured("course", total / now, by_interval(done))


def by_interval(done: list[tuple[float, int]], interval: float = INTERVAL) -> dict[str, float]:
    """The rate in each interval, by its end in seconds; the last, cut one is left out."""
    found: dict[int, int] = {}
    for when, count in done:
        found[int(when / interval)] = found.get(int(when / interval), 0) + count
    last = int(done[-1][0] / interval)
    return {f"{(n + 1) * interval:g}": found.get(n, 0) / interval for n in range(last)}


def _latencies(session: Session, task: Task) -> Iterator[Measured]:
    everything = items(shuffled(task.keys, task.turn))
    session.open(os.path.join(task.place, "store"), memtable_bytes=task.sizes.memtable_bytes)
    put, found = session.opened.putter(), []
    deadline = perf_counter() + task.sizes.short_seconds
    gc.collect()
    before = perf_counter()
    for key, value in everything:
        put(key, value)
        now = perf_counter()
        found.append(now - before)
        before = now
        if now > deadline:
            break
    cell = Sample(sum(found), sorted(found))
    percentiles = {f"p{percent:g}": 1e6 * cell.percentile(percent) for percent in PERCENTS}
    yield Measured("latency", percentiles["p99.9"], {"count": len(found), **percentiles})


GROUPS: Final = [
    Group("latency", "write", [Row("latency", "a single put's p99.9", "us")], _latencies),
    Group(
        "course",
        "write",
        [Row("course", "single puts over and over")],
        _over_time,
        plotted=True,
        engines=lambda engine: engine.most_keys is None,
    ),
]
