"""Every call of a store's life fails once, and then the process ends, or the power.

Proved: the caller of a failing operation is told, or the store has made up for it; what was
acknowledged before and after is there whatever ends the process; after a latch no write succeeds
until the store is opened anew; an opening that failed succeeds when it is repeated. That a write
which failed alone was not written is proved by reopening: it is none of the states allowed.

Method: the life of :mod:`~tests.laboratory.crash_points.store_life`, in which one call raises an
errno. It goes on unless the store has latched. Then what a power loss may leave is recovered: at
the call behind the failure, at one of the calls that follow, and at the end; and what is there
without one.

Bounds: one failure in each life. A directory's sync right behind its creation is left out where the
power goes: nothing makes up for that one. Nor does anything for one right behind a removal: the log
that flag "n" begins has smaller ids, and may then meet a removed file of the one before it. There
the power goes at the next call only. The long run fails every call with each errno, and a sample of
them halfway or behind their work.
"""

from __future__ import annotations

import errno
import random
from collections import Counter

import pytest

import kvstore
from tests.campaigns import scaled, seed
from tests.laboratory.crash_points.photographs import Camera, Photograph
from tests.laboratory.crash_points.store_campaign import Campaign
from tests.laboratory.crash_points.store_life import Life
from tests.laboratory.crash_points.store_recovery import is_begun
from wal.files.faulty import FaultyFileSystem

pytestmark = pytest.mark.usefixtures("small_files")

TITLE = "crash points of the store, failing calls"
WAYS = {
    "EIO": {"error": errno.EIO},
    "ENOSPC": {"error": errno.ENOSPC},
    "EIO in the middle": {"error": errno.EIO, "written": 100},
    "EIO afterwards": {"error": errno.EIO, "after": True},
}
FOLLOWING = 12


class FromTheFailure(Camera):
    """Photographs the calls that follow the failure, and no more than some."""

    def __init__(self, system, promised, fault):
        super().__init__(system, promised)
        self._fault = fault

    def _on_call(self, kind, path, number):
        if self._fault.hits and len(self.photographs) < FOLLOWING:
            super()._on_call(kind, path, number)


def calls_of_a_life(turns, chance):
    chance.begin("first life")
    system = FaultyFileSystem()
    Life(system, turns, patient=True).run()
    return [*system.calls]


def live_with(fault_options, number, turns, chance):
    """A life of which one call fails; the photographs from then on, and how it came out."""
    chance.begin("first life")
    system = FaultyFileSystem()
    life = Life(system, turns, patient=True)
    fault = system.fail(nth=number, **fault_options)
    camera = FromTheFailure(system, life.promised, fault)
    outcome = "made_up_for"
    try:
        life.run()
        outcome = "told" if life.failures else outcome
    except (kvstore.StoreError, OSError) as error:
        life.failures.append(error)
        outcome = "latched"
        check_refused(life, error)
    finally:
        life.give_up()
    assert fault.hits == 1
    assert all(getattr(each, "errno", None) == fault_options["error"] for each in life.failures)
    camera.stop()
    turns.settle()
    end = Photograph("the end", system.killed(), life.promised())
    return [*camera.photographs, end], outcome


def check_refused(life, error):
    """After a latch nothing is written any more, with one cause, and reading goes on."""
    assert isinstance(error, kvstore.StoreFailedError), repr(error)
    assert error.latched
    if life.db is None or life.db.closed:
        return
    for write in (lambda: life.db.put(b"n", b""), life.db.sync, lambda: life.db.delete(b"a")):
        with pytest.raises(kvstore.StoreFailedError) as refused:
            write()
        assert refused.value.latched
        assert refused.value.errno == error.errno


def fail_call(campaign, calls, number, way, rng):
    """One life with one failure, and what may be found after it."""
    campaign.counts["failures"] += 1
    failed = f"{way} of {calls[number - 1]}"
    photographs, outcome = live_with(WAYS[way], number, campaign.turns, campaign.chance)
    campaign.counts[outcome] += 1
    chosen = [photographs[0], rng.choice(photographs), photographs[-1]]
    if is_sync_behind("make_directory", calls, number):
        chosen = []
    elif is_sync_behind("remove", calls, number):
        chosen = photographs[:1]
    for photograph in chosen:
        for store, promise, label in campaign.some_states(photograph, limit=4):
            campaign.recover(store, promise, f"{failed}; {label}")
    end = photographs[-1]
    for promise in end.promised:
        if is_begun(end.system, promise):
            campaign.counts["kills"] += 1
            campaign.recover(end.system.killed_state(), promise, f"{failed}; killed at the end")


def is_sync_behind(kind, calls, number):
    call = calls[number - 1]
    return call.kind == "sync_directory" and calls[number - 2].kind == kind


def fail_calls(turns, chance, numbers, ways, rng_seed=0):
    campaign = Campaign(turns, chance, rng_seed)
    rng = random.Random(rng_seed)
    calls = calls_of_a_life(turns, chance)
    for number in numbers(len(calls), rng):
        for way in ways:
            fail_call(campaign, calls, number, way, rng)
    return campaign.counts


def test_some_calls_fail(turns, chance, tally):
    counts = Counter()
    for way, first in zip(WAYS, (3, 20, 40, 60), strict=True):
        counts += fail_calls(turns, chance, lambda n, rng, f=first: range(f, n + 1, 170), [way])
    assert counts["failures"] > 15
    tally(TITLE, **counts)


@pytest.mark.long
@pytest.mark.parametrize("way", ["EIO", "ENOSPC"])
def test_every_call_fails(turns, chance, tally, way):
    counts = fail_calls(turns, chance, lambda n, rng: range(1, n + 1), [way], seed())
    assert counts["failures"] > 600
    tally(TITLE, **counts)


@pytest.mark.long
@pytest.mark.parametrize("way", ["EIO in the middle", "EIO afterwards"])
def test_many_calls_fail_by_halves(turns, chance, tally, way):
    def some(count, rng):
        return sorted(rng.sample(range(1, count + 1), min(scaled(100), count)))

    tally(TITLE, **fail_calls(turns, chance, some, [way], seed()))
