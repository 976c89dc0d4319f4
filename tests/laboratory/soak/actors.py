"""Who works on the store in a soak: each knows what it must find, and looks whether it does.

An *owner* alone writes the keys under its prefix, so a plain dict is its model and no check needs
the others to stop. What many write at once, the accounts, has an invariant instead: their sum.
Every actor has its own random numbers, from the run's seed and its name.
"""

from __future__ import annotations

import random
import traceback
from collections import Counter

import kvstore
from kvstore import Durability

ACCOUNTS = 40
EACH = 1000
ACCOUNT = b"account/"
DURABILITIES = [Durability.BUFFER] * 12 + [Durability.WRITE] * 3 + [Durability.FSYNC] * 5


class Actor:
    """One who takes steps until it is told to stop, in one sitting after the other."""

    pause = 0.0  # seconds between two steps
    most_kept = 3

    def __init__(self, soak, name):
        self.soak = soak
        self.name = name
        self.rng = random.Random(f"{soak.seed}/{name}")
        self.counts = Counter()

    def run(self, db):
        """A sitting: the store was opened, and is closed when all have returned."""
        try:
            self.begin(db)
            while not self.soak.stopping.is_set():
                self.step(db)
                if self.pause:
                    self.soak.stopping.wait(self.pause * self.rng.uniform(0.5, 1.5))
            self.end(db)
        except BaseException:  # noqa: BLE001 - whatever it is, it is told of, and ends the run
            self.soak.fail(self.name, traceback.format_exc())

    def begin(self, db):
        """At the beginning of a sitting."""

    def step(self, db):
        raise NotImplementedError

    def end(self, db):
        """At the end of a sitting, before the store is closed."""

    def check(self, found, wanted, what):
        self.counts["checks"] += 1
        if found != wanted:
            raise AssertionError(f"{self.name}: {what}: {difference(found, wanted)}")


def difference(found, wanted):
    """Where two values are not the same, in few words."""
    if isinstance(found, dict) and isinstance(wanted, dict):
        wrong = [k for k in found.keys() | wanted.keys() if found.get(k) != wanted.get(k)]
        told = [(k, brief(found.get(k)), brief(wanted.get(k))) for k in sorted(wrong)[:5]]
        return f"{len(wrong)} keys differ; key, found, wanted: {told}"
    return f"found {brief(found)}, wanted {brief(wanted)}"


def brief(value):
    return value if not isinstance(value, bytes) or len(value) < 60 else (len(value), value[:40])


class Owner(Actor):
    """Every kind of read and write of its own keys, and snapshots that it keeps for a while."""

    def __init__(self, soak, name, keys):
        super().__init__(soak, name)
        self.prefix = name.encode() + b"/"
        self.keys = [self.prefix + b"%05d" % n for n in range(keys)]
        self.large = [self.prefix + b"large/%d" % n for n in range(6)]
        self.model = {}
        self.kept = []  # a snapshot, and the model at its time
        self._steps = [self.put, self.write, self.delete, self.decide, self.look, self.scan]
        self._steps += [self.put_large, self.keep, self.look_back]
        self._weights = [400, 100, 120, 80, 140, 60, 10, 4, 6]

    def step(self, db):
        (chosen,) = self.rng.choices(self._steps, self._weights)
        chosen(db)
        self.counts["steps"] += 1

    def value(self):
        return self.rng.randbytes(self.rng.randrange(300))

    def durability(self):
        return self.rng.choice(DURABILITIES)

    def put(self, db):
        key, value = self.rng.choice(self.keys), self.value()
        db.put(key, value, durability=self.durability())
        self.model[key] = value

    def write(self, db):
        chosen = self.rng.sample(self.keys, self.rng.randrange(2, 20))
        items = {key: None if self.rng.random() < 0.3 else self.value() for key in chosen}
        db.write(items, durability=self.durability())
        for key, value in items.items():
            if value is None:
                self.model.pop(key, None)
            else:
                self.model[key] = value

    def delete(self, db):
        key = self.rng.choice(self.keys)
        db.delete(key, durability=self.durability())
        self.model.pop(key, None)

    def decide(self, db):
        """What depends on what is there."""
        key, value, how = self.rng.choice(self.keys), self.value(), self.durability()
        kind = self.rng.randrange(3)
        if kind == 0:
            self.check(db.add(key, value, durability=how), key not in self.model, f"add {key}")
            self.model.setdefault(key, value)
        elif kind == 1:
            self.check(db.pop(key, None, durability=how), self.model.pop(key, None), f"pop {key}")
        else:
            old = self.model.get(key, b"none")
            done = db.replace(key, old, value, durability=how)
            self.check(done, key in self.model, f"replace {key}")
            if done:
                self.model[key] = value

    def look(self, db):
        keys = self.rng.sample(self.keys + self.large, 4)
        self.check(db.get(keys[0]), self.model.get(keys[0]), f"get {keys[0]}")
        self.check(db.get_many(keys), [self.model.get(key) for key in keys], f"get_many {keys}")

    def scan(self, db):
        low = self.rng.randrange(len(self.keys))
        keys = self.keys[low : low + 101]
        start, stop = keys[0], keys[-1]
        wanted = {key: self.model[key] for key in keys[:-1] if key in self.model}
        backwards = self.rng.random() < 0.3
        items = list(db.scan(start, stop, reverse=backwards))
        self.check([key for key, _ in items], sorted(wanted, reverse=backwards), f"scan {start}")
        self.check(dict(items), wanted, f"scan {start}")

    def put_large(self, db):
        key, value = self.rng.choice(self.large), self.rng.randbytes(self.rng.randrange(150 << 10))
        db.put(key, value, durability=self.durability())
        self.model[key] = value
        self.counts["large values"] += 1

    def keep(self, db):
        if len(self.kept) < self.most_kept:
            self.kept.append((db.snapshot(), dict(self.model)))
            self.counts["snapshots"] += 1

    def look_back(self, db):
        """What a snapshot shows, also after checkpoints and merges, is what was there then."""
        if self.kept:
            self.rng.shuffle(self.kept)
            snapshot, model = self.kept.pop()
            self.check(dict(snapshot.scan(prefix=self.prefix)), model, "a snapshot")
            snapshot.close()

    def end(self, db):
        while self.kept:
            self.look_back(db)
        self.check(dict(db.scan(prefix=self.prefix)), self.model, "the end of a sitting")


def total(source):
    return sum(int(value) for value in source.values(prefix=ACCOUNT))


class Teller(Actor):
    """Moves money between accounts that all tellers share, in transactions that conflict."""

    def begin(self, db):
        self.check(total(db), ACCOUNTS * EACH, "the sum of all accounts after opening")

    def step(self, db):
        self.counts["steps"] += 1
        if self.rng.random() < 0.1:
            with db.transaction(read_only=True) as tx:
                self.check(total(tx), ACCOUNTS * EACH, "the sum in a transaction")
            return
        few = min(ACCOUNTS, 6)  # so that they meet
        giver, taker = (ACCOUNT + b"%02d" % n for n in self.rng.sample(range(few), 2))
        try:
            with db.transaction(durability=self.rng.choice(DURABILITIES)) as tx:
                amount = min(int(tx[giver]), self.rng.randrange(50))
                tx[giver] = b"%d" % (int(tx[giver]) - amount)
                tx[taker] = b"%d" % (int(tx[taker]) + amount)
            self.counts["transactions"] += 1
        except kvstore.ConflictError:
            self.counts["conflicts"] += 1


class Settler(Actor):
    """Fills namespaces, one within another, and clears them again."""

    pause = 0.002

    def __init__(self, soak, name):
        super().__init__(soak, name)
        self.model = {(outer, inner): {} for outer in (b"n1", b"n2") for inner in (b"x", b"y")}

    def step(self, db):
        place = self.rng.choice(list(self.model))
        space, model = db.namespace(place[0]).namespace(place[1], kvstore.UTF8), self.model[place]
        self.counts["steps"] += 1
        chance = self.rng.random()
        if chance < 0.01:
            space.clear()
            model.clear()
            self.counts["namespaces cleared"] += 1
        elif chance < 0.05:
            self.check(dict(space.scan()), model, f"namespace {place}")
        else:
            items = {b"%03d" % self.rng.randrange(400): f"{self.rng.random()}" for _ in range(3)}
            space.write(items, durability=self.rng.choice(DURABILITIES))
            model.update(items)

    def end(self, db):
        for (outer, inner), model in self.model.items():
            space = db.namespace(outer).namespace(inner, kvstore.UTF8)
            self.check(dict(space.scan()), model, "a namespace at the end of a sitting")
