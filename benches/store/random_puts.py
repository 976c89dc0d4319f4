"""Random puts in batches of a thousand, for long: whether an engine keeps up with itself.

They are timed in ten parts (of a million each when there are ten million). The first part runs into
empty memtables; from the second on everything takes its share. The time to make the items, about a
third of a microsecond each, is in all rates. For the bytes written two witnesses are heard, and the
worse one is believed: the engine, at the last put, and its process, on Linux, up to the close. The
latter counts pages: one that reaches the disk half full is counted again.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from statistics import mean

from benches.goals import Figure
from benches.measuring import timed
from benches.memory import written_bytes
from benches.peers.processes import Process, Session, processes
from benches.settings import Settings
from benches.store.items import BLOCK, ITEM_BYTES, items

PARTS = 10
ASK_EVERY = 20  # batches
OURS = "kvstore"
Statistics = dict[str, float]


@dataclass
class Course:
    """What one engine did."""

    rates: list[float] = field(default_factory=list)
    statistics: list[Statistics] = field(default_factory=list)
    written: float | None = None

    @property
    def early(self) -> float:
        return mean(self.rates[1:4])

    @property
    def last(self) -> float:
        return self.rates[-1]


def run(settings: Settings, directory: str) -> Iterator[Figure]:
    courses = {name: Course() for name in settings.engines}
    places = {name: os.path.join(directory, f"random-puts-{name}") for name in settings.engines}
    blocks = max(settings.random_puts // BLOCK // PARTS, 1)
    with processes(settings.engines) as all_processes:
        for process in all_processes:
            process.call(Session.open, places[process.name])
        for part in range(PARTS):
            for process in all_processes:
                _put_part(process, part * blocks, blocks, courses[process.name])
        for process in all_processes:
            courses[process.name].written = process.call(_close)
    for path in places.values():
        shutil.rmtree(path)
    yield from _figures(courses, PARTS * blocks * BLOCK)


def _put_part(process: Process, first: int, blocks: int, course: Course) -> None:
    seconds, statistics = process.call(_put, first, blocks)
    course.rates.append(blocks * BLOCK / seconds)
    course.statistics += statistics


def _put(session: Session, first: int, blocks: int) -> tuple[float, list[Statistics]]:
    """The seconds it took, and what the engine told now and then."""
    statistics = []

    def work() -> None:
        for block in range(first, first + blocks):
            session.opened.write(items(block))
            if block % ASK_EVERY == 0:
                statistics.append(session.opened.statistics())

    seconds = timed(work)
    return seconds, [*statistics, session.opened.statistics()]


def _close(session: Session) -> float | None:
    session.close()
    return written_bytes()


def _figures(courses: dict[str, Course], puts: int) -> Iterator[Figure]:
    for name, course in courses.items():
        parts = {f"part_{n}": rate for n, rate in enumerate(course.rates, 1)}
        figure = f"store random puts/{name}"
        yield Figure(f"{figure}/last tenth", course.last, "/s", {"puts": puts, **parts})
        yield Figure(f"{figure}/last to early", course.last / course.early, "x")
        caused = None if course.written is None else course.written / (puts * ITEM_BYTES)
        told = course.statistics[-1].get("write_amplification")
        worse, both = amplification(told, caused)
        yield Figure(f"{figure}/write amplification", worse, "x", both)
        if name == OURS:
            yield _to_best_peer(figure, courses)
            yield _most_runs(figure, course.statistics)


def amplification(told: float | None, caused: float | None) -> tuple[float | None, Statistics]:
    """The greater of what an engine tells and what its process caused; and both, as details."""
    both = {"told": told, "by_the_process": caused}
    known = {name: value for name, value in both.items() if value is not None}
    return max(known.values(), default=None), known


def _most_runs(figure: str, statistics: Sequence[Statistics]) -> Figure:
    runs = [each["runs"] for each in statistics if "runs" in each]
    return Figure(f"{figure}/most runs", max(runs, default=None), "runs")


def _to_best_peer(figure: str, courses: dict[str, Course]) -> Figure:
    peers = [course.last for name, course in courses.items() if name != OURS]
    ratio = courses[OURS].last / max(peers) if peers else None
    return Figure(f"{figure}/to the best peer", ratio, "x")
