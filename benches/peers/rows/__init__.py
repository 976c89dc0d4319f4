"""What is measured: rows, in groups that one process measures one after the other.

A group's ``measure`` runs in an engine's process. It gets a :class:`Task` and yields a
:class:`Measured` for each row. Rows that an engine cannot do are left out.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Final, TypeVar

from benches.peers.engines import Engine
from benches.peers.processes import Session
from benches.peers.sizes import Sizes

T = TypeVar("T")

FIRST_CHUNK: Final = 256
SHORT: Final = 0.05
"""Chunks grow until one takes so many seconds: then looking at the clock costs nothing."""


@dataclass(frozen=True)
class Row:
    """A line of the table."""

    name: str
    title: str
    unit: str = "/s"

    @property
    def fewer_is_better(self) -> bool:
        return self.unit in ("ms", "us", "MiB")


@dataclass(frozen=True)
class Measured:
    row: str
    value: float
    details: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Task:
    """What a process is to measure, and where."""

    place: str
    """A directory of its own, empty."""
    stock: str
    """A loaded store, where the group reads one; a copy, where it changes it."""
    keys: int
    """How many keys are in the stock, or are to be put."""
    rows: Sequence[str]
    """Those that were asked for."""
    turn: int
    sizes: Sizes


Measure = Callable[[Session, Task], Iterator[Measured]]


@dataclass(frozen=True)
class Group:
    """Rows that a process measures one after the other."""

    name: str
    kind: str
    """``durable``, ``write``, ``read`` or ``mixed``: some engines are for one kind only."""
    rows: Sequence[Row]
    measure: Measure
    stock: str = ""
    """The name of what has to be loaded before: see ``stock``."""
    copies: bool = False
    """Whether the stock is changed, and so copied for every turn."""
    engines: Callable[[type[Engine]], bool] = lambda engine: True
    """Whether an engine takes part."""
    plotted: bool = False
    """Whether it is for a plot only: not in the table, in one turn, and only if asked for."""
    size: Callable[[Sizes], int] = lambda sizes: sizes.keys
    """How many keys it is about, for engines that can hold so many."""


def seconds(session: Session, task: Task) -> float:
    """How long a cell may take."""
    return min(task.sizes.seconds, session.engine.seconds)


def bounded(
    work: Callable[[Sequence[T]], object],
    things: Sequence[T],
    seconds: float,
    first: int = FIRST_CHUNK,
) -> Done:
    """Work through things, in chunks of ``first`` and then more, until the time is up."""
    gc.collect()
    done, elapsed, chunk = 0, 0.0, first
    while done < len(things) and elapsed < seconds:
        part = things[done : done + chunk]
        before = perf_counter()
        work(part)
        took = perf_counter() - before
        elapsed += took
        done += len(part)
        if took < SHORT:
            chunk = 2 * chunk
    return Done(done, elapsed)


@dataclass(frozen=True)
class Done:
    """How much was done, in how many seconds."""

    count: int
    seconds: float

    def measured(self, row: str, each: int = 1) -> Measured:
        """As a row of things, of which each was so many."""
        count = self.count * each
        return Measured(row, count / self.seconds, {"count": count, "seconds": self.seconds})


def check(holds: bool) -> None:
    if not holds:
        raise ValueError("the store is not whole")
