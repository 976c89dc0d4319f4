"""One life of a log, from the end of its opening to a crash or a shutdown: who writes what when.

Threads are left out: what they do is a sequence of rounds, and a crash may come before any call.
"""

from __future__ import annotations

from contextlib import suppress

from tests.laboratory.protocol.disk import Failed
from tests.laboratory.protocol.log_checkpoints import Checkpoints
from tests.laboratory.protocol.log_segments import (
    FSYNC,
    IDS,
    SIZE,
    Segment,
    activate,
)
from tests.laboratory.protocol.log_values import Frame, Header


class Log(Checkpoints):
    """An open log. ``owner`` gets what is committed, acknowledged and checkpointed."""

    def __init__(self, directory, rules, owner, marker, next_id, last):
        self.directory = directory
        self.disk = directory.disk
        self.rules = rules
        self.owner = owner
        self.marker = marker
        self.next_id = next_id
        self.last = self.durable = last
        self.failed = False
        self.segment = None  # the active one
        self.unwritten = []
        self.sealed = []  # oldest first, with dead ones before them
        self.spares = []
        self.kept = []

    # -- room --------------------------------------------------------------------------------------

    def _make_room(self, size, ids):
        """The active segment, with room for a frame; a fresh one, if need be."""
        segment = self.segment
        if not segment.activated and self.next_id + ids > self.segment.limit:
            self.round(False)  # no durable header allows for the next id yet
        full = segment.end > 1 and segment.end + size > SIZE
        if full or segment.must_seal or self.next_id + ids > self.segment.limit:
            self.rotate(self.next_id)
            if self.next_id + ids > self.segment.limit:
                self.round(False)
        return self.segment

    def rotate(self, first_id):
        """Plan the next segment; the round that comes to it activates it."""
        old = self.segment
        previous = self.last if self.rules.committed_previous else self.next_id - 1
        id = max(first_id, old.id + 1) if self.rules.increasing_ids else self.last + 1
        file, name = self.take_spare()
        self.next_id = max(self.next_id, id)
        segment = Segment(Header(id, previous, id + IDS), file, name, last=self.last)
        segment.activated = False
        segment.predecessor = old
        segment.limit = min(segment.limit, old.limit)
        self.segment = segment
        self.unwritten.append(segment)

    def take_spare(self):
        """A file that may become a segment: recycled, or a new one."""
        if not self.spares:
            number = 1 + max((n[1] for n in self.directory.names if n[0] == "free"), default=0)
            self.directory.create(("free", number), SIZE)
            self.spares.append(("free", number))
        name = self.spares.pop(0)
        return self.directory.names[name], name

    # -- rounds ------------------------------------------------------------------------------------

    def round(self, sync):
        """Write what has gathered; sync it. The first failure latches."""
        if self.failed:
            return
        upto, active = self.last, self.segment
        durable_end = active.committed_end
        try:
            self._write_out(active)
        except Failed:
            self.failed = True
            return
        self.owner.handed(upto)
        if sync and (self.durable < upto or active.file.dirty):
            try:
                self.disk.sync(active.file)
            except Failed:
                self.failed = self.rules.latch
                return
            active.durable_end = durable_end
            self.durable = upto
        self.owner.acknowledge(self.durable)

    def _write_out(self, active):
        for segment in self.unwritten:
            if not segment.activated:
                old = segment.predecessor
                if self.rules.strict_rotation:
                    self.disk.sync(old.file)
                    old.durable_end = old.committed_end
                    self.durable = old.last
                activate(self.directory, segment, self.rules)
                self.sealed.append(old)
            cells, segment.gathered = segment.gathered, []
            if cells:
                self.disk.write(segment.file, segment.taken, cells)
                segment.taken += len(cells)
        self.unwritten = [active]

    # -- entries -----------------------------------------------------------------------------------

    def _evidence(self):
        return self.durable if self.rules.durable_evidence else self.last

    def append(self, count, size, rank, inner):
        """Commit a group of entries."""
        if self.failed:
            return
        segment = self._make_room(size, count)
        if self.failed:
            return
        first, last = self.next_id, self.next_id + count - 1
        for id in range(first, last + 1):
            self.owner.given(id)
        self.next_id = last + 1
        frame = Frame(segment.header.salt, segment.end, first, last, self._evidence(), size, inner)
        segment.gathered += frame.parts
        segment.end = segment.committed_end = segment.end + size
        self._commit(segment, frame, rank)

    def _commit(self, segment, frame, rank):
        segment.last = self.last = frame.last
        self.owner.commit(frame, segment.id)
        if rank:
            self.round(rank == FSYNC)

    def stream(self, size, cut, synced, rank, ending):
        """Write an entry in two parts, of which the first may be in the file before the end.

        ``ending``: whether it is committed, and not rolled back.
        """
        if self.failed:
            return
        self._make_room(2, 1)
        if self.failed:
            return
        id = self.next_id
        self.next_id += 1
        self.owner.given(id)
        segment = self.segment
        if segment.end > 1 and segment.end + size > SIZE and segment.id < id:
            self.rotate(id)
            segment = self.segment
        start, kept = segment.end, len(segment.gathered)
        frame = Frame(segment.header.salt, start, id, id, self._evidence(), 0)
        frame.ended = False
        self._add(segment, frame.grow(min(cut, size - 1)))
        if cut:
            self.round(synced)
        if not self.failed:
            self._add(segment, frame.grow(size - len(frame.parts) - 1))
        if self.failed or not ending:
            self._roll_back(segment, start, kept)
        else:
            self._add(segment, frame.grow(1))
            frame.ended = True
            segment.committed_end = segment.end
            self._commit(segment, frame, rank)

    @staticmethod
    def _add(segment, cells):
        segment.gathered += cells
        segment.end += len(cells)

    def _roll_back(self, segment, start, kept):
        segment.end = start
        if segment.taken > start:
            segment.gathered = []
            if self.rules.never_back:
                segment.must_seal = True
            else:
                segment.taken = start
        else:
            del segment.gathered[kept:]

    def witness(self):
        """An empty group, unsynced, that says what is durable."""
        segment = self.segment
        blocked = self.failed or segment.must_seal or segment.end >= SIZE
        if blocked or self.next_id >= self.segment.limit:
            return
        salt, durable = segment.header.salt, self._evidence()
        frame = Frame(salt, segment.end, self.last + 1, self.last, durable, 1)
        segment.gathered += frame.parts
        segment.end = segment.committed_end = segment.end + 1
        self.round(False)

    def seal(self):
        """Begin a new segment if the active one has an entry."""
        if not self.failed and self.segment.has_entries:
            self.rotate(self.next_id)
            self.round(False)

    # -- the end -----------------------------------------------------------------------------------

    def close(self):
        """Write and sync everything, checkpoint what is sealed, and say where the log ends."""
        self.round(True)
        while self.sealed:
            left = len(self.sealed)
            self.checkpoint(False)
            if len(self.sealed) == left:
                break
        if self.failed and self.rules.latch_forbids_clean:
            return
        segment = self.segment
        mark = (segment.id, segment.committed_end, self.last)
        with suppress(Failed):
            self.marker.write(
                durable=self.durable,
                highest=self.next_id - 1,
                newest=self.newest(),
                clean=None if segment.must_seal else mark,
            )
