"""A write-ahead log.

What is committed survives a crash, whole or not at all, in the order in which it was committed.
Open a log with a :class:`LogManager`, which keeps a state of your own in step with it:

>>> import wal
>>> class Counter(wal.LogManager):
...     def __init__(self):
...         self.total = 0
...     def recover(self, entry):                       # at opening: every entry not checkpointed
...         self.total += sum(int(chunk) for chunk in entry.read_all())
...     def checkpoint_to(self, last_id, entries, log): # in the background: make your state durable
...         pass
>>> files = wal.files.MemoryFileSystem()                # leave it out for real files
>>> log = wal.Configuration("counters", file_system=files).open(Counter())

The fast path appends a whole entry; it returns when the entry survives a power loss:

>>> log.append([b"20", b"1"])
1

An entry may also be written piece by piece. It commits at the end of the block, and is rolled back
by an exception:

>>> with log.begin_entry() as entry:
...     record = entry.write_chunk(b"21")
>>> with log.read_at(record.position) as chunk:
...     chunk.read()
b'21'

``submit`` does not wait; one sync serves all that have gathered:

>>> tickets = [log.submit([b"0"]) for _ in range(3)]
>>> [ticket.wait() for ticket in tickets]
[3, 4, 5]
>>> log.shutdown()

The next opening hands every committed entry to ``recover``:

>>> with wal.Configuration("counters", file_system=files).open(manager := Counter()):
...     manager.total
42

Errors all derive from :class:`WalError`; the tree is drawn in :mod:`wal.errors`.
"""

from wal import files
from wal.chunk_writer import ChunkWriter
from wal.config import Configuration, Durability
from wal.entry_writer import EntryWriter
from wal.errors import (
    CallbackError,
    CheckpointError,
    ChunkLengthError,
    CorruptLogError,
    EntryStateError,
    FormatVersionError,
    LogClosedError,
    LogFailedError,
    LogLockedError,
    LogNotFoundError,
    PositionNotFoundError,
    ReadOnlyLogError,
    SegmentAllocationError,
    WalError,
)
from wal.log import WriteAheadLog
from wal.log_manager import (
    LogManager,
    LogVoid,
    RecoveredSegment,
    Recovery,
    SealedSegment,
)
from wal.positions import ChunkRecord, EntryId, LogPosition
from wal.segments.chunks import ChunkReader
from wal.segments.format import framed_size
from wal.segments.frames import Entry, Group
from wal.segments.sealed import SegmentDescription, SegmentReader
from wal.statistics import LogStats
from wal.tickets import Entries, Ticket

__all__ = [
    "CallbackError",
    "CheckpointError",
    "ChunkLengthError",
    "ChunkReader",
    "ChunkRecord",
    "ChunkWriter",
    "Configuration",
    "CorruptLogError",
    "Durability",
    "Entries",
    "Entry",
    "EntryId",
    "EntryStateError",
    "EntryWriter",
    "FormatVersionError",
    "Group",
    "LogClosedError",
    "LogFailedError",
    "LogLockedError",
    "LogManager",
    "LogNotFoundError",
    "LogPosition",
    "LogStats",
    "LogVoid",
    "PositionNotFoundError",
    "ReadOnlyLogError",
    "RecoveredSegment",
    "Recovery",
    "SealedSegment",
    "SegmentAllocationError",
    "SegmentDescription",
    "SegmentReader",
    "Ticket",
    "WalError",
    "WriteAheadLog",
    "files",
    "framed_size",
    "recover",
]

recover = WriteAheadLog.recover
