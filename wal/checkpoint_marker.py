"""The file ``CHECKPOINT``: up to where the log is checkpointed, in two slots written in turn.

Each slot lies in a 4 KiB block of its own and fits in one sector, so a write that a crash tears
leaves the other slot whole. The layout is in ``docs/wal-format.md``.
"""

from __future__ import annotations

import os
import struct
import threading
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple

from crc32c import crc32c

from wal.errors import FormatVersionError
from wal.files import File, FileSystem
from wal.positions import MAX_ID

NAME: Final = "CHECKPOINT"
MAGIC: Final = b"WALC"
VERSION: Final = 1
BLOCK: Final = 4096

SLOT: Final = struct.Struct("<4sBBHQQQQQQQQQ")
CRC: Final = struct.Struct("<I")


class CleanMark(NamedTuple):
    """Where a clean shutdown left the log: the newest segment, its length in use, the last id."""

    segment_id: int
    length: int
    last_id: int


@dataclass(frozen=True, slots=True)
class Marker:
    """What a slot says."""

    sequence: int = 0
    checkpointed_id: int = 0
    durable_id: int = 0
    highest_id: int = 0
    oldest_live: int = 0
    newest_nonempty: int = 0
    clean: CleanMark | None = None

    def encode(self) -> bytes:
        """The slot as it stands in the file."""
        body = SLOT.pack(
            MAGIC,
            VERSION,
            self.clean is not None,
            0,
            self.sequence,
            self.checkpointed_id,
            self.durable_id,
            self.highest_id,
            self.oldest_live,
            self.newest_nonempty,
            *(self.clean or (0, 0, 0)),
        )
        return body + CRC.pack(crc32c(body))


def decode_slot(path: str, data: bytes) -> Marker | None:
    """A slot's marker; None if it is not a valid one. Raises FormatVersionError for a newer one."""
    if len(data) < SLOT.size + CRC.size:
        return None
    if CRC.unpack_from(data, SLOT.size)[0] != crc32c(data[: SLOT.size]):
        return None
    magic, version, clean, zero, *numbers = SLOT.unpack_from(data)
    if magic != MAGIC or zero or clean > 1:
        return None
    if version != VERSION:
        raise FormatVersionError(path, version, VERSION)
    if max(numbers) > MAX_ID:
        return None
    *fields, segment_id, length, last_id = numbers
    mark = CleanMark(segment_id, length, last_id) if clean else None
    return replace(Marker(*fields), clean=mark)


def decode_slots(path: str, data: bytes) -> tuple[Marker | None, bool]:
    """The newest valid marker, and whether a slot is neither valid nor all zero (*doubtful*)."""
    slots = [data[:BLOCK], data[BLOCK : 2 * BLOCK]]
    markers = [decode_slot(path, slot) for slot in slots]
    doubtful = any(m is None and any(slot) for m, slot in zip(markers, slots, strict=True))
    valid = [marker for marker in markers if marker is not None]
    return max(valid, key=lambda marker: marker.sequence, default=None), doubtful


FIRST: Final = Marker(sequence=1)
"""What the creation of the file writes."""


class CheckpointMarker:
    """The open marker file. The lock makes a change of the marker and its write one step."""

    def __init__(self, file: File, marker: Marker) -> None:
        self._file = file
        self._lock = threading.Lock()
        self.current = marker
        self.closed = False

    @classmethod
    def create(cls, file_system: FileSystem, directory: str, after: int = 0) -> CheckpointMarker:
        """Create the file durably, also in the place of one whose creation was cut short.

        The log's entries follow on ``after``. It is done by a rename, which the sync covers: after
        a failed sync of the directory a name that merely is there already would never become
        durable.
        """
        path = os.path.join(directory, NAME)
        draft = path + "-new"
        if file_system.exists(draft):  # its zeros were perhaps synced in vain
            file_system.remove(draft)
        file = file_system.create(draft)
        try:
            file.allocate(2 * BLOCK)
            marker = cls(file, Marker())
            marker.write(checkpointed_id=after, durable_id=after, highest_id=after)
            file_system.rename(draft, path)
            file_system.sync_directory(directory)
        except BaseException:
            file.close()
            raise
        return marker

    def write(self, **changes: Any) -> None:
        """Write the marker with some fields changed into the older slot, and sync it."""
        with self._lock:
            marker = replace(self.current, sequence=self.current.sequence + 1, **changes)
            self._put(marker)
            self.current = marker

    def settle(self) -> None:
        """Write the newest slot again, unchanged: it may have been read from an unsynced cache."""
        with self._lock:
            self._put(self.current)

    def _put(self, marker: Marker) -> None:
        self._file.write_at(marker.sequence % 2 * BLOCK, [marker.encode()])
        self._file.sync()

    def close(self) -> None:
        """Close the file."""
        self.closed = True
        self._file.close()
