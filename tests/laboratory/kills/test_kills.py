"""Writers in a process of their own, killed with SIGKILL at any moment: nothing is lost.

Proved: after a kill, and after a kill of the opening that follows one, the store opens at once and
holds all that was acknowledged, under FSYNC and WRITE alike (the machine goes on), nothing that was
never begun, every batch, transaction and large value whole, and of the entries a prefix in the
order of their ids; it is sound, and nothing is left of the dead process, neither a half-made file
nor a process that it had started.

Method: a child writes numbered steps with one or several threads, while another thread checkpoints,
merges, syncs, and takes snapshots; it closes and opens the store now and then. It tells what it is
about to do and what has returned, and is killed at a random moment, from its fork on. Another
process, this one, then opens the store.

Bounds: the moments are those that chance gives, on one machine, so a run is not repeatable to the
instruction, though its workload is. Everything written reaches the system's cache: what a power
loss takes is for the room with the file systems.
"""

from __future__ import annotations

import random

import pytest

from tests.campaigns import scaled, seed
from tests.laboratory.kills.campaign import KEPT, Campaign
from tests.laboratory.kills.nursery import Nursery

TALLY = "kills of the writing process"


@pytest.fixture(scope="module")
def nursery():
    with Nursery() as nursery:
        yield nursery


def told(tally, campaign, name=TALLY):
    tally(
        name,
        kills=campaign.ends,
        during_openings=campaign.during_openings,
        steps_begun=campaign.judge.steps,
        steps_promised=campaign.judge.promised,
        workers_outlived=campaign.workers,
    )


@pytest.mark.parametrize(
    ("kills", "plan"),
    [
        pytest.param(6, {"writers": 1}, id="one writer"),
        pytest.param(6, {"writers": 8}, id="eight writers"),
        pytest.param(5, {"writers": 8, "retain": 0}, id="a log that is used again"),
        pytest.param(3, {"writers": 3, "processes": True}, id="processes that build tables"),
    ],
)
def test_kills(nursery, tmp_path, tally, kills, plan):
    campaign = Campaign(nursery, tmp_path / "s", tmp_path, 20, f"seed 20, {plan}", **plan)
    campaign.run(kills)
    assert campaign.judge.steps > campaign.judge.promised > 0 or kills < 5
    told(tally, campaign)


def test_the_campaign_has_teeth(nursery, tmp_path):
    """Were WRITE no more than BUFFER, what is acknowledged would be lost: and it is noticed."""
    plan = {"writers": 4, "spoiled": "durability", "closes": 0}
    campaign = Campaign(nursery, tmp_path / "s", tmp_path, 1, "spoiled", **plan)
    with pytest.raises(AssertionError, match=r"of its steps are there"):
        campaign.run(20, chains=False)


@pytest.mark.long
def test_many_kills(nursery, tmp_path, tally):
    """Some ten ends for each store, then another one, of another kind."""
    rng = random.Random(f"kills {seed()}")
    left = scaled(500)
    while left:
        plan = {
            "writers": rng.choice((1, 8)),
            "retain": rng.choice((KEPT, KEPT, 0)),
            "processes": rng.random() < 0.15,
            "closes": rng.choice((0, 0.2, 0.6)),
        }
        number = rng.randrange(1 << 20)
        place = f"SEED={seed()}, {left} kills left, store {number}, {plan}"
        where = tmp_path / f"{left}"
        where.mkdir()
        campaign = Campaign(nursery, where / "s", where, number, place, **plan)
        campaign.run(min(left, 10))
        told(tally, campaign)
        left -= campaign.ends
