"""Draw what ``benches.peers`` saved: ``python -m benches.plots FILE.json DIR`` (matplotlib)."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, Final

import matplotlib as mpl
from matplotlib.figure import Figure

from benches.peers.results import OURS, Line, in_order, lines_of
from benches.peers.rows.catalogue import PLOTTED
from benches.peers.rows.course import PERCENTS
from benches.peers.rows.durable import SCALING
from benches.peers.rows.growth import ALL

COLOURS: Final = {
    "kvstore": "#c0392b",
    "lmdb": "#2c6fbb",
    "lmdb-fresh": "#8fb8de",
    "lmdb-writemap": "#5b8fc4",
    "plyvel": "#2e8b57",
    "rocksdict": "#b8860b",
    "sqlite3": "#7d5ba6",
    "diskcache": "#888888",
    "sqlitedict": "#aaaaaa",
    "dbm.gnu": "#444444",
}
Lines = dict[str, Line]


def ratios(lines: Lines) -> Figure:
    """Every row's ratio to the best peer, on a scale where half and double are as far."""
    rows = [line for line in lines.values() if line.row.name not in PLOTTED]
    found = [(line.row.title, ratio) for line in rows if (ratio := line.to_best_peer())]
    figure = Figure(figsize=(9, 0.28 * len(found) + 1))
    axes = figure.add_subplot()
    values = [math.log2(ratio) for _, ratio in found]
    colours = ["#2e8b57" if value >= 0 else "#c0392b" for value in values]
    bars = axes.barh([title for title, _ in found], values, color=colours)
    axes.bar_label(bars, [f"{ratio:.2f}" for _, ratio in found], padding=3, fontsize=8)
    axes.invert_yaxis()
    axes.axvline(0, color="black", linewidth=0.8)
    ends = math.floor(min(values, default=0)) - 1, math.ceil(max(values, default=0)) + 1
    axes.set_xlim(*ends)
    ticks = range(ends[0], ends[1] + 1)
    axes.set_xticks(ticks, [f"{2.0**at:.2g}" for at in ticks])
    axes.set_xlabel("kvstore to the best peer: longer to the right is better")
    axes.tick_params(axis="y", labelsize=8)
    return figure


def threads(lines: Lines) -> Figure:
    """Durable puts a second against the number of threads."""
    counts = [(lines[name], count) for name, count in SCALING.items() if name in lines]
    figure, axes = _axes("threads", "durable puts a second")
    for engine in _engines([line for line, _ in counts]):
        there = [(line, count) for line, count in counts if engine in line.cells]
        rates = [line.cells[engine].median for line, _ in there]
        axes.plot([count for _, count in there], rates, "o-", **_style(engine))
    if counts and OURS in counts[0][0].cells:
        floor = counts[0][0].cells[OURS].detail("floor")
        axes.axhline(floor, color="black", linestyle=":", label="floor, 1 thread")
    axes.set_xscale("log", base=2)
    axes.set_xticks([count for _, count in counts], [str(count) for _, count in counts])
    axes.legend(fontsize=8)
    return figure


def course(lines: Lines) -> Figure:
    """Puts a second over time."""
    figure, axes = _axes("seconds", "single puts a second")
    line = lines["course"]
    for engine in in_order(set(line.cells)):
        found = line.cells[engine].details[0]
        axes.plot([float(when) for when in found], list(found.values()), **_style(engine))
    axes.legend(fontsize=8)
    return figure


def latency(lines: Lines) -> Figure:
    """What the slowest puts take."""
    figure, axes = _axes("percentile", "microseconds for a put")
    line = lines["latency"]
    for engine in in_order(set(line.cells)):
        found = [line.cells[engine].detail(f"p{percent:g}") for percent in PERCENTS]
        axes.plot([f"{percent:g}" for percent in PERCENTS], found, "o-", **_style(engine))
    axes.set_yscale("log")
    axes.legend(fontsize=8)
    return figure


def growth(lines: Lines) -> Figure:
    """What a get and a put cost against the number of keys."""
    figure = Figure(figsize=(9, 4), layout="constrained")
    for place, (what, title) in enumerate({"gets": "a get", "puts": "a put"}.items(), 1):
        axes = figure.add_subplot(1, 2, place)
        there = [lines[name] for name in ALL if name in lines]
        for engine in _engines(there):
            cells = [line.cells[engine] for line in there if engine in line.cells]
            rates = [cell.median if what == "gets" else cell.detail("puts") for cell in cells]
            costs = [1e6 / rate for rate in rates if rate]
            axes.plot([cell.detail("keys") for cell in cells], costs, "o-", **_style(engine))
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel("keys")
        axes.set_ylabel(f"microseconds for {title}")
        axes.legend(fontsize=8)
    return figure


PLOTS: Final[dict[str, tuple[Callable[[Lines], Figure], Sequence[str]]]] = {
    "ratios": (ratios, ()),
    "threads": (threads, list(SCALING)[:1]),
    "course": (course, ["course"]),
    "latency": (latency, ["latency"]),
    "growth": (growth, list(ALL)[:1]),
}
"""Each with the rows that it cannot be drawn without."""


def _axes(x: str, y: str) -> tuple[Figure, Any]:
    figure = Figure(figsize=(7, 4))
    axes = figure.add_subplot()
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    return figure, axes


def _style(engine: str) -> dict[str, Any]:
    width = 2.2 if engine == OURS else 1.2
    return {"color": COLOURS.get(engine), "label": engine, "linewidth": width, "markersize": 3}


def _engines(lines: Sequence[Line]) -> list[str]:
    return in_order({name for line in lines for name in line.cells})


def draw(document: dict[str, Any], directory: str) -> list[str]:
    """Draw all that there are figures for; the names of the files."""
    lines = {line.row.name: line for line in lines_of(document)}
    # The same figures make the same file; text stays text.
    mpl.rcParams.update({"svg.hashsalt": "kvstore", "svg.fonttype": "none"})
    drawn = []
    for name, (plot, needed) in PLOTS.items():
        if lines.keys() >= set(needed):
            figure = plot(lines)
            figure.savefig(
                os.path.join(directory, f"benchmarks-{name}.svg"),
                bbox_inches="tight",
                metadata={"Date": None},
            )
            drawn.append(f"benchmarks-{name}.svg")
    return drawn


def main(path: str, directory: str) -> None:
    with open(path, encoding="utf-8") as file:
        document = json.load(file)
    print("\n".join(draw(document, directory)))


if __name__ == "__main__":
    main(*sys.argv[1:])
