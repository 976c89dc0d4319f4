"""The campaign over a store's crash points: which states are tried, and how many there were."""

from __future__ import annotations

from collections import Counter

from tests.laboratory.crash_points.photographs import Camera, Sieve, part
from tests.laboratory.crash_points.store_life import Life
from tests.laboratory.crash_points.store_recovery import is_begun, make_again, recovered
from wal.files.faulty import FaultyFileSystem

FIRST, SECOND, THIRD = "first life", "second life", "third life"


class Campaign:
    """Recovers each state of the disk once for each promise that it was met with."""

    def __init__(self, turns, chance, rng_seed=0):
        self.turns = turns
        self.chance = chance
        self.rng_seed = rng_seed
        self.sieve = Sieve()
        self.counts = Counter()

    def live(self):
        """The workload, photographed before each call."""
        self.chance.begin(FIRST)
        system = FaultyFileSystem()
        life = Life(system, self.turns)
        camera = Camera(system, life.promised)
        life.run()
        camera.stop()
        return life, camera.photographs

    def states(self, photographs, mixtures, level):
        """(state of one store, promise, label) of each state that was not met before."""
        for photograph in photographs:
            self.counts[f"{level}_crash_points"] += 1
            for state in photograph.states(self.rng_seed, mixtures):
                self.counts[f"{level}_states"] += 1
                if level == "first":
                    self.counts[state.kind.replace(" ", "_")] += 1
                label = f"power lost before {photograph.call}, {state.label}"
                yield from self._new(state, photograph.promised, label, level)

    def some_states(self, photograph, limit):
        """The same, of one photograph, not every one of them."""
        for state in photograph.system.crash_states(seed=self.rng_seed, limit=limit):
            self.counts["states"] += 1
            label = f"power lost before {photograph.call}, {state.label}"
            yield from self._new(state, photograph.promised, label, "states")

    def _new(self, state, promises, label, level):
        for promise in promises:
            if not is_begun(state, promise):
                if self.sieve.is_new(state, ("half a backup", promise.key)):
                    self.counts["backups_made_again"] += 1
                    make_again(state.copy(), promises, label)
                continue
            store = part(state, promise.path)
            if self.sieve.is_new(store, promise.key):
                self.counts[f"{level}_examined"] += 1
                yield store, promise, label

    def recover(self, store, promise, label, *, photographed=False):
        """Examine a state; its recovery's photographs, if asked for."""
        self.chance.begin(SECOND if photographed else THIRD)
        return recovered(store, promise, label, self.turns, photographed=photographed)

    def crash_again(self, photographs, label, mixtures):
        """Power loss at each call of a recovery, and a second recovery."""
        for store, promise, again in self.states(photographs, mixtures, "second"):
            self.recover(store, promise, f"{label}; then {again}")
