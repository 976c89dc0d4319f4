"""The stores that are damaged: small ones of every kind, what is in them, and how they came to be.

Each is made in memory by one life of writes. Of every write it is remembered what the store then
held, so that a store that goes on at an earlier entry can be told from one with wrong data; and of
every file which versions it had, so that each can be put back.
"""

from __future__ import annotations

import os
import random
from contextlib import contextmanager, suppress
from functools import cache

import kvstore
from tests.store.support import SMALL
from wal.files import FaultyFileSystem, MemoryFileSystem

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


def closed(compression="zlib"):
    """Closed cleanly: a merged table with slots and blobs, a newer one, a tail in the log."""
    files = MemoryFileSystem()
    life = Life(files, compression=compression)
    life.write((), {key: key * 9 for key in KEYS})
    life.some(20)
    life.large(0)
    life.db.checkpoint()
    life.some(10)
    life.large(1)
    life.db.checkpoint()
    life.db.compact()
    life.some(8)
    life.large(0)
    life.db.checkpoint()
    life.some(8, durability=BUFFER)
    life.large(2)
    life.some(3)
    life.close()
    return life.left(f"closed, {compression or 'plain'}")


def killed(*, witnessed=False):
    """Killed, with a table and several live segments, the last of them in the midst of writing.

    Of its last frames the final two were handed over and never synced. With ``witnessed`` all was
    synced, and the idle log has written a witness of it.
    """
    memory = MemoryFileSystem()
    system = FaultyFileSystem(memory)
    life = Life(memory)
    life.some(10)
    life.db.checkpoint()
    life.db.close()
    system.fail(kinds="rename", path="tmp-*", forever=True)  # no checkpoint succeeds any more
    with flushing_after(0.02 if witnessed else 3600):
        life.open(system)
        segments = set()
        while len(segments) < 4:
            life.some(3, most=600)
            life.large(0, 2000)
            segments = {path for path in memory.contents() if "wal-" in path}
        life.large(1, 4000)
        life.some(6)
        if witnessed:
            wait_for_witness(memory, life)
        else:
            life.some(2, durability=WRITE)
        left = life.left("killed, witnessed" if witnessed else "killed")
        life.close()
    return left


def retaining():
    """Closed cleanly, with kept segments for the change feed, and live ones behind them."""
    files = MemoryFileSystem()
    life = Life(files, retain_bytes=1 << 20)
    for number in range(3):
        life.some(6)
        life.large(number)
        life.db.checkpoint()
    life.some(5)
    life.close()
    left = life.left("retaining")
    assert len(left.named("kept-")) == 3
    return left


def backup():
    """A backup that was brought up to date twice: its tables, and no log of its own."""
    files = MemoryFileSystem()
    life = Life(files)
    for _ in range(3):
        life.some(15)
        life.large(0)
        life.db.backup("b")
    left = life.left("backup", path="b")
    life.close()
    return left


@contextmanager
def flushing_after(seconds):
    """Have logs that are opened inside write what they have, and witnesses, so often."""
    from wal.config import Configuration

    usual = Configuration.__init__

    def init(self, *args, **options):
        usual(self, *args, **{**options, "flush_interval": seconds})

    Configuration.__init__ = init
    try:
        yield
    finally:
        Configuration.__init__ = usual


def wait_for_witness(files, life):
    """Until the idle log has written that its last entry is durable."""
    import time

    from tests.laboratory.bit_rot.prediction import Log

    deadline = time.monotonic() + 20
    while Log(files.contents()).evidence() < max(life.states):
        assert time.monotonic() < deadline, "no witness"
        time.sleep(0.005)


def checkpointed():
    """Closed cleanly, with everything in tables: the log holds nothing any more."""
    files = MemoryFileSystem()
    life = Life(files)
    for number in range(3):
        life.some(12)
        life.large(number)
        life.db.checkpoint()
    life.close()
    return life.left("checkpointed")


def foreign():
    """Another store, of the same kind as the closed one: its files have the same names."""
    files = MemoryFileSystem()
    life = Life(files, seed=2, compression="zlib")
    life.write((), {key: key * 8 for key in KEYS})
    life.some(20)
    life.large(0)
    life.db.checkpoint()
    life.some(10)
    life.large(1)
    life.db.checkpoint()
    life.db.compact()
    life.some(8)
    life.large(0)
    life.db.checkpoint()
    life.some(12)
    life.close()
    return life.left("another store").files


MAKE = {
    "closed, zlib": closed,
    "closed, plain": lambda: closed(None),
    "killed": killed,
    "killed, witnessed": lambda: killed(witnessed=True),
    "retaining": retaining,
    "checkpointed": checkpointed,
    "backup": backup,
}


@cache
def twin(name):
    """Another store that was written exactly alike: its files have the same names, ids and data."""
    from tests.laboratory.bit_rot.prediction import Segment, is_segment

    # Nothing ties what is kept for reading alone to a store: its ids are all there is. And a
    # segment without an entry says nothing.
    return {
        path: data
        for path, data in MAKE[name]().files.items()
        if "kept-" not in path and (not is_segment(path) or Segment(path, data).frames)
    }


@cache
def made(name):
    """A store by its name; made once, never changed."""
    return MAKE[name]()
