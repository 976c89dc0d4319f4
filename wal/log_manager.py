"""What a log asks of its owner: the :class:`LogManager` and the values it is handed."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from wal.errors import CorruptLogError
from wal.positions import EntryId
from wal.segments.frames import Entry, Group
from wal.segments.sealed import SegmentReader

if TYPE_CHECKING:
    from wal.log import WriteAheadLog


class Recovery(enum.Enum):
    """What to do with a segment that a former process left."""

    RECOVER = "recover"
    """Hand its entries to ``recover``, and later to ``checkpoint_to``."""
    ABANDON = "abandon"
    """Pass over it: its entries go to nobody. Its file is renamed, and later recycled."""


@dataclass(frozen=True, slots=True)
class RecoveredSegment:
    """A segment found at opening, of which the manager decides."""

    segment_id: int
    version_info: bytes
    """``Configuration.version_info`` when the segment was begun (``b""`` if unreadable)."""
    path: str
    first_after: EntryId
    """The last committed entry before this segment."""
    last_id: EntryId
    """The last committed entry in it that could be read."""
    damage: CorruptLogError | None = None
    """What is wrong with it. RECOVER raises this; ABANDON gives the segment up and goes on."""


@dataclass(frozen=True, slots=True)
class SealedSegment:
    """A checkpointed segment about to be recycled: copy the file, do not link or move it."""

    segment_id: int
    path: str
    last_id: EntryId
    version_info: bytes
    length: int
    """The bytes in use, from the start of the file."""


class LogManager:
    """Subclass this to keep a state of your own in step with a log.

    The log calls ``should_recover_segment``, ``check_extent`` and ``recover`` while it opens, on
    the opening thread; ``checkpoint_to`` and ``archive`` afterwards, on its checkpointer's. Both
    ``recover`` and ``checkpoint_to`` must be idempotent by EntryId: after a crash they see the
    same entries again.
    """

    def should_recover_segment(self, segment: RecoveredSegment) -> Recovery:
        """Whether to recover a segment that a former process left. By default: always."""
        return Recovery.RECOVER

    def check_extent(self, checkpointed_id: EntryId, last_id: EntryId) -> None:
        """Raise to refuse a log that does not go with your own state; by default any will do.

        Called once while it opens, when every segment was decided of, before anything is written or
        shown: a refused log stays as it is. It holds what lies above ``checkpointed_id``, up to
        ``last_id``.
        """

    def recover(self, entry: Entry) -> None:
        """Take over one committed entry: in EntryId order, each that no checkpoint covers."""
        raise NotImplementedError

    def recover_group(self, group: Group) -> None:
        """Take over entries that were written together; by default each goes to :meth:`recover`.

        Override it where many can be taken in one step: that saves an object and a call for each.
        Streamed entries go to :meth:`recover` in any case. All come in EntryId order.
        """
        for entry in group.entries():
            self.recover(entry)

    def checkpoint_to(self, last_id: EntryId, entries: SegmentReader, log: WriteAheadLog) -> None:
        """Make your own state durable up to ``last_id``; then the segment may be recycled.

        ``entries`` are those of the segment, each of which is committed, and its ``on_commit`` has
        returned. Anything raised keeps the segment; the call is repeated with growing pauses.
        """
        raise NotImplementedError

    def archive(self, segment: SealedSegment) -> None:
        """Keep a copy of a segment before it is recycled. May be called again after a crash."""

    def committed(self, entry_id: EntryId, segment_id: int, chunks: Sequence[bytes]) -> None:
        """Like ``on_commit``, for every appended entry: one hook instead of a closure for each.

        ``chunks`` is the list that was appended; it is called before the entry's own ``on_commit``.
        Of :class:`wal.Entries` that were submitted in one step it hears once, with the id of the
        last, and gets those instead; so does :meth:`accepted`.
        """

    def accepted(self, entry_id: EntryId, segment_id: int, chunks: Sequence[bytes]) -> None:
        """An appended entry has its id and its place, and has not reached its durability yet.

        Called in EntryId order, with the log's append lock held: be quick, and call nothing of the
        log. Each of them goes to ``committed`` later, unless the log fails. An entry that is
        complete at once (BUFFER, with nothing before it in flight) goes to ``committed`` only.
        """

    def closed(self) -> None:
        """The log has let go of everything, its lock last: let go of what had to last as long.

        Called once, at the end of ``shutdown``, or when a log that was dropped has come to its end.
        """


class LogVoid(LogManager):
    """Recovers nothing and keeps nothing: what a former process left is recycled.

    >>> import wal
    >>> log = wal.Configuration("d", file_system=wal.files.MemoryFileSystem()).open(wal.LogVoid())
    >>> log.append([b"x"])
    1
    >>> log.shutdown()
    """

    def should_recover_segment(self, segment: RecoveredSegment) -> Recovery:
        """Always :attr:`Recovery.ABANDON`."""
        return Recovery.ABANDON

    def recover(self, entry: Entry) -> None:
        """Not called: nothing is recovered."""

    def checkpoint_to(self, last_id: EntryId, entries: SegmentReader, log: WriteAheadLog) -> None:
        """Do nothing: there is no state to keep."""
