"""Opening a store after a clean close, up to the first get, in a process that did nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median

from benches.goals import Figure
from benches.measuring import spread, timed
from benches.memory import memory_mib
from benches.peers.processes import Session, processes
from benches.settings import Settings
from benches.store import stock
from benches.store.items import VALUE_BYTES, picked

Opening = dict[str, float | None]


def run(settings: Settings, directory: str) -> Iterator[Figure]:
    sizes = {"few": settings.opened_keys_few, "many": settings.opened_keys}
    seen: dict[tuple[str, str], list[Opening]] = {
        (name, size): [] for name in settings.engines for size in sizes
    }
    for name, size in seen:
        stock.path(directory, name, sizes[size])
    for turn in range(settings.openings):
        for (name, size), openings in seen.items():
            openings.append(_open(directory, name, sizes[size], turn))
    for name in settings.engines:
        yield from _figures(name, seen[name, "few"], seen[name, "many"], settings.opened_keys)


def _open(directory: str, name: str, keys: int, turn: int) -> Opening:
    path = stock.path(directory, name, keys)
    with processes([name]) as (process,):
        return process.call(_measure, path, picked(1, keys, turn)[0].hex())


def _measure(session: Session, path: str, key: str) -> Opening:
    found = []

    def open_and_get() -> None:
        session.open(path)
        found.append(session.opened.get_each([bytes.fromhex(key)]))

    before = memory_mib("VmRSS")
    milliseconds = 1000 * timed(open_and_get)
    if found != [VALUE_BYTES]:
        raise ValueError("the store is not whole")
    return {"ms": milliseconds, "memory": memory_mib("VmRSS"), "memory_before": before}


def _figures(name: str, few: list[Opening], many: list[Opening], keys: int) -> Iterator[Figure]:
    times = {"few": _all("ms", few), "many": _all("ms", many)}
    for size, found in times.items():
        details = spread(found) | {"keys": keys} if size == "many" else spread(found)
        yield Figure(f"store opening/{name}/{size} keys", median(found), "ms", details)
    ratio = median(times["many"]) / median(times["few"])
    yield Figure(f"store opening/{name}/many to few", ratio, "x")
    memory = _all("memory", many)
    before = {"before": median(_all("memory_before", many))} if memory else {}
    yield Figure(f"store opening/{name}/memory", median(memory) if memory else None, "MiB", before)


def _all(what: str, openings: list[Opening]) -> list[float]:
    return [found for each in openings if (found := each[what]) is not None]
