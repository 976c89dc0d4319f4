"""What a log's caller knows, and the log's owner, where segments may be given up.

To what :class:`~tests.wal.promises.Known` has this adds: what was handed to the operating system
and so outlasts the process, but not the power; where the chunks of entries are; and what was given
up. A segment that its owner gave up is gone for good once the opening has shown anything. Where the
opening was cut short it is gone, or it is asked of again.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import wal
from tests.wal.promises import Keeper, Known, Written, read_segment


@dataclass
class Memory(Known):
    """What the caller knows; :attr:`acknowledged` entries outlast the power."""

    handed: int = 0  # so many outlast the process
    places: dict = field(default_factory=dict)  # id -> [(position, data), ...]
    perhaps: list = field(default_factory=list)  # segments perhaps given up: id -> chunks

    def copy(self):
        return Memory(
            [Written(each.chunks, each.id) for each in self.written],
            self.acknowledged,
            self.highest_id,
            [*self.store],
            dict(self.archive),
            self.serial,
            self.handed,
            dict(self.places),
            [*self.perhaps],
        )

    @property
    def stored_id(self):
        """The last entry that is in the owner's store: its segment need not be in the log."""
        return self.store[-1][0] if self.store else 0

    def up_to(self, entry_id):
        """How many entries there are up to an id."""
        return sum(each.id is not None and each.id <= entry_id for each in self.written)

    def last(self, count):
        """The id of that many entries' last one; 0 for none, or if it is not known."""
        return (self.written[count - 1].id or 0) if count else 0

    def reached(self, written, durability):
        """An entry has its durability, and so have all before it."""
        count = next(n for n, each in enumerate(self.written, 1) if each is written)
        if durability is not wal.Durability.BUFFER:
            self.handed = max(self.handed, count)
        if durability is wal.Durability.FSYNC:
            self.acknowledged = max(self.acknowledged, count)

    def all_durable(self):
        self.acknowledged = self.handed = len(self.written)

    def opened(self, owner):
        """Hold what an opening showed against what was written."""
        shown = dict(owner.recovered)
        gone = {}
        for segment in self.perhaps:
            if shown.keys().isdisjoint(segment):
                gone.update(segment)
        for segment in owner.given_up:
            gone.update(segment)
        gone = {entry_id: gone[entry_id] for entry_id in gone.keys() - dict(self.store).keys()}
        assert gone.keys().isdisjoint(shown)
        assert [entry_id for entry_id, _ in owner.recovered] == sorted(shown)
        self.acknowledged = max(self.acknowledged, self.handed)
        self.check(sorted({**shown, **gone}.items()))
        self.written = [each for each in self.written if each.id not in gone]
        self.perhaps = []
        self.all_durable()
        there = {each.id for each in self.written}
        self.places = {i: each for i, each in self.places.items() if i in there}
        self.places.update(owner.places)

    def cut_short(self, owner):
        """Note what an opening showed that then failed: it must still be there later."""
        self.perhaps = [*self.perhaps, *owner.given_up]
        if owner.recovered:
            settled = dict(owner.recovered)
            for segment in self.perhaps:
                settled.update(segment)
            self.check_partly(sorted(settled.items()))


class Owner(Keeper):
    """Keeps all that it is handed, but for the segments that ``answers`` tell it to give up."""

    def __init__(self, known, system, answers=()):
        super().__init__(known.store, known.archive, system)
        self.given_up = []  # of each segment: id -> chunks
        self.places = {}
        self.refusals = 0  # so many checkpoints are yet to fail
        self.refused = 0
        self.committed_entries = []  # (id, chunks), as the hook was told
        self.accepted_ids = []
        self._answers = iter(answers)

    def should_recover_segment(self, segment):
        if not next(self._answers, False):
            return wal.Recovery.RECOVER
        entries = {
            entry_id: chunks
            for entry_id, chunks in read_segment(self._system.inner, segment.path)
            if segment.first_after < entry_id <= segment.last_id
        }
        self._archive.update(entries)  # which the log will not have done
        self.given_up.append(entries)
        return wal.Recovery.ABANDON

    def recover(self, entry):
        chunks = entry.chunks()
        self.recovered.append((entry.id, [bytes(chunk) for chunk in chunks]))
        self.places[entry.id] = [(chunk.position, bytes(chunk)) for chunk in chunks]

    def checkpoint_to(self, last_id, entries, log):
        if self.refusals:
            self.refusals -= 1
            self.refused += 1
            raise OSError("not now")
        super().checkpoint_to(last_id, entries, log)

    def accepted(self, entry_id, segment_id, chunks):
        self.accepted_ids.append(entry_id)

    def committed(self, entry_id, segment_id, chunks):
        self.committed_entries.append((entry_id, chunks))
