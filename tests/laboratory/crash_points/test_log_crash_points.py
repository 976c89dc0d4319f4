"""Power loss before every call of the log's lives, and again during every recovery; and kills.

Proved: every state that a loss of a single write, of a sector, or of a growth's data leaves keeps
the promises of :mod:`tests.wal.promises`, and so do all of those that a second power loss leaves at
any call of a recovery; also where the recovery began on what a killed process left in the cache.

Method: photographs (:mod:`tests.laboratory.crash_points.photographs`), as for the store.

Bounds: the lives of :mod:`tests.wal.histories`, of one thread at a time, with five configurations.
The default run takes a fixed sample of the crash points and of the recoveries to photograph, the
long one every crash point, and more recoveries.
"""

from __future__ import annotations

import random

import pytest

from tests.campaigns import scaled, seed
from tests.laboratory.crash_points.log_campaign import LogCampaign
from tests.laboratory.crash_points.photographs import every
from tests.wal.histories import OPERATIONS, history
from wal.files.faulty import FaultyFileSystem

pytestmark = pytest.mark.usefixtures("small_files")

TITLE = "crash points of the log, power loss"
KILLS = "crash points of the log, kill"
OPTIONS = [
    {},
    {"preallocate_bytes": 16384},
    {"keep_free_segments": 0, "version_info": b"version"},
    {"checkpoint_after_bytes": 700, "buffer_bytes": 1 << 20},
    {"max_sealed_segments": 1, "keep_free_segments": 3},
]


def lose_power(campaign, photographs, *, mixtures, again):
    for state, known, label in campaign.states(photographs, mixtures, "first"):
        if again():
            campaign.counts["recoveries_lost_too"] += 1
            campaign.crash_again(FaultyFileSystem(state.copy()), known, label, mixtures=2)
        campaign.examine(state, known, label)
    return campaign.counts


def kill(campaign, photographs, *, followed):
    for photograph in photographs:
        campaign.counts["kills"] += 1
        label = f"killed before {photograph.call}"
        if followed():
            campaign.counts["recoveries_followed"] += 1
            killed = photograph.system.killed()
            campaign.crash_again(killed, photograph.promised, label, mixtures=2)
        campaign.examine(photograph.system.killed_state(), photograph.promised, label)
    return campaign.counts


@pytest.mark.parametrize("play", [history, *OPERATIONS])
def test_two_lives_make_the_same_calls(turns, chance, play):
    campaign = LogCampaign(turns, chance)
    first, second = ([each.call for each in campaign.live(play)] for _ in range(2))
    assert first == second


def test_power_loss(turns, chance, tally):
    campaign = LogCampaign(turns, chance)
    photographs = campaign.live(history)
    counts = lose_power(campaign, photographs, mixtures=2, again=every(100))
    assert counts["first_examined"] > 250
    assert counts["second_examined"] > 20
    tally(TITLE, **counts)


def test_kills(turns, chance, tally):
    campaign = LogCampaign(turns, chance)
    photographs = campaign.live(history)
    counts = kill(campaign, photographs[::6], followed=every(12))
    assert counts["second_examined"] > 20
    tally(KILLS, **counts)


@pytest.mark.long
@pytest.mark.parametrize("options", OPTIONS)
def test_power_loss_before_every_call(turns, chance, tally, options):
    campaign = LogCampaign(turns, chance, seed(), **options)
    rng = random.Random(seed())
    photographs = campaign.live(history)
    share = scaled(100) / 400
    counts = lose_power(campaign, photographs, mixtures=6, again=lambda: rng.random() < share)
    assert counts["first_crash_points"] == len(photographs) > 100
    tally(TITLE, **counts)


@pytest.mark.long
@pytest.mark.parametrize("play", OPERATIONS)
def test_power_loss_before_every_call_of_an_operation(turns, chance, tally, play):
    """Short enough that every recovery is photographed, and many mixtures are tried."""
    campaign = LogCampaign(turns, chance, seed())
    rng = random.Random(seed())
    photographs = campaign.live(play)
    share = scaled(40) / 150
    counts = lose_power(campaign, photographs, mixtures=30, again=lambda: rng.random() < share)
    tally(TITLE, **counts)


@pytest.mark.long
@pytest.mark.parametrize("play", [history, *OPERATIONS])
def test_a_kill_before_every_call(turns, chance, tally, play):
    campaign = LogCampaign(turns, chance, seed())
    rng = random.Random(seed())
    photographs = campaign.live(play)
    share = scaled(50) / len(photographs)
    tally(KILLS, **kill(campaign, photographs, followed=lambda: rng.random() < share))
