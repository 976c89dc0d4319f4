"""The same caller, with an entry that is open for long, and with all the ways to read.

Nothing that is read is ever wrong. It is missing only where it may be: a chunk or an entry that is
in the owner's store, whose segment nobody has pinned.
"""

from __future__ import annotations

import contextlib

import wal
from tests.laboratory.machines.log_player import ALONE, Player
from tests.wal.promises import Written


class OpenEntry:
    """An entry between its begin and its end."""

    def __init__(self, writer):
        self.writer = writer
        self.chunks = []
        self.places = []
        self.chunk = None  # being written in pieces: (writer, data, how much of it is written)


class ReadingPlayer(Player):
    """Writes entries chunk by chunk, and reads in every way."""

    # -- an open entry -----------------------------------------------------------------------------

    def begin_entry(self):
        try:
            writer = self.log.begin_entry()
        except wal.LogFailedError as error:
            self._latched(error)
        except ALONE as error:
            self._excuse(error)
        else:
            assert self.latch is None, "an entry began after the log had failed"
            self.known.given(writer.id)
            self.entry = OpenEntry(writer)

    def write_chunk(self, size):
        data = self.known.fresh(size)
        with _Spoiled(self):
            record = self.entry.writer.write_chunk(data)
            self._written(record, data)

    def begin_chunk(self, size):
        data = self.known.fresh(size)
        with _Spoiled(self):
            self.entry.chunk = (self.entry.writer.begin_chunk(size), data, 0)

    def write_piece(self, share):
        """Write some more of the chunk, and end it once all is written."""
        writer, data, done = self.entry.chunk
        upto = min(len(data), done + max(1, int(len(data) * share)))
        with _Spoiled(self):
            writer.write(data[done:upto])
            self.entry.chunk = (writer, data, upto)
            if upto == len(data):
                writer.close()
                self.entry.chunk = None
                self._written(writer.record, data)

    def _written(self, record, data):
        assert record.length == len(data)
        self.entry.chunks.append(data)
        self.entry.places.append((record.position, data))
        self._read_now(record.position, data)

    def commit_entry(self, durability):
        """Commit it; where a chunk is not whole that is an error, and nothing is left."""
        entry, self.entry = self.entry, None
        if entry.chunk is not None:
            try:
                entry.writer.commit(durability)
            except wal.ChunkLengthError:
                return
            raise AssertionError("a chunk was not whole")
        self._serial += 1
        written = Written(entry.chunks, entry.writer.id)
        callback = self._callback(self._serial)
        with self._attempt(written, self._serial, durability) as attempt:
            attempt.id = entry.writer.commit(durability, callback)
        if attempt.done:
            self.known.places[written.id] = entry.places
        elif self.latch is None:
            assert written not in self.known.written

    def roll_back(self):
        entry, self.entry = self.entry, None
        entry.writer.rollback()

    def use_inside(self):
        """A thread that has an entry open is refused what would have it wait for itself."""
        for use in (
            lambda: self.log.append([b"x"]),
            self.log.sync,
            self.log.checkpoint_active,
            self.log.begin_entry,
            self.log.shutdown,
        ):
            try:
                use()
            except wal.EntryStateError:
                continue
            raise AssertionError("the log would have waited for itself")

    # -- by position -------------------------------------------------------------------------------

    def read_back(self, number, *, hold=False):
        """Read an earlier entry's chunks; their readers may be held for long."""
        ids = sorted(self.known.places)
        entry_id = ids[number % len(ids)]
        for position, data in self.known.places[entry_id]:
            try:
                chunk = self.log.read_at(position)
            except wal.PositionNotFoundError:
                self._may_be_gone(entry_id, position.segment_id)
                return
            except OSError as error:
                self._excuse(error)
                return
            self.readers.append((chunk, data))
            if not hold:
                self.read_held(-1)

    def read_held(self, number):
        """Read a chunk whose reader is held, perhaps since before the log was shut down."""
        chunk, data = self.readers.pop(number % len(self.readers))
        with chunk:
            try:
                assert chunk.length == len(data)
                assert chunk.crc_is_valid()
                assert chunk.read() == data
            except OSError as error:
                self._excuse(error)

    def _read_now(self, position, data):
        """A chunk of an open entry can be read at once."""
        try:
            with self.log.read_at(position) as chunk:
                assert chunk.read() == data
        except OSError as error:
            self._excuse(error)

    def _may_be_gone(self, entry_id, segment_id):
        assert entry_id <= self.known.stored_id, f"entry {entry_id} is nowhere else"
        pinned = [segment for segment, _ in self.pins]
        assert segment_id not in pinned, f"segment {segment_id} is pinned"

    # -- pins --------------------------------------------------------------------------------------

    def pin(self, number):
        """Pin the segment of an entry that was committed."""
        segments = {
            place[0].segment_id: i for i, each in self.known.places.items() for place in each
        }
        segments.update((segment, entry_id) for _, entry_id, segment in self.called)
        if not segments:
            return
        segment_id = sorted(segments)[number % len(segments)]
        pinned = self.log.pin(segment_id)
        try:
            pinned.__enter__()
        except wal.PositionNotFoundError:
            self._may_be_gone(segments[segment_id], segment_id)
        else:
            self.pins.append((segment_id, pinned))

    def unpin(self, number):
        self.pins.pop(number % len(self.pins))[1].__exit__(None, None, None)

    # -- in order ----------------------------------------------------------------------------------

    def read_after(self, number):
        """Read all entries, or those after one: each that is durable, and there, in order."""
        known = self.known
        ids = [0, *(each.id for each in known.written if each.id is not None)]
        after = None if number % 3 == 0 else ids[number % len(ids)]
        durable = self.log.durable_entry_id
        found = []
        try:
            for entry in self.log.entries(after):
                chunks = entry.chunks()
                found.append((entry.id, [bytes(chunk) for chunk in chunks]))
                known.places[entry.id] = [(each.position, bytes(each)) for each in chunks]
        except wal.PositionNotFoundError:
            assert self.log.oldest_entry_id > (after or 0) + 1
            assert self.log.oldest_entry_id > (found[-1][0] if found else 0) + 1
            assert not self.keeps_all, "it was to be kept"
            return
        except OSError as error:
            self._excuse(error)
            return
        self._check_found(found, after, durable)

    def _check_found(self, found, after, durable):
        known = self.known
        written = {each.id: each.chunks for each in known.written if each.id is not None}
        last = self.log.durable_entry_id
        wanted = [i for i in written if (after or 0) < i <= last]
        if after is None:  # from the oldest that is there
            first = found[0][0] if found else last + 1
            gone = [i for i in wanted if i < first and (i > known.stored_id or self.keeps_all)]
            assert not gone, f"{gone} are not there any more"
            wanted = [i for i in wanted if i >= first]
        ids = [entry_id for entry_id, _ in found]
        assert ids == wanted[: len(ids)], f"found {ids}, not {wanted}"
        assert not [i for i in wanted[len(ids) :] if i <= durable], f"found {ids} of {wanted}"
        assert all(chunks == written[entry_id] for entry_id, chunks in found)

    def invariants(self):
        """What holds at any time while it is open."""
        log, known = self.log, self.known
        durable, last = log.durable_entry_id, log.last_entry_id
        assert self._durable <= durable <= last <= max(known.highest_id, last)
        self._durable = durable
        assert durable >= known.last(known.acknowledged)
        self._check_callbacks()

    keeps_all = False
    """Whether the log was opened, each time, to keep all of what was ever written."""


class _Spoiled:
    """Where a step of an open entry fails, for a reason that was arranged, it is rolled back."""

    def __init__(self, player):
        self._player = player

    def __enter__(self):
        pass

    def __exit__(self, kind, error, traceback):
        player = self._player
        if isinstance(error, wal.LogFailedError):
            player._latched(error)
        elif isinstance(error, (wal.SegmentAllocationError, wal.CheckpointError, OSError)):
            player._excuse(error)
        else:
            return False
        entry, player.entry = player.entry, None
        with contextlib.suppress(wal.EntryStateError):  # a piece that fails does it by itself
            entry.writer.rollback()
        return True
