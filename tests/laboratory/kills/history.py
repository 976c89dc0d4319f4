"""What the killed processes write: steps that a seed, a writer and a number say wholly.

A child does them, and whoever judges what it left works them out again, so nothing but numbers has
to be told between the two. Every step is one entry of the log. Each writer has keys of its own; a
transaction also counts in one key that all writers share.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from tests.store.support import FSYNC, WRITE

COUNTER = ((), b"~counter")
BIRTH = 99
"""The writer of the first entry after each opening: from it on the ids have no gaps."""
LARGE = 2 << 10  # from here on a value is a streamed entry
SLOTS = 40

KINDS = ("put", "namespaced", "delete", "batch", "transaction", "large", "huge")
WEIGHTS = (30, 15, 15, 20, 12, 7, 1)


@dataclass(frozen=True)
class Step:
    """``mutations`` go from (names of the namespace, key) to the value, None deletes."""

    kind: str
    mutations: dict
    durability: object

    @property
    def counts(self):
        return self.kind == "transaction"


def step(seed, writer, number):
    """The writer's step of that number."""
    rng = random.Random(seed * 1_000_003 + writer * 100_000_007 + number)
    if writer == BIRTH:
        return Step("batch", {((), b"%02d/birth" % writer): b"%d" % number}, FSYNC)
    kind = rng.choices(KINDS, WEIGHTS)[0]
    durability = rng.choice((FSYNC, WRITE))
    value = b"%02d:%d:" % (writer, number)
    here = ((), b"%02d/%02d" % (writer, number % SLOTS))
    if kind == "delete":
        return Step(kind, {here: None}, durability)
    if kind == "namespaced":
        here = (_namespace(writer), here[1])
    if kind == "batch":
        return Step(kind, _batch(rng, writer, number, value), durability)
    least, most = {"large": (LARGE, 4 * LARGE), "huge": (60_000, 90_000)}.get(kind, (0, 300))
    return Step(kind, {here: value + rng.randbytes(rng.randrange(least, most))}, durability)


def _batch(rng, writer, number, value):
    """Neighbouring keys, some in a namespace; the first one tells the steps apart."""
    mutations = {}
    for at in range(rng.randrange(2, 7)):
        names = _namespace(writer) if at and rng.random() < 0.4 else ()
        key = b"%02d/%02d" % (writer, (number + at) % SLOTS)
        gone = at and rng.random() < 0.3
        mutations[names, key] = None if gone else value + rng.randbytes(rng.randrange(100))
    return mutations


def _namespace(writer):
    return (b"outer", b"inner") if writer % 4 == 3 else (b"space-%d" % (writer % 4),)


def apply(model, done):
    """Apply a step to a dict of (names, key)."""
    for place, value in done.mutations.items():
        if value is None:
            model.pop(place, None)
        else:
            model[place] = value
    if done.counts:
        model[COUNTER] = b"%d" % (int(model.get(COUNTER, b"0")) + 1)


def contents_of(db):
    """All of a store, namespaces too, as a dict of (names, key)."""
    found = {((), key): value for key, value in db.scan()}
    waiting = [((name,), db.namespace(name)) for name in db.namespaces()]
    while waiting:
        names, space = waiting.pop()
        found.update(((names, key), value) for key, value in space.scan())
        waiting += [((*names, name), space.namespace(name)) for name in space.namespaces()]
    return found
