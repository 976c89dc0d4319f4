"""The stage of the scenes: a store, and marks between its calls in the trace.

Marks are writes to /dev/null: ``begin`` and ``end`` of a step, ``ack TOKEN`` once a write has
returned whose value holds that token, ``doubt TOKEN`` where it raised, ``opening``, and ``shown``
once what a store holds can be read, ``returned`` when all must be durable, ``thread`` for which
thread is which. Everything is small, and made in threads, not in processes of the background's, so
that the same calls come each time.
"""

from __future__ import annotations

import os
import threading
import time
from contextlib import contextmanager

import kvstore
from kvstore import Durability

SEGMENT = 64 << 10
OPTIONS = {
    "memtable_bytes": 2 * SEGMENT,
    "log_segment_bytes": SEGMENT,
    "large_value_bytes": 16 << 10,
    "processes": False,
}
PATIENCE = 5.0
_MARKS = os.open(os.devnull, os.O_WRONLY)
_numbers = iter(range(1, 1 << 30))


def mark(text):
    os.write(_MARKS, b"mark: " + text.encode())


def token():
    """What is found in the trace where this is written; also the key."""
    return f"token-{os.getpid()}-{next(_numbers):06d}-".encode()


def until(condition):
    """Wait for what the background brings about; not for ever, since its calls may fail."""
    end = time.monotonic() + PATIENCE
    while not condition() and time.monotonic() < end:
        time.sleep(0.005)
    time.sleep(0.01)  # for what it does last


class Scene:
    """A store on which steps are taken, one after the other."""

    def __init__(self, directory):
        self.directory = directory
        self.path = os.path.join(directory, "my.db")
        self.db = None
        self.acked = []

    @contextmanager
    def step(self, name):
        """What is done within, by whatever thread, is one step of the document."""
        mark(f"begin {name}")
        yield
        self.tell_threads()
        mark(f"end {name}")

    def open(self, flag="c"):
        mark("opening")
        self.db = kvstore.open(self.path, flag, **OPTIONS)
        self.tell_threads()
        mark("shown")

    def tell_threads(self):
        for thread in threading.enumerate():
            mark(f"thread {thread.native_id} {thread.name}")

    def put(self, size=100, durability=Durability.FSYNC):
        """A put of a new key."""
        with self.acknowledged(durability) as name:
            self.db.put(name, name.ljust(size, b"."), durability=durability)

    @contextmanager
    def acknowledged(self, durability=Durability.FSYNC):
        """Write what this yields as a key within; it is acknowledged at the end."""
        name = token()
        try:
            yield name
        except kvstore.StoreError:
            mark(f"doubt {name.decode()}")
            raise
        self.acknowledge(name, durability)

    def acknowledge(self, name, durability=Durability.FSYNC):
        mark(("ack " if durability is Durability.FSYNC else "accepted ") + name.decode())
        if durability is Durability.FSYNC:
            self.acked.append(name)

    def settle(self):
        """Until all is durable, the witness of idleness is written, and no checkpoint is due."""
        with self.until_the_flusher_writes(1):
            self.put()
        self.rest()

    def rest(self):
        """Until no checkpoint is due."""
        until(lambda: not self.db._engine.log._checkpointer.backlog())

    @contextmanager
    def until_the_flusher_writes(self, times):
        log = self.db._engine.log
        yield
        written = [log.stats().bytes_written]

        def has_written():
            now = log.stats().bytes_written
            if now > written[-1]:
                written.append(now)
            return len(written) > times

        until(has_written)

    def look(self):
        """What was acknowledged is there."""
        for name in self.acked:
            if self.db.namespace(b"names").get(name) is None and self.db.get(name) is None:
                mark(f"missing {name.decode()}")
        mark(f"found {len(self.acked)}")
