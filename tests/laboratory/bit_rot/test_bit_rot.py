"""Damaged files of every kind of store: the right data or an error that names the file, never else.

Proved for stores that were closed cleanly, killed with several live segments, that keep segments
for the change feed, and for a backup; of each, every file. Damage: single bits, lengths, sectors
and blocks that are lost, exchanged, misdirected, older versions of a file, files that are missing,
that are another store's, or in each other's place. After each the store is verified, opened for
reading or for writing (in turn), and read in every way. What a log's end comes to is told
beforehand, byte by byte (:mod:`~tests.laboratory.bit_rot.prediction`); what counts as which
outcome, and which damage nothing can notice, is in :mod:`~tests.laboratory.bit_rot.trial`.

One flaw at a time, on files in memory, with checksums that nobody has made right again. Small files
are taken bit by bit, large ones by samples from the seed.
"""

from __future__ import annotations

import os
import random
from collections import Counter

import pytest

from tests.campaigns import scaled, seed
from tests.laboratory.bit_rot import damages
from tests.laboratory.bit_rot.stores import MAKE, foreign, made, twin
from tests.laboratory.bit_rot.trial import Trials
from wal.checkpoint_marker import BLOCK

#: Files of so many bytes and less are small.
SMALL_FILE = 1 << 10
#: How much memory all cases together may take.
MOST_MEMORY = 400 << 20

CAMPAIGN = "damage to a store's files: "
stores = pytest.mark.parametrize("campaign", MAKE, indirect=True)


@pytest.fixture(autouse=True)
def _at_once(quiet, monkeypatch):
    """Nobody writes beside the reader: what looks like damage is not looked at again and again."""
    monkeypatch.setattr("wal.read_only._ATTEMPTS", 1)


@pytest.fixture(autouse=True)
def _little_memory():
    before = peak_memory()
    yield
    assert peak_memory() - before < MOST_MEMORY


def peak_memory():
    try:
        import resource
    except ImportError:  # on Windows
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


class Campaign:
    """The damage that a test does to one store, and the account of it."""

    def __init__(self, name, tally, rng):
        self.name = name
        self.left = made(name)
        self.trials = Trials(self.left)
        self.rng = rng
        self._tally = tally

    def run(self, what, cases, *, whole=False):
        """Try each; the outcomes, counted."""
        before = Counter(self.trials.counts)
        for label, changes in cases:
            self.trials.attempt(label, changes, whole=whole)
        found = self.trials.counts - before
        self._tally(CAMPAIGN + what, cases=sum(found.values()), **found)
        return found

    def extents(self):
        """Each file that can be damaged, and where what it says ends."""
        for path in self.left.of_the_store():
            yield path, self.end_of(path)

    def end_of(self, path):
        log = self.trials.log
        if log is not None:
            for segment in log.segments + log.kept:
                if segment.path == path:
                    return segment.end
            if path == log.marker_path:
                return 2 * BLOCK
        return 0 if os.path.basename(path).startswith("free-") else len(self.left.files[path])


@pytest.fixture
def campaign(tally, request):
    """Of the store that the test is given by name; seeded in the long run only."""
    is_long = request.node.get_closest_marker("long")
    rng = random.Random(f"{seed() if is_long else 7} {request.node.name}")
    return Campaign(request.param, tally, rng)


# -- a few of each kind, always the same ----------------------------------------------------------


@stores
def test_some_bits(campaign):
    for path, end in campaign.extents():
        places = damages.some_bits(campaign.rng, campaign.left.files[path], 9, end or None)
        found = campaign.run("bits", damages.flip(campaign.left, path, places))
        assert end or [*found] == ["no effect"]


@stores
def test_some_lengths(campaign):
    for path, _ in campaign.extents():
        size = len(campaign.left.files[path])
        lengths = [0, size - 1, campaign.rng.randrange(size)]
        campaign.run("lengths", damages.cut(campaign.left, path, lengths))


@stores
def test_files_as_a_whole(campaign):
    left, rng = campaign.left, campaign.rng
    older = [*damages.older(left)]
    campaign.run("older files", rng.sample(older, min(8, len(older))), whole=True)
    campaign.run("missing files", damages.missing(left), whole=True)
    campaign.run("another store's files", damages.strange(left, foreign()), whole=True)
    campaign.run("another store's files", damages.strange(left, twin(campaign.name)), whole=True)
    exchanged = [*damages.exchanged(left)]
    campaign.run("files exchanged", rng.sample(exchanged, min(6, len(exchanged))), whole=True)
    campaign.run("misdirected blocks", damages.misdirected(left, rng, 8), whole=True)


# -- many, from the seed --------------------------------------------------------------------------


@pytest.mark.long
@stores
def test_every_bit_of_small_files(campaign):
    log = campaign.trials.log
    for path, end in campaign.extents():
        data = campaign.left.files[path]
        if len(data) <= SMALL_FILE:
            found = campaign.run(
                "every bit of small files",
                damages.flip(campaign.left, path, damages.every_bit(data)),
            )
            assert found == {"refused": 8 * end}
        elif log is not None and path == log.marker_path:
            slots = [*range(84), *range(BLOCK, BLOCK + 84)]
            places = [(at, bit) for at in slots for bit in range(8)]
            places += [(at, at % 8) for at in range(2 * BLOCK) if at % BLOCK >= 84 and at % 16 == 0]
            campaign.run("every bit of markers", damages.flip(campaign.left, path, places))


@pytest.mark.long
@stores
def test_bits_of_large_files(campaign):
    """At least 20,000 in all: the seven stores have some 20 such files."""
    large = [
        (path, end)
        for path, end in campaign.extents()
        if end and len(campaign.left.files[path]) > SMALL_FILE and "CHECKPOINT" not in path
    ]
    for path, end in large:
        count = scaled(3000 // len(large) + 1)
        places = damages.some_bits(campaign.rng, campaign.left.files[path], count, end)
        campaign.run("bits of large files", damages.flip(campaign.left, path, places))


@pytest.mark.long
@stores
def test_lengths(campaign):
    """Every length of a file up to 2 KiB, of others those near both ends, and some between."""
    rng = campaign.rng
    for path, end in campaign.extents():
        size = len(campaign.left.files[path])
        lengths = {*range(size)} if size <= 2 << 10 else {*range(100), *range(size - 100, size)}
        lengths |= {rng.randrange(size) for _ in range(scaled(40))}
        lengths |= {max(0, end - near) for near in range(20)}
        campaign.run("lengths", damages.cut(campaign.left, path, sorted(lengths)))
        campaign.run("longer files", damages.grown(campaign.left, path, rng))


@pytest.mark.long
@stores
def test_sectors_and_blocks(campaign):
    left, rng = campaign.left, campaign.rng
    for path, end in campaign.extents():
        for size in (damages.SECTOR, damages.BLOCK):
            upto = (case for case in damages.blank(left, path, size, end + 2 * size))
            campaign.run("lost sectors and blocks", upto)
        cases = damages.swapped_blocks(left, path, rng, scaled(25), end + BLOCK)
        campaign.run("swapped sectors and blocks", cases)
    cases = damages.misdirected(left, rng, scaled(300))
    campaign.run("misdirected blocks", cases, whole=True)


@pytest.mark.long
@stores
def test_every_file_as_a_whole(campaign):
    left = campaign.left
    campaign.run("older files", damages.older(left), whole=True)
    campaign.run("missing files", damages.missing(left), whole=True)
    campaign.run("another store's files", damages.strange(left, foreign()), whole=True)
    campaign.run("another store's files", damages.strange(left, twin(campaign.name)), whole=True)
    campaign.run("files exchanged", damages.exchanged(left), whole=True)
