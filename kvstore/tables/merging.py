"""Which runs to merge, and how: pure decisions over sizes and key ranges.

A checkpoint adds a run at the front; a look-up may have to ask every run. Runs are merged only with
their neighbours in age, so that a newer one hides an older one's keys. They fall into *tiers* by
size, each :data:`FAN_OUT` times the one below; a run that lies behind a larger, newer one counts as
that. In this order:

1. If a quarter of all items are tombstones, all runs become one, without them. That rewrites four
   items at most for each tombstone.
2. When the younger runs together reach the oldest's size all become one: what the oldest holds and
   younger runs hide takes no more room than what counts.
3. The youngest four or more of one tier become one of the next.
4. If there are still :data:`MOST_RUNS`, the cheapest neighbours are merged.

With n bytes of checkpoints of one size u each byte is written once into a table and about
log4(n / u) times more. With random puts and nothing overwritten, the most runs and the worst ratio
of what is written to what was put, at any moment from the 16th checkpoint on (the log writes each
byte once besides):

>>> def load(checkpoints):
...     runs, written, most, worst = [], 0, 0, 0
...     for count in range(1, checkpoints + 1):
...         runs, written = [RunSize(1000, 10, 0), *runs], written + 1000
...         most = max(most, len(runs))
...         while (chosen := choose(runs, 1000)) is not None:
...             merged = sum(run.size for run in runs[chosen.start : chosen.stop])
...             runs[chosen.start : chosen.stop] = [RunSize(merged, merged // 100, 0)]
...             written += merged
...         if count >= 16:
...             worst = max(worst, written / (1000 * count))
...     return most, round(worst, 1)
>>> load(64), load(150), load(300)  # runs asked, bytes written: 0.5, 1.2, 2.4 GiB at 8 MiB each
((9, 3.9), (11, 4.3), (12, 4.8))
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from kvstore.tables.records import TableRecord

FAN_OUT: Final = 4
MOST_RUNS: Final = 12
MOST_TOMBSTONES: Final = 1 / 4
LEAST_MOVED: Final = 32 << 20
"""A smaller table is rewritten, to be joined with its neighbours."""
_LOWEST_TIER: Final = -2


class RunSize(NamedTuple):
    """What the choice rests on."""

    size: int
    items: int
    tombstones: int


# ------------------------------------------------------------------ which runs


def choose(runs: Sequence[RunSize], unit: int, *, whole: bool = True) -> range | None:
    """Which neighbours to merge, newest first; None if all is well.

    ``unit`` is the usual size of a checkpoint's run. ``whole``: whether these are all runs; else
    there are older ones behind them.

    >>> big, small = RunSize(64_000, 640, 0), RunSize(1000, 10, 0)
    >>> choose([small, small, small, big], 1000), choose([small] * 4 + [big], 1000)
    (None, range(0, 4))
    >>> choose([small, RunSize(1000, 10, 5)], 1000)
    range(0, 2)
    """
    if whole and _has_tombstones(runs):
        return range(len(runs))
    if whole and len(runs) >= FAN_OUT and sum(run.size for run in runs[:-1]) >= runs[-1].size:
        return range(len(runs))
    return _tier_group(runs, unit) or (cheapest(runs) if len(runs) >= MOST_RUNS else None)


def _has_tombstones(runs: Sequence[RunSize]) -> bool:
    tombstones = sum(run.tombstones for run in runs)
    return tombstones > 0 and tombstones >= MOST_TOMBSTONES * sum(run.items for run in runs)


def _tier_group(runs: Sequence[RunSize], unit: int) -> range | None:
    start, largest, tiers = 0, 0, []
    for run in runs:
        largest = max(largest, run.size)
        tiers.append(_tier(largest, unit))
    while start < len(runs):
        stop = start + tiers.count(tiers[start])  # they never fall
        if stop - start >= FAN_OUT:
            return range(start, stop)
        start = stop
    return None


def _tier(size: int, unit: int) -> int:
    """0 from half to two units, 1 from there to eight, and so on."""
    tier, limit = _LOWEST_TIER, 2 * unit * FAN_OUT**_LOWEST_TIER
    while size >= limit:
        tier, limit = tier + 1, limit * FAN_OUT
    return tier


def cheapest(runs: Sequence[RunSize], most: int = FAN_OUT) -> range | None:
    """The neighbours, up to ``most``, that cost the fewest bytes for each run that goes.

    >>> sizes = [1000, 3000, 10, 20, 4000]
    >>> cheapest([RunSize(size, 1, 0) for size in sizes])
    range(2, 4)
    """
    ranges = [
        range(start, stop)
        for start in range(len(runs) - 1)
        for stop in range(start + 2, min(start + most, len(runs)) + 1)
    ]
    return min(ranges, key=lambda chosen: _cost(runs, chosen), default=None)


def _cost(runs: Sequence[RunSize], chosen: range) -> float:
    return sum(runs[number].size for number in chosen) / (len(chosen) - 1)


# ------------------------------------------------------------------ which of their tables


class Stretch(NamedTuple):
    """Some neighbouring keys of the runs to be merged: tables to rewrite, or one to be kept."""

    runs: tuple[tuple[TableRecord, ...], ...]
    """Newest first; those without a table here are left out."""

    @property
    def tables(self) -> tuple[TableRecord, ...]:
        """All of its tables."""
        return tuple(record for run in self.runs for record in run)


def stretches(
    runs: Sequence[Sequence[TableRecord]],
    *,
    drop_tombstones: bool,
    least_moved: int = LEAST_MOVED,
) -> list[tuple[Stretch, bool]]:
    """The runs' tables as stretches that share no key, ascending, and whether each can be kept.

    One that can be kept is a single table, which moves as it is. O(n log n) in the tables.
    """
    found: list[tuple[list[tuple[int, TableRecord]], bool]] = []
    for group in _overlapping(runs):
        record = group[0][1]
        single = len(group) == 1 and not (drop_tombstones and record.tombstones)
        kept = single and record.size >= least_moved
        if found and not kept and not found[-1][1]:
            found[-1][0].extend(group)
        else:
            found.append((group, kept))
    return [_stretch(group, kept, drop_tombstones) for group, kept in found]


def _stretch(
    group: list[tuple[int, TableRecord]], kept: bool, drop_tombstones: bool
) -> tuple[Stretch, bool]:
    ages = sorted({age for age, _ in group})
    runs = tuple(tuple(record for each, record in group if each == age) for age in ages)
    if len(group) == 1:  # there is nobody to join it with
        kept = kept or not (drop_tombstones and group[0][1].tombstones)
    return Stretch(runs), kept


def _overlapping(
    runs: Sequence[Sequence[TableRecord]],
) -> list[list[tuple[int, TableRecord]]]:
    """The tables, each with the number of its run, in groups that share no key, ascending."""
    numbered = [(age, record) for age, run in enumerate(runs) for record in run]
    numbered.sort(key=lambda each: each[1].low)
    groups: list[list[tuple[int, TableRecord]]] = []
    high: bytes | None = None
    for age, record in numbered:
        if groups and (high is None or record.low <= high):
            groups[-1].append((age, record))
            high = None if high is None or record.high is None else max(high, record.high)
        else:
            groups.append([(age, record)])
            high = record.high
    return groups
