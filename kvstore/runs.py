"""Runs: immutable ordered maps, what everything that a reader walks is made of.

A run is a dict and its keys in order. The keys are sorted when first asked for, so a run that is
only looked up costs nothing more than the dict; tables come with their keys sorted already. A value
of None is a tombstone: it hides the key in all older runs.

Several runs, newest first, are walked together page by page (:func:`pages`). A page takes from each
run what lies below a bound that no run exceeds by more than a page, overlays that by dict updates
and sorts it, all in C: some million items per second, however many runs there are.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Final

Values = dict[bytes, "bytes | None"]
Item = tuple[bytes, bytes]

FIRST_PAGE: Final = 32
LARGEST_PAGE: Final = 1024


class Run:
    """An immutable ordered map from keys to values or tombstones.

    >>> run = Run({b"b": b"2", b"a": None})
    >>> run.keys, len(run)
    ([b'a', b'b'], 2)
    """

    __slots__ = ("_deletions", "_keys", "values")

    def __init__(self, values: Values, keys: list[bytes] | None = None) -> None:
        self.values = values
        self._keys = keys
        self._deletions: int | None = None

    @property
    def keys(self) -> list[bytes]:
        """All keys in order. O(n log n) the first time (two threads may both sort), then O(1)."""
        keys = self._keys
        if keys is None:
            keys = self._keys = sorted(self.values)
        return keys

    @property
    def deletions(self) -> int:
        """How many of the values are tombstones. O(n) the first time, then O(1)."""
        count = self._deletions
        if count is None:
            count = self._deletions = sum(value is None for value in self.values.values())
        return count

    def __len__(self) -> int:
        return len(self.values)


def merge(runs: Sequence[Run], *, drop_tombstones: bool) -> Run:
    """Several runs, newest first, as one. O(n): sorted parts are merged, not sorted again.

    >>> newer, older = Run({b"a": None}), Run({b"a": b"1", b"b": b"2"})
    >>> merge([newer, older], drop_tombstones=False).values
    {b'a': None, b'b': b'2'}
    >>> merge([newer, older], drop_tombstones=True).keys
    [b'b']
    """
    values: Values = {}
    for run in reversed(runs):
        values.update(run.values)
    keys = sorted(chain.from_iterable(run.keys for run in reversed(runs)))
    if len(keys) != len(values):
        keys = list(dict.fromkeys(keys))
    if drop_tombstones and None in values.values():
        keys = [key for key in keys if values[key] is not None]
        values = dict(zip(keys, map(values.__getitem__, keys), strict=False))
    return Run(values, keys)


class _Span:
    """What is left of a run: its keys from index ``low`` up to ``high``."""

    __slots__ = ("high", "keys", "low", "values")

    def __init__(self, run: Run, low: int, high: int) -> None:
        self.values = run.values
        self.keys = run.keys
        self.low = low
        self.high = high

    def take_up_to(self, bound: bytes | None) -> list[bytes]:
        cut = self.high if bound is None else bisect_right(self.keys, bound, self.low, self.high)
        taken, self.low = self.keys[self.low : cut], cut
        return taken

    def take_down_to(self, bound: bytes | None) -> list[bytes]:
        cut = self.low if bound is None else bisect_left(self.keys, bound, self.low, self.high)
        taken, self.high = self.keys[cut : self.high], cut
        return taken


def pages(
    runs: Sequence[Run],
    low: bytes,
    high: bytes | None,
    *,
    reverse: bool,
    first_page: int = FIRST_PAGE,
) -> Iterator[list[Item]]:
    """The items with ``low <= key < high`` of runs that overlay each other, newest first.

    O(log n) for each run to begin with. Pages grow, so that who stops early paid for little; who
    knows how many items are wanted says so in ``first_page``.
    """
    spans = list(_spans(runs, low, high))
    size = min(first_page, LARGEST_PAGE)
    while spans:
        page = _next_page(spans, size, reverse)
        if page:
            yield page
        spans = [span for span in spans if span.low < span.high]
        size = min(size * 2, LARGEST_PAGE)


def _spans(runs: Sequence[Run], low: bytes, high: bytes | None) -> Iterator[_Span]:
    for run in runs:
        keys = run.keys
        first = bisect_left(keys, low)
        last = len(keys) if high is None else bisect_left(keys, high)
        if first < last:
            yield _Span(run, first, last)


def _next_page(spans: list[_Span], size: int, reverse: bool) -> list[Item]:
    longer = [span for span in spans if span.high - span.low > size]
    bound = None
    if reverse:
        if longer:
            bound = max(span.keys[span.high - size] for span in longer)
        taken = [(span.values, span.take_down_to(bound)) for span in spans]
    else:
        if longer:
            bound = min(span.keys[span.low + size - 1] for span in longer)
        taken = [(span.values, span.take_up_to(bound)) for span in spans]
    page = _overlay([(values, keys) for values, keys in taken if keys])
    if reverse:
        page.reverse()
    return page


def _overlay(parts: list[tuple[Values, list[bytes]]]) -> list[Item]:
    values, keys = parts[0]
    if len(parts) > 1:
        values = {}
        for part, part_keys in reversed(parts):
            values.update(zip(part_keys, map(part.__getitem__, part_keys), strict=False))
        keys = sorted(values)
    return [
        (k, v) for k, v in zip(keys, map(values.__getitem__, keys), strict=False) if v is not None
    ]
