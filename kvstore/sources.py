"""What all reading rests on: a few operations on stored keys.

A store, a snapshot, a transaction each have them in a way of their own.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from kvstore.ranges import Range
from kvstore.values import Page, Value


class Walk(Protocol):
    """The pages of a range, in one direction; without tombstones. To be closed."""

    def __iter__(self) -> Iterator[Page]: ...

    def __next__(self) -> Page:
        """The next page. Walking backwards its keys ascend all the same."""

    def reached(self, key: bytes) -> None:
        """The walk's user has come to a stored key."""

    observed: bool
    """Whether :meth:`reached` must be told of each single key."""

    def close(self) -> None:
        """Let go of everything that the walk holds."""


class Source(Protocol):
    """Reads of stored keys."""

    def find(self, key: bytes) -> Value:
        """The value of a key, None where it is absent."""

    def find_many(self, keys: list[bytes]) -> list[Value]:
        """The values of keys, all of one state."""

    def walk(self, wanted: Range, most: int | None, *, reverse: bool) -> Walk:
        """Begin to walk a range; ``most`` keys will be looked at (None: all)."""

    def load(self, key: bytes, value: Value) -> bytes | None:
        """A value that :meth:`find` or a walk gave, as bytes; None if it is absent."""

    def pinned(self) -> PinnedSource:
        """The same, of this moment on for ever."""


class PinnedSource(Source, Protocol):
    """A source that does not change, until it is let go of."""

    def check(self) -> None:
        """Raise StoreClosedError if it was let go of, or the store was closed."""

    def release(self) -> None:
        """Let go of it. Idempotent."""
