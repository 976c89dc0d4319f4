"""Snapshots and transactions that meet no conflict: what they cost, and how they share syncs."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from itertools import cycle
from queue import SimpleQueue
from statistics import median

import kvstore
from benches.goals import Figure
from benches.measuring import Sample, Work, sample, spread, timed
from benches.settings import Settings
from benches.store.items import BLOCK, items, keys

BLOCKS = 100
"""Blocks of items in the store."""


def run(settings: Settings, directory: str) -> Iterator[Figure]:
    path = os.path.join(directory, "transactions")
    with kvstore.open(path, durability=kvstore.Durability.BUFFER) as db:
        for block in range(BLOCKS):
            db.write(dict(items(block)))
        yield from _costs(db, settings)
        yield from _under_fsync(db, settings)


def _costs(db: kvstore.Store, settings: Settings) -> Iterator[Figure]:
    cells: dict[str, Callable[[kvstore.Store, int], None]] = {
        "snapshot": _snapshots,
        "empty": _empty_transactions,
        "read-modify-write": _exchanges,
    }
    seconds: dict[str, list[float]] = {name: [] for name in cells}
    for _ in range(settings.store_repeats):
        for name, work in cells.items():
            seconds[name].append(timed(lambda work=work: work(db, settings.transactions)))  # type: ignore[misc]
    for name, found in seconds.items():
        times = [1e6 * each / settings.transactions for each in found]
        if name == "read-modify-write":
            rates = [1e6 / each for each in times]
            yield Figure(f"store transactions/{name}", median(rates), "/s", spread(rates))
        else:
            yield Figure(f"store transactions/{name}", median(times), "us", spread(times))


def _snapshots(db: kvstore.Store, count: int) -> None:
    for _ in range(count):
        with db.snapshot():
            pass


def _empty_transactions(db: kvstore.Store, count: int) -> None:
    for _ in range(count):
        with db.transaction():
            pass


def _exchanges(db: kvstore.Store, count: int) -> None:
    """Change a value at a time, each in a transaction of its own, all over the store."""
    for turn in range(0, count, BLOCK):
        for key in keys(turn // BLOCK % BLOCKS):
            _exchange(db, key, kvstore.Durability.BUFFER)


def _exchange(db: kvstore.Store, key: bytes, durability: kvstore.Durability) -> None:
    with db.transaction(durability=durability) as tx:
        value = tx[key]
        tx.put(key, value[50:] + value[:50])


def _under_fsync(db: kvstore.Store, settings: Settings) -> Iterator[Figure]:
    threads = {"1 thread": 1, "threads": settings.transaction_threads}
    samples: dict[str, list[Sample]] = {name: [] for name in threads}
    for _ in range(settings.store_repeats):
        for name, count in threads.items():
            samples[name].append(sample(_durably(db), settings.transaction_seconds, count))
    for name, found in samples.items():
        rates = [each.rate for each in found]
        details = {**spread(rates), "p50_ms": 1e3 * median(each.percentile(50) for each in found)}
        yield Figure(f"store transactions/fsync, {name}", median(rates), "/s", details)
    ratios = [many.rate / one.rate for one, many in zip(*samples.values(), strict=True)]
    yield Figure("store transactions/fsync, threads to one", median(ratios), "x", spread(ratios))


def _durably(db: kvstore.Store) -> Work:
    """Change a value in a transaction. Every thread has keys of its own, a block of them."""
    blocks: SimpleQueue[int] = SimpleQueue()
    for block in range(BLOCKS):
        blocks.put(block)

    class Mine(threading.local):
        def __init__(self) -> None:
            self.keys = cycle(keys(blocks.get_nowait()))

    mine = Mine()
    return lambda: _exchange(db, next(mine.keys), kvstore.Durability.FSYNC)
