"""Layers: the mutations of one log segment in memory, and what snapshots need of their past.

A layer is a dict from keys to values, tombstones or log positions. Only the newest layer, the
*active* one, changes. What its keys stood for before is kept in undo *epochs*, for as long as a
snapshot asks for it: taking a snapshot opens an epoch, or shares the newest while that is empty.
While any is open a writer saves what it is about to overwrite (or :data:`MISSING`) in the newest
epoch, once for each key, and only then writes.

A snapshot reads the dict *first*, then the epochs from its own to the newest: the first that has
the key knows what it stood for. Whoever finds a new value in the dict finds the old one in an
epoch, since it was saved before. Releasing a snapshot merges its epoch into the next older one
(the smaller dict into the larger; the older value wins), and takes it out of the chain only then:
a reader that loads the link to the next epoch before it looks into one misses nothing.

The idea of undo instead of multiple versions is that of InnoDB and Oracle: the present is found at
once, and only who looks into the past pays for it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from itertools import repeat
from typing import Final

from kvstore.memory.ordered_keys import OrderedKeys
from kvstore.values import MISSING, NO_ITEMS, Found, Page, Value, joined

LARGEST_PAGE: Final = 1024


class Epoch:
    """What keys stood for, saved before they were written while this was the newest epoch."""

    __slots__ = ("holders", "newer", "older", "saved")

    def __init__(self, older: Epoch | None) -> None:
        self.saved: dict[bytes, Found] = {}
        self.older = older
        self.newer: Epoch | None = None
        self.holders = 0


class Layer:
    """The mutations of one log segment. Everything named ``_locked`` needs the visibility lock."""

    __slots__ = (
        "_ordered",
        "_visibility",
        "cut",
        "has_large",
        "newer",
        "newest",
        "segment_id",
        "values",
    )

    def __init__(self, segment_id: int, visibility: threading.Lock) -> None:
        self.segment_id = segment_id
        self.values: dict[bytes, Value] = {}
        self.newest: Epoch | None = None
        self.newer: Layer | None = None
        """The layer that followed; transactions look there for what was written since."""
        self.cut = False
        """Whether ``newer`` is not kept any more."""
        self.has_large = False
        """Whether some values are positions in the log."""
        self._visibility = visibility
        self._ordered: OrderedKeys | None = None

    def __len__(self) -> int:
        return len(self.values)

    # -- writing -----------------------------------------------------------------------------------

    def save_locked(self, keys: Iterable[bytes]) -> None:
        """Before these keys are written: keep what they stand for, if a snapshot may ask for it."""
        epoch = self.newest
        if epoch is not None:
            saved = epoch.saved
            fresh = [key for key in keys if key not in saved]
            saved.update(zip(fresh, map(self.values.get, fresh, repeat(MISSING)), strict=False))

    # -- epochs ------------------------------------------------------------------------------------

    def open_epoch_locked(self) -> Epoch:
        """The epoch of a snapshot that is taken now."""
        newest = self.newest
        if newest is None or newest.saved:
            epoch = Epoch(newest)
            if newest is not None:
                newest.newer = epoch
            self.newest = newest = epoch
        newest.holders += 1
        return newest

    def close_epoch_locked(self, epoch: Epoch) -> None:
        """A snapshot lets go of its epoch; nobody needs what was saved for it alone."""
        epoch.holders -= 1
        if epoch.holders:
            return
        older, newer = epoch.older, epoch.newer
        if older is not None:
            older.saved = _merged(older.saved, epoch.saved)
            older.newer = newer
        if newer is not None:
            newer.older = older
        else:
            self.newest = older

    # -- reading -----------------------------------------------------------------------------------

    def find(self, key: bytes, epoch: Epoch | None) -> Found:
        """What a key stood for at an epoch (None: now), or MISSING."""
        value: Found = self.values.get(key, MISSING)
        while epoch is not None:
            newer = epoch.newer
            if key in epoch.saved:
                return epoch.saved[key]
            epoch = newer
        return value

    def pages(
        self, low: bytes, high: bytes | None, epoch: Epoch | None, first: int, *, reverse: bool
    ) -> Iterator[Page]:
        """The layer's keys with ``low <= key < high`` as pages, as they were at an epoch."""
        ordered, most = self._in_order(), min(first, LARGEST_PAGE)
        while True:
            keys = ordered.some(low, high, most, reverse=reverse)
            page = self._page_at(keys, epoch)
            if page[0]:
                yield page
            if len(keys) < most:
                return
            if reverse:
                high = keys[0]
            else:
                low = keys[-1] + b"\0"
            most = min(2 * most, LARGEST_PAGE)

    def some(
        self,
        low: bytes,
        high: bytes | None,
        most: int,
        *,
        reverse: bool,
        epoch: Epoch | None = None,
    ) -> Page:
        """The first items of such a range, or the last: at least ``most``, or all there are."""
        keys = self._in_order().some(low, high, most, reverse=reverse)
        found = self._page_at(keys, epoch) if keys else NO_ITEMS
        if len(keys) < most or len(found[0]) == most:
            return found
        found = NO_ITEMS  # some were new: they may be many
        for page in self.pages(low, high, epoch, LARGEST_PAGE, reverse=reverse):
            found = joined(page, found) if reverse else joined(found, page)
            if len(found[0]) >= most:
                break
        return found

    def _in_order(self) -> OrderedKeys:
        ordered = self._ordered
        if ordered is None:  # two threads may both make one
            ordered = self._ordered = OrderedKeys(self.values, self._visibility)
        ordered.catch_up()
        return ordered

    def _page_at(self, keys: list[bytes], epoch: Epoch | None) -> Page:
        found = list(map(self.values.__getitem__, keys))  # the dict first, then the epochs
        if epoch is None:
            return keys, found
        undo = _undone(keys, epoch)
        if not undo:
            return keys, found
        page = [
            (key, value)
            for key, value in zip(keys, map(undo.get, keys, found), strict=False)
            if value is not MISSING
        ]
        return [key for key, _ in page], [value for _, value in page]  # type: ignore[misc]

    def changed_since(self, epoch: Epoch) -> Iterator[dict[bytes, Found]]:
        """What was overwritten in this layer since an epoch, in parts. Visibility lock held."""
        link: Epoch | None = epoch
        while link is not None:
            yield link.saved
            link = link.newer


def _undone(keys: list[bytes], epoch: Epoch) -> dict[bytes, Found]:
    """Those of some keys that were overwritten since an epoch, with what they stood for then."""
    undo: dict[bytes, Found] = {}
    link: Epoch | None = epoch
    while link is not None:
        newer, saved = link.newer, link.saved
        if saved:
            for key in keys:
                if key in saved and key not in undo:
                    undo[key] = saved[key]
        link = newer
    return undo


def _merged(older: dict[bytes, Found], newer: dict[bytes, Found]) -> dict[bytes, Found]:
    """What two epochs saved as one; the older value wins. One of the dicts is used for it."""
    if len(newer) > len(older):
        newer.update(older)
        return newer
    for key, value in newer.items():
        older.setdefault(key, value)
    return older
