"""Rules of the machine over the store: every way to write."""

from __future__ import annotations

import contextlib
import functools

from hypothesis import strategies as st
from hypothesis.stateful import rule

from tests.laboratory.machines import store_draws as draw
from tests.laboratory.machines.store_model import DELETED, INNER, ROOT, USERS, space
from tests.laboratory.machines.store_player import FAILED, NOTHING
from tests.laboratory.machines.store_steps import step
from tests.laboratory.machines.store_transactions import Trial, write_all


class Writing:
    """For a RuleBasedStateMachine."""

    @rule(place=draw.places, key=draw.keys, size=draw.sizes, durability=draw.durabilities)
    @step
    def put(self, player, place, key, size, durability):
        value = draw.value_of(place, player.fresh(size))
        player.write(
            "put",
            [(place, key, value)],
            durability,
            lambda: space(player.db, place).put(key, value, durability=durability),
        )

    @rule(
        drawn=draw.mutations, again=st.integers(1, 3), durability=draw.durabilities, look=draw.keys
    )
    @step
    def many_puts(self, player, drawn, again, durability, look):
        """Each an entry of its own, so that segments fill and follow each other in one step."""
        for place, key, size in drawn * again:
            if player.system.lost_power or player.latched:
                return
            [mutation] = draw.made(player, [(place, key, 500 if size is None else size)])

            def act(place=place, item=mutation[1:]):
                space(player.db, place).put(*item, durability=durability)

            player.write("put", [mutation], durability, act)
            found = player.attempt("get", lambda: player.db.get(look), reading=True)
            assert found is FAILED or found == player.model.contents[ROOT].get(look)

    @rule(place=draw.places, key=draw.keys, durability=draw.durabilities)
    @step
    def delete(self, player, place, key, durability):
        player.write(
            "delete",
            [(place, key, DELETED)],
            durability,
            lambda: space(player.db, place).delete(key, durability=durability),
        )

    @rule(drawn=draw.mutations, durability=draw.durabilities, dropped=st.integers(0, 5))
    @step
    def batch(self, player, drawn, durability, dropped):
        mutations = draw.made(player, drawn)
        batch = player.db.batch(durability=durability)

        def act():
            with batch:
                write_all(batch, mutations)
                if not dropped:
                    raise KeyboardInterrupt

        if dropped:
            player.write("batch", mutations, durability, act)
        else:
            with contextlib.suppress(KeyboardInterrupt):
                player.attempt("a batch that is dropped", act, reading=True)

    @rule(drawn=draw.mutations, many=st.sampled_from([0, 0, 0, 200]), durability=draw.durabilities)
    @step
    def write_mapping(self, player, drawn, many, durability):
        items = {key: None if size is None else player.fresh(size) for _, key, size in drawn}
        items |= {b"n%03d" % number: player.fresh(90) for number in range(many)}
        mutations = [(ROOT, k, DELETED if v is None else v) for k, v in items.items()]
        player.write(
            "write", mutations, durability, lambda: player.db.write(items, durability=durability)
        )

    @rule(place=draw.places, key=draw.keys, size=draw.sizes, durability=draw.durabilities)
    @step
    def add(self, player, place, key, size, durability):
        value = draw.value_of(place, player.fresh(size))
        absent = key not in player.model.contents.get(place, {})
        result = player.write(
            "add",
            [(place, key, value)] if absent else [],
            durability,
            lambda: space(player.db, place).add(key, value, durability=durability),
        )
        assert result in (FAILED, absent)

    @rule(place=draw.places, key=draw.keys, durability=draw.durabilities)
    @step
    def pop(self, player, place, key, durability):
        old = player.model.contents.get(place, {}).get(key, DELETED)
        result = player.write(
            "pop",
            [] if old is DELETED else [(place, key, DELETED)],
            durability,
            lambda: space(player.db, place).pop(key, DELETED, durability=durability),
        )
        assert result is FAILED or result == old, f"popped {result!r}"

    @rule(
        place=draw.places,
        key=draw.keys,
        right=st.booleans(),
        size=st.none() | draw.sizes,
        durability=draw.durabilities,
    )
    @step
    def replace(self, player, place, key, right, size, durability):
        old = player.model.contents.get(place, {}).get(key, DELETED)
        if old is None:
            return  # cannot be asked for: None stands for absent
        new = None if size is None else draw.value_of(place, player.fresh(max(size, 2)))
        expected = old if right else draw.value_of(place, b"wrong")
        matches = old == expected
        expected = None if expected is DELETED else expected
        mutations = [(place, key, DELETED if new is None else new)]
        if not matches or (old is DELETED and new is None):
            mutations = []
        result = player.write(
            "replace",
            mutations,
            durability,
            lambda: space(player.db, place).replace(key, expected, new, durability=durability),
        )
        assert result in (FAILED, matches)

    @rule(place=st.sampled_from([USERS, INNER]))
    @step
    def clear(self, player, place):
        mutations = [(place, key, DELETED) for key in player.model.contents.get(place, {})]
        player.write("clear", mutations, None, lambda: space(player.db, place).clear())

    # -- transactions ------------------------------------------------------------------------------

    @rule(
        before=st.lists(draw.reads, max_size=2),
        drawn=draw.mutations,
        writes=st.integers(0, 6),
        after=st.lists(draw.reads, max_size=1),
        others=st.none() | draw.mutations,
        in_the_way=st.booleans(),
        durability=draw.durabilities,
        dropped=st.integers(0, 7),
    )
    @step
    def transaction(
        self, player, before, drawn, writes, after, others, in_the_way, durability, dropped
    ):
        trial = Trial(player, durability)
        well = all(trial.read(*each) for each in before)
        well = well and (not writes or trial.write(draw.made(player, drawn)))
        well = well and all(trial.read(*each) for each in after)
        if others and in_the_way and before and before[0][0] == "get":
            others = [(*before[0][1:], 20), *others]
        if others:
            well = well and trial.meddle(draw.made(player, others))
        if dropped and well:
            trial.commit()
        else:
            trial.drop()

    @rule(key=draw.keys, size=draw.sizes, in_the_way=st.booleans())
    @step
    def transact(self, player, key, size, in_the_way):
        """Repeated after a conflict: its first attempt meets another's write."""
        values = [player.fresh(size + 1), player.fresh(size + 1)]
        seen = []

        def function(tx):
            seen.append(tx.get(key, DELETED))
            tx.put(key, values[1])
            if in_the_way and len(seen) == 1:
                put = functools.partial(player.db.put, key, values[0])
                if player.write("another's write", [(ROOT, key, values[0])], None, put) is FAILED:
                    tx.rollback()
                    return NOTHING
            return None

        old = player.model.contents[ROOT].get(key, DELETED)
        mutations = [(ROOT, key, values[1])]
        reads = player.attempt("read", lambda: player.db.get(key), reading=True)
        if reads is FAILED:
            return
        result = player.write("transact", mutations, None, lambda: player.db.transact(function))
        if result is None:
            assert seen == ([old, values[0]] if in_the_way else [old])
