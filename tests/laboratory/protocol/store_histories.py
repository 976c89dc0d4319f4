"""Random histories of a store and its backups: drawn from a seed, played, shrunk and printed."""

from __future__ import annotations

import random

from tests.laboratory.protocol.disk import Crash, Disk, Failed
from tests.laboratory.protocol.log_histories import shrunk
from tests.laboratory.protocol.log_owner import BrokenPromise
from tests.laboratory.protocol.log_values import Damage
from tests.laboratory.protocol.rules import StoreRules
from tests.laboratory.protocol.store_files import (
    BACKUP,
    MANIFEST,
    SEGMENT,
    Latched,
    Place,
    Refused,
)
from tests.laboratory.protocol.store_model import open_store
from tests.laboratory.protocol.store_owner import User

ALL = StoreRules()
_SYNCED = (None, False, True, True)


def steps_of(seed):
    """A history: a few dozen steps, in some lives."""
    draw = random.Random(seed).random
    steps = []
    for _ in range(2 + int(draw() * 4)):
        steps += [_step(draw) for _ in range(1 + int(draw() * 6))]
        if draw() < 0.35:
            steps += [("fault", _soon(draw)), _step(draw), _step(draw)]
        if draw() < 0.35:
            steps += _MOTIFS[int(draw() * len(_MOTIFS))](draw)
        elif draw() < 0.8:
            steps.append(("power" if draw() < 0.5 else "kill", _soon(draw), int(draw() * 1e9)))
    return (*steps, ("put", 1, True), ("power", 0, int(draw() * 1e9)))


def _failing_creation(draw):
    """A sync fails while a store is emptied; the next opening goes on with it."""
    steps = [("fault", 1 + int(draw() * 20)), ("empty",), ("close",)]
    if draw() < 0.5:
        return [*steps, ("put", 1, True), _loss(draw)]
    return [*steps[:2], ("power", 4 + int(draw() * 6), int(draw() * 1e9)), ("close",)]


def _failing_compaction(draw):
    """Which manifest is there is not known, and another process goes on."""
    steps = [("put", 1, True), ("checkpoint",), ("put", 1, True), ("checkpoint",)]
    steps += [("fault", 8 + int(draw() * 4)), ("compact",), ("kill", 0, 0), ("close",)]
    if draw() < 0.5:
        steps += [("put", 1, True), ("checkpoint",)]
    return [*steps, _loss(draw)]


def _failing_checkpoint(draw):
    """The same, and the log lets go of what the manifest covers."""
    steps = [("put", 1, True), ("fault", 9 + int(draw() * 4)), ("checkpoint",), ("kill", 0, 0)]
    return [*steps, ("checkpoint",), _loss(draw)]


def _failing_backup(draw):
    """A backup that failed is made once more, and becomes the store."""
    linked = draw() < 0.5
    steps = [("put", 1, True), ("checkpoint",), ("fault", 8 + int(draw() * 6)), ("backup", linked)]
    return [*steps, ("backup", linked), _loss(draw), ("promote",)]


def _cut_promotion(draw):
    """A backup becomes the store, in several attempts."""
    steps = [("put", 1, True), ("backup", True), ("kill", 4 + int(draw() * 16), 0), ("promote",)]
    return [*steps, ("put", 1, True), _loss(draw)]


def _loss(draw):
    return ("power", 0, int(draw() * 1e9))


_MOTIFS = (
    _failing_creation,
    _failing_compaction,
    _failing_checkpoint,
    _failing_backup,
    _cut_promotion,
)


def _soon(draw):
    return 1 + int(draw() * draw() * 20)


def _step(draw):
    kind = draw()
    if kind < 0.35:
        return ("put", 1 + int(draw() * 2), _SYNCED[int(draw() * 4)])
    if kind < 0.60:
        return ("checkpoint",)
    if kind < 0.70:
        return ("compact",)
    if kind < 0.80:
        return ("backup", draw() < 0.5)
    if kind < 0.86:
        return ("promote",)
    if kind < 0.90:
        return ("empty",)
    return ("close",)


class Play:
    """A machine on which a history is played."""

    def __init__(self, rules, trace=None):
        self.rules = rules
        self.disk = Disk(random.Random(0))
        self.disk.trace = trace
        self.place = Place(self.disk)
        self.target = Place(self.disk)  # of backups
        self.former = None  # where the store was, while its backup becomes one
        self.user = User()
        self.store = None
        self.ending = None

    def play(self, steps):
        for step in steps:
            self.disk.note("step", *step)
            name = step[0]
            if name in ("power", "kill"):
                self._end()
                self.ending, self.disk.fuse = step, step[1]
                if not step[1]:
                    self._crash()
            elif name == "fault":
                self.disk.fault = step[1]
            else:
                self._take(name, step[1:])
        self._end()
        for _ in range(3):  # a backup may be refused, and then it is the store's turn
            if self._take("close", ()):
                break

    def _take(self, name, arguments):
        """One step; whether the store was open for it."""
        try:
            if name == "empty":
                self._empty()
            elif name == "promote":
                self._promote()
            elif self.store is not None or self._open():
                self._do(name, arguments)
                return True
        except (Failed, Refused):
            pass
        except Damage as damage:
            raise BrokenPromise(f"a false alarm: {damage}") from None
        except Latched:
            self._leave()
        except Crash:
            self._crash()
        return False

    def _do(self, name, arguments):
        store = self.store
        if name == "backup":
            store.back_up(self.target, *arguments)
        else:
            getattr(store, name)(*arguments)
        if name == "close":
            self._leave()

    def _open(self, *, empty=False):
        try:
            if self.former is not None and not self.place.root.names.keys() & {MANIFEST, BACKUP}:
                raise Refused
            self.store = open_store(self.place, self.rules, self.user, empty=empty)
        except Refused:
            self.user.refused()
            self.place, self.former = self.former, None
            return False
        self.former = None
        return True

    def _empty(self):
        if self.former is None:
            self._leave()
            self.user.emptying = self.user.must_be_empty = True
            try:
                self._open(empty=True)
            finally:
                self.user.must_be_empty = False

    def _promote(self):
        """The store is given up, and its backup opened in its stead."""
        if self.former is None and self.user.promote():
            self._leave()
            self.former, self.place = self.place, self.target
            self.target = Place(self.disk)
            self._open()

    def _leave(self):
        """The process ends its work with the store, or its life."""
        self.store = None
        for place in (self.place, self.former):
            if place is not None and SEGMENT in place.log.names:
                place.log.names[SEGMENT].lose_process()

    def _end(self):
        if self.ending is not None:
            self._crash()

    def _crash(self):
        how, _, seed = self.ending
        self.ending = None
        self.disk.fuse = self.disk.fault = 0
        self.disk.note("the crash:", how)
        self._leave()
        if how == "power":
            self.disk.lose_power(seed)
            self.user.power_lost()


def judge(steps, rules=ALL, trace=None):
    """Play a history: what broke, or None; and how often a store was shown."""
    machine, broken = Play(rules, trace), None
    try:
        machine.play(steps)
    except BrokenPromise as promise:
        broken = str(promise)
    return broken, machine.user.openings


def play(steps, rules=ALL, trace=None):
    """Play a history; what broke, or None."""
    return judge(steps, rules, trace)[0]


def report(seed, rules=ALL):
    """A failing history as a list to be read: the steps that matter, each call, what was found."""
    return shrunk(seed, steps_of(seed), lambda steps, trace=None: play(steps, rules, trace))
