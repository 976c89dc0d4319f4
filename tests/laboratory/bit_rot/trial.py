"""One case of damage: every way to open and read the store, ``verify``, and what was allowed.

============================  =====================================================================
outcome                       what it means
============================  =====================================================================
refused                       opening raised a documented error that names the file
met when read                 it opened; what was read is right, or such an error
found by verify alone         it opened, all that was read is right, and ``verify`` names the file
no effect                     only bytes were changed that say nothing
torn tail                     the end of an unclean log, with all that bears witness of it, is gone:
                              it is cut, exactly at the first damaged frame
marker slot                   the other slot of ``CHECKPOINT`` counts; all data is right
history shortened             kept segments, for the change feed alone, are gone
earlier backup                an older manifest of a backup, whose tables are still there
right                         what was put in the file's place serves as well
============================  =====================================================================

Anything else is :class:`~tests.laboratory.bit_rot.reading.WrongError`.
"""

from __future__ import annotations

import os
from collections import Counter

import kvstore
from kvstore.tables.manifest import NAME as MANIFEST
from kvstore.tables.manifest import Manifest
from tests.laboratory.bit_rot.prediction import REFUSED, Log, is_segment
from tests.laboratory.bit_rot.reading import WrongError, open_and_read
from wal.files import MemoryFileSystem

#: Every so many cases it is looked at what a writer that met the damage has left.
_AGAIN = 5


class Trials:
    """Damage to the files of one store: ``counts`` says what came of each case."""

    def __init__(self, left):
        self.left = left
        self.log = None if left.root == "b" else Log(left.files)
        self.counts = Counter()
        self.tried = 0
        self._flags = "rw"
        self.newest = None if self.log is None else self.log.newest.path
        sound = self.outcome({}, "rw")
        assert sound == "no effect", sound

    def attempt(self, label, changes, *, whole=False):
        """Try a change of some files (None: removed); nothing, if nothing is changed by it.

        ``whole`` says that files as a whole are not what they were: others may show that as well.
        """
        files = self.left.files
        changes = {path: data for path, data in changes.items() if files.get(path) != data}
        if not changes:
            return None
        self.tried += 1
        self._flags = self._flags[::-1]
        try:
            outcome = self.outcome(changes, self._flags[0], whole=whole)
        except AssertionError as error:
            where = ", ".join(sorted(changes))
            raise WrongError(f"{self.left.name}: {label} of {where}: {error}") from error
        self.counts[outcome] += 1
        return outcome

    def outcome(self, changes, flags, *, whole=False):
        """What comes of it, by name; WrongError for anything that is not allowed."""
        files = {**self.left.files, **changes}
        files = {path: data for path, data in files.items() if data is not None}
        problems = self.verify(files)
        shown = self.predicted(changes)
        met, refused = [], False
        for flag in flags:
            damage, system = open_and_read(self.left, files, flag, *self.ids(shown, flag))
            met += damage
            refused = refused or system is None
            if system is not None and flag == "w" and self.tried % _AGAIN == 0:
                self.look_again(system, problems, shown)
        self.check_named(changes, met, problems, whole=whole)
        if shown == REFUSED and not refused:
            raise WrongError("it was not refused")
        if met and [*changes] == [self.newest] and shown != REFUSED:
            raise WrongError(f"a torn tail was taken for damage: {met}")
        if met:
            return "refused" if refused else "met when read"
        return self.judged(changes, problems, shown, whole=whole)

    def verify(self, files):
        system = MemoryFileSystem(files)
        try:
            problems = kvstore.verify(self.left.root, file_system=system).problems
        except Exception as error:
            raise WrongError(f"verify: {error!r}") from error
        if system.contents() != MemoryFileSystem(files).contents():
            raise WrongError("verify has changed something")
        return problems

    # -- what is allowed ---------------------------------------------------------------------------

    def predicted(self, changes):
        """The last entry that a writer and a reader show; REFUSED; None where all is there."""
        log = self.log
        if log is None:
            return self.earlier_backup(changes)
        if log.marker_path in changes and log.marker_in(changes) is None:
            return REFUSED
        if log.newest.path in changes:
            return log.shown(changes)
        return log.last_id(), min(log.last_id(), log.evidence(changes))

    def earlier_backup(self, changes):
        """A backup holds what its manifest says: an older one makes it an earlier backup."""
        path = os.path.join(os.sep, self.left.root, MANIFEST)
        if changes.get(path) in self.left.versions.get(path, ()):
            last_id = Manifest.decode(changes[path]).last_entry_id
            return last_id, last_id
        return None

    def ids(self, shown, flag):
        """The entries as of which the store may be."""
        if shown == REFUSED:
            return ()
        if shown is None:
            return (self.left.last_id,)
        return (shown[flag == "r"],)

    def check_named(self, changes, met, problems, *, whole):
        """Errors name what was damaged, or what shows it; ``verify`` names the same."""
        found = {os.path.join(os.sep, problem.path) for problem in problems}
        for error in met:
            named = os.path.join(os.sep, getattr(error, "path", "?"))
            if str(error).endswith("a backup that was not completed: repeat it"):
                named = os.path.join(os.sep, self.left.root, MANIFEST)
            if named not in found:
                raise WrongError(f"{error!r}, but verify says {problems}")
            elsewhere = whole or (self.log is not None and self.log.marker_path in changes)
            if not elsewhere and named not in changes:
                raise WrongError(f"{error!r} names another file")

    def judged(self, changes, problems, shown, *, whole):
        """Nobody met anything: was there nothing to meet?"""
        if problems:
            return "found by verify alone"
        changes = {p: data for p, data in changes.items() if self.changes_something(p, data)}
        if not changes:
            return "no effect"
        log = self.log
        if log is not None:
            if {*changes} <= {log.newest.path, log.marker_path} and log.newest.path in changes:
                return "torn tail"
            if [*changes] == [log.marker_path]:
                return "marker slot"
            if whole and all("kept-" in path and data is None for path, data in changes.items()):
                return "history shortened"
        if whole and self.serves(changes):
            return "right" if shown == self.predicted({}) else "earlier backup"
        raise WrongError("verify has not found it")

    def changes_something(self, path, data):
        """Whether any byte that says something is not as it was."""
        sound, log = self.left.files.get(path, b""), self.log
        name = os.path.basename(path)
        if name.startswith("free-") or name == "LOCK":
            return False
        if os.path.basename(os.path.dirname(path)) != "wal":
            return True
        if data is None:
            return True
        if is_segment(path) and len(data) < log.least_size(path):
            return True
        length = max(len(sound), len(data))
        return any(
            log.means_something(path, at)
            for at in differing(sound.ljust(length, b"\0"), data.ljust(length, b"\0"))
        )

    def serves(self, changes):
        """Whether older versions are there: then they have the same data, as was read."""
        versions = self.left.versions
        return all(data in versions.get(path, ()) for path, data in changes.items())

    def look_again(self, system, problems, shown):
        """What a writer has left: the damage is still there, or there is none that matters."""
        files = system.contents()
        damage, _ = open_and_read(self.left, files, "r", *self.ids(shown, "w"))
        kept = all("kept-" in problem.path for problem in problems)  # a writer drops those
        if not kept and not damage and not self.verify(files):
            raise WrongError("a writer made the damage look sound")


def differing(one, other):
    """Where two byte strings of one length differ, coarsely: a place in each differing stretch."""
    for start in range(0, len(one), 256):
        if one[start : start + 256] != other[start : start + 256]:
            yield from (
                at
                for at in range(start, min(start + 256, len(one)))
                if one[at] != other[at]
            )  # fmt: skip
