"""The rules of the machine over the store.

No rule's arguments depend on what the store did: the same draws play the same history, whatever
the threads do meanwhile. After each step background work is waited for (in calm lives), so a call
at which the power goes is the same call every time, unless a checkpoint or a merge is at work while
the step itself is: then which of both comes to it is up to the scheduler. All that was drawn, and
all that was found, is in the story that a failure prints.
"""

from __future__ import annotations

from collections import Counter
from typing import ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

import kvstore
from tests.laboratory.machines import store_draws as draw
from tests.laboratory.machines.store_beside import Beside
from tests.laboratory.machines.store_player import ASLEEP, Ending, Player
from tests.laboratory.machines.store_reading import Reading
from tests.laboratory.machines.store_steps import step
from tests.laboratory.machines.store_writing import Writing


class StoreMachine(Writing, Reading, Beside, RuleBasedStateMachine):
    """One store, one thread of one's own, a failing disk."""

    counts: ClassVar = Counter()
    states = 2
    intervals = (ASLEEP,)
    restless = False  # whether there are lives in which background work is not waited for
    failed = False

    @initialize(options=draw.options, calm=st.integers(0, 3), interval=st.integers(0, 5))
    def begin(self, options, calm, interval):
        self.patience = 0
        interval = self.intervals[interval % len(self.intervals)]
        self.player = Player(
            self.counts,
            states=self.states,
            calm=(calm > 0 or not self.restless) and interval == ASLEEP,
            interval=interval,
        )
        self.counts["histories"] += 1
        self.first_opening(options=options)

    @step
    def first_opening(self, player, options):
        player.open(**options)

    def end_after_fault(self, player):
        """Once a fault has hit, the life goes on for some steps, and ends one way or the other."""
        if not player.struck:
            return
        self.patience -= 1
        if self.patience < 0:
            if player.ending.seed % 2:
                player.reopen()
            else:
                player.cut_power()
            player.settle()

    # -- ends --------------------------------------------------------------------------------------

    @rule(options=st.none() | draw.options, fault=st.none() | st.none() | draw.faults)
    @step
    def reopen(self, player, options, fault):
        player.reopen(fault, **(options or {}))
        self.patience = 2

    @rule(ending=draw.endings)
    @step
    def crash(self, player, ending):
        player.ending = ending
        player.cut_power()

    @rule(calls=draw.calls, ending=draw.endings)
    @step
    def crash_soon(self, player, calls, ending):
        player.ending = ending
        player.arm(calls)

    @rule(fault=draw.faults, patience=st.integers(0, 4), ending=draw.endings)
    @step
    def fail_soon(self, player, fault, patience, ending):
        player.ending = ending
        self.patience = patience
        player.faults.append(player.system.fail(**fault))

    def teardown(self):
        if self.failed:
            self.player.give_up()
        else:
            self.the_end()

    @step
    def the_end(self, player):
        player.ending = Ending(pick=-1)
        player.look_at_everything()
        player.reopen()
        if player.system.lost_power:
            player.recover()
        player.system.heal()
        player.give_up()
        report = kvstore.verify("s", file_system=player.system)
        assert report.ok, str(report)
