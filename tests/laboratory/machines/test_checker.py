"""The checker of histories, checked: by hand, and beside the definition that it implements.

What it must accept are histories that some order explains, however odd they look; what it must
refuse are the known anomalies. Of small random histories it must think what trying all orders
tells.
"""

from __future__ import annotations

import itertools
import random

import pytest

from tests.laboratory.machines import linearizability
from tests.laboratory.machines.history import Operation, Other
from tests.laboratory.machines.linearizability import (
    NotLinearizableError,
    UndecidedError,
    check,
    parts,
)

A, B = b"a", b"b"


def op(begun, ended, seen=(), left=(), durability="fsync"):
    return Operation("by hand", "somebody", begun, ended, dict(seen), dict(left), durability)


class TestByHand:
    """``op(begun, ended, what it saw, what it left)``."""

    def accepted(self, *operations, initial=(), **crash):
        check(operations, dict(initial), **crash)

    def refused(self, *operations, initial=(), **crash):
        with pytest.raises(NotLinearizableError):
            check(operations, dict(initial), **crash)

    def test_nothing_at_all(self):
        self.accepted()

    def test_one_after_another(self):
        self.accepted(op(1, 2, left={A: b"1"}), op(3, 4, seen={A: b"1"}))
        self.refused(op(1, 2, left={A: b"1"}), op(3, 4, seen={A: None}))

    def test_a_read_at_the_same_time_may_see_either(self):
        put = op(1, 4, left={A: b"1"})
        self.accepted(put, op(2, 3, seen={A: b"1"}))
        self.accepted(put, op(2, 3, seen={A: None}))

    def test_a_stale_read(self):
        """Once anybody has seen the new value nobody sees the old one any more."""
        put = op(1, 9, left={A: b"1"})
        self.accepted(put, op(2, 3, seen={A: None}), op(4, 5, seen={A: b"1"}))
        self.refused(put, op(2, 3, seen={A: b"1"}), op(4, 5, seen={A: None}))

    def test_a_value_from_nowhere(self):
        self.refused(op(1, 2, left={A: b"1"}), op(1, 3, seen={A: b"2"}))

    def test_the_order_of_overlapping_writes_is_anyones(self):
        writes = [op(1, 8, left={A: b"%d" % n}) for n in range(5)]
        for last in range(5):
            self.accepted(*writes, op(9, 10, seen={A: b"%d" % last}))
        self.refused(*writes, op(9, 10, seen={A: b"1"}), op(11, 12, seen={A: b"2"}))

    def test_two_readers_that_see_two_writes_in_two_orders(self):
        writes = [op(1, 20, left={A: b"1"}), op(1, 20, left={A: b"2"})]
        one = [op(2, 3, seen={A: b"1"}), op(4, 5, seen={A: b"2"})]
        other = [op(2, 3, seen={A: b"2"}), op(4, 5, seen={A: b"1"})]
        self.accepted(*writes, *one)
        self.refused(*writes, *one, *other)

    def test_a_lost_update(self):
        """Both read the same and both wrote."""
        one = op(1, 4, seen={A: b"0"}, left={A: b"1"})
        other = op(2, 3, seen={A: b"0"}, left={A: b"2"})
        self.refused(one, other, initial={A: b"0"})
        self.accepted(one, op(2, 3, seen={A: b"1"}, left={A: b"2"}), initial={A: b"0"})

    def test_write_skew(self):
        """Each read both keys and wrote another one of them."""
        before = {A: b"0", B: b"0"}
        one = op(1, 4, seen=before, left={A: b"1"})
        self.refused(one, op(2, 3, seen=before, left={B: b"2"}), initial=before)
        later = op(2, 3, seen={A: b"1", B: b"0"}, left={B: b"2"})
        self.accepted(one, later, initial=before)

    def test_a_batch_that_is_seen_by_halves(self):
        batch = op(1, 10, left={A: b"1", B: b"1"})
        self.accepted(batch, op(2, 3, seen={A: b"1", B: b"1"}))
        self.refused(batch, op(2, 3, seen={A: b"1", B: None}))
        self.refused(batch, op(2, 3, seen={A: b"1"}), op(4, 5, seen={B: None}))
        self.accepted(batch, op(2, 3, seen={A: None}), op(4, 5, seen={B: b"1"}))

    def test_a_snapshot_of_what_never_was(self):
        puts = [op(1, 2, left={A: b"1"}), op(3, 4, left={B: b"1"})]
        self.refused(*puts, op(1, 9, seen={A: None, B: b"1"}))
        self.accepted(*puts, op(1, 9, seen={A: b"1", B: None}))

    def test_of_two_that_add_one_succeeds(self):
        one = op(1, 4, seen={A: None}, left={A: b"1"})
        self.refused(one, op(2, 3, seen={A: None}, left={A: b"2"}))
        self.accepted(one, op(2, 3, seen={A: Other(None)}))
        self.refused(op(5, 6, seen={A: None}, left={A: b"1"}), op(2, 3, seen={A: Other(None)}))

    def test_of_two_that_pop_one_gets_it(self):
        before = {A: b"0"}
        one = op(1, 4, seen={A: b"0"}, left={A: None})
        self.refused(one, op(2, 3, seen={A: b"0"}, left={A: None}), initial=before)
        self.accepted(one, op(2, 3, seen={A: None}), initial=before)

    def test_what_nobody_was_told_of_may_happen_or_not_once_and_late(self):
        doubtful = op(1, None, left={A: b"1"})
        self.accepted(doubtful, op(9, 10, seen={A: None}))
        self.accepted(doubtful, op(7, 8, seen={A: None}), op(9, 10, seen={A: b"1"}))
        self.refused(doubtful, op(7, 8, seen={A: b"1"}), op(9, 10, seen={A: None}))
        self.refused(op(5, None, left={A: b"1"}), op(1, 2, seen={A: b"1"}))

    def test_where_each_key_is_right_all_may_be_wrong(self):
        """Two readers that see two puts in two orders: key by key there is nothing to say."""
        puts = [op(1, 20, left={A: b"1"}), op(1, 20, left={B: b"1"})]
        one = op(2, 3, seen={A: b"1", B: None})
        self.accepted(*puts, one)
        self.refused(*puts, one, op(4, 5, seen={A: None, B: b"1"}))

    def test_what_was_acknowledged_is_there_after_a_crash(self):
        put = op(1, 2, left={A: b"1"})
        self.accepted(put, recovered={A: b"1"})
        self.refused(put, recovered={})
        self.refused(put, recovered={A: b"1", B: b"?"})

    def test_in_doubt_at_a_crash(self):
        put = op(1, None, left={A: b"1", B: b"1"})
        self.accepted(put, recovered={})
        self.accepted(put, recovered={A: b"1", B: b"1"})
        self.refused(put, recovered={A: b"1"})

    def test_a_read_of_what_was_then_lost(self):
        """Nobody was told of the write, but somebody saw it."""
        put, read = op(1, None, left={A: b"1"}), op(2, 3, seen={A: b"1"})
        self.refused(put, read, recovered={})
        self.accepted(put, read, recovered={A: b"1"})

    def test_what_was_not_to_last_may_be_lost_from_the_end(self):
        lasting = {"fsync"}
        first = op(1, 2, left={A: b"1"}, durability="write")
        second = op(3, 4, left={B: b"1"}, durability="write")
        read = op(5, 6, seen={A: b"1", B: b"1"}, durability="")
        for recovered in ({}, {A: b"1"}, {A: b"1", B: b"1"}):
            self.accepted(first, second, read, recovered=recovered, lasting=lasting)
        self.refused(first, second, read, recovered={B: b"1"}, lasting=lasting)

    def test_what_lasts_makes_all_before_it_last(self):
        lasting = {"fsync"}
        first = op(1, 2, left={A: b"1"}, durability="write")
        second = op(3, 4, left={B: b"1"}, durability="fsync")
        self.accepted(first, second, recovered={A: b"1", B: b"1"}, lasting=lasting)
        self.refused(first, second, recovered={A: b"1"}, lasting=lasting)
        self.refused(first, second, recovered={B: b"1"}, lasting=lasting)
        self.refused(first, op(3, 4), recovered={}, lasting=lasting)  # a sync
        self.accepted(first, op(1, 4), recovered={}, lasting=lasting)  # begun before

    def test_keys_that_were_never_together_are_decided_apart(self):
        operations = [op(1, 2, left={b"%d" % n: b""}) for n in range(9)]
        assert check(operations, {})[0] == 9
        assert check([*operations, op(3, 4, seen={b"1": b"", b"2": b""})], {})[0] == 8
        assert parts([op(1, 2, {A: None}, {B: b""}), op(3, 4, {B: b""})]) == [{A, B}]

    def test_it_says_so_where_there_is_too_much(self, monkeypatch):
        with pytest.raises(UndecidedError):
            check([op(1, 2, left={A: b"%d" % n}) for n in range(25)], {})
        monkeypatch.setattr(linearizability, "MOST_CONFIGURATIONS", 50)
        with pytest.raises(UndecidedError):
            check([op(1, 2, left={A: b"%d" % n}) for n in range(9)], {})

    def test_it_says_what_cannot_be(self):
        with pytest.raises(NotLinearizableError, match=r"saw a=nothing\n.*\n.*\n.*left a:=1"):
            check([op(1, 2, left={A: b"1"}), op(3, 4, seen={A: None})], {})


def explained(operations, initial):
    """The definition itself: some order that keeps to the times explains all they saw."""
    for order in itertools.permutations(operations):
        state = dict(initial)
        for at, each in enumerate(order):
            ended_before = any(other.ended < each.begun for other in order[at + 1 :])
            if ended_before or any(state.get(key) != value for key, value in each.seen.items()):
                break
            state.update(each.left)
        else:
            return True
    return False


def random_history(rng):
    """Some operations on two keys with values that repeat, so that many orders nearly fit."""
    operations = []
    for _ in range(rng.randrange(1, 6)):
        begun, ended = sorted(rng.sample(range(100), 2))
        keys = rng.sample([A, B], rng.randrange(1, 3))
        values = {key: rng.choice((None, b"1", b"2")) for key in keys}
        kind = rng.randrange(3)
        seen = values if kind != 1 else {}
        left = {key: rng.choice((b"1", b"2")) for key in keys} if kind != 0 else {}
        operations.append(op(begun, ended, seen, left))
    for time_, (number, name) in enumerate(
        sorted(
            ((number, name) for number in range(len(operations)) for name in ("begun", "ended")),
            key=lambda each: getattr(operations[each[0]], each[1]) + (each[1] == "ended") / 2,
        )
    ):
        setattr(operations[number], name, time_)
    return operations


def agree(numbers):
    """How many random histories each verdict was given, by the checker and by the definition."""
    verdicts = {True: 0, False: 0}
    for number in numbers:
        operations = random_history(random.Random(number))
        try:
            check(operations, {})
            accepted = True
        except NotLinearizableError:
            accepted = False
        assert accepted == explained(operations, {}), [str(each) for each in operations]
        verdicts[accepted] += 1
    return verdicts


def test_it_agrees_with_the_definition(tally):
    verdicts = agree(range(1000))
    assert min(verdicts.values()) > 100
    tally("the checker beside all permutations", accepted=verdicts[True], refused=verdicts[False])
