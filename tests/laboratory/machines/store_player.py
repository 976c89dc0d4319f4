"""A store that is lived in: opened, written to, broken off, opened again, and held against a model.

:class:`Player` has one store, the failing file system below it, and the model. It ends lives (by
closing, by killing, by cutting the power), looks into what may be left, and begins the next. All
that happens is noted in ``story``, which every failure prints: that suffices to follow it, also
where threads make it hard to repeat.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from dataclasses import dataclass, field

import kvstore
import wal
from tests.laboratory.machines.store_model import Model, difference, read_all
from tests.laboratory.machines.store_remains import ASLEEP, Remains, opened
from wal.files.faulty import FaultyFileSystem, PowerLoss

PATIENCE = 20.0
READING = frozenset({"read_at", "open", "list", "size", "exists", "close"})
FAILED = object()
NOTHING = object()
"""What an act returns that has found out that it writes nothing."""


@dataclass
class Ending:
    """How the present life is to end, or has to if its power goes: drawn beforehand.

    ``pick`` chooses the state to go on from; below 0 the process is killed, and the machine goes
    on. After ``again`` so many calls of the recovery, and of each that follows, the power goes
    once more.
    """

    seed: int = 0
    pick: int = 0
    again: list = field(default_factory=list)


class Player(Remains):
    """One store through many lives."""

    def __init__(self, counts=None, *, states=3, calm=True, interval=ASLEEP):
        self.model = Model()
        self.system = FaultyFileSystem()
        self.options = {"memtable_bytes": 64 << 10}
        self.interval = interval
        self.calm = calm  # whether background work is waited for
        self.story = []
        self.counts = Counter() if counts is None else counts
        self.db = None
        self.reader = None
        self.shown = 0  # the version that the reader shows
        self.views = []  # snapshots, with what they have to show
        self.walks = []  # scans in progress, with what they have still to yield
        self.backups = {}
        self.ending = Ending()
        self.stop = 0  # the call before which the power goes
        self.faults = []
        self.latched = False
        self._serial = 0
        self._states = states

    def note(self, what):
        self.story.append(f"{len(self.system.calls):5} {what}")

    def fresh(self, size):
        """Bytes that no other value has."""
        self._serial += 1
        return (b"%d;" % self._serial * (size // 2 + 1))[:size]

    # -- errors that may be ------------------------------------------------------------------------

    @property
    def struck(self):
        """Whether a fault has hit in this life."""
        return self.latched or any(fault.hits for fault in self.faults)

    def _hits(self):
        return sum(fault.hits for fault in self.faults)

    def attempt(self, what, act, *, reading=False):
        """Do it; FAILED where that may fail: without power, or after a fault has hit.

        Reading must not suffer from anything but a fault that hits just then.
        """
        before = self._hits()
        try:
            return act()
        except PowerLoss:
            assert self.system.lost_power
            return FAILED
        except (kvstore.StoreError, OSError) as error:
            lost = self.system.lost_power
            excused = self._hits() > before if reading else self.struck
            if isinstance(error, (kvstore.ConflictError, kvstore.CorruptStoreError)):
                excused = False  # nothing was damaged
            if not (lost or (excused and isinstance(error, OSError))):
                raise
            self.note(f"{what} failed: {error!r}")
            self.latched = self.latched or getattr(error, "latched", False)
            self.counts["failed calls"] += 1
            return FAILED

    def write(self, what, mutations, durability, act):
        """Do what is to make one entry of these mutations (none: no entry), and note it."""
        was_latched = self.latched
        before = self.model.newest
        result = self.attempt(what, act)
        if result is FAILED:
            if mutations and not was_latched and (self.system.lost_power or self.latched):
                self.model.doubt(mutations)
                self.note("    in doubt")
        elif mutations and result is not NOTHING:
            assert not was_latched, "a write succeeded after one had latched the store"
            self.counts["writes"] += 1
            self.model.wrote(mutations, self.db.last_entry_id)
            self._acknowledged(durability or self.options.get("durability", wal.Durability.FSYNC))
        if not self.system.lost_power:
            assert self.db.last_entry_id == self.model.newest.id, (
                f"visible is entry {self.db.last_entry_id}, "
                f"not {self.model.newest.id} (before: {before.id})"
            )
        return result

    def _acknowledged(self, durability):
        if durability is wal.Durability.FSYNC:
            self.model.survives_power_loss()
        elif durability is wal.Durability.WRITE:
            self.model.survives_kill()

    def settle(self):
        """After a step: end the life if it must end, else wait for what goes on behind it."""
        if self.calm and self.db is not None and not self.system.lost_power:
            self._wait_for_threads()
        if self.system.lost_power:
            self.recover()
        elif self.db is not None:
            self.model.durable_up_to(self.db.stats().durable_entry_id)

    def _wait_for_threads(self):
        """Until nobody touches the files any more but this thread."""
        log = self.db._engine.log
        pool, checkpointer = log._buffer._pool, log._buffer._backlog
        compactor = self.db._parts._compactor
        deadline = time.monotonic() + PATIENCE

        def busy():
            waiting = checkpointer.backlog() and checkpointer.error is None
            return (waiting or pool._requested) and not self.system.lost_power

        while busy():
            assert time.monotonic() < deadline, "background work does not end"
            time.sleep(0.0002)
        idle = threading.Event()
        compactor._queue.put(idle.set)
        assert idle.wait(PATIENCE), "the compactor does not answer"

    # -- beginning a life --------------------------------------------------------------------------

    def open(self, **options):
        """Open the store for writing, and hold what it shows against the model."""
        self.options = {**self.options, **options}
        self.latched = False
        self.db = None
        self.db = opened(self.system, interval=self.interval, **self.options)
        self._hold_against_model("opened", self.model.handed)

    def _hold_against_model(self, where, lower):
        contents, entry_id = read_all(self.db), self.db.last_entry_id
        index = self.model.find(contents, entry_id, lower, where)
        self.note(f"{where}: version {index} of {len(self.model.versions)} (entry {entry_id})")
        self.model.opened(index, entry_id)
        self.counts["openings"] += 1

    def reopen(self, fault=None, **options):
        """Close the store and open it again, at first perhaps with a fault in wait.

        A store that could be closed shows all that it had; the handle beside it stays open.
        """
        self.release_views()
        if self.attempt("close", self.db.close) is not FAILED:
            self.model.survives_power_loss()
        if self.system.lost_power:
            return
        assert self.db.closed
        self.heal()
        if fault is not None:
            self.faults.append(self.system.fail(**fault))
        if self.attempt("open", lambda: self.open(**options)) is FAILED:
            self.heal()
            self._open_or_lose_power(options)

    def heal(self):
        """No more faults; the power may still be about to go."""
        self.faults.clear()
        self.system.heal()
        self.system.stop_at(self.stop)

    def _open_or_lose_power(self, options):
        """PowerLoss and what follows from it is left for :meth:`settle`."""
        if not self.system.lost_power:
            self.attempt("open", lambda: self.open(**options))

    # -- ending a life -----------------------------------------------------------------------------

    def release_views(self):
        """Snapshots and scans, the oldest first."""
        for view, _ in [*self.views, *self.walks]:
            view.close()
        self.views.clear()
        self.walks.clear()

    def give_up(self):
        """End the threads of a store whose end has come already."""
        self.release_views()
        for handle in (self.reader, self.db):
            if handle is not None:
                # A close that was broken off once more may find its files closed: a ValueError.
                with contextlib.suppress(PowerLoss, kvstore.StoreError, OSError, ValueError):
                    handle.close()
        self.db = self.reader = None
        self.faults.clear()
        self.stop = self.shown = 0

    def cut_power(self):
        """Now, between two calls."""
        with self.system.lock_calls:
            self.system.lost_power = True

    def arm(self, calls):
        """Have the power go after so many calls."""
        self.stop = len(self.system.calls) + calls
        self.system.stop_at(self.stop)

    def recover(self):
        """The life is over: look into what may be left of it, and live on with one of that."""
        again = [*self.ending.again]
        options = self.options
        while True:
            self.give_up()
            self.system = self._next_system()
            if again:
                self.system.stop_at(again.pop(0))
            self._open_or_lose_power(options)
            if not self.system.lost_power:
                break
            self.counts["recoveries broken off"] += 1
        self.system.heal()

    def _next_system(self):
        if self.ending.pick < 0:
            system = self.system.killed()
            self.note("killed")
            self.counts["kills"] += 1
            self.examine(system.killed_state(), "killed", self.model.handed)
            return system
        self.model.lost_power()
        states = list(self.system.crash_states(seed=self.ending.seed, limit=self._states))
        self.counts["power losses"] += 1
        for state in states:
            self.examine(state.copy(), state.label, self.model.durable)
        chosen = states[self.ending.pick % len(states)]
        self.note(f"power lost; goes on where {chosen.label}")
        return FaultyFileSystem(chosen)

    def look_at_everything(self):
        """All that the store shows, at this moment."""
        found = self.attempt("read all", lambda: read_all(self.db), reading=True)
        if found is not FAILED:
            wrong = difference(found, self.model.contents)
            assert wrong == "nothing", f"the store differs: {wrong}"
