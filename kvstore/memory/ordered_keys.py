"""The keys of a layer in order, made when somebody first walks the layer, and kept up from then on.

Writers do nothing for it. A layer's dict never loses a key (a deletion is a tombstone), and a dict
keeps its keys in the order of their arrival: so what came since the last look are its last keys.
Few of them are added one by one to a :class:`sortedcontainers.SortedList`; many are sorted in
buckets of at most :data:`BUCKET` keys and merged bucket by bucket, so that no single call holds the
interpreter for long: sorting a million keys at once holds it for a second, 8,192 for 5 ms.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Sequence
from itertools import islice
from typing import Final

from sortedcontainers import SortedList

from kvstore.values import Value

BUCKET: Final = 8192
_SAMPLE: Final = 512
_ONE_BY_ONE: Final = 60  # adding a key costs as much as merging so many sorted ones


class OrderedKeys:
    """The keys of a dict that only grows, in order.

    ``lock`` guards the list and is held while it is brought up to date; the visibility lock, which
    writers to the dict hold, is taken inside it, for the copying of new keys only.
    """

    def __init__(self, values: dict[bytes, Value], visibility: threading.Lock) -> None:
        self._values = values
        self._visibility = visibility
        self._lock = threading.Lock()
        self._keys: SortedList[bytes] = SortedList()
        self._seen = 0

    def catch_up(self) -> None:
        """Take over the keys that came since the last time."""
        if self._seen == len(self._values):
            return
        with self._lock:
            with self._visibility:
                fresh = list(islice(reversed(self._values), len(self._values) - self._seen))
            self._add(fresh)
            self._seen += len(fresh)

    def _add(self, fresh: list[bytes]) -> None:
        keys = self._keys
        if len(fresh) * _ONE_BY_ONE < len(keys):
            for key in fresh:
                keys.add(key)
        else:
            runs = [sorted(fresh[at : at + BUCKET]) for at in range(0, len(fresh), BUCKET)]
            self._keys = SortedList(merge_sorted([list(keys), *runs] if keys else runs))

    def some(self, low: bytes, high: bytes | None, most: int, *, reverse: bool) -> list[bytes]:
        """Up to ``most`` keys with ``low <= key < high``, ascending: the first, or the last."""
        with self._lock:
            keys = self._keys
            first = keys.bisect_left(low)
            last = len(keys) if high is None else keys.bisect_left(high)
            if reverse:
                first = max(first, last - most)
            elif last - first > most:
                last = first + most
            return list(keys[first:last])


def merge_sorted(runs: Sequence[list[bytes]]) -> list[bytes]:
    """Sorted lists as one, in steps of about :data:`BUCKET` keys.

    >>> merge_sorted([[b"a", b"c"], [b"b"]])
    [b'a', b'b', b'c']
    """
    if len(runs) == 1:
        return runs[0]
    sample: list[bytes] = sorted([key for run in runs for key in run[_SAMPLE - 1 :: _SAMPLE]])
    merged: list[bytes] = []
    starts = [0] * len(runs)
    for bound in [*sample[:: BUCKET // _SAMPLE], None]:
        part: list[bytes] = []
        for number, run in enumerate(runs):
            end = len(run) if bound is None else bisect_left(run, bound, starts[number])
            part += run[starts[number] : end]
            starts[number] = end
        part.sort()
        merged += part
    return merged
