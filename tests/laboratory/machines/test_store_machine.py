"""Any history of a store, with crashes and failing calls anywhere in it, keeps the promises.

What is proved: whatever one thread does with a store (every kind of write, read and upkeep, with
all three durabilities, all options, large values, namespaces with codecs, snapshots, scans and
cursors that stay open, transactions that conflict, a handle and a change feed beside it, backups),
and however its life ends (closed, killed, without power, after failing calls, in the middle of a
step, in the middle of a recovery, over and over), what is then found is one version of its history,
whole, that contains everything acknowledged; nothing is ever read that no version has, or that a
crash undoes afterwards though it was promised to stay.

Method: a Hypothesis state machine over a :class:`~wal.files.faulty.FaultyFileSystem` and a model
(``store_model.py``, ``store_player.py``, ``store_machine.py``). After each power loss some of the
states it may leave are opened beside the one that the machine goes on from: verified, read by a
reader and by a writer, written to, closed and read again, with every backup.

Bounds: one writing thread; keys of a set of 24, values up to 40 KB, segments of 32 KiB; two states
examined for each power loss in the default run, four in the long one.

What stays nondeterministic: salts and ids of files, and the threads of the log and the store.
In *calm* lives their work is waited for after each step, and the flusher sleeps; then only a power
loss or a fault that strikes while a step and a background thread work at the same time may strike
another call when repeated. Lives that are not calm, only in the long run, wait for
nothing. Nothing that is drawn depends on it, so a failure that cannot be repeated is still told in
full, with all its steps.
"""

from __future__ import annotations

import errno
import gc
import sys
from collections import Counter

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.errors import Flaky, FlakyStrategyDefinition
from hypothesis.stateful import run_state_machine_as_test

from tests.campaigns import scaled
from tests.laboratory.machines.store_machine import StoreMachine
from tests.laboratory.machines.store_sabotage import EASY, HARD
from wal.files.faulty import PowerLoss

pytestmark = pytest.mark.usefixtures("quiet")


@pytest.fixture(autouse=True)
def _no_power_in_finalizers(monkeypatch):
    """A log whose end was broken off is ended by its finalizer, and meets the same once more.

    An EIO here is one that the machine has asked for: nothing else raises it on files in memory.
    """
    usual = sys.unraisablehook

    def hook(unraisable):
        error = unraisable.exc_value
        asked_for = isinstance(error, OSError) and error.errno == errno.EIO
        if not isinstance(error, PowerLoss) and not asked_for:
            usual(unraisable)

    monkeypatch.setattr(sys, "unraisablehook", hook)
    yield
    gc.collect()


#: What fails need not be made smaller at once: the story tells what happened.
SHORT = settings(
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.generate],
    stateful_step_count=25,
)
LONG = settings(SHORT, derandomize=False, stateful_step_count=40)


def play(tally, campaign, chosen, **attributes):
    machine = type("Machine", (StoreMachine,), {"counts": Counter(), **attributes})
    try:
        run_state_machine_as_test(machine, settings=chosen)
    finally:
        tally(campaign, **machine.counts)


def test_any_history(tally):
    play(tally, "store state machine", settings(SHORT, max_examples=40))


@pytest.mark.long
def test_many_histories(tally):
    chosen = settings(LONG, max_examples=scaled(1000))
    play(tally, "store state machine", chosen, states=4, restless=True)


@pytest.mark.long
def test_many_histories_with_the_flusher_at_work(tally):
    chosen = settings(LONG, max_examples=scaled(600))
    intervals = (0.0005, 0.002, 0.02)
    play(tally, "store state machine, flusher awake", chosen, states=3, intervals=intervals)


@pytest.mark.parametrize(
    "sabotage", [*EASY, *(pytest.param(each, marks=pytest.mark.long) for each in HARD)]
)
def test_the_machine_notices(sabotage, monkeypatch, tally):
    """What it proves it could have disproved: each fault that is put in fails it."""
    sabotage(monkeypatch)

    def quietly(campaign, **counts):
        tally("sabotages of the store, noticed", faults=1, histories=counts["histories"])

    with pytest.raises((AssertionError, Flaky)) as failure:
        play(quietly, "", settings(SHORT, max_examples=4000))
    if isinstance(failure.value, FlakyStrategyDefinition):
        return  # it failed at another step when repeated; nothing else makes a draw differ
    stories = [str(each) for each in getattr(failure.value, "exceptions", [failure.value])]
    assert any("what was done" in story for story in stories)
