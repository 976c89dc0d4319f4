"""A Hypothesis state machine over the log alone.

It draws what a caller does, in any order: commits of every kind and durability, tickets, an entry
held open, syncs, checkpoints, pins, reading of every kind, a read-only opener beside the writer;
what its owner answers: checkpoints that fail, segments that are given up; what the disk does: an
errno at any call, once or for ever, before it or after; and how it ends: by a shutdown, a kill, or
a power loss at any call, in recovery too. After each power loss some of the states that may be left
are examined, and it goes on from one of them.

No rule has a precondition. The log has threads of its own, so that the moment when a power loss
or a fault strikes differs a little from run to run; what is drawn must not depend on that. Instead
a step first does what it needs: it opens the log, ends the open entry, or begins one.
"""

from __future__ import annotations

import errno
from collections import Counter

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from tests.laboratory.machines.log_ends import lose_power
from tests.laboratory.machines.log_reading import ReadingPlayer
from tests.wal.promises import BUFFER, FSYNC, WRITE
from wal.files.faults import CHANGES
from wal.files.faulty import FaultyFileSystem, PowerLoss

DURABILITIES = st.sampled_from((FSYNC, WRITE, BUFFER))
SIZE = st.sampled_from((0, 3, 50, 400, 1300, 5000))
SIZES = st.lists(SIZE, max_size=3)
NUMBER = st.integers(0, 1000)
SEED = st.integers(0, 1 << 20)
KINDS = sorted({*CHANGES, "read_at", "open"} - {"make_directory", "link"})
ALL_THERE_IS = 1 << 40
ERRORS = (errno.EIO, errno.ENOSPC)
ENDS = ("killed", "killed", "power", "power", "closed")


class LogMachine(RuleBasedStateMachine):
    """One log, one thread of one's own, a failing disk."""

    states_each = 2
    """How many states are examined after each power loss."""
    tried: Counter

    def __init__(self):
        super().__init__()
        system = FaultyFileSystem()
        system.make_directory("log")
        self.player = ReadingPlayer(system)
        self.player.keeps_all = True
        self._options = {"retain_bytes": ALL_THERE_IS}
        self._seed = 0

    # -- how a step is taken -----------------------------------------------------------------------

    def _do(self, act, *arguments, **options):
        """Do something in which the power may go, and if it went, go on with what is left."""
        self.tried["steps"] += 1
        try:
            act(*arguments, **options)
        except PowerLoss:
            assert self.player.system.lost_power
        if self.player.system.lost_power:
            self._lose_power()

    def _lose_power(self):
        self.player.stop()
        self.tried["power losses"] += 1
        self.tried["states"] += lose_power(self.player, self._seed, states=self.states_each)

    def _is_open(self, answers=()):
        """Have the log open, if that can be. A fault that has struck by then is over."""
        if self.player.log is None:
            if any(fault.hits for fault in self.player.faults):
                self.player.heal()
            self.tried["openings"] += 1
            if any(answers) or self._options["retain_bytes"] != ALL_THERE_IS:
                self.player.keeps_all = False
            self._do(self.player.open, answers, **self._options)
        return self.player.log is not None

    def _is_free(self):
        """Have the log open, and no entry."""
        if self.player.entry is not None:
            self._do(self.player.commit_entry, FSYNC)
        return self._is_open()

    def _has_entry(self, *, in_chunk=None):
        """Have an entry open; with a chunk that is begun, or without."""
        if self._is_open() and self.player.entry is None:
            self._do(self.player.begin_entry)
        if in_chunk is not None and self.player.entry is not None:
            if in_chunk and self.player.entry.chunk is None:
                self._do(self.player.begin_chunk, 900)
            elif not in_chunk and self.player.entry.chunk is not None:
                self._do(self.player.write_piece, 1.0)
        return self.player.entry is not None

    # -- opening and ending ------------------------------------------------------------------------

    @rule(
        answers=st.one_of(st.just([]), st.lists(st.booleans(), max_size=3)),
        checkpoint_after=st.sampled_from((None, None, 700)),
        keep_free=st.integers(0, 3),
        max_sealed=st.sampled_from((1, 8)),
        retain=st.sampled_from((0, 6000, ALL_THERE_IS, ALL_THERE_IS)),
        version=st.sampled_from((b"", b"", b"2")),
    )
    def open_anew(self, answers, checkpoint_after, keep_free, max_sealed, retain, version):
        """As it was, or in another way; perhaps some segments are given up."""
        if self.player.log is not None and self._is_free():
            self._do(self.player.close)
        self._options = {
            "checkpoint_after_bytes": checkpoint_after,
            "keep_free_segments": keep_free,
            "max_sealed_segments": max_sealed,
            "retain_bytes": retain,
            "version_info": version,
        }
        self._is_open(answers)

    @rule(how=st.sampled_from(ENDS), seed=SEED)
    def end(self, how, seed):
        self._seed = seed
        if how == "power":
            self._lose_power()
        elif how == "killed":
            self.tried["kills"] += 1
            self.player.stop()
            self.player.be_killed()
        elif self.player.log is not None and self._is_free():
            self._do(self.player.close)

    @rule(calls=st.integers(1, 40), seed=SEED)
    def lose_power_soon(self, calls, seed):
        """Before one of the next calls of the system: also of the next opening."""
        self._seed = seed
        self.player.lose_power_soon(calls)

    # -- the disk and the owner --------------------------------------------------------------------

    @rule(
        error=st.sampled_from(ERRORS),
        nth=st.integers(1, 12),
        kinds=st.one_of(st.none(), st.sets(st.sampled_from(KINDS), min_size=1, max_size=3)),
        forever=st.booleans(),
        written=st.one_of(st.none(), st.integers(0, 600)),
        after=st.booleans(),
    )
    def fail(self, error, nth, kinds, forever, written, after):
        self.tried["faults"] += 1
        self.player.fail(
            error=error, nth=nth, kinds=kinds, forever=forever, written=written, after=after
        )

    @rule()
    def heal(self):
        self.player.heal()

    @rule(times=st.integers(1, 3))
    def refuse_checkpoints(self, times):
        if self._is_open():
            self.player.owner.refusals = times

    # -- commits -----------------------------------------------------------------------------------

    @rule(
        sizes=SIZES,
        durability=DURABILITIES,
        times=st.integers(1, 3),
        raising=st.sampled_from((False, False, True)),
    )
    def append(self, sizes, durability, times, raising):
        for _ in range(times):
            if self._is_free():
                self._do(self.player.append, sizes, durability, raising=raising)

    @rule(sizes=SIZES, durability=DURABILITIES)
    def refuse(self, sizes, durability):
        if self._is_free():
            self._do(self.player.refuse, sizes, durability)

    @rule(sizes=SIZES, durability=DURABILITIES, times=st.integers(1, 3))
    def submit(self, sizes, durability, times):
        for _ in range(times):
            if self._is_free():
                self._do(self.player.submit, sizes, durability)

    @rule(number=NUMBER)
    def wait(self, number):
        if self._is_open() and self.player.tickets:
            self._do(self.player.wait, number)

    @rule()
    def sync(self):
        if self._is_free():
            self._do(self.player.sync)

    @rule(wait=st.booleans())
    def checkpoint(self, wait):
        if self._is_free():
            self._do(self.player.checkpoint, wait=wait)

    # -- an open entry -----------------------------------------------------------------------------

    @rule(size=SIZE)
    def write_chunk(self, size):
        if self._has_entry(in_chunk=False):
            self._do(self.player.write_chunk, size)

    @rule(size=SIZE.filter(bool), share=st.sampled_from((0.0, 0.3, 1.0)))
    def write_piece(self, size, share):
        if self._has_entry():
            if self.player.entry.chunk is None:
                self._do(self.player.begin_chunk, size)
            if self._has_entry(in_chunk=True):
                self._do(self.player.write_piece, share)

    @rule(durability=DURABILITIES)
    def commit_entry(self, durability):
        if self._has_entry():
            self._do(self.player.commit_entry, durability)

    @rule()
    def roll_back(self):
        if self._has_entry():
            self._do(self.player.roll_back)

    @rule()
    def use_inside(self):
        if self._has_entry():
            self.player.use_inside()

    # -- reading -----------------------------------------------------------------------------------

    @rule(number=NUMBER, hold=st.booleans())
    def read_back(self, number, hold):
        if self._is_open() and self.player.known.places:
            self._do(self.player.read_back, number, hold=hold)

    @rule(number=NUMBER)
    def read_held(self, number):
        if self.player.readers:
            self._do(self.player.read_held, number)

    @rule(number=NUMBER)
    def read_after(self, number):
        if self._is_open():
            self._do(self.player.read_after, number)

    @rule(number=NUMBER)
    def pin(self, number):
        if self._is_open():
            self.player.pin(number)

    @rule(number=NUMBER)
    def unpin(self, number):
        if self.player.pins:
            self.player.unpin(number)

    @rule(keep=st.booleans())
    def look_beside(self, keep):
        if not self.player.known.perhaps:
            self._do(self.player.look_beside, keep=keep)

    @rule()
    def look_again(self):
        if self.player.beside:
            self._do(self.player.look_again)

    # -- always ------------------------------------------------------------------------------------

    @invariant()
    def promises(self):
        if self.player.log is not None:
            self.player.invariants()

    def teardown(self):
        """At last it is opened once more, in peace."""
        player = self.player
        player.stop()
        player.be_killed()
        assert player.open()
        player.checkpoint(wait=True)
        player.close()
        assert len(player.known.store) == len(player.known.written)
