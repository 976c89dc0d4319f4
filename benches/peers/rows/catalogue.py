"""All groups by name, in the order in which they are measured, and all rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from benches.peers.rows import (
    Group,
    Row,
    course,
    durable,
    filling,
    growth,
    loading,
    reading,
    recovery,
    tasks,
    ycsb,
)

GROUPS: Final[dict[str, Group]] = {
    group.name: group
    for module in (durable, tasks, filling, loading, reading, recovery, ycsb, course, growth)
    for group in module.GROUPS
}
ROWS: Final[dict[str, Row]] = {row.name: row for group in GROUPS.values() for row in group.rows}
PLOTTED: Final = frozenset(
    row.name for group in GROUPS.values() if group.plotted for row in group.rows
)
AT_LENGTH: Final = frozenset(row.name for row in GROUPS["growth-large"].rows)
"""Takes so long that it has to be asked for by its name."""


def named(names: Sequence[str], *, plots: bool = False) -> frozenset[str]:
    """The rows of these names, or of the groups of these names; without any, all of the table."""
    if not names:
        return frozenset(ROWS.keys() - (AT_LENGTH if plots else PLOTTED))
    groups = {row.name for name in names if name in GROUPS for row in GROUPS[name].rows}
    return frozenset(groups | (set(names) & ROWS.keys()))
