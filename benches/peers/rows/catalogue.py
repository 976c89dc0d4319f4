"""All groups by name, in the order in which they are measured, and all rows."""

from __future__ import annotations

from typing import Final

from benches.peers.rows import (
    Group,
    Row,
    durable,
    filling,
    loading,
    reading,
    recovery,
    tasks,
    ycsb,
)

GROUPS: Final[dict[str, Group]] = {
    group.name: group
    for module in (durable, tasks, filling, loading, reading, recovery, ycsb)
    for group in module.GROUPS
}
ROWS: Final[dict[str, Row]] = {row.name: row for group in GROUPS.values() for row in group.rows}


def named(names: list[str]) -> frozenset[str]:
    """The rows of these names, or of the groups of these names; without any, all of the table."""
    if not names:
        return frozenset(
            row.name for group in GROUPS.values() if not group.plotted for row in group.rows
        )
    groups = {row.name for name in names if name in GROUPS for row in GROUPS[name].rows}
    return frozenset(groups | (set(names) & ROWS.keys()))
