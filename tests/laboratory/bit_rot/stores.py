"""The stores that are damaged: small ones of every kind, each made by one life in memory."""

from __future__ import annotations

import time
from contextlib import contextmanager
from functools import cache

from tests.laboratory.bit_rot.lives import BUFFER, KEYS, WRITE, Life
from tests.laboratory.bit_rot.prediction import Log, Segment, is_segment
from wal.config import Configuration
from wal.files import FaultyFileSystem, MemoryFileSystem


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
