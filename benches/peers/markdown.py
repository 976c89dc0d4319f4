"""Put a saved run's tables into a page: ``python -m benches.peers.markdown FILE.json PAGE.md``

They go between ``<!-- NAME -->`` and ``<!-- end -->``, and so do the plots beside the page;
everything else of the page stays.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any, Final

from benches.peers.results import Line, in_order, lines_of
from benches.peers.rows.catalogue import GROUPS
from benches.peers.tables import number, spread

SECTIONS: Final = {
    "durable": ("fillsync", "fillbatch-durable", "asyncio"),
    "writing": ("fillbatch", "fillseq", "fillrandom", "load", "latency"),
    "reading": ("reopened", "larger", "missing", "loaded", "readseq", "scans", "readwhilewriting"),
    "opening": ("opening", "recovery"),
    "ycsb": ("ycsb",),
}
"""The tables, with the groups of rows in each."""
PLOTS: Final = {
    "ratios": "Every row's ratio to the best peer",
    "threads": "Durable puts a second against the number of threads",
    "course": "Single puts a second over time",
    "latency": "Percentiles of a put's latency",
    "growth": "What a get and a put cost against the number of keys",
}


def pages_of(document: dict[str, Any]) -> dict[str, str]:
    """What goes between the marks, by name."""
    lines = {line.row.name: line for line in lines_of(document)}
    made: dict[str, Callable[[], str]] = {
        "machine": lambda: machine(document),
        "goals": lambda: goals(list(lines.values())),
        "settings": lambda: settings(document),
    }
    tables = {
        name: table([lines[row] for row in _rows(groups) if row in lines])
        for name, groups in SECTIONS.items()
    }
    return {**tables, **{name: make() for name, make in made.items()}}


def _rows(groups: Sequence[str]) -> list[str]:
    return [row.name for group in groups for row in GROUPS[group].rows]


def table(lines: Sequence[Line]) -> str:
    """Engines beside each other; the best peer in bold."""
    engines = in_order({name for line in lines for name in line.cells})
    return _columns(["", *engines, "to the best peer"], [_row(line, engines) for line in lines])


def _row(line: Line, engines: Sequence[str]) -> list[str]:
    unit = "" if line.row.unit == "/s" else f", {line.row.unit}"
    ratio = line.to_best_peer()
    cells = [_cell(line, name) for name in engines]
    return [f"{line.row.title}{unit}", *cells, "" if ratio is None else f"{ratio:.2f} ×"]


def _cell(line: Line, name: str) -> str:
    if name not in line.cells:
        return "–"
    text = number(line.cells[name].median)
    apart = spread(line, name)
    return (f"**{text}**" if name == line.best_peer() else text) + (f" {apart}" if apart else "")


def goals(lines: Sequence[Line]) -> str:
    rows = [
        [
            line.row.title,
            str(each.goal).replace(" x ", " × "),
            f"{each.value:.2f} ×" if each.goal.beside else number(each.value),
            "reached" if each.reached else "**missed**",
        ]
        for line in lines
        for each in line.verdicts()
    ]
    return _columns(["", "aim", "measured", ""], rows)


def settings(document: dict[str, Any]) -> str:
    packages = document["python"]["packages"]
    versions = {**packages, "sqlite3": document["python"]["sqlite"]}
    rows = [
        [name, versions.get(name) or "", how]
        for name, how in document["engines"].items()
        if "@" not in name
    ]
    return _columns(["engine", "version", "how it is used"], rows)


def machine(document: dict[str, Any]) -> str:
    where, python, sizes = document["machine"], document["python"], document["sizes"]
    memory = where["memory_bytes"]
    told = [
        f"{where['cpus']} × {where['processor'] or where['architecture']}",
        f"{memory / (1 << 30):.0f} GiB of memory" if memory else "",
        f"{where['system']} {where['release']}",
        where["file_system"],
        f"{python['implementation']} {python['version']}",
        f"{sizes['keys']:,} keys",
        f"medians of {sizes['repeats']} turns",
    ]
    return ", ".join(filter(None, told)) + "."


def images(directory: str) -> dict[str, str]:
    """The plots that there are, by the names of their marks."""
    found = {}
    for name, title in PLOTS.items():
        file = f"benchmarks-{name}.svg"
        there = os.path.exists(os.path.join(directory, file))
        found[f"plot_{name}"] = f"![{title}]({file})" if there else "(not drawn yet)"
    return found


def _columns(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(each) + " |" for each in lines)


def filled(page: str, contents: dict[str, str]) -> str:
    """The page with what goes between its marks; KeyError for marks that nobody knows."""

    def put(match: re.Match[str]) -> str:
        return f"<!-- {match[1]} -->\n\n{contents[match[1]]}\n\n<!-- end -->"

    return re.sub(r"<!-- (\w+) -->\n.*?<!-- end -->", put, page, flags=re.DOTALL)


def main(saved: str, page: str) -> None:
    with open(saved, encoding="utf-8") as file:
        contents = pages_of(json.load(file))
    contents |= images(os.path.dirname(page))
    with open(page, encoding="utf-8") as file:
        text = file.read()
    with open(page, "w", encoding="utf-8") as file:
        file.write(filled(text, contents))


if __name__ == "__main__":
    main(*sys.argv[1:])
