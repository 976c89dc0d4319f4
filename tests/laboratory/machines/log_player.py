"""One caller of a log that does anything, meets any failure, and says what is not as promised.

Each method does one thing to a log that may be failing, and checks what follows: what it returns
or raises, that callbacks ran once and in order, what can be read. A failure is allowed only where
one was arranged. What was promised is kept in :class:`~tests.laboratory.machines.log_known.Memory`.
"""

from __future__ import annotations

import contextlib
from functools import partial

import wal
from tests.laboratory.machines.log_beside import Beside
from tests.laboratory.machines.log_known import Memory, Owner
from tests.wal.promises import SMALL, Written, end
from wal.files.faulty import PowerLoss

PATIENCE = 30
ALONE = (wal.SegmentAllocationError, wal.CheckpointError)
"""What fails one commit, and leaves nothing of it."""


class BrokenError(Exception):
    """What the caller's own functions raise."""


class Player(Beside):
    """A log, or none at the moment, on a failing disk."""

    def __init__(self, system, known=None):
        self.go_on_with(system)
        self.known = Memory() if known is None else known
        self.readers = []  # (chunk, data), of this process
        self.log = None
        self.beside = None  # a log that is open for reading, and what it showed
        self._begin()

    def go_on_with(self, system):
        self.system = system
        self.faults = []
        self._stop_at = 0

    def _begin(self):
        """Forget what was of the last log alone."""
        self.latch = None
        self.tickets = []  # (ticket, written, durability, serial)
        self.called = []  # (serial, entry id, segment id), by on_commit
        self.entry = None
        self.pins = []  # (segment id, context)
        self._serial = 0
        self._durable = 0

    # -- opening and closing -----------------------------------------------------------------------

    def open(self, answers=(), **options):
        """Open it and check what it shows. False if that failed, for a reason that was arranged."""
        owner = Owner(self.known, self.system, answers)
        options = {**SMALL, **options, "file_system": self.system}
        try:
            self.log = wal.Configuration("log", **options).open(owner)
        except (wal.WalError, OSError) as error:
            self.known.cut_short(owner)
            self._excuse(error)
            return False
        except PowerLoss:
            self.known.cut_short(owner)
            raise
        self.owner = owner
        self._begin()
        self.known.opened(owner)
        return True

    def close(self):
        """Shut it down. Readers and pins may outlast it."""
        log, self.log = self.log, None
        try:
            log.shutdown()
        except wal.CheckpointError as error:
            self._excuse(error)
        except wal.LogFailedError as error:
            self._excuse(error)
            self._ended(log)
            return
        except PowerLoss:
            self.log = log
            raise
        self.known.all_durable()
        self._ended(log)

    def stop(self):
        """The process ends here and now: nothing more reaches the system."""
        log, self.log = self.log, None
        if log is not None:
            self.known.acknowledged = max(
                self.known.acknowledged, self.known.up_to(log.durable_entry_id)
            )
        self.system.stop_at(1)
        if log is not None:
            if self.entry is not None:
                with contextlib.suppress(PowerLoss, wal.WalError):
                    self.entry.writer.rollback()
            end(log)
            self._ended(log)
        for held in [chunk for chunk, _ in self.readers]:
            held.close()
        self.readers = []
        self.unpin_all()
        self.stop_looking()

    def _ended(self, log):
        known = self.known
        known.highest_id = max(known.highest_id, log.last_entry_id)
        self.entry = None
        self._check_callbacks()

    # -- commits -----------------------------------------------------------------------------------

    def append(self, sizes, durability, *, raising=False):
        """Commit an entry of chunks of these sizes; its callback may raise."""
        written, serial = self._new(sizes)
        on_commit = self._callback(serial, raising=raising)
        with self._attempt(written, serial, durability) as attempt:
            attempt.id = self.log.append(written.chunks, on_commit, durability)
            assert not raising, "the callback's error was lost"
        if attempt.done:
            told = self.owner.committed_entries[-1]
            assert told == (written.id, written.chunks), "the owner was not told"

    def refuse(self, sizes, durability):
        """An append of which its caller thinks better when its turn has come."""

        def decide():
            raise BrokenError

        try:
            self.log.append([b"?" * size for size in sizes], durability=durability, decide=decide)
        except BrokenError:
            return
        except wal.LogFailedError as error:
            self._latched(error)
        except ALONE as error:
            self._excuse(error)
        else:
            raise AssertionError("the decision was overruled")

    def submit(self, sizes, durability):
        written, serial = self._new(sizes)
        try:
            ticket = self.log.submit(written.chunks, self._callback(serial), durability)
        except wal.LogFailedError as error:
            self._latched(error)
            return
        except ALONE as error:
            self._excuse(error)
            return
        written.id = ticket.entry_id
        self.known.given(written.id)
        self.known.written.append(written)
        self.tickets.append((ticket, written, durability, serial))

    def wait(self, number):
        """Wait for one of the tickets; those before it are done then, too."""
        ticket, written, durability, serial = self.tickets.pop(number % len(self.tickets))
        try:
            assert ticket.wait(PATIENCE) == written.id
        except wal.LogFailedError as error:
            self._latched(error, its_own=False)
            return
        assert ticket.done()
        self._has_run(serial, written.id)
        self.known.reached(written, durability)
        assert all(other.done() for other, *_ in self.tickets if other.entry_id < written.id), (
            "an earlier commit is not complete"
        )

    def sync(self):
        with self._ordered():
            self.log.sync()
            self.known.all_durable()

    def checkpoint(self, *, wait):
        with self._ordered():
            self.log.checkpoint_active(wait=wait)
            if wait:
                self.known.all_durable()
                assert len(self.known.store) == len(self.known.written)

    @contextlib.contextmanager
    def _ordered(self):
        try:
            yield
        except wal.LogFailedError as error:
            self._latched(error)
        except wal.CheckpointError as error:
            self._excuse(error)
        except wal.SegmentAllocationError as error:
            self._excuse(error)

    def _new(self, sizes):
        self._serial += 1
        return Written([self.known.fresh(size) for size in sizes]), self._serial

    def _callback(self, serial, *, raising=False):
        return partial(self._on_commit, serial, raising)

    def _on_commit(self, serial, raising, entry_id, segment_id):
        self.called.append((serial, entry_id, segment_id))
        if raising:
            raise BrokenError

    @contextlib.contextmanager
    def _attempt(self, written, serial, durability):
        """A commit, whose id is put into what this yields; ``done`` tells whether it succeeded."""
        attempt = _Attempt()
        refused = self.latch is not None  # then it must never be found
        if not refused:
            self.known.written.append(written)
        try:
            yield attempt
        except wal.CallbackError as error:
            if not isinstance(error.__cause__, BrokenError):
                raise
            attempt.id = error.entry_id
        except wal.LogFailedError as error:
            self._latched(error)
            assert serial not in [each[0] for each in self.called]
            return
        except ALONE as error:
            if not refused:
                self.known.written.pop()
            self._excuse(error)
            return
        assert not refused, "a commit succeeded after the log had failed"
        if written.id is None:
            self.known.given(attempt.id)
        assert written.id in (None, attempt.id)
        written.id, attempt.done = attempt.id, True
        self._has_run(serial, written.id)
        self.known.reached(written, durability)

    def _has_run(self, serial, entry_id):
        ran = [each[1] for each in self.called if each[0] == serial]
        assert ran == [entry_id], f"on_commit of entry {entry_id} ran for {ran}"

    def _check_callbacks(self):
        ids = [each[1] for each in self.called]
        assert ids == sorted(set(ids)), f"on_commit ran in this order: {ids}"
        told = [each[0] for each in self.owner.committed_entries]
        assert told == sorted(set(told)), f"the owner was told in this order: {told}"

    # -- failures ----------------------------------------------------------------------------------

    def fail(self, **fault):
        self.faults.append(self.system.fail(**fault))

    def heal(self):
        """The disk is sound again. If the power is to go soon it still does."""
        self.system.heal()
        self.system.stop_at(self._stop_at)

    def lose_power_soon(self, calls):
        self._stop_at = len(self.system.calls) + calls
        self.system.stop_at(self._stop_at)

    def _latched(self, error, *, its_own=True):
        """A commit that failed for good: there is a reason, and it is always the same."""
        self._excuse(error)
        cause = error.__cause__
        if its_own:
            assert self.latch in (None, cause), f"first {self.latch!r}, then {cause!r}"
            self.latch = cause
        elif self.latch is not None:
            assert error.errno == getattr(self.latch, "errno", None)

    def _excuse(self, error):
        """Raise an error that nobody arranged."""
        seen = error
        while seen is not None:
            if isinstance(seen, (AssertionError, wal.CorruptLogError, wal.FormatVersionError)):
                raise seen
            seen = seen.__cause__
        struck = any(fault.hits for fault in self.faults)
        refused = isinstance(error, wal.CheckpointError) and self.owner.refused
        if not (struck or refused or self.system.lost_power):
            raise error

    # -- what remains ------------------------------------------------------------------------------

    def be_killed(self):
        self.go_on_with(self.system.killed())

    def unpin_all(self):
        while self.pins:
            self.pins.pop()[1].__exit__(None, None, None)


class _Attempt:
    id = None
    done = False
