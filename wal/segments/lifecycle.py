"""The life of a segment, and the registry through which readers pin it.

::

    ACTIVE ──► SEALED ──► CHECKPOINTED ──► RELEASED
                                 ╲__► KEPT __↗

ACTIVE: entries go into it. SEALED: whole and durable, waits for its checkpoint. CHECKPOINTED: the
marker has passed it. KEPT: it has its ``kept-`` name, and is there for readers alone. RELEASED: its
file is about to lose its name; nothing may read it now.
"""

from __future__ import annotations

import enum
import threading
from collections.abc import Callable, Iterator, Sequence
from itertools import takewhile
from typing import Final

from wal.errors import PositionNotFoundError
from wal.files import File, FileSystem
from wal.positions import MAX_ID
from wal.segments.format import SegmentHeader
from wal.segments.kept_file import KeptFile
from wal.segments.reader import FrameSource


class State(enum.Enum):
    """Where a segment is in its life."""

    ACTIVE = "active"
    SEALED = "sealed"
    CHECKPOINTED = "checkpointed"
    KEPT = "kept"
    RELEASED = "released"


_NEXT: Final = {
    State.ACTIVE: {State.SEALED},
    State.SEALED: {State.CHECKPOINTED},
    State.CHECKPOINTED: {State.KEPT, State.RELEASED},
    State.KEPT: {State.RELEASED},
    State.RELEASED: set(),
}


_CHECKPOINTED: Final = State.CHECKPOINTED  # a look at the class costs what a read_at would notice
_KEPT: Final = State.KEPT


def segment_name(segment_id: int) -> str:
    """The file name of a live segment."""
    return f"wal-{segment_id:020d}"


def abandoned_name(segment_id: int) -> str:
    """The file name of an abandoned segment."""
    return f"abandoned-{segment_id:020d}"


def kept_name(segment_id: int, last_id: int) -> str:
    """The file name of a segment that is kept for reading: with its last entry's id."""
    return f"kept-{segment_id:020d}-{last_id:020d}"


def is_segment_number(digits: str) -> bool:
    """Whether these are the twenty digits of an id in a file name.

    >>> is_segment_number("%020d" % 7), is_segment_number("9" * 20)
    (True, False)
    """
    ours = len(digits) == 20 and digits.isascii() and digits.isdecimal()
    return ours and int(digits) <= MAX_ID


def parse_kept_name(name: str) -> tuple[int, int] | None:
    """The segment id and the last id in a :func:`kept_name`; None for any other name."""
    kind, _, numbers = name.partition("-")
    segment_id, _, last_id = numbers.partition("-")
    if kind != "kept" or not (is_segment_number(segment_id) and is_segment_number(last_id)):
        return None
    return int(segment_id), int(last_id)


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

    def rename(self, files: FileSystem, path: str) -> None:
        """Give the file another name, in the same directory.

        Where that is told to have failed although it was done, the next attempt must know it: the
        old name is gone, and what is wanted from then on is a sync of the directory.
        """
        try:
            files.rename(self.path, path)
        except OSError:
            if files.exists(path) and not files.exists(self.path):
                self.path = path
            raise
        self.path = path

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

    def add_before(self, segments: Sequence[Segment]) -> None:
        """Hold older segments than all that are held, in ascending order."""
        with self._lock:
            self._held = {**{segment.id: segment for segment in segments}, **self._held}

    def holds(self, segment: Segment) -> bool:
        """Whether a segment can be read through the registry."""
        with self._lock:
            return self._held.get(segment.id) is segment

    def keep(self, segment: Segment, file: KeptFile) -> None:
        """Hold a checkpointed segment for reading alone, under its new name."""
        with self._lock:
            segment.become(State.KEPT)
            segment.file = file
            segment.source = FrameSource(file, segment.path, segment.header)
            idle = None if segment.pins else file.rest()
        if idle is not None:
            idle.close()

    def forget(self, segment_id: int) -> None:
        """Hold a segment no longer, nor any older one: another process has taken their files."""
        with self._lock:
            gone = [segment for segment in self._held.values() if segment.id <= segment_id]
            for segment in gone:
                del self._held[segment.id]
        for segment in gone:
            if not segment.pins:
                segment.file.close()

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
        idle = None
        with self._lock:
            segment.pins -= 1
            if segment.pins:
                return
            state, closing = segment.state, self._closing
            if state is _KEPT and isinstance(segment.file, KeptFile):
                idle = segment.file.rest()
        if idle is not None:
            idle.close()
        if closing:
            segment.file.close()
        elif state is _CHECKPOINTED or state is _KEPT:
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
            held = [*self._held.values()] if entry_id is None else self._above_locked(entry_id)
            reached = entry_id
            for segment in held:
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

    def _above_locked(self, entry_id: int) -> list[Segment]:
        """The segments with entries above one, oldest first: found from the newest on."""
        newer = takewhile(lambda each: each.last_id > entry_id, reversed(self._held.values()))
        return [*newer][::-1]

    def _unbroken_locked(self) -> list[Segment]:
        """The newest segments that follow each other without a gap, oldest first."""
        found: list[Segment] = []
        for segment in reversed(self._held.values()):
            if found and segment.last_id < found[-1].header.previous_last_id:
                break
            found.append(segment)
        return found[::-1]

    def oldest_id(self) -> int | None:
        """No entry below it can be read any more, each from it on can; None if there is none."""
        with self._lock:
            for segment in self._unbroken_locked():
                if segment.has_entries and not segment.abandoned:
                    return max(segment.id, segment.header.previous_last_id + 1)
        return None

    def release(self, segment: Segment) -> bool:
        """Let go of a checkpointed or kept segment that nobody has pinned; False if one has."""
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
            live = [s for s in held if s.state is not State.KEPT]
            return max((s.id for s in live if s.durable_end > s.header.size), default=0)

    def count(self) -> dict[State, int]:
        """How many segments are in each state."""
        with self._lock:
            states = [segment.state for segment in self._held.values()]
        return {state: states.count(state) for state in State}

    def live_bytes(self) -> int:
        """What is committed to the segments that are not checkpointed, in bytes."""
        with self._lock:
            live = [s for s in self._held.values() if s.state in (State.ACTIVE, State.SEALED)]
            return sum(segment.committed_end for segment in live)

    def __iter__(self) -> Iterator[Segment]:
        with self._lock:
            return iter(list(self._held.values()))
