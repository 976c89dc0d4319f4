"""Writes that have their place in the log and are not visible yet, found by key.

Whoever decides on a key (``add``, a transaction) has to know of them: they come before it in the
log. Guarded by the visibility lock; entries come and go in the order of the log.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from kvstore.values import MISSING, Found, Value


class InFlight:
    """The entries in flight: those of one put each by key, the others as batches.

    >>> flight = InFlight()
    >>> flight.add_single(1, b"k", b"v")
    >>> flight.add_batch(2, {b"k": None, b"x": b"1"})
    >>> flight.find(b"k"), flight.find(b"x"), flight.find(b"other")
    (None, b'1', MISSING)
    >>> flight.remove(2, None), flight.find(b"k")
    ({b'k': None, b'x': b'1'}, b'v')
    """

    def __init__(self) -> None:
        self.singles: dict[bytes, tuple[int, Value]] = {}
        self._batches: dict[int, dict[bytes, Value]] = {}

    def __bool__(self) -> bool:
        return bool(self.singles or self._batches)

    def add_single(self, entry_id: int, key: bytes, value: Value) -> None:
        """An entry that puts one key."""
        self.singles[key] = (entry_id, value)

    def add_batch(self, entry_id: int, values: dict[bytes, Value]) -> None:
        """An entry of several mutations."""
        self._batches[entry_id] = values

    def remove(self, entry_id: int, key: bytes | None) -> dict[bytes, Value] | None:
        """An entry is visible now, or withdrawn; its batch, if it was one. ``key``: of a single."""
        if key is not None:
            single = self.singles.get(key)
            if single is not None and single[0] == entry_id:
                del self.singles[key]
            return None
        return self._batches.pop(entry_id, None)

    def find(self, key: bytes) -> Found:
        """What the last entry in flight makes of a key, or MISSING."""
        entry_id, value = self.singles.get(key, (0, MISSING))
        for batch_id in reversed(self._batches):
            if batch_id < entry_id:
                break
            if key in self._batches[batch_id]:
                return self._batches[batch_id][key]
        return value

    def keys(self) -> Iterator[Collection[bytes]]:
        """The keys that are written, in parts."""
        yield self.singles.keys()
        for batch in self._batches.values():
            yield batch.keys()
