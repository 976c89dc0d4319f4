"""Timing: loops until a deadline, in one thread or many, and what can be said of their samples."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from time import perf_counter

Work = Callable[[], object]


@dataclass(frozen=True)
class Sample:
    """One cell in one round: how long it took in all, and each call's latency, ascending."""

    seconds: float
    latencies: list[float]

    @property
    def rate(self) -> float:
        return len(self.latencies) / self.seconds

    def percentile(self, percent: float) -> float:
        """The nearest-rank percentile of the latencies, in seconds."""
        rank = round(percent / 100 * (len(self.latencies) - 1))
        return self.latencies[rank]


def sample(work: Work, seconds: float, threads: int = 1) -> Sample:
    """Call ``work`` over and over from each of the threads, for that many seconds."""
    gc.collect()
    if threads == 1:
        started = perf_counter()
        latencies = _loop(work, seconds)
        return Sample(perf_counter() - started, sorted(latencies))
    return _sample_threads(work, seconds, threads)


def _sample_threads(work: Work, seconds: float, count: int) -> Sample:
    found: list[list[float]] = []
    failures: list[Exception] = []
    barrier = threading.Barrier(count + 1)

    def run() -> None:
        barrier.wait()
        try:
            found.append(_loop(work, seconds))
        except Exception as error:  # noqa: BLE001 - raised again by the caller
            failures.append(error)

    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
    barrier.wait()
    started = perf_counter()
    for thread in threads:
        thread.join()
    elapsed = perf_counter() - started
    if failures:
        raise failures[0]
    return Sample(elapsed, sorted(latency for each in found for latency in each))


def _loop(work: Work, seconds: float) -> list[float]:
    latencies: list[float] = []
    before = perf_counter()
    deadline = before + seconds
    while before < deadline:
        work()
        now = perf_counter()
        latencies.append(now - before)
        before = now
    return latencies


def timed(work: Work) -> float:
    """The seconds that one call takes."""
    gc.collect()
    started = perf_counter()
    work()
    return perf_counter() - started


def settle() -> None:
    """Have the system write what it still holds back, lest it does while others are measured."""
    if hasattr(os, "sync"):
        os.sync()


@dataclass(frozen=True)
class Pair:
    """The floor and a cell, measured right after it in the same round."""

    floor: Sample
    cell: Sample

    @property
    def ratio(self) -> float:
        return self.cell.rate / self.floor.rate


def summary(pairs: Sequence[Pair]) -> dict[str, float]:
    """The medians over the rounds of everything that is told of a cell beside its floor."""
    cells, floors = [pair.cell for pair in pairs], [pair.floor for pair in pairs]
    return {
        "per_second": median(cell.rate for cell in cells),
        **{f"p{p}_ms": 1000 * median(c.percentile(p) for c in cells) for p in (50, 95, 99)},
        "floor_per_second": median(floor.rate for floor in floors),
        **{f"floor_p{p}_ms": 1000 * median(f.percentile(p) for f in floors) for p in (50, 99)},
        "least_ratio": min(pair.ratio for pair in pairs),
        "greatest_ratio": max(pair.ratio for pair in pairs),
    }


def spread(rates: Sequence[float]) -> dict[str, float]:
    """How far the rounds were apart."""
    return {"least": min(rates), "greatest": max(rates)}
