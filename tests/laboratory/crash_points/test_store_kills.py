"""A process that is killed before any call, and then the power, before any call of what follows.

Proved: all that was handed to the operating system is there after a kill, so nothing acknowledged
is lost whatever its durability was by then. What the next opening shows out of the system's cache,
though nobody had synced it, is durable from then on.

Method: the photographs of :mod:`~tests.laboratory.crash_points.test_store_power_loss`. What a kill
leaves is a photograph with all that is unsynced still unsynced; the opening on it is photographed,
and loses power before each of its calls.

Bounds: as there. The long run kills before every call, and follows a sample of the kills by a power
loss before every call; ``SCALE=10`` follows them all.
"""

from __future__ import annotations

import random

import pytest

from tests.campaigns import scaled, seed
from tests.laboratory.crash_points.photographs import every
from tests.laboratory.crash_points.store_campaign import Campaign
from tests.laboratory.crash_points.store_recovery import is_begun

pytestmark = pytest.mark.usefixtures("small_files")

TITLE = "crash points of the store, kill"


def kill(campaign, photographs, *, followed):
    """Kill before each call; where ``followed`` says so, lose power at each call of the opening."""
    counts = campaign.counts
    for photograph in photographs:
        counts["kills"] += 1
        follow = followed()
        counts["recoveries_followed"] += follow
        label = f"killed before {photograph.call}"
        for promise in photograph.promised:
            system = photograph.system.killed()
            if not is_begun(system, promise):
                continue
            if follow:
                found = campaign.recover(system, promise, label, photographed=True)
                campaign.crash_again(found, label, mixtures=2)
            else:
                campaign.recover(system.killed_state(), promise, label)
    return counts


def test_kills(turns, chance, tally):
    campaign = Campaign(turns, chance)
    _, photographs = campaign.live()
    counts = kill(campaign, photographs[11::24], followed=every(29))
    assert counts["second_examined"] > 20
    tally(TITLE, **counts)


@pytest.mark.long
def test_a_kill_before_every_call(turns, chance, tally):
    campaign = Campaign(turns, chance, seed())
    rng = random.Random(seed())
    _, photographs = campaign.live()
    share = scaled(70) / len(photographs)
    counts = kill(campaign, photographs, followed=lambda: rng.random() < share)
    assert counts["kills"] > 600
    assert counts["second_examined"] > 1000
    tally(TITLE, **counts)
