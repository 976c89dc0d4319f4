"""What a key may stand for inside the store, from the log to a table.

========================  ==========================================================================
``bytes``                 the value itself
``None``                  a tombstone: the key is deleted, and hidden in everything older
``int``                   a large value that is still in the log: its position, 16 bytes big-endian
:class:`Blob`             a large value in a table, outside the table's blocks
:data:`MISSING`           no opinion: whoever was asked does not have the key, ask who is older
========================  ==========================================================================

A dict of the first three has no member that the garbage collector tracks, and so is not tracked
itself: a full collection does not walk through a million keys.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Protocol

from wal import LogPosition


class Blob(Protocol):
    """A value that stays in its file until somebody reads it."""

    @property
    def length(self) -> int:
        """The value's bytes."""

    def read(self) -> bytes:
        """The value, its checksum verified. CorruptStoreError for damage."""


class Missing:
    """The type of :data:`MISSING`."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "MISSING"


MISSING: Final = Missing()

Value = bytes | None | int | Blob
Found = bytes | None | int | Blob | Missing
"""The answer of one place that was asked for a key."""

Values = Mapping[bytes, Value]
Page = tuple[list[bytes], list[Value]]
"""Some neighbouring keys, ascending, and their values in the same order."""


class PlainPage(tuple[list[bytes], list[Value]]):
    """A page whose values are known to be bytes, all of them: nobody has to look at each again."""

    __slots__ = ()


NO_ITEMS: Final[Page] = PlainPage(([], []))


def part_of(page: Page, first: int, last: int) -> Page:
    """The items of a page from an index up to another one.

    >>> part_of(PlainPage(([b"a", b"b"], [b"1", b"2"])), 1, 2)
    ([b'b'], [b'2'])
    """
    keys, values = page
    if first == 0 and last == len(keys):
        return page
    part = keys[first:last], values[first:last]
    return PlainPage(part) if type(page) is PlainPage else part


def joined(page: Page, following: Page) -> Page:
    """Two neighbouring pages as one.

    >>> joined(([b"a"], [b"1"]), ([b"b"], [None]))
    ([b'a', b'b'], [b'1', None])
    """
    if not page[0] or not following[0]:
        return page if page[0] else following
    both = page[0] + following[0], page[1] + following[1]
    return PlainPage(both) if type(page) is type(following) is PlainPage else both


def position_to_int(position: LogPosition) -> int:
    """A log position as one int, which the garbage collector does not track.

    >>> int_to_position(position_to_int(LogPosition(7, 300, 2)))
    LogPosition(segment_id=7, offset=300, index=2)
    """
    return int.from_bytes(position.to_bytes(), "big")


def int_to_position(number: int) -> LogPosition:
    """The log position that :func:`position_to_int` was given."""
    return LogPosition.from_bytes(number.to_bytes(16, "big"))
