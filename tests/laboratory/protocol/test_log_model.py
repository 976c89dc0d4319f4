"""The log's protocol, as a model: no rule can be left out, and with all of them nothing is lost.

Proved: in random histories of a symbolic log (a few lives of some dozen steps: groups, streamed and
rolled-back entries, witnesses, rotations, checkpoints, recycled and kept files, abandoned segments,
clean shutdowns), with failed calls, killed processes and power losses before any call, also inside
a recovery, everything acknowledged is there, what is shown is a prefix and stays shown, no id is
given out twice, and nothing but damage raises an alarm. Each rule (:mod:`.rules`) is then switched
off, and the same histories must fail; damage (:mod:`.log_damage`) must be noticed.

Bounds: one thread; segments of 6 cells beside the header; a read never fails; a directory's own
name is durable. More is granted to the disk than it may do: see :mod:`.disk`.
"""

from __future__ import annotations

from functools import partial

import pytest

from tests.campaigns import scaled, seed
from tests.laboratory.protocol import log_histories as log
from tests.laboratory.protocol.campaigning import count_broken, play_all, prove_needed
from tests.laboratory.protocol.log_damage import NEED_NOT, NOTICED, damage
from tests.laboratory.protocol.log_owner import BrokenPromise
from tests.laboratory.protocol.rules import LOG_DAMAGE, LOG_TOGETHER, LOG_UNNEEDED, LogRules

ALL = LogRules()
TOGETHER = {name for names in LOG_TOGETHER for name in names}
ALONE = sorted(set(ALL.sentences()) - TOGETHER - {*LOG_DAMAGE} - {*LOG_UNNEEDED})


def test_nothing_is_lost_and_no_alarm_is_false(tally):
    play_all(log, range(6000), tally, "model of the log")


@pytest.mark.long
def test_nothing_is_lost_and_no_alarm_is_false_at_length(tally):
    begin = seed() * 1_000_003 + 1_000_000
    play_all(log, range(begin, begin + scaled(300_000)), tally, "model of the log")


@pytest.mark.parametrize("rule", ALONE)
def test_every_rule_is_needed(rule, tally):
    prove_needed(log, ALL.without(rule), rule, tally, "rules of the log, each left out")


@pytest.mark.parametrize("names", LOG_TOGETHER, ids="+".join)
def test_of_these_rules_one_is_needed(names, tally):
    prove_needed(log, ALL.without(*names), "+".join(names), tally, "rules of the log, in pairs")


@pytest.mark.long
@pytest.mark.parametrize("rule", [*sorted(TOGETHER), *LOG_UNNEEDED])
def test_second_lines_are_not_needed_alone(rule, tally):
    """Should one of them become needed, it has to be said so in the rules."""
    tried = scaled(4000)
    assert not count_broken(log, ALL.without(rule), range(tried))
    tally("rules of the log that are second lines", **{rule: 0, f"histories without {rule}": tried})


@pytest.mark.long
@pytest.mark.parametrize("rule", ALONE)
def test_how_often_each_rule_is_needed(rule, tally):
    tried = scaled(4000)
    broken = count_broken(log, ALL.without(rule), range(tried))
    assert broken
    tally(f"histories of the log, of {tried:,}, that fail without", **{rule: broken})


# ------------------------------------------------------------------ damage


def outcome(number, rules=ALL):
    try:
        return damage(number, rules)
    except BrokenPromise as broken:
        return str(broken)


def damage_all(numbers, tally):
    found = {NOTICED: 0, NEED_NOT: 0}
    for number in numbers:
        try:
            result = damage(number)
        except BrokenPromise as broken:
            pytest.fail(f"damage({number}): {broken}")
        if result in found:
            found[result] += 1
    tally("model of the log, damaged", **{word.replace(" ", "_"): n for word, n in found.items()})
    assert found[NOTICED] > found[NEED_NOT]


def test_damage_is_noticed(tally):
    damage_all(range(800), tally)


@pytest.mark.long
def test_damage_is_noticed_at_length(tally):
    begin = seed() * 1_000_003 + 1_000_000
    damage_all(range(begin, begin + scaled(40_000)), tally)


@pytest.mark.parametrize("rule", LOG_DAMAGE)
def test_without_this_rule_damage_is_mistaken(rule, tally):
    without = partial(outcome, rules=ALL.without(rule))
    words = (NOTICED, NEED_NOT, "nothing to damage")
    broken = next((n for n in range(1000) if without(n) not in words), None)
    assert broken is not None
    tally("rules about damage, each left out", noticed=1, histories=broken + 1)
