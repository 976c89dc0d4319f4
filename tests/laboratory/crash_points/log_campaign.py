"""The same for the log alone: its lives photographed, every state recovered, and once again.

What the log's caller was promised is a :class:`tests.wal.promises.Known`, copied at each call.
"""

from __future__ import annotations

from collections import Counter

from tests.laboratory.crash_points.photographs import Camera, Sieve
from tests.wal.promises import Caller, end, examine, look_beside
from wal.files.faulty import FaultyFileSystem

FIRST, SECOND, THIRD = "first life", "second life", "third life"


class CallerInTurn(Caller):
    """Lets the background come to rest after each operation; tells what is promised meanwhile."""

    def __init__(self, turns, system, known=None, **options):
        super().__init__(system, known, **options)
        self.turns = turns

    def promised(self):
        """What is known now. What an opening has shown so far must still be there later."""
        known = self.known.copy()
        if self.manager is not None:
            known.check_partly(self.manager.recovered)
        if self.log is not None:
            known.highest_id = max(known.highest_id, self.log.last_entry_id)
        return known

    def wait_for(self, tickets):
        with self.turns.rest():
            super().wait_for(tickets)


def _settled(name):
    def operation(self, *args, **options):
        result = getattr(Caller, name)(self, *args, **options)
        self.turns.settle()
        return result

    return operation


for _name in ("open", "append", "stream", "roll_back", "sync", "checkpoint", "close"):
    setattr(CallerInTurn, _name, _settled(_name))


def key_of(known):
    """Two callers with the same key were promised the same."""
    written = tuple((each.id, tuple(each.chunks)) for each in known.written)
    store = tuple((entry_id, tuple(chunks)) for entry_id, chunks in known.store)
    archive = frozenset(known.archive)
    return written, known.acknowledged, known.highest_id, store, archive


def recover(caller):
    """All that an opening does, and what it leaves to the background."""
    caller.open()
    caller.append(80)
    caller.checkpoint()
    caller.close()


class LogCampaign:
    """Recovers each state of the disk once for each promise that it was met with."""

    def __init__(self, turns, chance, rng_seed=0, **options):
        self.turns = turns
        self.chance = chance
        self.rng_seed = rng_seed
        self.options = options
        self.sieve = Sieve()
        self.counts = Counter()

    def photographed(self, play, system, life, known=None):
        """Photographs of a life that goes on from what is known."""
        self.chance.begin(life)
        caller = CallerInTurn(self.turns, system, known and known.copy(), **self.options)
        camera = Camera(system, caller.promised)
        play(caller)
        camera.stop()
        end(caller.log)
        return camera.photographs

    def live(self, play):
        return self.photographed(play, FaultyFileSystem(), FIRST)

    def states(self, photographs, mixtures, level):
        """(state, what is known, label) of each state that was not met before."""
        for photograph in photographs:
            self.counts[f"{level}_crash_points"] += 1
            key = key_of(photograph.promised)
            for state in photograph.states(self.rng_seed, mixtures):
                self.counts[f"{level}_states"] += 1
                if level == "first":
                    self.counts[state.kind.replace(" ", "_")] += 1
                if self.sieve.is_new(state, key):
                    self.counts[f"{level}_examined"] += 1
                    label = f"power lost before {photograph.call}, {state.label}"
                    yield state, photograph.promised, label

    def examine(self, state, known, label):
        """Recover, go on, and open again."""
        self.chance.begin(THIRD)
        examine(known, state, label, **self.options)

    def crash_again(self, system, known, label, mixtures):
        """Recover, and lose power before each call of that; then recover again."""
        try:
            look_beside(known, system)
            photographs = self.photographed(recover, system, SECOND, known)
        except BaseException as error:
            raise AssertionError(f"{label}: {error!r}") from error
        for state, promised, again in self.states(photographs, mixtures, "second"):
            self.examine(state, promised, f"{label}; then {again}")
