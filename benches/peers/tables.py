"""A run as a table for the terminal."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from benches.peers.results import OURS, Line, in_order

BEST: str = "*"


def number(value: float) -> str:
    """A value with three digits that count."""
    for limit, divisor, suffix in ((1e6, 1e6, " M"), (1e4, 1e3, " k")):
        if value >= limit:
            scaled = value / divisor
            return f"{scaled:.3g}{suffix}" if scaled < 999.5 else f"{scaled:,.0f}{suffix}"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def spread(line: Line, name: str) -> str:
    """How far the turns were apart, of the median."""
    cell = line.cells[name]
    if len(cell.values) < 2:
        return ""
    return f"±{50 * (max(cell.values) - min(cell.values)) / cell.median:.0f}%"


def headings(lines: Sequence[Line]) -> list[str]:
    engines = in_order({name for line in lines for name in line.cells})
    return ["", *engines, f"{OURS} to the best", "goals"]


def row(line: Line, engines: Sequence[str]) -> list[str]:
    """A line of the table; the best peer has a star."""
    best = line.best_peer()
    cells = [cell(line, name, best) if name in line.cells else "–" for name in engines]
    unit = "" if line.row.unit == "/s" else f", {line.row.unit}"
    ratio = line.to_best_peer()
    return [
        f"{line.row.title}{unit}",
        *cells,
        "" if ratio is None else f"{ratio:.2f} x",
        verdicts(line),
    ]


def cell(line: Line, name: str, best: str | None) -> str:
    star = BEST if name == best else ""
    return f"{number(line.cells[name].median)}{star} {spread(line, name)}".rstrip()


def verdicts(line: Line) -> str:
    found = (
        f"{each.goal}: {'reached' if each.reached else 'MISSED'}"
        + ("" if each.value == line.to_best_peer() else f" ({number(each.value)})")
        for each in line.verdicts()
    )
    return "; ".join(found)


def plain(lines: Sequence[Line]) -> str:
    """The table in columns, without anything that a terminal has to know."""
    heads = headings(lines)
    table = [heads, *(row(line, heads[1:-2]) for line in lines)]
    widths = [max(len(each[column]) for each in table) for column in range(len(heads))]
    return "\n".join(
        "  ".join(
            text.ljust(width) if column in (0, len(heads) - 1) else text.rjust(width)
            for column, (text, width) in enumerate(zip(each, widths, strict=True))
        ).rstrip()
        for each in table
    )


def show(lines: Sequence[Line]) -> None:
    """Print it, with rich where that is installed."""
    if not lines:
        return
    try:
        from rich.console import Console
        from rich.table import Table
    except ImportError:
        print(plain(lines))
        return
    heads = headings(lines)
    table = Table(*heads, row_styles=["", "dim"])
    for line in lines:
        table.add_row(*row(line, heads[1:-2]))
    console = Console()
    if console.is_terminal:
        console.print(table)
    else:
        print(plain(lines))


def progress(text: str) -> None:
    """Say on a terminal what goes on."""
    if sys.stderr.isatty():
        print(f"\x1b[2K\r{text}", end="", file=sys.stderr, flush=True)
