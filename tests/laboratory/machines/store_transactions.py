"""Transactions in the machine: what one has read, and whether somebody else has changed it."""

from __future__ import annotations

import kvstore
from tests.laboratory.machines.store_model import DELETED, ROOT, applied, in_range, space
from tests.laboratory.machines.store_player import FAILED, NOTHING


def write_all(sink, mutations):
    """Each by itself, into a transaction or a batch."""
    for place, key, value in mutations:
        if value is DELETED:
            space(sink, place).delete(key)
        else:
            space(sink, place).put(key, value)


class Trial:
    """One transaction, what it rests on, and what it has to see."""

    def __init__(self, player, durability):
        self.player = player
        self.durability = durability
        self.base = player.model.contents
        self.seen = self.base  # with its own writes
        self.own = []
        self.others = []
        self._keys = set()
        self._intervals = []  # place, lowest key, highest key; None is no bound
        self.tx = player.db.transaction(durability=durability)
        self.tx.__enter__()

    def read(self, how, place, what):
        """Read, and hold it against the model; whether that went well."""
        items = self.seen.get(place, {})
        if how == "get":
            found = self._attempt(lambda: space(self.tx, place).get(what, DELETED))
            expected = items.get(what, DELETED)
            if (place, what) not in {(p, k) for p, k, _ in self.own}:
                self._keys.add((place, what))
        else:
            found = self._attempt(lambda: list(space(self.tx, place).scan(**what)))
            expected = in_range(items, what)
            self._observe(place, what, expected)
        assert found is FAILED or found == expected, f"{what}: {found!r}, not {expected!r}"
        return found is not FAILED

    def _attempt(self, act):
        return self.player.attempt("in a transaction", act, reading=True)

    def _observe(self, place, bounds, items):
        """It rests on all of the range, or, stopped by the limit, on what it has come to."""
        limit = bounds.get("limit")
        if limit == 0:
            return
        keys = [key for key, _ in items]
        low = high = None
        if limit is not None and len(keys) == limit:
            low, high = (keys[-1], None) if bounds.get("reverse") else (None, keys[-1])
        self._intervals.append((place, bounds, low, high))

    def write(self, mutations):
        """Into the transaction; whether that went well: it has to look for namespaces."""
        self.own += mutations
        self.seen = applied(self.seen, mutations)
        return self._attempt(lambda: write_all(self.tx, mutations)) is not FAILED

    def meddle(self, mutations):
        """Somebody else writes meanwhile; whether that went well."""
        self.others += mutations
        batch = self.player.db.batch()

        def act():
            with batch:
                write_all(batch, mutations)

        return self.player.write("another's write", mutations, None, act) is not FAILED

    def drop(self):
        self.tx.rollback()

    def commit(self):
        """Commit, and see that it conflicts exactly if something that it rests on has changed."""
        conflicts = []

        def act():
            try:
                self.tx.__exit__(None, None, None)
            except kvstore.ConflictError as error:
                conflicts.append(error)
                return NOTHING

        result = self.player.write("commit", self.own, self.durability, act)
        if result is FAILED or not self.own:
            assert not conflicts, "a transaction that wrote nothing has failed"
            return
        touched = self._touched()
        if conflicts:
            self.player.counts["conflicts"] += 1
            assert touched or self._made_a_place(), f"a conflict about nothing: {conflicts[0]}"
        else:
            assert not touched, f"{touched} was changed: that is a conflict"

    def _touched(self):
        changed = {(place, key) for place, key, _ in self.others}
        for place, bounds, low, high in self._intervals:
            whole = {name: bound for name, bound in bounds.items() if name != "limit"}
            inside = in_range({key: None for where, key in changed if where == place}, whole)
            for key, _ in inside:
                if (low is None or low <= key) and (high is None or key <= high):
                    return place, key
        return next(iter(sorted(changed & self._keys)), None)

    def _made_a_place(self):
        """The directory of namespaces is read, too: more conflicts than of keys alone."""
        fresh = applied(self.base, self.others).keys() - self.base.keys()
        return any(place != ROOT for place in fresh)
