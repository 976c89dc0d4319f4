"""What the cells of a log's files hold, as symbols.

A segment's file has one cell for its header and some for each frame. A frame's cell is the pair
(frame, number of the cell in it): what a checksum would tell, an identity tells here. Cell 0 is the
frame's own header, which is valid by itself; the frame is valid if all of its cells are there.

What stands in a payload may look like a frame, of another log for instance (``inner``): only the
salt tells that it is none.
"""

from __future__ import annotations

from typing import NamedTuple


class Header:
    """The first cell of a segment."""

    __slots__ = ("id", "limit", "previous", "salt")

    def __init__(self, id, previous, limit):
        self.id = id
        self.previous = previous  # the last committed entry before this segment
        self.limit = limit  # every id given out while this segment is the newest is below it
        self.salt = object()

    def __repr__(self):
        return f"[segment {self.id} after {self.previous}, ids below {self.limit}]"


class Frame:
    """A group of entries with the ids ``first`` to ``last``, a streamed entry, or a witness.

    It has its cells as they are framed; a streamed entry that was rolled back is never ``ended``.
    """

    __slots__ = ("at", "durable", "ended", "first", "inner", "last", "parts", "salt")

    def __init__(self, salt, at, first, last, durable, size, inner=None):
        self.salt = salt
        self.at = at
        self.first = first
        self.last = last  # below first for a witness
        self.durable = durable  # the last entry known durable when this was framed
        self.parts = [(self, number) for number in range(size)]
        self.ended = True
        self.inner = inner

    def grow(self, count):
        """Frame more cells, and return them."""
        size = len(self.parts)
        self.parts += [(self, number) for number in range(size, size + count)]
        return self.parts[size:]

    def __repr__(self):
        what = f"{self.first}..{self.last}" if self.last >= self.first else "witness"
        return f"{what}{'' if self.ended else '?'} durable {self.durable}"


class Marker(NamedTuple):
    """One slot of the marker."""

    sequence: int = 0
    checkpointed: int = 0
    durable: int = 0
    highest: int = 0
    oldest_live: int = 0
    newest: int = 0  # the newest segment with durable frames
    clean: tuple[int, int, int] | None = None  # segment, end, last id


FIRST = Marker(sequence=1)

MARKER, DRAFT = "CHECKPOINT", "CHECKPOINT-new"
"""Names. The others are ("wal", id), ("abandoned", id), ("kept", id, last id), ("free", number)."""


class Damage(Exception):  # noqa: N818
    """CorruptLogError: something acknowledged cannot be read."""


def foreign_frame(at):
    """What a copy of another log's frame, in a payload, looks like: its ids are far off."""
    return Frame(object(), at, 1000, 1000, 999, 1)


class Scan:
    """Reading the frames of one segment's cells, whatever wrote them."""

    __slots__ = ("cells", "header", "rules")

    def __init__(self, cells, header, rules):
        self.cells = cells
        self.header = header
        self.rules = rules

    def opened(self, at):
        """The frame whose header stands in a cell, if it is one of this segment."""
        cell = self.cells[at]
        if type(cell) is not tuple:
            return None
        frame, number = cell
        if self.rules.salts:
            return frame if number == 0 and frame.salt is self.header.salt else None
        return frame if number == 0 else frame.inner

    def whole(self, frame, at):
        """Whether what stands behind a frame's header makes it valid."""
        rules, parts = self.rules, frame.parts
        found = self.cells[at : at + len(parts)]
        if found == parts:
            return frame.ended
        if frame.at < 0:  # it is in a payload: whole by itself
            return True
        if not frame.ended or len(found) < len(parts) or found[-1] != parts[-1]:
            return False
        if not rules.every_cell:
            return True
        if not rules.end_covers:
            return all(map(self._is_chunk, found[1:-1]))
        return False

    def _is_chunk(self, cell):
        return type(cell) is tuple and cell[1] > 0 and cell[0].salt is self.header.salt

    def frames(self, at, after):
        """(Frame, where it ends) from a cell on, with ids above ``after``, up to the first flaw."""
        cells, limit = self.cells, self.header.limit
        if not self.rules.fresh_segment:
            limit = 1 << 60
        while at < len(cells):
            frame = self.opened(at)
            if frame is None or frame.first <= after or frame.last >= limit:
                return
            if not self.whole(frame, at):
                return
            at += len(frame.parts)
            if frame.last > after:
                after = frame.last
            yield frame, at

    def evidence(self, at):
        """The largest durable id in any header from a cell on."""
        best = 0
        for number in range(at, len(self.cells)):
            frame = self.opened(number)
            if frame is not None and frame.durable > best:
                best = frame.durable
        return best

    def intact(self, frame, at):
        """Whether a frame that was read, and ends before a cell, is what was written there."""
        parts = frame.parts
        return frame.ended and self.cells[at - len(parts) : at] == parts
