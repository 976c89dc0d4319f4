"""Single puts, with checkpoints and compactions going on and without.

One store is opened again and again, with a memtable so large that nothing leaves it while puts are
timed, and with the usual one, whose tables the puts keep being written. The puts overwrite, so that
the store stays as large as it is.
"""

from __future__ import annotations

import gc
import os
import random
from collections.abc import Iterator
from statistics import median
from time import perf_counter

import kvstore
from benches.goals import Figure
from benches.measuring import Pair, Sample, spread
from benches.settings import MIB, Settings
from benches.store.items import BLOCK, Items, items

USUAL_BYTES = 64 * MIB
LARGE_BYTES = 2048 * MIB
WARM_UP = 6
"""One in so many puts comes before those that are timed: until files are there, tables are due."""


def run(settings: Settings, directory: str) -> Iterator[Figure]:
    path = os.path.join(directory, "put-latency")
    puts = [item for block in range(settings.timed_puts // BLOCK) for item in items(block)]
    _open_and_put(path, USUAL_BYTES, puts)
    pairs = []
    for turn in range(settings.store_repeats):
        random.Random(turn).shuffle(puts)
        without = _open_and_put(path, LARGE_BYTES, puts)
        pairs.append(Pair(without, _open_and_put(path, USUAL_BYTES, puts)))
    yield _figure("without checkpoints", [pair.floor for pair in pairs])
    yield _figure("with checkpoints", [pair.cell for pair in pairs])
    tails = [pair.cell.percentile(99.9) / pair.floor.percentile(99.9) for pair in pairs]
    yield Figure("store put latency/p99.9", median(tails), "x", spread(tails))
    ratios = [pair.ratio for pair in pairs]
    yield Figure("store put latency/throughput", median(ratios), "x", spread(ratios))


def _open_and_put(path: str, memtable_bytes: int, puts: Items) -> Sample:
    buffered = kvstore.Durability.BUFFER
    with kvstore.open(path, durability=buffered, memtable_bytes=memtable_bytes) as db:
        if memtable_bytes == LARGE_BYTES:
            db.compact()  # nothing is left to do from before
        warm_up = len(puts) // WARM_UP
        _put(db, puts[:warm_up])
        return _put(db, puts[warm_up:])


def _put(db: kvstore.Store, items: Items) -> Sample:
    gc.collect()
    latencies = []
    started = before = perf_counter()
    for key, value in items:
        db.put(key, value)
        now = perf_counter()
        latencies.append(now - before)
        before = now
    return Sample(before - started, sorted(latencies))


def _figure(name: str, samples: list[Sample]) -> Figure:
    percentiles = {
        f"p{percent:g}_us": 1e6 * median(each.percentile(percent) for each in samples)
        for percent in (50, 99, 99.9, 100)
    }
    rate = median(each.rate for each in samples)
    return Figure(f"store put latency/{name}", rate, "/s", percentiles)
