"""The store's protocol on top of the log, as a model; and the model's names in the packages.

Proved: in random histories of a symbolic store (checkpoints, compactions, emptying, backups that
become stores), with failed calls, killed processes and power losses before any call, every entry
that was acknowledged is there exactly once, in tables or by replay; no manifest names a table that
is not there; a backup is complete or refused. Each rule is left out in turn, and must be missed.

Bounds: one thread; the log below is one that keeps its promises (:mod:`.store_files`); its names
are taken for durable after a sync is repeated; what an opening for reading does is left out.
"""

from __future__ import annotations

import importlib

import pytest

from tests.campaigns import scaled, seed
from tests.laboratory.protocol import correspondence
from tests.laboratory.protocol import store_histories as store
from tests.laboratory.protocol.campaigning import count_broken, play_all, prove_needed
from tests.laboratory.protocol.rules import STORE_UNNEEDED, StoreRules

ALL = StoreRules()
ALONE = sorted(set(ALL.sentences()) - {*STORE_UNNEEDED})


def test_nothing_is_lost_and_no_alarm_is_false(tally):
    play_all(store, range(2500), tally, "model of the store")


@pytest.mark.long
def test_nothing_is_lost_and_no_alarm_is_false_at_length(tally):
    begin = seed() * 1_000_003 + 1_000_000
    play_all(store, range(begin, begin + scaled(100_000)), tally, "model of the store")


@pytest.mark.parametrize("rule", ALONE)
def test_every_rule_is_needed(rule, tally):
    prove_needed(store, ALL.without(rule), rule, tally, "rules of the store, each left out")


@pytest.mark.long
@pytest.mark.parametrize("rule", STORE_UNNEEDED)
def test_second_lines_are_not_needed_alone(rule, tally):
    """Should one of them become needed, it has to be said so in the rules."""
    tried = scaled(4000)
    assert not count_broken(store, ALL.without(rule), range(tried))
    tally("rules of the store that are second lines", **{f"histories without {rule}": tried})


@pytest.mark.long
@pytest.mark.parametrize("rule", ALONE)
def test_how_often_each_rule_is_needed(rule, tally):
    tried = scaled(4000)
    broken = count_broken(store, ALL.without(rule), range(tried))
    assert broken
    tally(f"histories of the store, of {tried:,}, that fail without", **{rule: broken})


@pytest.mark.parametrize(
    ("ours", "theirs"), [*correspondence.LOG.items(), *correspondence.STORE.items()]
)
def test_what_the_model_stands_for_is_there(ours, theirs):
    module, _, name = ours.partition(".")
    find(f"tests.laboratory.protocol.{module}", name)
    find(*theirs.split(":"))


def find(module, name):
    found = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    return found


def test_a_failing_history_can_be_read():
    rules = ALL.without("sync_tables")
    number = next(n for n in range(1000) if store.play(store.steps_of(n), rules))
    told = store.report(number, rules)
    assert f"history {number} breaks a promise" in told
    assert "the crash: power" in told
    steps = told.split("call by call")[0].count("\n    (")
    assert steps < len(store.steps_of(number))
