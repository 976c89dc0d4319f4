"""Playing many histories of a model, with all rules or without some."""

from __future__ import annotations

import pytest

ENOUGH = 12_000
"""Histories after which a rule that nobody missed is taken for one that is not needed."""


def play_all(model, seeds, tally, campaign):
    """No history of these seeds may break a promise."""
    openings = 0
    for number in seeds:
        broken, opened = model.judge(model.steps_of(number))
        if broken is not None:
            pytest.fail(model.report(number))
        openings += opened
    tally(campaign, histories=len(seeds), openings=openings)


def prove_needed(model, rules, name, tally, campaign):
    """Some history must break a promise without a rule."""
    for number in range(ENOUGH):
        if model.play(model.steps_of(number), rules) is not None:
            tally(campaign, rules=1, histories=number + 1)
            return
    pytest.fail(f"nothing of {ENOUGH} histories breaks without {name}")


def count_broken(model, rules, seeds):
    """How many histories break a promise."""
    return sum(model.play(model.steps_of(number), rules) is not None for number in seeds)
