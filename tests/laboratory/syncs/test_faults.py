"""Calls that fail: no error of the operating system is overlooked.

Proved is that when the n-th sync, write or rename of a thread fails, whichever it is, nothing that
rested on it is acknowledged or done; that after a failed write or sync of the log nothing at all is
acknowledged until the store was opened anew, which makes durable what it finds before it shows it;
and that what was acknowledged is there then. By strace's injection into real processes, and the
same rules as for the calls that succeed. A few n by default, all that there are in the long run.
"""

from __future__ import annotations

import itertools

import pytest

from tests.campaigns import scaled
from tests.laboratory.syncs.rules import Rules
from tests.laboratory.syncs.tracing import Mark, trace, why_not

WHOLE = ("create", "writes", "rotation", "checkpoint", "compaction", "threads", "close", "reopen")
ERRORS = (
    ("fdatasync", "EIO"),
    ("fsync", "EIO"),
    ("pwritev,pwritev2", "ENOSPC"),
    ("pwrite64", "EIO"),
    ("rename,renameat,renameat2", "EIO"),
    ("unlink,unlinkat", "EACCES"),
)


@pytest.fixture(scope="module", autouse=True)
def _strace():
    why = why_not()
    if why:
        pytest.skip(why)


def play(directory, calls, error, number, *scenes):
    """Play scenes in which the n-th of these calls fails in each thread."""
    directory.mkdir()
    fault = f"{calls}:error={error}:when={number}"
    events = trace(str(directory), *scenes, inject=[fault])
    rules = Rules().check(events)
    assert rules.wrong == [], (fault, scenes)
    return rules, events


def failures(events):
    return [e.text for e in events if isinstance(e, Mark) and e.text.startswith("failed")]


def counts(rules):
    return {"faults": rules.faults, "acks": rules.acks, "found": rules.found}


@pytest.mark.parametrize(
    ("calls", "error", "number", "latched"),
    [
        ("fdatasync", "EIO", 8, True),  # of a put
        ("fsync", "EIO", 5, None),  # of the log's directory, at creation
    ],
)
def test_a_call_that_fails(tmp_path, tally, calls, error, number, latched):
    rules, events = play(tmp_path / "store", calls, error, number, "create", "writes")
    assert rules.faults
    told = failures(events)
    assert len(told) == 1
    assert told[0].endswith(f"latched={latched}")
    tally("system calls that fail", runs=1, **counts(rules))


@pytest.mark.long
@pytest.mark.parametrize(("calls", "error"), ERRORS)
def test_every_call_that_fails(tmp_path, tally, calls, error):
    """Until there is no n-th call any more."""
    most = scaled(60)
    for number in itertools.count(1):
        rules, _ = play(tmp_path / f"{number}", calls, error, number, *WHOLE)
        tally("system calls that fail", runs=1, **counts(rules))
        if not rules.faults or number == most:
            break
    assert number > 2
