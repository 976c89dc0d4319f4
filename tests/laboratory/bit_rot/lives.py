"""The life of a store that is damaged later: its writes, and what they left.

It is lived in memory. Of every write it is remembered what the store then
held, so that a store that goes on at an earlier entry can be told from one with wrong data; and of
every file which versions it had, so that each can be put back.
"""

from __future__ import annotations

import os
import random
from contextlib import suppress

import kvstore
from tests.store.support import SMALL

FSYNC, WRITE, BUFFER = (kvstore.Durability[name] for name in ("FSYNC", "WRITE", "BUFFER"))
OPTIONS = {
    "memtable_bytes": SMALL,
    "cache_bytes": 256 << 10,
    "large_value_bytes": 1 << 10,
    "processes": False,
}
#: The namespaces, with what their values are made by.
CODECS = {
    (): kvstore.codecs.BYTES,
    (b"users",): kvstore.codecs.JSON,
    (b"users", b"names"): kvstore.codecs.UTF8,
    (b"packed",): kvstore.codecs.MSGPACK,
}
KEYS = [b"key-%03d" % number for number in range(30)] + [b"", b"\xff\x00escaped", b"\xfe"]
LARGE = [b"large-%d" % number for number in range(3)]
ABSENT = [b"absent", b"key-0", b"key-0000", b"\xff", b"large-"]


class Left:
    """What a process left on the disk, and what is known of it.

    ``states`` has, for each entry id, what the store held after it: namespace, then key.
    ``versions`` has, for each path, what the file held before, oldest first.
    """

    def __init__(self, name, root, files, options, states, changes, versions, last_id):
        self.name = name
        self.root = root
        self.options = options
        self.files = files
        self.states = states
        self.changes = changes
        self.versions = versions
        self.last_id = last_id

    def named(self, prefix):
        """The paths of the files whose names begin so, oldest first."""
        return [path for path in sorted(self.files) if os.path.basename(path).startswith(prefix)]

    def of_the_store(self):
        """The paths of the files that may be damaged: all but the locks."""
        return [path for path in sorted(self.files) if os.path.basename(path) != "LOCK"]


class Life:
    """Writes to a store, with a model beside it."""

    def __init__(self, files, path="s", seed=1, **options):
        self.files = files
        self.path = path
        self.rng = random.Random(seed)
        self.options = {**OPTIONS, **options}
        self.states = {0: {names: {} for names in CODECS}}
        self.changes = []
        self.versions = {}
        self.db = None
        self.open()

    def open(self, files=None, flag="c", **options):
        self.options |= options
        files = self.files if files is None else files
        self.db = kvstore.open(self.path, flag, file_system=files, **self.options)

    def write(self, names, items, durability=FSYNC):
        """Write into a namespace, atomically."""
        place = place_in(self.db, names)
        with place.batch(durability=durability) as batch:
            for key, value in items.items():
                batch.delete(key) if value is None else batch.put(key, value)
        entry_id = self.db.last_entry_id
        state = {each: dict(held) for each, held in self.states[max(self.states)].items()}
        for key, value in items.items():
            if value is None:
                state[names].pop(key, None)
            else:
                state[names][key] = value
        self.states[entry_id] = state
        self.changes.append((entry_id, names, tuple(items.items())))
        self.remember()

    def some(self, count, most=40, durability=FSYNC):
        """So many small writes, in every namespace."""
        rng = self.rng
        for _ in range(count):
            names = rng.choice(list(CODECS))
            items = {
                rng.choice(KEYS): None if rng.random() < 0.2 else self.value(names, most)
                for _ in range(rng.randrange(1, 4))
            }
            self.write(names, items, durability)

    def value(self, names, most):
        raw = self.rng.randbytes(self.rng.randrange(most))
        if not names:
            return raw
        text = raw.hex()
        return text if len(names) == 2 else {"raw": text} if names == (b"users",) else [text, 1]

    def large(self, number, size=3000):
        """A value that is streamed into the log, and later a blob of a table."""
        self.write((), {LARGE[number]: self.rng.randbytes(size)})

    def remember(self):
        for path, data in self.files.contents().items():
            held = self.versions.setdefault(path, [])
            if not held or held[-1] != data:
                held.append(data)

    def left(self, name, *, path=None):
        """What is there at this moment, as a killed process would leave it."""
        self.remember()
        root = self.path if path is None else path
        below = os.path.join(os.sep, root, "")
        files = {
            path: data
            for path, data in self.files.contents().items()
            # What is half built belongs to nothing; each opening removes it.
            if path.startswith(below) and not os.path.basename(path).startswith("tmp-")
        }
        versions = {p: held[:-1] for p, held in self.versions.items() if p in files}
        last_id = max(self.states)
        return Left(
            name, root, files, self.options, self.states, self.changes, versions, last_id
        )  # fmt: skip

    def close(self):
        db, self.db = self.db, None
        with suppress(kvstore.StoreError):
            db.close()


def place_in(db, names):
    """A namespace of a store, or the store itself."""
    for depth in range(len(names)):
        db = db.namespace(names[depth], codec=CODECS[names[: depth + 1]])
    return db
