"""Damage to what a history leaves: what is known of it must raise an alarm.

One cell is spoiled, or one file is taken away, while the log is closed. Whether that has to be
noticed is told by what else is on the disk (:func:`must_be_noticed`), without the recovery. Where
it need not be, what is shown is a prefix all the same, and nothing wrong.
"""

from __future__ import annotations

import random

from tests.laboratory.protocol.disk import MIXTURE
from tests.laboratory.protocol.log_histories import ALL, Play, steps_of
from tests.laboratory.protocol.log_judgement import read_marker
from tests.laboratory.protocol.log_owner import BrokenPromise
from tests.laboratory.protocol.log_values import Header

NOTICED, NEED_NOT, NOTHING = "noticed", "need not be", "nothing to damage"


class Site:
    """What a closed log has on the disk, and one place in it."""

    def __init__(self, names, draw):
        self.names = names
        self.marker, self.doubtful = read_marker(names)
        self.live = []
        if self.marker is not None:
            least = self.marker.oldest_live
            live = [name for name in names if name[0] == "wal" and name[1] >= least]
            self.live = sorted(live)
        self.plain = all(type(names[name].cells[0]) is Header for name in self.live)
        if self.live:
            self.at = int(draw() * len(self.live))
            self.name = self.live[self.at]
            self.file = names[self.name]
            used = [at for at, cell in enumerate(self.file.cells) if cell is not None]
            self.cell = used[int(draw() * len(used))]

    def header(self, at):
        return self.names[self.live[at]].cells[0]

    def frames(self):
        """(Frame, where it begins) of those in the file that are this segment's."""
        salt = self.header(self.at).salt
        for at, cell in enumerate(self.file.cells[1:], 1):
            if type(cell) is tuple and cell[1] == 0 and cell[0].salt is salt:
                yield cell[0], at

    def read_up_to(self, id):
        """Where the last frame ends that has to be read to come to an entry."""
        ends = [at + len(f.parts) for f, at in self.frames() if f.first <= f.last <= id and f.ended]
        return max(ends, default=1)

    def evidence(self, without):
        """What is known to be durable from everything but one cell of the file."""
        found = [frame.durable for frame, at in self.frames() if at != without]
        return max(self.marker.checkpointed, self.marker.durable, *found, 0)


def must_be_noticed(site):
    """Whether a spoiled cell has to raise an alarm."""
    if site.cell == 0:
        return True
    if site.at + 1 < len(site.live):
        return site.cell < site.read_up_to(site.header(site.at + 1).previous)
    return site.cell < site.read_up_to(site.evidence(without=site.cell))


def must_be_missed(site):
    """Whether a missing file has to raise an alarm."""
    if site.at + 1 < len(site.live):
        return site.header(site.at + 1).previous > site.header(site.at).previous
    known = max(site.marker.checkpointed, site.marker.durable)
    return site.marker.newest == site.name[1] or (
        known > site.header(site.at).previous and len(site.live) == 1
    )


def damage(seed, rules=ALL, trace=None):
    """Play a history, damage what it leaves, and open that: what became of it.

    Raises BrokenPromise where damage goes unnoticed, or something wrong is shown.
    """
    machine = Play(rules, trace)
    steps = [
        step for step in steps_of(seed) if step[0] not in ("abandon", "damage the newest slot")
    ]
    closing = seed % 3 == 0
    machine.play_on(steps[: -3 if closing else -1])
    machine.take("close" if closing else "witness", ())
    machine.end_now(("power" if seed % 2 else "kill"), seed)
    draw = random.Random(-seed).random
    site = Site(machine.directory.names, draw)
    if not site.live or not site.plain:
        return NOTHING
    owner = machine.owner
    owner.excused = True
    if draw() < 0.8:
        noticed = must_be_noticed(site)
        site.file.cells[site.cell] = MIXTURE
        what = f"cell {site.cell} of {site.name}"
    else:
        noticed = must_be_missed(site)
        machine.directory.remove(site.name)
        what = f"{site.name}"
    machine.disk.note("damaged:", what)
    owner.may_lose = not noticed
    if machine.open() and noticed:
        raise BrokenPromise(f"nobody misses {what}")
    return NOTICED if noticed else NEED_NOT
