"""The run: groups of rows, turn by turn, engine after engine, each in a process of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from benches.measuring import settle
from benches.peers import stock
from benches.peers.engines import UnsupportedError, engine
from benches.peers.processes import Session, processes
from benches.peers.results import Cell, Line
from benches.peers.rows import Group, Measured, Task
from benches.peers.rows.catalogue import GROUPS
from benches.peers.sizes import Sizes

Say = Callable[[str], None]


@dataclass(frozen=True)
class Run:
    """What is asked for."""

    engines: Sequence[str]
    rows: frozenset[str]
    sizes: Sizes
    directory: str
    """Where stocks are kept, and everything else is while it is needed."""
    say: Say = lambda text: None
    failures: list[str] = field(default_factory=list)
    """What an engine failed in; the others go on."""

    def lines(self) -> Iterator[Line]:
        """Measure; the rows of a group come when all of its turns are over."""
        for group in GROUPS.values():
            lines = {row.name: Line(row) for row in group.rows if row.name in self.rows}
            if lines:
                self._measure(group, lines)
                yield from (line for line in lines.values() if line.cells)

    def _measure(self, group: Group, lines: dict[str, Line]) -> None:
        engines = [name for name in self.engines if _takes_part(name, group)]
        turns = 1 if group.plotted else self.sizes.repeats
        for turn in range(turns):
            for name in (name for name in engines if turn < engine(name).turns):
                self.say(f"{group.name}: {name}, turn {turn + 1} of {turns}")
                for measured in self._try(group, name, list(lines), turn):
                    if measured.row in lines:
                        lines[measured.row].cells.setdefault(name, Cell()).add(measured)

    def _try(self, group: Group, name: str, rows: list[str], turn: int) -> list[Measured]:
        try:
            return self._one(group, name, rows, turn)
        except RuntimeError as error:
            self.failures.append(f"{group.name}: {error}")
            return []

    def _one(self, group: Group, name: str, rows: list[str], turn: int) -> list[Measured]:
        keys = min(group.size(self.sizes), engine(name).most_keys or group.size(self.sizes))
        loaded = stock.Stock("", keys)
        if group.stock:
            loaded = stock.ready(self.directory, group.stock, name, keys, self.sizes)
        with tempfile.TemporaryDirectory(dir=self.directory) as place:
            path = loaded.path
            if group.copies:
                path = os.path.join(place, "copy")
                copy(loaded.path, path)
            settle()
            task = Task(place, path, loaded.keys, rows, turn, self.sizes)
            with processes([name]) as (process,):
                return [Measured(*each) for each in process.call(_run, group.name, asdict(task))]


def _takes_part(name: str, group: Group) -> bool:
    kind = engine(name)
    return group.engines(kind) and (not kind.only or group.kind in kind.only)


def _run(session: Session, group: str, task: dict[str, Any]) -> list[tuple[str, float, Any]]:
    """What a process does."""
    sizes = Sizes(**task.pop("sizes"))
    found: list[tuple[str, float, Any]] = []
    try:
        for measured in GROUPS[group].measure(session, Task(**task, sizes=sizes)):
            found.append((measured.row, measured.value, measured.details))  # noqa: PERF401
    except UnsupportedError:
        pass  # what comes after it is of the same kind
    session.close()
    return found


def copy(path: str, to: str) -> None:
    """Copy a store. Holes stay holes where the system's own command can be used."""
    if sys.platform == "win32":
        shutil.copytree(path, to)
    else:
        subprocess.run(["cp", "-R", path, to], check=True)
