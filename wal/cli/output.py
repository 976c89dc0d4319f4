"""Printing: tables for people, JSON for programs."""

from __future__ import annotations

import datetime as dt
import json
import sys
from collections.abc import Iterable, Sequence


def print_json(value: object, *, lines: bool = False) -> None:
    """A value as JSON: laid out, or as one line of many."""
    print(json.dumps(value, ensure_ascii=False, indent=None if lines else 2))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A table: by rich where that is installed and a person looks, else in plain columns."""
    texts = [[str(cell) for cell in row] for row in rows]
    if not (sys.stdout.isatty() and _print_rich(columns, texts)):
        _print_plain(columns, texts)


def _print_rich(columns: Sequence[str], rows: list[list[str]]) -> bool:
    try:
        from rich.console import Console
        from rich.table import Table
    except ImportError:
        return False
    table = Table(*columns)
    for row in rows:
        table.add_row(*row)
    Console().print(table)
    return True


def _print_plain(columns: Sequence[str], rows: list[list[str]]) -> None:
    lines = [list(columns), *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(columns))]
    for line in lines:
        padded = [cell.ljust(width) for cell, width in zip(line, widths, strict=True)]
        print("  ".join(padded).rstrip())


def id_range(first: int, last: int | None) -> str:
    """Ids as a person reads them.

    >>> id_range(3, 9), id_range(3, 3), id_range(3, None), id_range(0, 0)
    ('3..9', '3', '3..?', '-')
    """
    if last is None:
        return f"{first}..?"
    if not last:
        return "-"
    return str(first) if first == last else f"{first}..{last}"


def moment(unix_ns: int) -> str:
    """A time in UTC; the number itself where there is no such time.

    >>> moment(1_700_000_000_000_000_000), moment(2**64 - 1)
    ('2023-11-14T22:13:20Z', '2554-07-21T23:34:33Z')
    """
    try:
        when = dt.datetime.fromtimestamp(unix_ns // 10**9, tz=dt.timezone.utc)
    except (OverflowError, ValueError, OSError):
        return str(unix_ns)
    return when.strftime("%Y-%m-%dT%H:%M:%SZ")


def warn(message: str) -> None:
    """A line for a person, apart from the output."""
    print(f"wal: {message}", file=sys.stderr)
