"""Real file systems lose their disk while a store is written on them: what FSYNC promised stays.

Proved, of the order of writes and syncs, on ext4 (also without the order that it keeps between data
and names by default), xfs and btrfs: after the disk was taken away at a random moment, and the file
system recovered itself from its journal, the store opens and holds all that FSYNC, ``sync``,
``checkpoint``, ``compact`` or ``close`` had promised, and of all entries a prefix, each whole. The
same where a kill came before, or the power went again while the store was recovered; and all that
a mere kill leaves, on each of these file systems.

Method: the campaign of the kills, on a file system in a file. ext4 and xfs are shut down, as their
own tests do it, under the writing process: everything that was not synced is gone, and after some
of the shutdowns the journal's names are there without the data. btrfs knows no such thing; its disk
is copied in the moment in which the process is killed, and the copy goes on. As controls the same
campaign runs with syncs left out, all or those of directories, and has to find losses.

Bounds: the disk is a file, so it keeps what it was given; that a drive has a cache of its own, and
tears what it writes, is what the faulty file system adds, for which see the other rooms.
"""

from __future__ import annotations

import contextlib
import random
import shutil

import pytest

import kvstore
from tests.campaigns import scaled, seed
from tests.laboratory.disks.images import WITHOUT_JOURNAL
from tests.laboratory.kills.campaign import KEPT, Campaign
from tests.store.support import SMALL, WRITE, contents
from wal.files import StandardFileSystem

KINDS = ("ext4", "xfs", "btrfs")


def cutting(image, rng):
    """An end for a campaign: mostly the power goes, sometimes the process alone."""

    def end(kill, darken):
        if rng.random() < 0.2:
            kill()
            return False
        image.lose_power(rng, kill, darken)
        return True

    return end


def survive(image, nursery, notes, number, place, ends, **plan):
    """A store on the image through so many ends."""
    end = cutting(image, random.Random(number))
    where = image.path_of(f"s{number}")
    plan = {"writers": 4, "tolerant": True, "end": end, **plan}
    campaign = Campaign(nursery, where, notes, number, f"{place}, {plan}", **plan)
    try:
        campaign.run(ends, chains=bool(plan.get("retain", KEPT)))
    finally:
        nursery.kill()
    return campaign


def told(tally, image, campaign):
    tally(
        f"power cuts on {image.kind}",
        cuts=campaign.cuts,
        kills=campaign.ends - campaign.cuts,
        during_openings=campaign.during_openings,
        steps_begun=campaign.judge.steps,
        steps_promised=campaign.judge.promised,
    )


def test_power_cuts(mounted, nursery, tmp_path, tally):
    image = mounted("ext4")
    told(tally, image, survive(image, nursery, tmp_path, 3, "seed 3", 4))


def test_the_campaign_has_teeth(mounted, nursery, tmp_path):
    """Without syncs what FSYNC acknowledged is lost."""
    with pytest.raises(AssertionError, match="spoiled"):
        survive(mounted("ext4"), nursery, tmp_path, 1, "spoiled", 20, spoiled="data")


class WithoutNames(StandardFileSystem):
    """Syncs files, and no directory."""

    def sync_directory(self, path):
        pass


def lose(image, files, act, name):
    """Open a store, act, take the disk away as soon as that returns, and open it again."""
    path, expected = image.path_of(name), {}
    db = kvstore.open(path, memtable_bytes=SMALL, file_system=files)
    act(db, expected)
    image.shut_down(WITHOUT_JOURNAL)
    with contextlib.suppress(kvstore.StoreError, OSError):
        db.close()
    image.unmount()
    image.mount()
    with kvstore.open(path, "w", memtable_bytes=SMALL) as db:
        return contents(db), expected


def put(count):
    def act(db, expected):
        for n in range(count):
            expected[b"%d" % n] = bytes([n]) * 20_000  # each other one begins a segment
            db.put(b"%d" % n, expected[b"%d" % n])

    return act


def then(call):
    def act(db, expected):
        put(5)(db, expected)
        for n in range(3):
            expected[b"unsynced %d" % n] = b"x"
            db.put(b"unsynced %d" % n, b"x", durability=WRITE)
        call(db)

    return act


ACTS = {
    **{f"{count} puts": put(count) for count in range(6)},
    "sync": then(lambda db: db.sync()),
    "checkpoint": then(lambda db: db.checkpoint()),
    "compact": then(lambda db: db.compact()),
    "close": then(lambda db: db.close()),
}


@pytest.mark.parametrize(
    ("kind", "acts"),
    [
        pytest.param("ext4", ["3 puts", "checkpoint", "close"], id="ext4, some"),
        pytest.param("ext4", ACTS, marks=pytest.mark.long, id="ext4"),
        pytest.param("xfs", ACTS, marks=pytest.mark.long, id="xfs"),
    ],
)
def test_the_power_goes_when_a_call_has_returned(mounted, tally, quiet, kind, acts):
    image = mounted(kind)
    for name in acts:
        found, expected = lose(image, StandardFileSystem(), ACTS[name], name.replace(" ", "-"))
        assert found == expected, name
    tally(f"power cuts on {kind}", cuts=len(acts))


def test_without_the_syncs_of_directories_it_does_not_hold(mounted, quiet):
    """A segment goes back to the name that it had as a spare, with all that was acknowledged in it.

    Unless something else had the journal written meanwhile: so there are some attempts.
    """
    image = mounted("ext4")
    for attempt in range(20):
        with contextlib.suppress(kvstore.StoreError):
            found, expected = lose(image, WithoutNames(), put(2 + attempt % 4), f"s{attempt}")
            if found == expected:
                continue
        break
    else:
        raise AssertionError("nothing was ever lost")


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
def test_many_power_cuts(mounted, nursery, tmp_path, tally, kind):
    rng = random.Random(f"cuts {seed()}")
    left = scaled(120)
    image = mounted(kind)
    while left:
        plan = {
            "writers": rng.choice((1, 8)),
            "retain": rng.choice((KEPT, KEPT, 0)),
            "processes": rng.random() < 0.1,
            "closes": rng.choice((0, 0.3)),
        }
        number = rng.randrange(1 << 20)
        place = f"SEED={seed()}, {kind}, {left} ends left, store {number}"
        notes = tmp_path / f"{left}"
        notes.mkdir()
        campaign = survive(image, nursery, notes, number, place, min(left, 10), **plan)
        shutil.rmtree(image.path_of(f"s{number}"))
        told(tally, image, campaign)
        left -= campaign.ends
