"""The plain throughput of every engine, one thread, nothing waiting for the disk.

Puts and gets of what was just put, in a store that begins empty; and the rest in a large one that
is reopened: gets of keys that were not read before, of the same again, of keys that are absent, a
walk over everything, and walks over a hundred items from anywhere.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from statistics import median

from benches.goals import Figure
from benches.measuring import spread, timed
from benches.settings import MIB, Settings
from benches.store import stock
from benches.store.items import BLOCK, absent, items, keys, picked
from benches.store.processes import Session, processes

CACHE_BYTES = 256 * MIB
HOT = 10 * BLOCK
RANGE = 100
LAST_START = b"\xe0"
"""No scan starts at the last keys, where there are no hundred."""

FIRST_OF_BATCHES = 1 << 20  # blocks below are for single puts

Cell = tuple[Callable[..., float], tuple[int, ...]]
"""What measures a rate in an engine's process, and what it takes after the number of the turn."""


def run(settings: Settings, directory: str) -> Iterator[Figure]:
    fresh = {name: os.path.join(directory, f"throughput-{name}") for name in settings.engines}
    yield from _measure(settings, fresh, _writing(settings))
    for path in fresh.values():
        shutil.rmtree(path)
    keys = settings.table_keys
    stocks = {name: stock.path(directory, name, keys) for name in settings.engines}
    yield from _measure(settings, stocks, _reading(settings))


def _writing(settings: Settings) -> dict[str, Cell]:
    return {
        "puts": (_puts, (settings.table_puts,)),
        "batches of 1000": (_batches, (settings.table_puts,)),
        "gets, hot": (_hot_gets, (settings.table_gets,)),
    }


def _reading(settings: Settings) -> dict[str, Cell]:
    keys, gets = settings.table_keys, settings.table_gets
    return {
        "gets, reopened": (_gets, (gets, keys)),
        "gets, warm": (_gets, (gets, keys)),  # the same keys again
        "gets, absent": (_absent_gets, (gets,)),
        "full scan": (_full_scan, (keys,)),
        "scans of 100": (_scans, (settings.table_scans, keys)),
    }


def _measure(settings: Settings, paths: dict[str, str], cells: dict[str, Cell]) -> Iterator[Figure]:
    rates: dict[tuple[str, str], list[float]] = {
        (cell, name): [] for cell in cells for name in paths
    }
    with processes(list(paths)) as all_processes:
        for process in all_processes:
            path = paths[process.name]
            process.call(Session.open, path, CACHE_BYTES, stock.MEMTABLE_BYTES)
        for turn in range(settings.store_repeats):
            for cell, (function, sizes) in cells.items():
                for process in all_processes:
                    rates[cell, process.name].append(process.call(function, turn, *sizes))
    medians = {key: median(found) for key, found in rates.items()}
    for (cell, name), found in rates.items():
        details = {**spread(found), **_beside(medians, cell, name)}
        yield Figure(f"store throughput/{cell}/{name}", medians[cell, name], "/s", details)


def _beside(medians: dict[tuple[str, str], float], cell: str, name: str) -> dict[str, float]:
    """The ratio to the best of the other engines."""
    others = [rate for (where, who), rate in medians.items() if where == cell and who != name]
    return {"to_best_other": medians[cell, name] / max(others)} if others else {}


def _puts(session: Session, turn: int, amount: int) -> float:
    blocks = range(turn * amount // BLOCK, (turn + 1) * amount // BLOCK)
    fresh = [item for block in blocks for item in items(block)]
    return len(fresh) / timed(lambda: session.opened.put_each(fresh))


def _batches(session: Session, turn: int, amount: int) -> float:
    first = FIRST_OF_BATCHES + turn * amount // BLOCK
    batches = [items(block) for block in range(first, first + amount // BLOCK)]

    def work() -> None:
        for batch in batches:
            session.opened.write(batch)

    return amount / timed(work)


def _hot_gets(session: Session, turn: int, amount: int) -> float:
    """Of one block, over and over."""
    hot = keys(FIRST_OF_BATCHES) * (amount // BLOCK)
    return _get(session, hot, len(hot))


def _gets(session: Session, turn: int, amount: int, among: int) -> float:
    return _get(session, picked(amount, among, turn), amount)


def _absent_gets(session: Session, turn: int, amount: int) -> float:
    return _get(session, absent(amount, turn), 0)


def _get(session: Session, wanted: Sequence[bytes], there: int) -> float:
    found: list[int] = []
    seconds = timed(lambda: found.append(session.opened.get_each(wanted)))
    if found != [there]:
        raise ValueError("the store is not whole")
    return len(wanted) / seconds


def _full_scan(session: Session, turn: int, there: int) -> float:
    return _walk(session.opened.scan, there)


def _scans(session: Session, turn: int, amount: int, among: int) -> float:
    """Scans per second."""
    starts = [key for key in picked(2 * amount, among, turn) if key < LAST_START][:amount]
    rate = _walk(lambda: session.opened.scan_from(starts, RANGE), RANGE * len(starts))
    return rate / RANGE


def _walk(walk: Callable[[], int], there: int) -> float:
    found: list[int] = []
    seconds = timed(lambda: found.append(walk()))
    if found != [there]:
        raise ValueError("the store is not whole")
    return there / seconds
