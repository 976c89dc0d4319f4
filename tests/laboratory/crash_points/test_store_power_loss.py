"""Power loss before every call of a store's life, and again during every recovery.

Proved: whatever a power loss leaves, an opening shows one of the states that the store has had,
none older than what was acknowledged, whole to the last namespace; a reader beside shows one of
them too; what was shown stays, is checkpointed, closed and opened again the same. That holds for
the store, for its backup while it is made (it is whole, or can be made again), for the store that
becomes of the backup, and for a store that is emptied.

Method: one life (:mod:`~tests.laboratory.crash_points.store_life`) is photographed before each of
its calls. Of each photograph every state with a single loss is tried (an unsynced call, one of its
sectors, a growth without its data, all but one call), and a sample of mixtures. Each recovery is a
run that is photographed as well, and loses power again before each of its calls.

Bounds: the calls of one life, of one thread at a time. The default run takes a fixed sample of the
crash points. The long run takes every one, and photographs the recovery of a sample of the states;
``SCALE=8`` photographs every recovery.
"""

from __future__ import annotations

import random

import pytest

from tests.campaigns import scaled, seed
from tests.laboratory.crash_points.photographs import every
from tests.laboratory.crash_points.store_campaign import Campaign

pytestmark = pytest.mark.usefixtures("small_files")

TITLE = "crash points of the store, power loss"


def lose_power(campaign, photographs, *, mixtures, again):
    """Recover every state; photograph the recoveries that ``again`` chooses."""
    for store, promise, label in campaign.states(photographs, mixtures, "first"):
        photographed = again()
        campaign.counts["recoveries_lost_too"] += photographed
        found = campaign.recover(store, promise, label, photographed=photographed)
        if photographed:
            campaign.crash_again(found, label, mixtures=2)
    return campaign.counts


def test_power_loss(turns, chance, tally):
    campaign = Campaign(turns, chance)
    _, photographs = campaign.live()
    some = photographs[7::22]
    counts = lose_power(campaign, some, mixtures=1, again=every(100))
    assert counts["first_crash_points"] == len(some) > 25
    assert counts["first_examined"] > 80
    assert counts["second_examined"] > 20
    tally(TITLE, **counts)


@pytest.mark.long
def test_power_loss_before_every_call(turns, chance, tally):
    campaign = Campaign(turns, chance, seed())
    rng = random.Random(seed())
    share = scaled(300) / 2000
    _, photographs = campaign.live()
    counts = lose_power(campaign, photographs, mixtures=4, again=lambda: rng.random() < share)
    assert counts["first_crash_points"] == len(photographs) > 600
    assert counts["first_examined"] > 1500
    tally(TITLE, **counts)
