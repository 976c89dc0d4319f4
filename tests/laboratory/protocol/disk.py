"""A symbolic disk: files are cells, directories are names, and nothing is durable before its sync.

It is what ``docs/durability.md`` assumes of a disk, and less than that:

- A *cell* (a sector, or less) holds one symbolic value. A power loss leaves any value that it has
  had since it was last synced; where these differ, also a mixture, which is like nothing at all.
- A *sync* that fails leaves the cells clean: readable, but no later sync covers them unless they
  are written again. A directory's sync that fails leaves its changes so.
- The changes of a directory survive a power loss or not, each by itself.
- A killed process leaves all that it has handed over, and all of it as undurable as it was.

Every call is counted. ``fuse`` is how many calls there are until the process ends *instead of* the
call, ``fault`` how many until one fails; a write that does not come to its end may be done in part.
"""

from __future__ import annotations

import random

MIXTURE = "mixture"
"""What is left of a cell whose old and new value were mixed up. Nothing valid begins with it."""

MOODS = (0.0, 0.1, 0.5, 0.5, 0.9, 1.0)
"""How likely each unsynced thing is to survive a power loss: one of these for the whole loss."""


class Crash(Exception):  # noqa: N818
    """The process is gone: killed, or with the power."""


class Failed(Exception):  # noqa: N818
    """A call of the file system raised an OSError."""


class File:
    """``cells`` are what a reader sees, ``older`` what else a power loss may leave of some."""

    __slots__ = ("cells", "dirty", "older")

    def __init__(self, length):
        self.cells = [None] * length
        self.older = {}  # number of a cell -> its values since the last durable one, that first
        self.dirty = set()  # what the next sync covers

    def lose_power(self, chance, rng):
        cells = self.cells
        for at, values in self.older.items():
            if rng.random() >= chance:
                value = values[int(rng.random() * len(values))] if chance else values[0]
            else:
                value = cells[at]
            if rng.random() < 0.1 and any(each is not cells[at] for each in values):
                value = MIXTURE
            cells[at] = value
        self.older.clear()
        self.dirty.clear()


class Disk:
    """The calls that change something, on every file and directory of one machine."""

    def __init__(self, rng):
        self.rng = rng
        self.fuse = 0
        self.fault = 0
        self.names_in_doubt = False  # the sync of a directory has failed
        self.trace = None  # a list of words, if somebody wants to read what happened
        self.directories = []

    def directory(self):
        """A new, empty directory whose own name is durable."""
        self.directories.append(Directory(self))
        return self.directories[-1]

    def count(self, *words):
        """Count a call that is done wholly or not at all; Crash or Failed if it is not done."""
        if self.trace is not None:
            self.trace.append(words)
        self.fuse -= 1
        self.fault -= 1
        if not self.fuse:
            raise Crash
        if not self.fault:
            self.note("fails")
            raise Failed

    def note(self, *words):
        """Say something about the last call, or between calls."""
        if self.trace is not None:
            self.trace.append(("  ", *words))

    def write(self, file, at, values):
        """Write cells; where the call is cut short, some of them."""
        if self.trace is not None:
            self.trace.append(("write", at, values))
        self.fuse -= 1
        self.fault -= 1
        if not self.fuse or not self.fault:
            values = values[: int(self.rng.random() * (len(values) + 1))]
        cells, older, dirty = file.cells, file.older, file.dirty
        if at + len(values) > len(cells):
            cells.extend([None] * (at + len(values) - len(cells)))
        for value in values:
            if at in older:
                older[at].append(cells[at])
                dirty.add(at)
            elif cells[at] is not value:
                older[at] = [cells[at]]
                dirty.add(at)
            cells[at] = value
            at += 1
        if not self.fuse:
            raise Crash
        if not self.fault:
            self.note("fails")
            raise Failed

    def sync(self, file):
        """Make durable what was written, but for what an earlier failed sync has left clean."""
        try:
            self.count("sync")
        except Failed:
            file.dirty.clear()
            raise
        if len(file.dirty) == len(file.older):
            file.older.clear()
        else:
            for at in file.dirty:
                del file.older[at]
        file.dirty.clear()

    def lose_power(self, seed):
        """Everything that is not durable survives or not."""
        rng = random.Random(seed)
        chance = MOODS[int(rng.random() * len(MOODS))]
        for directory in self.directories:
            for file in directory.files():
                if file.older:
                    file.lose_power(chance, rng)
            directory.lose_power(chance, rng)
        if self.trace is not None:
            for directory in self.directories:
                directory.describe()


class Directory:
    """Names of files. Each change is ``[old name or None, new name or None, file, clean]``."""

    def __init__(self, disk):
        self.disk = disk
        self.names = {}
        self.durable = {}
        self.changes = []

    def create(self, name, file):
        """A new file, of so many cells if that is a number; its name is not durable."""
        self.disk.count("create", name)
        if type(file) is int:
            file = File(file)
        self.names[name] = file
        self.changes.append([None, name, file, False])
        return file

    def rename(self, old, new):
        self.disk.count("rename", old, new)
        file = self.names[new] = self.names.pop(old)
        self.changes.append([old, new, file, False])

    def remove(self, name):
        self.disk.count("remove", name)
        self.changes.append([name, None, self.names.pop(name), False])

    def sync(self):
        """Make the changes durable, but for those that an earlier failed sync has left clean.

        Where a change that counts rests on one that is clean, that one counts as well.
        """
        try:
            self.disk.count("sync directory")
        except Failed:
            self.disk.names_in_doubt = True
            for change in self.changes:
                change[3] = True
            raise
        left, touched = [], set()
        for change in reversed(self.changes):
            old, new, _, clean = change
            if clean and old not in touched and new not in touched:
                left.append(change)
            else:
                touched |= {old, new} - {None}
                change[3] = False
        for change in self.changes:
            if not change[3]:
                _apply(self.durable, *change[:3])
        self.changes = left[::-1]

    def files(self):
        """Every file that has a name, or may have one after a power loss; each once."""
        found = {id(file): file for file in self.durable.values()}
        found.update((id(change[2]), change[2]) for change in self.changes)
        return found.values()

    def lose_power(self, chance, rng):
        for change in self.changes:
            if rng.random() < chance:
                _apply(self.durable, *change[:3])
        self.names = dict(self.durable)
        self.changes.clear()

    def describe(self):
        """Tell the trace what there is."""
        for name, file in sorted(self.names.items(), key=str):
            self.disk.note("there is", name, file.cells)


def _apply(names, old, new, file):
    """Do a change, unless one that it rests on was lost."""
    if old is None:
        names.setdefault(new, file)
    elif names.get(old) is file:
        del names[old]
        if new is not None:
            names[new] = file
