"""Rules of the machine over the store: every way to read, at once or little by little."""

from __future__ import annotations

import functools

from hypothesis import strategies as st
from hypothesis.stateful import rule

from tests.laboratory.machines import store_draws as draw
from tests.laboratory.machines.store_model import DELETED, Moves, in_range, read_all, space
from tests.laboratory.machines.store_player import FAILED
from tests.laboratory.machines.store_steps import step
from tests.laboratory.machines.store_transactions import write_all


class Reading:
    """For a RuleBasedStateMachine."""

    def reader_of(self, player, number):
        """The store, or one of its snapshots, with what it has to show."""
        readers = [(player.db, player.model.contents), *player.views]
        return readers[number % len(readers)]

    @rule(number=draw.numbers, place=draw.places, some=st.lists(draw.keys, max_size=4))
    @step
    def get(self, player, number, place, some):
        reader, contents = self.reader_of(player, number)
        items = contents.get(place, {})

        def act():
            source = space(reader, place)
            for key in some:
                found = source.get(key, DELETED)
                assert found == items.get(key, DELETED), f"{key!r}: {found!r}"
                assert (key in source) == (key in items), f"{key!r} in …"
            assert source.get_many(some) == [items.get(key) for key in some]

        player.attempt("get", act, reading=True)

    @rule(number=draw.numbers, place=draw.places, scan=draw.scans)
    @step
    def scan(self, player, number, place, scan):
        reader, contents = self.reader_of(player, number)
        expected = in_range(contents.get(place, {}), scan)

        def act():
            source = space(reader, place)
            assert list(source.scan(**scan)) == expected
            assert list(source.keys(**scan)) == [key for key, _ in expected]
            assert list(source.values(**scan)) == [value for _, value in expected]
            assert source.count(**scan) == len(expected)

        player.attempt("scan", act, reading=True)

    @rule(
        number=draw.numbers,
        place=draw.places,
        ends=st.tuples(draw.numbers, draw.numbers),
        include=st.tuples(st.booleans(), st.booleans()),
        reverse=st.booleans(),
    )
    @step
    def scan_between_what_is_there(self, player, number, place, ends, include, reverse):
        """From one key that is there to another: whether each belongs to it is asked for."""
        reader, contents = self.reader_of(player, number)
        present = sorted(contents.get(place, {}))
        if not present:
            return
        start, stop = sorted(present[end % len(present)] for end in ends)
        scan = {"start": start, "stop": stop, "reverse": reverse}
        scan |= {"include_start": include[0], "include_stop": include[1]}
        expected = in_range(contents[place], scan)

        def act():
            assert list(space(reader, place).scan(**scan)) == expected

        player.attempt("scan", act, reading=True)

    @rule(number=draw.numbers, place=draw.places, bounds=draw.cursor_ranges, moves=draw.moves)
    @step
    def cursor(self, player, number, place, bounds, moves):
        reader, contents = self.reader_of(player, number)
        model = Moves(contents.get(place, {}), bounds)

        def act():
            with space(reader, place).cursor(**bounds) as cursor:
                for how, key in moves:
                    move = getattr(cursor, how)
                    found = move(key) if "seek" in how else move()
                    expected = model.move(how, key)
                    assert found == expected, f"{how} {key!r}: {found!r}, not {expected!r}"

        player.attempt("cursor", act, reading=True)

    @rule()
    @step
    def look_at_everything(self, player):
        player.look_at_everything()
        for view, contents in player.views:
            found = player.attempt("read all", functools.partial(read_all, view), reading=True)
            assert found is FAILED or found == contents, "a snapshot has changed"

    # -- views that stay ---------------------------------------------------------------------------

    @rule()
    @step
    def take_snapshot(self, player):
        snapshot = player.db.snapshot()
        assert snapshot.entry_id == player.model.newest.id
        player.views.append((snapshot, player.model.contents))

    @rule(drawn=draw.mutations, durability=draw.durabilities)
    @step
    def write_behind_a_snapshot(self, player, drawn, durability):
        """Taken, written over at once, and read where it was: so are all that are held."""
        player.views.append((player.db.snapshot(), player.model.contents))
        mutations, batch = draw.made(player, drawn), player.db.batch(durability=durability)

        def act():
            with batch:
                write_all(batch, mutations)

        player.write("batch", mutations, durability, act)
        for view, contents in player.views:
            for place, key, _ in mutations:
                look = functools.partial(self.look_up, view, place, key)
                found = player.attempt("get", look, reading=True)
                expected = contents.get(place, {}).get(key, DELETED)
                assert found is FAILED or found == expected, f"{place} {key!r}: {found!r}"

    def look_up(self, view, place, key):
        return space(view, place).get(key, DELETED)

    @rule(number=draw.numbers)
    @step
    def release_snapshot(self, player, number):
        if player.views:
            player.views.pop(number % len(player.views))[0].close()

    @rule(place=draw.places, scan=draw.scans)
    @step
    def begin_scan(self, player, place, scan):
        items = in_range(player.model.contents.get(place, {}), scan)
        walk = player.attempt("scan", lambda: space(player.db, place).scan(**scan), reading=True)
        if walk is not FAILED:
            player.walks.append((walk, items))

    @rule(number=draw.numbers, count=st.integers(1, 8), end=st.integers(0, 3))
    @step
    def go_on_scanning(self, player, number, count, end):
        if not player.walks:
            return
        walk, items = player.walks.pop(number % len(player.walks))
        for _ in range(count):
            found = player.attempt("go on", lambda: next(walk, None), reading=True)
            if found is FAILED:
                return
            expected = items.pop(0) if items else None
            assert found == expected, f"{found!r}, not {expected!r}"
        if end:
            player.walks.append((walk, items))
        else:
            walk.close()
