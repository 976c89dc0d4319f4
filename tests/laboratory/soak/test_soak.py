"""Hours of use in little: a random workload against models, and nothing that grows.

Proved is that every read of every actor agrees with its model, that the replica of the change feed
is the store, that a process which reads beside the writer always finds a whole state, that backups
are sound, and that memory, descriptors, threads, processes and room on the disk stay bounded. By
random work of nine actors on one store, closed and reopened in between. Three seconds by default,
three minutes times ``SCALE`` in the long run, and ``python -m tests.laboratory.soak`` for as long
as you like.
"""

from __future__ import annotations

import pytest

from tests.campaigns import SCALE, seed
from tests.laboratory.soak.run import Soak


def report(tally, soak):
    tally("soak", seconds=round(soak.samples[-1]["time"]), **soak.counts())


def test_a_short_soak(tmp_path, tally):
    soak = Soak(str(tmp_path), 1, sitting=1.2, keys=300, segment=64 << 10)
    for actor in soak.actors:
        actor.pause /= 10
    soak.run(2.4)
    report(tally, soak)


@pytest.mark.long
def test_a_long_soak(tmp_path, tally):
    soak = Soak(str(tmp_path), seed())
    soak.run(180 * SCALE)
    report(tally, soak)
