"""Cursors: a position among the keys of a range that moves in both directions."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from kvstore.errors import StoreClosedError
from kvstore.keyspaces import Keyspace
from kvstore.mutations import Buffer, as_bytes
from kvstore.ranges import Range
from kvstore.sources import PinnedSource, Walk
from kvstore.values import Value

if TYPE_CHECKING:
    from types import TracebackType

V = TypeVar("V")


class Cursor(Generic[V]):
    """A position among the keys of a range, over the state of the cursor's opening.

    Every move returns the item it came to as a pair, or None where there is none. A fresh cursor is
    nowhere: its :meth:`next` is the first item, its :meth:`prev` the last. Past one end of the
    range, the move in the other direction comes back to the item at that end. Iterating a cursor
    goes on from where it is. It keeps the files that it needs until :meth:`close`, which leaving
    its ``with`` block calls. For one thread at a time. Made by ``cursor()`` of whatever can be
    read.

    A move costs O(log n) after a seek or a change of direction beyond the present page of some
    hundred keys, else O(1).
    """

    def __init__(
        self,
        source: PinnedSource,
        space: Keyspace | None,
        wanted: Range,
        decode: Callable[[bytes], Any] | None,
        *,
        owned: bool,
    ) -> None:
        """Use ``cursor()``."""
        self._source = source
        self._space = space
        self._bounds = Range(b"", b"") if space is None else space.bounds(*wanted)
        self._decode = decode
        self._owned = owned  # the source is let go of with the cursor
        self._closed = False
        self._walk: Walk | None = None  # whose pages follow the present one
        self._reverse = False  # its direction
        self._keys: list[bytes] = []  # the present page
        self._values: list[Value] = []
        self._at = 0
        self._edge: bytes | None = None  # while it is at no key: no key between is passed over

    # -- where it is -------------------------------------------------------------------------------

    @property
    def key(self) -> bytes | None:
        """The key it is at, None where it is at none."""
        return self._space.shown([self._keys[self._at]])[0] if self._on() and self._space else None

    @property
    def value(self) -> V | None:
        """The value it is at, None where it is at none."""
        if not self._on():
            return None
        key = self._keys[self._at]
        data = self._source.load(key, self._values[self._at])
        return data if self._decode is None or data is None else self._decode(data)  # type: ignore[return-value]

    def _on(self) -> bool:
        self._check()
        return 0 <= self._at < len(self._keys)

    # -- moving ------------------------------------------------------------------------------------

    def first(self) -> tuple[bytes, V] | None:
        """To the first item of the range."""
        self._check()
        return self._forward(self._bounds.low)

    def last(self) -> tuple[bytes, V] | None:
        """To the last item of the range."""
        self._check()
        return self._backward(self._bounds.high)

    def seek(self, key: Buffer) -> tuple[bytes, V] | None:
        """To the first key that is not below this one."""
        self._check()
        low = self._stored(key)
        at = bisect_left(self._keys, low)
        return self._find(at, low) if 0 < at < len(self._keys) else self._forward(low)

    def seek_last(self, key: Buffer) -> tuple[bytes, V] | None:
        """To the last key that is not above this one."""
        self._check()
        high = self._stored(key) + b"\0"
        at = bisect_left(self._keys, high)
        return self._find(at - 1, high) if 0 < at < len(self._keys) else self._backward(high)

    def next(self) -> tuple[bytes, V] | None:
        """To the item behind the present one."""
        if self._on():
            if self._at + 1 < len(self._keys):
                return self._come_to(self._at + 1)
            behind = self._keys[-1] + b"\0"
            return self._forward(behind) if self._reverse else self._turn_page(behind)
        return self.first() if self._edge is None else self._forward(self._edge)

    def prev(self) -> tuple[bytes, V] | None:
        """To the item before the present one."""
        if self._on():
            if self._at:
                return self._come_to(self._at - 1)
            before = self._keys[0]
            return self._turn_page(before) if self._reverse else self._backward(before)
        return self.last() if self._edge is None else self._backward(self._edge)

    def __iter__(self) -> Iterator[tuple[bytes, V]]:
        while (item := self.next()) is not None:
            yield item

    # -- pages -------------------------------------------------------------------------------------

    def _stored(self, key: Buffer) -> bytes:
        wanted = as_bytes(key, "key")
        return wanted if self._space is None else self._space.stored(wanted)

    def _forward(self, low: bytes) -> tuple[bytes, V] | None:
        """To the first item that is not below ``low``."""
        low = max(low, self._bounds.low)
        return self._begin(Range(low, self._bounds.high), low, reverse=False)

    def _backward(self, high: bytes | None) -> tuple[bytes, V] | None:
        """To the last item below ``high`` (None: of all)."""
        bound = self._bounds.high
        if high is None or (bound is not None and bound < high):
            high = bound
        edge = self._bounds.low if high is None else high
        return self._begin(Range(self._bounds.low, high), edge, reverse=True)

    def _begin(self, wanted: Range, edge: bytes, *, reverse: bool) -> tuple[bytes, V] | None:
        self._end_walk()
        if self._space is None:
            self._nowhere(edge)
            return None
        self._reverse = reverse
        self._walk = self._source.walk(wanted, None, reverse=reverse)
        return self._turn_page(edge)

    def _turn_page(self, edge: bytes) -> tuple[bytes, V] | None:
        """To the next page of the walk; ``edge`` is where the cursor is if there is none."""
        page = next(self._walk, None) if self._walk is not None else None
        if page is None:
            self._nowhere(edge)
            return None
        self._keys, self._values = page
        return self._come_to(len(self._keys) - 1 if self._reverse else 0)

    def _find(self, at: int, sought: bytes) -> tuple[bytes, V]:
        """To an item of the page: that nothing is between it and what was sought counts too."""
        if self._walk is not None:
            self._walk.reached(sought)
        return self._come_to(at)

    def _come_to(self, at: int) -> tuple[bytes, V]:
        stored = self._keys[at]
        if self._walk is not None:
            self._walk.reached(stored)
        self._at = at
        return self.key, self.value  # type: ignore[return-value]

    def _nowhere(self, edge: bytes) -> None:
        self._end_walk()
        self._keys, self._values = [], []
        self._edge = edge

    # -- the end -----------------------------------------------------------------------------------

    def close(self) -> None:
        """Let go of everything that the cursor holds. Idempotent."""
        if not self._closed:
            self._closed = True
            self._end_walk()
            self._keys, self._values = [], []
            if self._owned:
                self._source.release()

    def _end_walk(self) -> None:
        walk, self._walk = self._walk, None
        if walk is not None:
            walk.close()

    def _check(self) -> None:
        if self._closed:
            raise StoreClosedError("the cursor was closed")
        self._source.check()

    def __enter__(self) -> Cursor[V]:
        self._check()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
