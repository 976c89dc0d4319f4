"""What a run found: every value of every engine in every row, the best peers, the verdicts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any, Final

from benches import reporting
from benches.peers.engines import ENGINES, engine
from benches.peers.goals import FLOOR, GOALS, Goal
from benches.peers.rows import Measured, Row
from benches.peers.sizes import Sizes

OURS: Final = "kvstore"


@dataclass
class Cell:
    """One engine in one row: a value for each turn."""

    values: list[float] = field(default_factory=list)
    details: list[dict[str, float]] = field(default_factory=list)

    def add(self, measured: Measured) -> None:
        self.values.append(measured.value)
        self.details.append(measured.details)

    @property
    def median(self) -> float:
        return median(self.values)

    def detail(self, name: str) -> float | None:
        """The median of a detail over the turns."""
        found = [each[name] for each in self.details if name in each]
        return median(found) if found else None


@dataclass(frozen=True)
class Verdict:
    goal: Goal
    value: float

    @property
    def reached(self) -> bool:
        return self.goal.reached(self.value)


@dataclass
class Line:
    """A row with what every engine did in it."""

    row: Row
    cells: dict[str, Cell] = field(default_factory=dict)

    def best_peer(self) -> str | None:
        """The best of the engines that are not kvstore, in whatever way."""
        peers = {
            name: cell.median for name, cell in self.cells.items() if not name.startswith(OURS)
        }
        if not peers:
            return None
        best = min if self.row.fewer_is_better else max
        return best(peers, key=peers.__getitem__)

    def ratio(self, name: str, other: str) -> float:
        """How many times as good one engine is as another."""
        one, two = self.cells[name].median, self.cells[other].median
        return two / one if self.row.fewer_is_better else one / two

    def to_best_peer(self) -> float | None:
        peer = self.best_peer()
        return None if peer is None or OURS not in self.cells else self.ratio(OURS, peer)

    def verdicts(self) -> list[Verdict]:
        """On the goals of this row, as far as there is what they speak of."""
        found = [(goal, self._judged(goal)) for goal in GOALS if goal.row == self.row.name]
        return [Verdict(goal, value) for goal, value in found if value is not None]

    def _judged(self, goal: Goal) -> float | None:
        if OURS not in self.cells:
            return None
        if not goal.beside:
            return self.cells[OURS].median
        if goal.beside == FLOOR:
            return self.cells[OURS].detail("to_floor")
        return self.to_best_peer()

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.row.name,
            "title": self.row.title,
            "unit": self.row.unit,
            "cells": {
                name: {"median": cell.median, "values": cell.values, "details": cell.details}
                for name, cell in self.cells.items()
            },
            "best_peer": self.best_peer(),
            "to_best_peer": self.to_best_peer(),
            "goals": [
                {"goal": str(each.goal), "value": each.value, "reached": each.reached}
                for each in self.verdicts()
            ],
        }


def document(lines: Sequence[Line], sizes: Sizes, directory: str) -> dict[str, Any]:
    """Everything that there is to say about a run, ready for JSON."""
    names = in_order({name for line in lines for name in line.cells})
    return {
        "machine": reporting.machine(directory),
        "python": reporting.python(),
        "sizes": asdict(sizes),
        "engines": {name: engine(name).settings for name in names},
        "lines": [line.as_json() for line in lines],
    }


def lines_of(document: dict[str, Any]) -> list[Line]:
    """The lines that were saved."""
    lines = []
    for saved in document["lines"]:
        line = Line(Row(saved["name"], saved["title"], saved["unit"]))
        for name, cell in saved["cells"].items():
            line.cells[name] = Cell(cell["values"], cell["details"])
        lines.append(line)
    return lines


def in_order(names: set[str]) -> list[str]:
    """Engines as they stand in the table."""
    known = list(ENGINES)
    return sorted(names, key=lambda name: (known.index(name.partition("@")[0]), name))
