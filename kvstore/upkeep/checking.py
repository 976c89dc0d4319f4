"""What verifying looks at one by one: the entries of a log, the directory of namespaces."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Final, cast

from kvstore.background.building import values_of
from kvstore.background.checkpointing import check_is_of_store
from kvstore.config import Options
from kvstore.errors import CorruptStoreError
from kvstore.keyspaces import directory_bounds
from kvstore.memory.pinned import PageWalk
from kvstore.names import Entry as Name
from kvstore.names import entries
from kvstore.ranges import Range
from kvstore.sources import Source
from kvstore.values import Blob, Value
from wal import (
    Entry,
    EntryId,
    LogManager,
    PositionNotFoundError,
    RecoveredSegment,
    Recovery,
    SegmentReader,
    WriteAheadLog,
)

Noting = Callable[[str], AbstractContextManager[None]]
"""``with noting(path):`` notes what is raised inside as a problem."""

_LARGE: Final = Options.large_value_bytes


class LogCheck(LogManager):
    """Sees the whole of a log that is opened read-only, damaged segments passed over."""

    def __init__(self, path: str, manifest: str, store_id: bytes | None, noting: Noting) -> None:
        """The paths are the log's and the manifest's; the id is None where that is damaged."""
        self._path = path
        self._manifest = manifest
        self._store_id = store_id
        self._noting = noting
        self._begin: int | None = None  # the last entry before the log
        self._is_damaged = False
        self.end = 0
        """The last entry that it holds."""
        self.entries = 0
        """How many could be read."""
        self.names: dict[bytes, Value] = {}
        """What it has of the directory of namespaces."""

    def should_recover_segment(self, segment: RecoveredSegment) -> Recovery:
        """Give a damaged one up, in this look alone, to see what is behind it."""
        self._begin = segment.first_after if self._begin is None else self._begin
        self.end = max(self.end, segment.last_id)
        with self._noting(segment.path):
            if segment.damage is not None:
                raise segment.damage
            if self._store_id is not None:
                check_is_of_store(segment, self._store_id)
            return Recovery.RECOVER
        self._is_damaged = True
        return Recovery.ABANDON

    def recover(self, entry: Entry) -> None:
        """Look at one entry."""
        self.entries += 1
        low, high = directory_bounds()
        with self._noting(self._path):
            for key, value in values_of(entry, _LARGE, self._path).items():
                if low <= key and (high is None or key < high):
                    self.names[key] = value if value is None else _read(value)

    def checkpoint_to(self, last_id: EntryId, entries: SegmentReader, log: WriteAheadLog) -> None:
        """Not called: the log is read only."""

    def finish(self, log: WriteAheadLog, checkpoint_id: int | None) -> None:
        """Hold it against the manifest, and look at what is kept of what was checkpointed."""
        stats = log.stats()
        self.end = max(self.end, stats.last_entry_id, stats.checkpointed_entry_id)
        begin = max(stats.checkpointed_entry_id, self._begin or 0)
        with self._noting(self._path):
            self._look_at_kept(log, begin)
            if log.kept_damage is not None:
                raise log.kept_damage
        if checkpoint_id is not None:
            with self._noting(self._path):
                self._compare(begin, checkpoint_id)

    def _compare(self, begin: int, checkpoint_id: int) -> None:
        if checkpoint_id < begin:
            reason = f"its tables end at entry {checkpoint_id}, but the log begins after {begin}"
            raise CorruptStoreError(self._manifest, 0, reason)  # as opening the store has it
        if checkpoint_id > self.end and not self._is_damaged:
            reason = f"it ends at entry {self.end}, but the tables hold those up to {checkpoint_id}"
            raise CorruptStoreError(self._path, 0, reason)

    def _look_at_kept(self, log: WriteAheadLog, begin: int) -> None:
        try:
            for entry in log.entries():
                if entry.id > begin:
                    break
                values_of(entry, _LARGE, self._path)
        except PositionNotFoundError:
            pass  # a writer has let go of it meanwhile


def decoded_names(stored: bytes, value: Value) -> list[tuple[int, bytes, Name]]:
    """What an entry of the directory says: the parent's id, the name, and what stands there.

    Nothing for one that was deleted; CorruptStoreError where it makes no sense.
    """
    if value is None:
        return []
    try:
        return list(entries(cast("Source", _OneName(stored, value))))
    except ValueError as error:
        raise CorruptStoreError(repr(stored), 0, str(error)) from None


class _OneName:
    """One entry of the directory, for :func:`kvstore.names.entries`."""

    def __init__(self, stored: bytes, value: Value) -> None:
        self._stored = stored
        self._value = value

    def walk(self, wanted: Range, most: int | None, *, reverse: bool) -> PageWalk:
        return PageWalk(iter([([self._stored], [self._value])]), None)

    def load(self, key: bytes, value: Value) -> bytes:
        return _read(value)


def _read(value: Value) -> bytes:
    return value if isinstance(value, bytes) else cast("Blob", value).read()
