"""Reading a log from outside, beside its writer or after it: a prefix of what is durable."""

from __future__ import annotations

import wal
from tests.laboratory.machines.log_known import Memory, Owner


class Beside:
    """The part of a player that opens the log for reading only."""

    def look_beside(self, *, keep=False):
        """Open it for reading, beside the writer if there is one: a prefix of what is durable."""
        known, owner = self.known, Owner(Memory(), self.system)
        configuration = wal.Configuration("log", file_system=self.system, read_only=True)
        try:
            log = configuration.open(owner)
        except (wal.WalError, OSError) as error:
            if not isinstance(error, wal.LogNotFoundError):
                self._excuse(error)
            return
        known.check_beside(owner.recovered)
        last = owner.recovered[-1][0] if owner.recovered else 0
        if self.log is not None:
            assert last <= self.log.durable_entry_id
        known.acknowledged = max(known.acknowledged, known.up_to(last))
        if keep and self.beside is None:
            self.beside = log, owner.recovered
        else:
            log.shutdown()

    def look_again(self):
        """What is open for reading shows what it showed, as long as the writer leaves it."""
        log, shown = self.beside
        try:
            found = [(entry.id, entry.read_all()) for entry in log.entries()]
        except wal.PositionNotFoundError:
            return
        except OSError as error:
            self._excuse(error)
            return
        assert found[len(found) - len(shown) :] == shown

    def stop_looking(self):
        if self.beside is not None:
            self.beside[0].shutdown()
            self.beside = None
