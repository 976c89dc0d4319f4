"""Do the rules see what they are for? A trace from which one sync was taken away breaks them.

Not every one: some are there for what the scenes do not do, a second failure for example, and
some are covered by a later one before anything rests on them. But each sync of a draft before it
gets its name must be missed, and each before an acknowledgement.
"""

from __future__ import annotations

import pytest

from tests.laboratory.syncs.rules import Rules
from tests.laboratory.syncs.scenes import SCENES
from tests.laboratory.syncs.tracing import Mark, trace, why_not

DRAFTS = ("/tmp-", ".new", "-new")


@pytest.fixture(scope="module", autouse=True)
def _strace():
    why = why_not()
    if why:
        pytest.skip(why)


def take_away(events, every, tally):
    syncs = [n for n, event in enumerate(events) if not isinstance(event, Mark) and is_sync(event)]
    noticed = 0
    for n in syncs[::every]:
        wrong = Rules().check(events[:n] + events[n + 1 :]).wrong
        noticed += bool(wrong)
        assert wrong or not must_be_missed(events, n), events[n]
    tally("syncs taken out of a trace", syncs=len(syncs[::every]), noticed=noticed)


def is_sync(call):
    return call.name in ("fsync", "fdatasync") and not call.failed


def must_be_missed(events, n):
    path = events[n].path
    if any(draft in path for draft in DRAFTS):
        return True
    after = [event for event in events[n + 1 :] if event.thread == events[n].thread]
    return "/wal-" in path and isinstance(after[0], Mark) and after[0].text.startswith("ack ")


def test_some_syncs_are_missed(tmp_path, tally):
    take_away(trace(str(tmp_path), "create", "writes", "checkpoint"), 4, tally)


@pytest.mark.long
def test_every_sync_is_missed(tmp_path, tally):
    take_away(trace(str(tmp_path), *SCENES), 1, tally)
