"""Random gets from a store four times larger than its cache: how fast, and in how much memory."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median

from benches.goals import Figure
from benches.measuring import spread, timed
from benches.memory import memory_mib
from benches.peers.processes import Session, processes
from benches.settings import MIB, Settings
from benches.store import stock
from benches.store.items import ITEM_BYTES, VALUE_BYTES, picked

TIMES = 4
AT_ONCE = 20_000  # keys that are made before so many gets are timed


def run(settings: Settings, directory: str) -> Iterator[Figure]:
    keys = settings.cached_keys
    cache_bytes = keys * ITEM_BYTES // TIMES
    rates: dict[str, list[float]] = {name: [] for name in settings.engines}
    with processes(settings.engines) as all_processes:
        for process in all_processes:
            path = stock.path(directory, process.name, keys)
            process.call(Session.open, path, cache_bytes=cache_bytes)
        for turn in range(settings.store_repeats):
            for process in all_processes:
                seconds = process.call(_get, keys, settings.cached_gets, turn)
                rates[process.name].append(settings.cached_gets / seconds)
        peaks = {process.name: process.call(_peak) for process in all_processes}
    for name, found in rates.items():
        details = {**spread(found), "keys": keys, "cache_mib": cache_bytes / MIB}
        yield Figure(f"store larger than cache/{name}/gets", median(found), "/s", details)
        yield _memory(name, peaks[name], cache_bytes / MIB)


def _memory(name: str, peak: float | None, cache: float) -> Figure:
    figure = f"store larger than cache/{name}/memory"
    if peak is None:
        return Figure(figure, None, "MiB above cache")
    return Figure(figure, peak - cache, "MiB above cache", {"peak_mib": peak})


def _get(session: Session, among: int, gets: int, turn: int) -> float:
    """The seconds that so many gets took; keys are made in between."""
    seconds = 0.0
    for start in range(0, gets, AT_ONCE):
        keys = picked(min(AT_ONCE, gets - start), among, turn * gets + start)
        seconds += timed(lambda keys=keys: _get_all(session, keys))  # type: ignore[misc]
    return seconds


def _get_all(session: Session, keys: list[bytes]) -> None:
    if session.opened.get_each(keys) != VALUE_BYTES * len(keys):
        raise ValueError("the store is not whole")


def _peak(session: Session) -> float | None:
    return memory_mib("VmHWM")
