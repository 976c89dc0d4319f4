"""The calls that a store makes, and that each acknowledgement comes after its sync.

Proved is, of a real process on the real file system, that for every operation which leaves
something on the disk the calls are the very ones that stand in docs/system-calls.md; and of the
whole trace, whatever the order of its threads, that nothing is acknowledged, renamed, removed or
written before what it rests on was synced (``rules``). By strace. All scenes once, and some of them
with syncs that take longer.
"""

from __future__ import annotations

import os
import re

import pytest

from tests.laboratory.syncs.narrating import steps
from tests.laboratory.syncs.rules import Rules
from tests.laboratory.syncs.scenes import SCENES
from tests.laboratory.syncs.tracing import Call, Mark, trace, why_not

_PAGE = os.path.join(os.path.dirname(__file__), *[os.pardir] * 3, "docs", "system-calls.md")


@pytest.fixture(scope="module", autouse=True)
def _strace():
    why = why_not()
    if why:
        pytest.skip(why)


@pytest.fixture(scope="module")
def events(tmp_path_factory):
    return trace(str(tmp_path_factory.mktemp("traced")), *SCENES)


def documented():
    """The steps that the document tells, by name."""
    with open(_PAGE, encoding="utf-8") as file:
        text = file.read()
    blocks = re.findall(r"```text\n(.*?)\n```", text.split("## The calls, as traced")[1], re.DOTALL)
    return {block.split("\n")[0]: block.split("\n") for block in blocks}


def test_the_document_tells_the_calls(events):
    found, told = steps(events), documented()
    for name, lines in told.items():
        assert found.get(name) == lines, name
    assert list(found) == list(told)


def test_everything_rests_on_what_is_durable(events, tally):
    rules = Rules().check(events)
    assert rules.wrong == []
    assert rules.acks > 100
    tally("system calls traced", calls=len(events), acks=rules.acks, syncs=rules.syncs)


def test_many_tasks_share_a_sync(events):
    inside = between(events, "50 puts of tasks")
    acks = [event for event in inside if isinstance(event, Mark) and event.text.startswith("ack")]
    syncs = [event for event in inside if isinstance(event, Call) and event.name == "fdatasync"]
    assert len(acks) == 50
    assert 1 <= len(syncs) <= 5


def between(events, name):
    texts = [event.text if isinstance(event, Mark) else "" for event in events]
    return events[texts.index(f"begin {name}") : texts.index(f"end {name}")]


def test_acknowledgements_wait_for_slow_syncs(tmp_path, tally):
    slow = "fdatasync:delay_enter=4000:delay_exit=4000"
    rules = Rules().check(trace(str(tmp_path), "create", "threads", inject=[slow]))
    assert rules.wrong == []
    assert rules.acks > 40
    tally("system calls traced", acks=rules.acks, syncs=rules.syncs)
