"""Random histories of a log: steps drawn from a seed, played, judged, shrunk and printed.

A history is a tuple of steps, each a tuple of a name and numbers. One that finds the log closed
opens it first, so a crash, or a call that fails, may come in the middle of a recovery. Whatever
the steps are they can be played, so a failing history is shrunk by leaving steps out.

What happens in one without a rule, call by call, is told by ``report(128, ALL.without("latch"))``.
"""

from __future__ import annotations

import random

from tests.laboratory.protocol.disk import MIXTURE, Crash, Disk, Failed
from tests.laboratory.protocol.log_opening import open_log
from tests.laboratory.protocol.log_owner import BrokenPromise, Owner
from tests.laboratory.protocol.log_segments import BUFFER, FSYNC, WRITE
from tests.laboratory.protocol.log_values import MARKER, Damage, Marker, foreign_frame
from tests.laboratory.protocol.rules import LogRules

ALL = LogRules()
_STRANGER = foreign_frame(-1)
_RANKS = (BUFFER, WRITE, WRITE, FSYNC, FSYNC)
_CUTS = (1, 2, 3, 4, 5, 6, 7, 9, 12, 16)


def steps_of(seed):
    """A history: a few dozen steps, in some lives."""
    draw = random.Random(seed).random
    steps = []
    for _ in range(2 + int(draw() * 3)):
        steps += [_step(draw) for _ in range(int(draw() * 8))]
        kind = draw()
        if kind < 0.25:
            steps.append(("close",))
            if draw() < 0.5:
                continue
        elif kind < 0.5:
            steps += [("fault", _CUTS[int(draw() * 10)]), _step(draw), _step(draw)]
        elif kind < 0.7:
            steps += _MOTIFS[int(draw() * len(_MOTIFS))](draw)
        steps.append(_crash(draw))
    return (*steps, ("power", 0, _seed(draw)), ("append", 1, 1, FSYNC, False), ("power", 0, 0))


def _seed(draw):
    return int(draw() * 1e9)


def _crash(draw):
    return ("power" if draw() < 0.6 else "kill", _CUTS[int(draw() * 10)], _seed(draw))


def _failed_sync(draw):
    """What a failed sync left is found by the next process, and then the power fails."""
    steps = [_small(draw, BUFFER if draw() < 0.5 else FSYNC), ("witness",)]
    steps += [_small(draw, BUFFER), ("fault", 2), ("sync",), ("kill", 0, 0)]
    return [*steps, ("witness",), ("power", 0, _seed(draw))]


def _rolled_back(draw):
    """An entry of which bytes are in the file is taken back, and another one follows."""
    size = 3 + int(draw() * 2)
    steps = [("seal",), ("stream", size, size, draw() < 0.7, WRITE, False)]
    return [*steps, ("stream", size, 0, False, WRITE, True), ("power", 0, _seed(draw))]


def _torn(draw):
    """Some of several frames are lost, and then the log falls idle."""
    steps = [("seal",), *(_small(draw, WRITE) for _ in range(3)), ("power", 0, _seed(draw))]
    return [*steps, ("sync",), ("witness",)]


def _doubtful(draw):
    """The slot of an opening that went on is spoiled, and what it wrote is lost."""
    steps = [("close",), _small(draw, WRITE), ("damage the newest slot",)]
    return [*steps, ("power", 0, _seed(draw))] if draw() < 0.2 else steps[:2]


def _small(draw, rank):
    return ("append", 1, 1, rank, False)


_MOTIFS = (_failed_sync, _rolled_back, _torn, _doubtful)


def _step(draw):
    kind = draw()
    rank = _RANKS[int(draw() * 5)]
    if kind < 0.40:
        return ("append", 1 + int(draw() * 2), 1 + int(draw() * 3), rank, draw() < 0.2)
    if kind < 0.60:
        ending = draw() < 0.6
        return ("stream", 2 + int(draw() * 5), int(draw() * 4), draw() < 0.3, rank, ending)
    if kind < 0.68:
        return ("witness",)
    if kind < 0.74:
        return ("sync",)
    if kind < 0.82:
        return ("seal",)
    if kind < 0.92:
        return ("checkpoint", draw() < 0.3)
    if kind < 0.94:
        return ("expire",)
    if kind < 0.96:
        return ("abandon", 1 + int(draw() * 3))
    if kind < 0.98:
        return ("upgrade",)
    return ("fault", _CUTS[int(draw() * 10)])


class Play:
    """A machine on which a history is played."""

    def __init__(self, rules, trace=None):
        self.rules = rules
        self.disk = Disk(random.Random(0))
        self.disk.trace = trace
        self.directory = self.disk.directory()
        self.owner = Owner(self.disk)
        self.log = None
        self.upgraded = False
        self.ending = None  # what the fuse means: the step that lit it

    def play(self, steps):
        """Every step, and the last crash; BrokenPromise where the protocol fails."""
        self.play_on(steps)
        self._end()
        self.open()

    def play_on(self, steps):
        """Every step."""
        for step in steps:
            self.disk.note("step", *step)
            name = step[0]
            if name in ("power", "kill"):
                self._end()
                self.ending = step
                self.disk.fuse = step[1]
                if not step[1]:
                    self._crash()  # now, and not in the middle of a step
            else:
                self.take(name, step[1:])

    def take(self, name, arguments):
        try:
            if name == "fault":
                self.disk.fault = arguments[0]
            elif name == "abandon":
                self.owner.abandoning = arguments[0]
            elif name == "upgrade":
                self.upgraded = True
            elif name == "damage the newest slot":
                self._damage_slot()
            elif self.log is not None or self.open():
                self._do(name, arguments)
        except Failed:
            pass  # an error of that commit alone
        except KeyError as missing:
            self.owner.break_promise(f"a file was taken away: {missing}")
        except Crash:
            self._crash()

    def _do(self, name, arguments):
        log = self.log
        if name == "append":
            *numbers, strange = arguments
            log.append(*numbers, _STRANGER if strange else None)
        elif name == "sync":
            log.round(True)
        elif name == "close":
            self.log = None
            log.close()
        else:
            getattr(log, name)(*arguments)

    def open(self):
        """Open the log; whether it is open now."""
        try:
            self.log = open_log(self.directory, self.rules, self.owner, upgraded=self.upgraded)
        except Failed:
            return False
        except Damage as damage:
            self.disk.note("damage", str(damage))
            self.owner.alarm(damage)
            return False
        self.upgraded = False
        return True

    def _end(self):
        """End the process at the latest now, if that was announced."""
        if self.ending is not None:
            self._crash()

    def end_now(self, how, seed):
        """Kill the process, or cut the power."""
        self._end()
        self.ending = (how, 0, seed)
        self._crash()

    def _crash(self):
        how, _, seed = self.ending
        self.ending = None
        self.disk.fuse = self.disk.fault = 0
        self.disk.note("the crash:", how)
        self.log = None
        if how == "power":
            self.disk.lose_power(seed)
            self.owner.power_lost()

    def _damage_slot(self):
        """From now on an alarm is right; nothing wrong may be shown all the same."""
        file = self.directory.names.get(MARKER)
        slots = [] if file is None else [each for each in file.cells if type(each) is Marker]
        if len(slots) == 2:
            at = max(slots).sequence % 2
            file.cells[at] = MIXTURE
            file.older.pop(at, None)
            file.dirty.discard(at)
            self.owner.excused = True


def judge(steps, rules=ALL, trace=None):
    """Play a history: what broke, or None; and how often the log was shown."""
    machine, broken = Play(rules, trace), None
    try:
        machine.play(steps)
    except BrokenPromise as promise:
        broken = str(promise)
    return broken, machine.owner.openings


def play(steps, rules=ALL, trace=None):
    """Play a history; what broke, or None."""
    return judge(steps, rules, trace)[0]


def shrink(steps, breaks):
    """Leave out steps as long as a promise is still broken."""
    size = max(1, len(steps) // 2)
    while size:
        at = 0
        while at < len(steps):
            fewer = (*steps[:at], *steps[at + size :])
            if breaks(fewer) is not None:
                steps = fewer
            else:
                at += size
        size //= 2
    return steps


def shrunk(seed, steps, breaks):
    """A failing history as a list to be read: the steps that matter, each call, what was found.

    ``breaks(steps, trace=None)`` plays it and says what broke.
    """
    steps, trace = shrink(steps, breaks), []
    broken = breaks(steps, trace)
    lines = [f"history {seed} breaks a promise: {broken}", *(f"    {step}" for step in steps)]
    lines += ["call by call:", *(" ".join(map(str, words)) for words in trace)]
    return "\n".join(lines)


def report(seed, rules=ALL):
    """See :func:`shrunk`."""
    return shrunk(seed, steps_of(seed), lambda steps, trace=None: play(steps, rules, trace))
