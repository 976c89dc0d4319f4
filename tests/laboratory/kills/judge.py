"""What must be in a store whose writers were killed, by what they had told.

A :class:`Life` is what was told between an opening and the next. Its first entry is the *birth*,
and every step is one entry, so the entries of a life have ids without gaps: that is the prefix in
the order of ids. Each writer's steps must be there in their order, up to one that is not before the
last one promised and not behind the last one begun. The order between writers is read from the
change feed; a store that keeps none is judged by what it holds, writer by writer.
"""

from __future__ import annotations

import itertools

from tests.laboratory.kills import child
from tests.laboratory.kills.history import BIRTH, COUNTER, apply, contents_of, step
from tests.store.support import FSYNC


class Life:
    """``begun``: each writer's steps, in order. ``certain``: how many of them must be there."""

    def __init__(self, number):
        self.number = number
        self.birth_id = None
        self.cut = False  # whether a power loss came after it, before anybody had looked
        self.begun = {}
        self.done = {}  # of how many the call has returned
        self.certain = {}

    def begin(self, writer, number):
        self.begun.setdefault(writer, []).append(number)

    def answer(self, writer, number, *, durable):
        assert self.begun[writer][-1] == number
        self.done[writer] = len(self.begun[writer])
        if durable:
            self.certain[writer] = self.done[writer]

    def refuse(self, writer, number):
        """A step of which nothing was written."""
        assert self.begun[writer].pop() == number

    def survive(self):
        """Another opening has found it: what a mere kill had left to the system is there."""
        if not self.cut:
            self.certain = dict(self.done)

    def may_have(self, writer):
        """How many of a writer's steps may be there."""
        return range(self.certain.get(writer, 0), len(self.begun.get(writer, ())) + 1)


class Judge:
    """One store's past, from life to life."""

    def __init__(self, seed, writers):
        self.seed = seed
        self.next = [0] * writers  # each writer's first number that was never begun
        self.next_life = 0
        self.lives = []  # those of which it is not known yet what came of them
        self.model = {}
        self.last_id = 0
        self.steps = 0  # that were begun, and
        self.promised = 0  # that had to be there

    # -- what is told ------------------------------------------------------------------------------

    def hear(self, records, *, cut=False):
        """Take down what a process told until its end, or until the power was ``cut``.

        Returns the ids of the processes that it started.
        """
        life, workers, before, dark = None, [], {}, False
        for what, writer, number in records:
            if what == child.OPENED:
                life = Life(self.next_life)
                self.next_life += 1
                self.lives.append(life)
            elif what == child.WORKER:
                workers.append(number)
            elif what == child.BEGINS:
                life.begin(writer, number)
                if writer != BIRTH:
                    self.next[writer] = number + 1
            elif what == child.DONE:
                durability = step(self.seed, writer, number).durability
                life.answer(writer, number, durable=durability is FSYNC and not dark)
            elif what == child.REFUSED:
                life.refuse(writer, number)
            elif what == child.DARK:
                dark = True
            elif what == child.BORN:
                life.birth_id = number
                if not dark:
                    self._all_is_durable_before(life)
            elif what in (child.SYNCING, child.CLOSING):
                before = dict(life.done)
            elif what in (child.SYNCED, child.CLOSED) and not dark:
                for each, count in before.items():
                    life.certain[each] = max(count, life.certain.get(each, 0))
        for life in self.lives:
            life.cut = life.cut or cut
        return workers

    def _all_is_durable_before(self, life):
        """An entry that was synced covers all that was there before it."""
        for earlier in self.lives[: self.lives.index(life)]:
            earlier.survive()

    # -- what is there -----------------------------------------------------------------------------

    def check(self, db, glimpse=None, *, feed):
        """Hold an open store against it. What it holds is what counts from then on.

        ``glimpse``: up to which entry a reader saw it before, and what.
        """
        for life in self.lives:
            life.survive()
        self.steps += sum(len(begun) for life in self.lives for begun in life.begun.values())
        self.promised += sum(sum(life.certain.values()) for life in self.lives)
        if feed:
            self._check_entries(db, glimpse or (self.last_id, self.model))
        found = contents_of(db)
        if not feed:
            self._check_writers(found)
        assert found == self.model, _difference(found, self.model)
        self.lives.clear()
        self.last_id = db.last_entry_id

    def _check_entries(self, db, glimpse):
        seen_id, seen = glimpse
        assert self.last_id <= seen_id <= db.last_entry_id, "a reader saw another end"
        lives = iter(self.lives)
        life, there = None, {}
        expected_id = None
        for entry_id, mutations in _entries(db, self.last_id):
            if seen_id is not None and entry_id > seen_id:
                assert seen == self.model, f"a reader saw other things, up to entry {seen_id}"
                seen_id = None
            writer = _writer_of(mutations)
            if writer == BIRTH:
                life = self._born(lives, life, there, mutations)
                assert life.birth_id in (None, entry_id), "a birth has another id"
                there, expected_id = {}, entry_id
            assert entry_id == (expected_id or entry_id), (
                f"entry {entry_id} where {expected_id} should be"
            )
            expected_id = entry_id + 1
            assert life is not None, f"entry {entry_id} is of no life: {mutations}"
            at = there.get(writer, 0)
            assert at < len(life.begun.get(writer, ())), f"writer {writer} never began {mutations}"
            done = step(self.seed, writer, life.begun[writer][at])
            apply(self.model, done)
            wanted = dict(done.mutations)
            if done.counts:
                wanted[COUNTER] = self.model[COUNTER]
            assert mutations == wanted, f"entry {entry_id} of {writer}: {mutations} for {wanted}"
            there[writer] = at + 1
        assert seen_id is None or seen == self.model, "a reader saw other things"
        self._ended(life, there)
        for missing in lives:
            self._ended(missing, {})

    def _born(self, lives, life, there, mutations):
        self._ended(life, there)
        for born in lives:
            if step(self.seed, BIRTH, born.number).mutations == mutations:
                return born
            self._ended(born, {})
        raise AssertionError(f"nobody wrote {mutations}")

    def _ended(self, life, there):
        for writer in () if life is None else life.begun:
            count = there.get(writer, 0)
            assert count in life.may_have(writer), (
                f"life {life.number}, writer {writer}: {count} of its steps are there, "
                f"{life.may_have(writer)} may be (steps {life.begun[writer][-3:]})"
            )

    def _check_writers(self, found):
        """Without the order between the writers: each by itself, and all that was counted."""
        counted = int(self.model.get(COUNTER, b"0"))
        after = {}
        for writer in {writer for life in self.lives for writer in life.begun}:
            own = {place: value for place, value in found.items() if _is_of(place, writer)}
            model, count = self._likely(writer, own)
            after.update(model)
            counted += count
        touched = {writer for life in self.lives for writer in life.begun}
        for place in [place for place in self.model if any(_is_of(place, w) for w in touched)]:
            del self.model[place]
        self.model.update(after)
        if counted:
            self.model[COUNTER] = b"%d" % counted

    def _likely(self, writer, own):
        """What a writer's steps make of its keys, as far as they must have come to find that."""
        start = {place: value for place, value in self.model.items() if _is_of(place, writer)}
        lives = [life for life in self.lives if writer in life.begun]
        for ends in itertools.product(*(life.may_have(writer) for life in lives)):
            model, count = dict(start), 0
            for life, end in zip(lives, ends, strict=True):
                for number in life.begun[writer][:end]:
                    done = step(self.seed, writer, number)
                    apply(model, done)
                    count += done.counts
            model.pop(COUNTER, None)
            if model == own:
                return model, count
        told = [(life.number, life.begun[writer], life.may_have(writer)) for life in lives]
        raise AssertionError(f"writer {writer} never had {own}: {told}, {start}")


def _entries(db, after):
    """The ids and mutations of the entries behind one, as the change feed has them."""
    mutations = {}
    for change in db.changes(after=after):
        mutations.update(((change.namespace, key), value) for key, value in change.items)
        if change.completes:
            yield change.entry_id, mutations
            mutations = {}


def _writer_of(mutations):
    (writer,) = {int(key[:2]) for names, key in mutations if (names, key) != COUNTER}
    return writer


def _is_of(place, writer):
    return place != COUNTER and int(place[1][:2]) == writer


def _difference(found, model):
    places = sorted(found.keys() ^ model.keys())[:5]
    places += [place for place in found.keys() & model.keys() if found[place] != model[place]][:5]
    return [(place, found.get(place), model.get(place)) for place in places]
