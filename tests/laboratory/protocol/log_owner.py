"""The log's owner: what it was promised, and a check of each promise.

Its own store is durable the moment that ``checkpoint_to`` returns. It knows every entry that it
committed, and which of them survive what.
"""

from __future__ import annotations


class BrokenPromise(Exception):  # noqa: N818
    """The protocol lost something, showed something wrong, or gave a false alarm."""


class Owner:
    """Ids only grow, so "up to an id" says which entries are meant."""

    def __init__(self, disk):
        self._disk = disk
        self.stored = {}  # id -> frame
        self.last_stored = 0
        self.written = []  # (id, frame, segment), above what is stored, in order
        self.acknowledged = 0  # survives a power loss
        self.survives_kill = 0
        self.highest = 0  # the highest id that was ever given out
        self.abandoned = set()  # segments without which the log was shown
        self.abandoning = 0  # the first, second, ... segment that is asked about; 0: none
        self.decided = set()  # segments that it abandoned, and has to abandon if asked again
        self.may_lose = False  # in such a way that nothing can tell
        self.excused = False  # something was damaged on purpose
        self.openings = 0

    def break_promise(self, what):
        raise BrokenPromise(what)

    # -- while the log is open ---------------------------------------------------------------------

    def given(self, id):
        if id <= self.highest:
            self.break_promise(f"id {id} is given out after {self.highest}")
        self.highest = id

    def commit(self, frame, segment):
        for id in range(frame.first, frame.last + 1):
            self.written.append((id, frame, segment))

    def handed(self, upto):
        self.survives_kill = max(self.survives_kill, upto)

    def acknowledge(self, upto):
        if upto > self.acknowledged:
            self.acknowledged = upto
            self.survives_kill = max(self.survives_kill, upto)

    def checkpoint_to(self, last, frames):
        """Take over a segment's entries: exactly what was committed to it, up to ``last``."""
        for frame in frames:
            for id in range(frame.first, frame.last + 1):
                if id > self.last_stored:
                    if not self.written or self.written[0][:2] != (id, frame):
                        self.break_promise(f"entry {id} is checkpointed, but was not committed so")
                    self.stored[id] = frame
                    self.last_stored = id
                    del self.written[0]
        if self.last_stored < last:
            self.break_promise(f"a checkpoint to {last} has entries to {self.last_stored} only")
        self.acknowledge(self.last_stored)

    # -- crashes and openings ----------------------------------------------------------------------

    def power_lost(self):
        self.survives_kill = self.acknowledged

    def abandons(self, segment):
        """Whether a segment is abandoned. The answer stays the same as long as that may matter.

        It may until the log was shown without the segment, or for ever where a directory's sync
        failed: that name is never made durable, and after a power loss the owner is asked again.
        """
        self.abandoning -= 1
        if self.abandoning == 0:
            self.decided.add(segment)
        return segment in self.decided

    def alarm(self, damage):
        if not self.excused:
            self.break_promise(f"a false alarm: {damage}")

    def show(self, frames, abandoned):
        """Hold what an opening shows against what was committed: a prefix, and all that counts."""
        self.openings += 1
        if not self._disk.names_in_doubt:
            self.decided.clear()
        self._forget(abandoned)
        written, last = self.written, self.last_stored
        count = 0
        for frame in frames:
            for id in range(frame.first, frame.last + 1):
                if id <= last:
                    if self.stored.get(id, frame) is not frame:
                        self.break_promise(f"entry {id} is shown, but another one was stored")
                elif count == len(written) or written[count][:2] != (id, frame):
                    self.break_promise(f"entry {id} is shown, and is not the next one committed")
                else:
                    count += 1
        if count < len(written) and written[count][0] <= self.survives_kill and not self.may_lose:
            self.break_promise(f"entry {written[count][0]} is lost")
        del written[count:]
        if written:
            self.acknowledge(written[-1][0])  # once shown, for ever shown

    def _forget(self, abandoned):
        """What was abandoned, and shown to be so, must not come back."""
        if not self.abandoned.issuperset(abandoned):
            self.abandoned.update(abandoned)
            self.written = [each for each in self.written if each[2] not in self.abandoned]

    def check_salvaged(self, frames):
        """Salvage copies nothing that was never in the log."""
        known = {frame for _, frame, _ in self.written}
        for frame in frames:
            known_or_none = frame.last < frame.first or frame in known
            if not known_or_none and self.stored.get(frame.first) is not frame:
                self.break_promise(f"salvage brings {frame} back")
