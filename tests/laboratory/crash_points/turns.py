"""Makes a run repeatable: threads take turns, and what is random or tells the time is the same.

The workload's thread and the background threads of a log and a store race for the file system. Here
they take turns instead. The background makes calls only while the workload's thread *rests*: in
:meth:`Turns.settle` after each of its steps, and wherever it waits for the background itself. And
of the background threads only the first that has work makes calls, in the order of :data:`ORDER`.
So every run makes the same calls in the same order, and photographs of it (see
:mod:`tests.laboratory.crash_points.photographs`) can be told by their numbers.

What is left out thereby are calls of two threads at one time: those are for the tests with many
writers, where no two runs are alike.
"""

from __future__ import annotations

import functools
import os
import random
import threading
import time
from contextlib import contextmanager, nullcontext

import kvstore.background.compaction
import kvstore.mutations
import kvstore.store
import wal.checkpointer
import wal.flusher
import wal.group_commit
import wal.segments.pool
import wal.segments.retention
import wal.segments.writer
from wal.files.faults import Faults

ORDER = ("wal-flusher", "wal-preparer", "wal-checkpointer", "kvstore-compactor")
PATIENCE = 30.0
NOON = 1_700_000_000_000_000_000
_MOMENT = 0.0001
_LONG = 0.01


class Turns:
    """Who may make calls. One for the whole process: one store or log is at work at a time."""

    def __init__(self):
        self.main = threading.get_ident()
        self.pools = []
        self.checkpointers = []
        self.compactors = []
        self._resting = 0
        self._told_from = None

    def pass_by(self):
        """Called before each call of the file system: holds a thread until it is its turn."""
        name = threading.current_thread().name
        if name not in ORDER or threading.get_ident() == self.main:
            return
        before = ORDER.index(name)
        deadline = time.monotonic() + PATIENCE
        while not (self._resting and self._at_rest(before)):
            assert time.monotonic() < deadline, f"{name} never got its turn"
            time.sleep(_MOMENT)

    def wait_to_be_told(self, checkpointer):
        """Hold a checkpoint that is tried again until whoever waits was told of the failure."""
        deadline = time.monotonic() + PATIENCE
        while (
            self._told_from is not None
            and checkpointer.error is not None
            and checkpointer._failures > self._told_from
        ):
            assert time.monotonic() < deadline, "nobody was told of the failure"
            time.sleep(_MOMENT)

    @contextmanager
    def to_be_told(self, checkpointer):
        """The workload's thread waits for a checkpoint, or for its failure."""
        self._told_from = checkpointer._failures
        try:
            yield
        finally:
            self._told_from = None

    @contextmanager
    def rest(self):
        """Let the background make calls: whoever is in here makes none."""
        mine = threading.get_ident() == self.main
        self._resting += mine
        try:
            yield
        finally:
            self._resting -= mine

    def settle(self):
        """Wait until the background has nothing left to do."""
        deadline = time.monotonic() + PATIENCE
        with self.rest():
            while not (self._at_rest(len(ORDER)) and self._compactors_rest()):
                assert time.monotonic() < deadline, "the background never came to rest"
                time.sleep(_MOMENT)
        self._forget()

    def _at_rest(self, before):
        return (before < 2 or not any(map(_is_preparing, self.pools))) and (
            before < 3 or not any(map(_is_checkpointing, self.checkpointers))
        )

    def _compactors_rest(self):
        """Nothing was in their queues when they had done what was in them."""
        for compactor in self.compactors:
            if compactor._thread.is_alive() and not compactor._stopping:
                done = threading.Event()
                compactor._queue.put(done.set)
                while not done.wait(0.01):
                    if not compactor._thread.is_alive():
                        break
                if not compactor._queue.empty() or _is_to_try_again(compactor):
                    return False
        return self._at_rest(len(ORDER))

    def _forget(self):
        self.checkpointers = [each for each in self.checkpointers if each._thread.is_alive()]
        self.compactors = [each for each in self.compactors if each._thread.is_alive()]
        self.pools = self.pools[-4:]


def _is_preparing(pool):
    return pool._requested and pool._thread is not None and pool._thread.is_alive()


def _is_checkpointing(checkpointer):
    """Whether it works, or is about to: it waits on its condition else, with nothing to do."""
    if not checkpointer._thread.is_alive():
        return False
    with checkpointer._mutex:
        aside = any(not segment.pins for segment in checkpointer._aside)
        return bool(checkpointer._queue) or aside or not checkpointer._changed._waiters


def _is_to_try_again(compactor):
    """Whether a merge has failed, and the pause after it is not long over."""
    return compactor.error is not None and time.monotonic() < compactor._rest_until + _LONG


def take_turns(monkeypatch):
    """The turns of a test: the background's waits, pauses and beginnings are told to them."""
    turns = Turns()

    def told_of(kind, method, places):
        original = getattr(kind, method)

        @functools.wraps(original)
        def begin(self, *args, **options):
            places().append(self)
            return original(self, *args, **options)

        monkeypatch.setattr(kind, method, begin)

    def resting_in(kind, method, *, settled=False):
        original = getattr(kind, method)

        @functools.wraps(original)
        def wait(self, *args, **options):
            if threading.get_ident() != turns.main:
                return original(self, *args, **options)
            told = kind is wal.checkpointer.Checkpointer
            try:
                with turns.rest(), turns.to_be_told(self) if told else nullcontext():
                    return original(self, *args, **options)
            finally:
                if settled:
                    turns.settle()

        monkeypatch.setattr(kind, method, wait)

    def in_turn(kind, method):
        original = getattr(kind, method)

        @functools.wraps(original)
        def call(self, *args, **options):
            turns.pass_by()
            return original(self, *args, **options)

        monkeypatch.setattr(kind, method, call)

    def attempt(self, segment):
        turns.wait_to_be_told(self)
        turns.pass_by()
        return checkpoint(self, segment)

    checkpoint = wal.checkpointer.Checkpointer._checkpoint
    monkeypatch.setattr(wal.checkpointer.Checkpointer, "_checkpoint", attempt)
    in_turn(Faults, "call")
    # What they decide on, they see before their first call.
    in_turn(wal.group_commit.GroupCommit, "lead_as_flusher")
    in_turn(wal.segments.pool.SparePool, "ensure")
    in_turn(wal.checkpointer.Checkpointer, "_expire")
    in_turn(kvstore.background.compaction.Compactor, "_do")
    told_of(wal.segments.pool.SparePool, "__init__", lambda: turns.pools)
    told_of(wal.checkpointer.Checkpointer, "start", lambda: turns.checkpointers)
    told_of(kvstore.background.compaction.Compactor, "start", lambda: turns.compactors)
    resting_in(wal.checkpointer.Checkpointer, "wait_for", settled=True)
    resting_in(wal.checkpointer.Checkpointer, "stop")
    resting_in(wal.checkpointer.Checkpointer, "_wait_for_room", settled=True)
    resting_in(wal.flusher.Flusher, "stop")
    resting_in(kvstore.background.compaction.Compactor, "stop")
    resting_in(kvstore.background.compaction.Compaction, "wait", settled=True)
    monkeypatch.setattr(wal.checkpointer, "FIRST_PAUSE", 0.001)
    monkeypatch.setattr(kvstore.background.compaction, "FIRST_PAUSE", 0.001)
    return turns


class Chance:
    """What is random, and what time it is: the same in every life of the same name.

    A life's salts and names must be none of an earlier life's on the same disk, so each opening on
    top of another has a name of its own.
    """

    def __init__(self, monkeypatch):
        self.begin("first life")
        monkeypatch.setattr(os, "urandom", self._urandom)
        header = functools.partial(wal.segments.writer.SegmentHeader, created_unix_ns=NOON)
        monkeypatch.setattr(wal.segments.writer, "SegmentHeader", header)
        monkeypatch.setattr(wal.segments.retention, "_now", lambda: NOON)
        for module in (kvstore.mutations, kvstore.store):  # which has the clock in its hot path
            monkeypatch.setattr(module, "now", lambda: NOON)

    def begin(self, life):
        self._rng = random.Random(life)
        self._lock = threading.Lock()

    def _urandom(self, count):
        with self._lock:
            return self._rng.randbytes(count)
