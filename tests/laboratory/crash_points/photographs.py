"""A photograph of the disk before every call: one run gives all of its crash points.

Where a run is repeated for each of its calls, to be cut short there, n calls cost n runs. Here the
workload runs once. Before each of its calls the disk is photographed: what the system shows, what
of it is durable, what is not, and what the workload's caller had been promised by then. From a
photograph follow all states that a power loss just there may leave, and what is there if only the
process ends. A recovery is a run as well, so its own crash points are got in the same way.

A :class:`Sieve` keeps a state that was examined from being examined again: the same files with the
same promise give the same answer.
"""

from __future__ import annotations

import itertools
import os
from typing import NamedTuple

from wal.files.memory import MemoryFileSystem


class Photograph(NamedTuple):
    """The disk before a call, and what had been promised."""

    call: str
    system: object
    promised: object

    def states(self, seed, mixtures):
        """Every loss of a single write, of a sector, of a growth; and some mixtures."""
        self.system.lost_power = True  # nothing changes it any more, so it need not be copied
        return self.system.crash_states(seed=seed, limit=None, mixtures=mixtures)


class Camera:
    """Takes the photographs of a run. ``promised`` gives a copy of what is promised at present."""

    def __init__(self, system, promised):
        self.photographs = []
        self.calls = []
        self._system = system
        self._promised = promised
        system.on_call = self._on_call

    def _on_call(self, kind, path, number):
        if number:
            call = str(self._system.calls[number - 1])
            self.calls.append(call)
            self.photographs.append(Photograph(call, self._system.killed(), self._promised()))

    def stop(self):
        """Take no more."""
        self._system.on_call = None


class Sieve:
    """Which states were examined."""

    def __init__(self):
        self._seen = set()

    def is_new(self, state, key):
        """Whether this state with this promise was never met before."""
        files = frozenset(state.contents().items())
        found = hash((files, frozenset(state.directories()), key))
        if found in self._seen:
            return False
        self._seen.add(found)
        return True


def every(count):
    """Says yes every so many times that it is asked."""
    asked = itertools.count(1)
    return lambda: next(asked) % count == 0


def part(state, path):
    """What of a file system is below a directory, as one of its own."""
    below = path + os.sep
    return MemoryFileSystem(
        {name: data for name, data in state.contents().items() if name.startswith(below)},
        [each for each in state.directories() if each == path or each.startswith(below)],
    )
