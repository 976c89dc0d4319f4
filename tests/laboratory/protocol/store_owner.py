"""Who uses the store: what was promised, and a check of each promise.

A store's state is which entries it shows. They must be the first ones that were written, each
exactly once.
"""

from __future__ import annotations

from tests.laboratory.protocol.log_owner import BrokenPromise


class User:
    """``written`` are ids, in order; counts say how many of them survive what."""

    def __init__(self):
        self.written = []
        self.survive_power = 0
        self.survive_kill = 0
        self._last_id = 0
        self.emptying = False  # somebody began to; until an opening has shown what came of it
        self.must_be_empty = False
        self.backup = None  # what the last complete backup holds
        self.begun = []  # what backups hold of which it is not known if they are complete
        self.choices = None  # what the backup that is becoming the store may show
        self.openings = 0

    def next_id(self):
        self._last_id += 1
        self.written.append(self._last_id)
        return self._last_id

    def handed(self, ids, synced):
        """All that was written so far was handed to the system, and synced if ``synced``."""
        if synced is not None:
            self.survive_kill = len(self.written)
        if synced:
            self.survive_power = len(self.written)

    def power_lost(self):
        self.survive_kill = self.survive_power

    def show(self, shown):
        """Hold what an opening shows against what was written."""
        self.openings += 1
        shown = sorted(shown)
        if self.choices is not None:
            if shown not in self.choices:
                raise BrokenPromise(f"the backup shows {shown}, not one of {self.choices}")
            self.choices = None
            self.backup, self.begun = None, []
        elif not (self.emptying and not shown):
            self._check(shown)
        self.written = shown
        self.emptying = False
        self.survive_kill = self.survive_power = len(shown)

    def _check(self, shown):
        count = len(shown)
        if self.must_be_empty:
            raise BrokenPromise(f"an emptied store shows {shown}")
        if shown != self.written[:count]:
            raise BrokenPromise(f"the store shows {shown} of {self.written}")
        if count < self.survive_kill:
            raise BrokenPromise(f"entries {self.written[count : self.survive_kill]} are lost")

    # -- backups -----------------------------------------------------------------------------------

    def backing_up(self, ids):
        """A manifest is about to make a backup complete."""
        self.begun.append(sorted(ids))

    def backed_up(self):
        self.backup, self.begun = self.begun[-1], []

    def promote(self):
        """Whether there may be a backup; from now on it is what is opened."""
        self.choices = [*self.begun, *([] if self.backup is None else [self.backup])]
        if not self.choices:
            self.choices = None
        return self.choices is not None

    def refused(self):
        """The backup is no store. That may be as long as none was complete."""
        if self.backup is not None:
            raise BrokenPromise(f"the backup of {self.backup} is refused")
        self.choices = None
