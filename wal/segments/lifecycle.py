"""The life of a segment, and the registry through which readers pin it.

::

    ACTIVE ──► SEALED ──► CHECKPOINTED ──► RELEASED
       ╲_________________________↗  (an empty one is stepped over)

ACTIVE: entries go into it. SEALED: whole and durable, waits for its checkpoint. CHECKPOINTED: the
marker has passed it. RELEASED: its file has left its ``wal-`` name; nothing may read it now.
"""

from __future__ import annotations

import enum
import threading
from collections.abc import Callable, Iterator
from typing import Final

from wal.errors import PositionNotFoundError
from wal.files import File
from wal.segments.format import SegmentHeader
from wal.segments.reader import FrameSource


class State(enum.Enum):
    """Where a segment is in its life."""

    ACTIVE = "active"
    SEALED = "sealed"
    CHECKPOINTED = "checkpointed"
    RELEASED = "released"


_NEXT: Final = {
    State.ACTIVE: {State.SEALED},
    State.SEALED: {State.CHECKPOINTED},
    State.CHECKPOINTED: {State.RELEASED},
    State.RELEASED: set(),
}


def segment_name(segment_id: int) -> str:
    """The file name of a live segment."""
    return f"wal-{segment_id:020d}"


def abandoned_name(segment_id: int) -> str:
    """The file name of an abandoned segment."""
    return f"abandoned-{segment_id:020d}"


class Segment:
    """A segment file that the log holds, from its activation to its release.

    ``end`` is where the next frame goes, behind an open entry; ``committed_end`` is where the last
    committed frame ended, ``durable_end`` the same of what is synced. ``last_id`` is the
    last committed entry's id, the header's ``previous_last_id`` while there is none.
    ``unwritten`` maps the offsets of streamed chunks that are still in the buffer to (data, crc).
    """

    __slots__ = (
        "abandoned",
        "committed_end",
        "durable_end",
        "end",
        "file",
        "header",
        "last_id",
        "path",
        "pins",
        "source",
        "state",
        "unwritten",
    )

    def __init__(self, header: SegmentHeader, path: str, file: File) -> None:
        self.header = header
        self.path = path
        self.file = file
        self.source = FrameSource(file, path, header)
        self.state = State.ACTIVE
        self.end = self.committed_end = self.durable_end = header.size
        self.last_id = header.previous_last_id
        self.pins = 0
        self.abandoned = False
        self.unwritten: dict[int, tuple[bytes, int]] = {}

    @property
    def id(self) -> int:
        """The segment's id."""
        return self.header.segment_id

    @property
    def has_entries(self) -> bool:
        """Whether any entry was committed to it."""
        return self.last_id > self.header.previous_last_id

    def become(self, state: State) -> None:
        """Step on in the segment's life; a step that the life does not have is a bug and raises."""
        if state not in _NEXT[self.state]:
            raise RuntimeError(
                f"segment {self.id} cannot become {state.value} from {self.state.value}"
            )
        self.state = state


class SegmentRegistry:
    """The segments that the log holds, by id, and who reads them.

    The lock guards the dictionary, the pins, the states. A pin is taken before a byte is read and
    keeps the segment's file under its name; it delays neither the checkpoint marker nor any writer.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()  # a finalizer that unpins may run inside it
        self._held: dict[int, Segment] = {}
        self._closing = False
        self.on_unpinned: Callable[[], object] = lambda: None
        """Called when the last pin of a checkpointed segment goes: it may be released."""

    def add(self, segment: Segment) -> None:
        """Hold a segment. Ids are added in ascending order."""
        with self._lock:
            self._held[segment.id] = segment

    def pin(self, segment_id: int) -> Segment:
        """Keep a segment from being recycled; PositionNotFoundError if it is not held any more."""
        with self._lock:
            segment = self._held.get(segment_id)
            if segment is None:
                raise PositionNotFoundError(f"segment {segment_id} is not in the log (any more)")
            segment.pins += 1
            return segment

    def unpin(self, segment: Segment) -> None:
        """Undo one :meth:`pin`."""
        with self._lock:
            segment.pins -= 1
            last = not segment.pins
            closing = self._closing
        if last and closing:
            segment.file.close()
        elif last and segment.state is State.CHECKPOINTED:
            self.on_unpinned()

    def close(self) -> None:
        """Close the files; those that readers have pinned when the last of them lets go."""
        with self._lock:
            self._closing = True
            idle = [segment for segment in self._held.values() if not segment.pins]
        for segment in idle:
            segment.file.close()

    def pin_after(self, entry_id: int | None) -> Segment | None:
        """Pin the oldest held segment with an entry above ``entry_id`` (None: with any).

        None if there is none. PositionNotFoundError if an entry in between is not held any more.
        Abandoned segments are passed over: their entries are gone, but by decision.
        """
        with self._lock:
            reached = entry_id
            for segment in self._held.values():
                previous = segment.header.previous_last_id
                reached = previous if reached is None else reached
                if previous > reached:
                    raise PositionNotFoundError(
                        f"entries {reached + 1} to {previous} are not in the log any more"
                    )
                if segment.abandoned:
                    reached = max(reached, segment.last_id)
                elif segment.last_id > reached:
                    segment.pins += 1
                    return segment
        return None

    def release(self, segment: Segment) -> bool:
        """Let go of a checkpointed segment that nobody has pinned; False if somebody has."""
        with self._lock:
            if segment.pins:
                return False
            segment.become(State.RELEASED)
            self._held.pop(segment.id, None)  # a dead one found at opening is not held
            return True

    def become(self, segment: Segment, state: State) -> None:
        """Step a segment on in its life."""
        with self._lock:
            segment.become(state)

    def successor(self, segment: Segment) -> Segment | None:
        """The segment behind another one."""
        with self._lock:
            return next((other for other in self._held.values() if other.id > segment.id), None)

    def newest_nonempty(self) -> int:
        """The id of the newest segment that holds durable frames; 0 if there is none."""
        with self._lock:
            held = self._held.values()
            return max((s.id for s in held if s.durable_end > s.header.size), default=0)

    def count(self) -> dict[State, int]:
        """How many segments are in each state."""
        with self._lock:
            states = [segment.state for segment in self._held.values()]
        return {state: states.count(state) for state in State}

    def __iter__(self) -> Iterator[Segment]:
        with self._lock:
            return iter(list(self._held.values()))
