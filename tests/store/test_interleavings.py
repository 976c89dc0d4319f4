"""Threads that are held at a named point while others go on: what each sees, and is told.

Held is the sync of the log's file: whatever was accepted until it returns is *in flight*.
"""

from __future__ import annotations

import errno
import logging
import signal
import threading

import pytest

import kvstore
from tests.store.support import BUFFER, FSYNC, PATIENCE, SMALL, WRITE, contents
from tests.wal.support import Worker, until
from wal.files.faulty import FaultyFileSystem

DURABILITIES = [FSYNC, WRITE, BUFFER]


@pytest.fixture(autouse=True)
def _no_noise():
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture
def system():
    return FaultyFileSystem()


@pytest.fixture
def db(system):
    db = open_on(system)
    yield db
    system.on_call = None
    try:
        db.close()
    except kvstore.StoreFailedError:
        assert db.closed  # some tests end with a log that has failed


def open_on(system, flag="c"):
    return kvstore.open("s", flag, file_system=system, memtable_bytes=SMALL)


def accepted(db):
    """The last entry that has its place in the log, visible or not."""
    return db._engine.log.last_entry_id


class Hold:
    """Holds threads at the sync of some file until it is opened; it may then fail."""

    def __init__(self, system, path):
        self._system = system
        self._path = path
        self._arrived = threading.Semaphore(0)
        self._opened = threading.Event()
        self._failure = None
        system.on_call = self._on_call

    def _on_call(self, kind, path, number):
        if kind == "sync" and self._path in path:
            self._arrived.release()
            assert self._opened.wait(PATIENCE), "it was never let go"
            if self._failure is not None:
                raise self._failure

    def arrival(self):
        assert self._arrived.acquire(timeout=PATIENCE), "nobody came"

    def open(self):
        self._system.on_call = None
        self._opened.set()

    def fail(self):
        self._failure = OSError(errno.EIO, "the disk is gone")
        self._opened.set()


class Flight:
    """Writes that are held in flight until they land, or crash."""

    def __init__(self, db, system):
        self.db = db
        self._hold = Hold(system, "wal-")
        self.workers = []
        self.open = self._hold.open

    def begin(self, function):
        """Hold a write at its sync."""
        worker = self.aside(function)
        self._hold.arrival()
        return worker

    def follow(self, function):
        """Another write behind it, in flight too."""
        before = accepted(self.db)
        worker = self.aside(function)
        until(lambda: accepted(self.db) > before)
        return worker

    def aside(self, function):
        """Something else, which may wait for what is in flight."""
        self.workers.append(Worker(function))
        return self.workers[-1]

    def land(self):
        """Let the sync succeed; what each worker returned."""
        self.open()
        return [worker.join() for worker in self.workers]

    def crash(self):
        """Let it fail; the error of each worker."""
        self._hold.fail()
        return [worker.wait() for worker in self.workers]


@pytest.fixture
def flight(db, system):
    db.write({b"k": b"old", b"there": b"1"})
    flight = Flight(db, system)
    yield flight
    flight.open()


class TestVisibility:
    def test_what_is_in_flight_is_not_seen(self, db, flight):
        flight.begin(lambda: db.write({b"k": b"new", b"more": b""}))
        assert db[b"k"] == b"old"
        assert contents(db) == {b"k": b"old", b"there": b"1"}
        with db.snapshot() as snap, db.transaction() as tx, db.cursor() as cursor:
            flight.land()
            assert (snap[b"k"], tx[b"k"], cursor.first()) == (b"old", b"old", (b"k", b"old"))
            assert contents(snap) == contents(tx) == {b"k": b"old", b"there": b"1"}
        assert contents(db) == {b"k": b"new", b"there": b"1", b"more": b""}

    @pytest.mark.parametrize("durability", DURABILITIES, ids=lambda each: each.value)
    def test_a_write_behind_one_of_the_same_key(self, db, flight, system, durability):
        """The log's order is the store's order, whatever the durabilities."""
        flight.begin(lambda: db.put(b"k", b"first", durability=FSYNC))
        second = flight.follow(lambda: db.put(b"k", b"second", durability=durability))
        third = flight.follow(lambda: db.delete(b"there", durability=durability))
        assert db[b"k"] == b"old"
        assert second.running()
        assert third.running()
        flight.land()
        assert contents(db) == {b"k": b"second"}
        db.close()
        with open_on(system, "r") as db:
            assert contents(db) == {b"k": b"second"}

    def test_ids_become_visible_in_their_order(self, db, flight):
        before = db.last_entry_id
        flight.begin(lambda: db.put(b"k", b"1"))
        for n in range(2, 6):
            flight.follow(lambda n=n: db.put(b"k", b"%d" % n, durability=DURABILITIES[n % 3]))
        assert db.last_entry_id == before
        flight.land()
        assert db.last_entry_id == before + 5
        assert db[b"k"] == b"5"

    def test_a_failed_one_is_never_seen(self, db, flight):
        flight.begin(lambda: db.put(b"k", b"new"))
        flight.follow(lambda: db.put(b"more", b"", durability=BUFFER))
        for error in flight.crash():
            assert isinstance(error, kvstore.StoreFailedError)
            assert error.latched
        assert contents(db) == {b"k": b"old", b"there": b"1"}


#: Conditional writes, and what each answers if b"k" is b"new" and if it is gone.
CONDITIONAL = {
    "add": (lambda db, **d: db.add(b"k", b"mine", **d), False, True),
    "replace": (lambda db, **d: db.replace(b"k", b"new", b"mine", **d), True, False),
    "replace the old": (lambda db, **d: db.replace(b"k", b"old", b"mine", **d), False, False),
    "replace nothing": (lambda db, **d: db.replace(b"k", None, b"mine", **d), False, True),
    "pop": (lambda db, **d: db.pop(b"k", **d), b"new", None),
}
RESULTS = {
    "add": (b"new", b"mine"),
    "replace": (b"mine", None),
    "replace the old": (b"new", None),
    "replace nothing": (b"new", b"mine"),
    "pop": (None, None),
}


@pytest.mark.parametrize("durability", [FSYNC, BUFFER], ids=lambda each: each.value)
@pytest.mark.parametrize("deleting", [False, True], ids=["put", "delete"])
@pytest.mark.parametrize("name", CONDITIONAL)
class TestConditionalWritesOnAWriteInFlight:
    def begin(self, db, flight, deleting):
        flight.begin((lambda: db.delete(b"k")) if deleting else (lambda: db.put(b"k", b"new")))

    def test_they_take_it_for_what_it_will_be(self, db, flight, name, deleting, durability):
        call, *answers = CONDITIONAL[name]
        self.begin(db, flight, deleting)
        flight.aside(lambda: call(db, durability=durability))
        assert flight.land() == [None, answers[deleting]]
        assert db.get(b"k") == RESULTS[name][deleting]

    def test_none_answers_before_it_is_durable(self, db, flight, name, deleting, durability):
        """An answer that rests on it would be wrong if it failed; so it has to wait."""
        call, *_ = CONDITIONAL[name]
        self.begin(db, flight, deleting)
        worker = flight.aside(lambda: call(db, durability=durability))
        follower = flight.follow(lambda: db.put(b"there", b"2"))
        assert worker.running()
        assert follower.running()
        assert db[b"k"] == b"old"
        flight.land()

    def test_if_it_fails_nothing_rests_on_it(self, db, flight, system, name, deleting, durability):
        call, *_ = CONDITIONAL[name]
        self.begin(db, flight, deleting)
        worker = flight.aside(lambda: call(db, durability=durability))
        flight.follow(lambda: db.put(b"there", b"2"))
        errors = flight.crash()
        assert all(isinstance(error, kvstore.StoreFailedError) for error in errors)
        assert worker.result is None
        assert contents(db) == {b"k": b"old", b"there": b"1"}
        with pytest.raises(kvstore.StoreFailedError):
            db.close()
        system.on_call = None
        with open_on(system, "w") as db:  # in doubt: a prefix of what was written
            assert db.get(b"k") in (b"old", None, b"new", b"mine")
            assert db.add(b"after", b"")


class TestTransactionsAndWritesInFlight:
    def test_what_was_read_and_is_in_flight_is_a_conflict(self, db, flight):
        flight.begin(lambda: db.put(b"k", b"new"))

        def change():
            with db.transaction() as tx:
                tx[b"mine"] = tx[b"k"]

        worker = flight.aside(change)
        flight.open()
        flight.workers[0].join()
        error = worker.wait()
        if error is None:  # it began when the write was visible
            assert db[b"mine"] == b"new"
        else:
            assert isinstance(error, kvstore.ConflictError)
            assert b"mine" not in db

    @pytest.mark.parametrize("key", [b"k", b"absent", b"kk"])
    @pytest.mark.parametrize("read", ["get", "scan"])
    def test_validation_when_it_has_just_landed(self, db, flight, read, key):
        """Read while the write was in flight, checked when it is visible."""
        flight.begin(lambda: db.put(key, b"new"))
        tx = db.transaction().__enter__()
        if read == "get":
            tx.get(key)
        else:
            list(tx.scan(b"a", b"l"))
        tx[b"mine"] = b""
        flight.land()
        with pytest.raises(kvstore.ConflictError):
            tx.__exit__(None, None, None)
        assert b"mine" not in db

    @pytest.mark.parametrize("key", [b"k", b"absent", b"kk"])
    @pytest.mark.parametrize("read", ["get", "scan"])
    def test_validation_while_it_is_in_flight(self, db, flight, read, key):
        tx = db.transaction().__enter__()
        if read == "get":
            tx.get(key)
        else:
            list(tx.scan(b"a", b"l"))
        tx[b"mine"] = b""
        flight.begin(lambda: db.put(key, b"new"))
        worker = flight.aside(lambda: tx.__exit__(None, None, None))
        follower = flight.follow(lambda: db.put(b"there", b"2"))
        flight.open()
        assert flight.workers[0].wait() is follower.wait() is None
        assert isinstance(worker.wait(), kvstore.ConflictError)
        assert db.get(key) == b"new"
        assert b"mine" not in db

    def test_two_that_are_in_flight_at_once(self, db, flight):
        """The second must not overwrite what the first is about to."""
        one, other, third = (db.transaction().__enter__() for _ in range(3))
        for tx in (one, other):
            tx[b"there"] = tx[b"there"] + b"+"
        third[b"third"] = third[b"k"]
        first = flight.begin(lambda: one.__exit__(None, None, None))
        second = flight.aside(lambda: other.__exit__(None, None, None))
        flight.follow(lambda: third.__exit__(None, None, None))
        flight.open()
        assert first.wait() is flight.workers[-1].wait() is None
        assert isinstance(second.wait(), kvstore.ConflictError)
        assert contents(db) == {b"k": b"old", b"there": b"1+", b"third": b"old"}

    def test_transact_goes_on_when_it_has_landed(self, db, flight):
        flight.begin(lambda: db.put(b"k", b"1"))
        tried = threading.Semaphore(0)

        def increment(tx):
            tried.release()
            value = tx[b"k"]
            tx[b"k"] = b"2" if value == b"1" else b"wrong"

        flight.aside(lambda: db.transact(increment, attempts=100_000))
        assert tried.acquire(timeout=10)
        flight.land()
        assert db[b"k"] == b"2"

    def test_read_only_ones_do_not_wait(self, db, flight):
        flight.begin(lambda: db.put(b"k", b"new"))
        with db.transaction() as tx:
            assert tx[b"k"] == b"old"
        with db.snapshot() as snap:
            assert snap[b"k"] == b"old"
        flight.land()

    def test_if_the_write_fails_nothing_rests_on_it(self, db, flight):
        tx = db.transaction().__enter__()
        tx[b"mine"] = tx[b"k"]
        flight.begin(lambda: db.put(b"k", b"new"))
        flight.aside(lambda: tx.__exit__(None, None, None))
        flight.follow(lambda: db.put(b"there", b"2"))
        first, second, third = flight.crash()
        assert isinstance(first, kvstore.StoreFailedError)
        assert isinstance(second, (kvstore.StoreFailedError, kvstore.ConflictError))
        assert isinstance(third, kvstore.StoreFailedError)
        assert contents(db) == {b"k": b"old", b"there": b"1"}


def first_under_a_cursor(tx):
    with tx.cursor() as cursor:
        return cursor.first()


#: How a transaction came to depend on a key that is changed later.
READS = {
    "a key": (b"k", lambda tx: tx.get(b"k")),
    "an absent key": (b"absent", lambda tx: tx.get(b"absent")),
    "in a scanned range": (b"k", lambda tx: list(tx.scan(b"a", b"l"))),
    "absent in a scanned range": (b"absent", lambda tx: list(tx.scan(b"a", b"l"))),
    "under a cursor": (b"absent", first_under_a_cursor),
}


class TestCheckpointsBetweenReadAndCommit:
    @pytest.fixture
    def db(self, system):
        options = {"file_system": system, "memtable_bytes": SMALL, "durability": BUFFER}
        with kvstore.open("s", **options) as db:
            db.write({b"k": b"old", b"there": b"1"})
            yield db

    @pytest.mark.parametrize("times", [1, 3])
    @pytest.mark.parametrize("compacted", [False, True], ids=["", "compacted"])
    @pytest.mark.parametrize("early", [False, True], ids=["", "from a table"])
    @pytest.mark.parametrize("read", READS)
    def test_the_layer_is_gone_the_conflict_is_not(self, db, read, early, compacted, times):
        """The write is in a table when the transaction commits, and was hidden by that."""
        key, look = READS[read]
        if early:
            db.checkpoint()
        with pytest.raises(kvstore.ConflictError), db.transaction() as tx:  # noqa: PT012
            look(tx)
            tx[b"mine"] = b""
            db[key] = b"new"
            for n in range(times):
                db.checkpoint()
                assert db.stats().memtable_items == 0
                if n + 1 < times:
                    db[b"z%d" % n] = b""
            if compacted:
                db.compact()
        assert db.get(b"mine") is None
        assert db[key] == b"new"

    @pytest.mark.parametrize("read", READS)
    def test_no_conflict_where_nothing_changed(self, db, read):
        _, look = READS[read]
        with db.transaction() as tx:
            look(tx)
            tx[b"mine"] = b""
            db[b"z"] = b"new"
            db.checkpoint()
        assert b"mine" in db

    def test_the_leader_applies_behind_the_checkpointer(self, system, db):
        """A segment's last writes are in flight when its checkpoint is asked for."""
        hold = Hold(system, "wal-")
        writer = Worker(lambda: db.put(b"k", b"new", durability=FSYNC))
        hold.arrival()
        others = [Worker(db.checkpoint), Worker(lambda: db.put(b"there", b"2", durability=FSYNC))]
        hold.open()
        for worker in (writer, *others):
            worker.join()
        for _ in range(2):
            assert contents(db) == {b"k": b"new", b"there": b"2"}
            db.checkpoint()

    def test_the_leader_is_slower_than_the_checkpointer(self, db, monkeypatch):
        """The segment is sealed and taken while its last group is durable, but not applied yet.

        A checkpoint that did not wait would drop the layer, and the group would begin a new one:
        what the table has would be older than what is in memory, or the other way round.
        """
        memtable, taken = db._engine.memtable, threading.Event()
        arrived, proceed = threading.Event(), threading.Event()
        apply, publish = memtable.apply, memtable.publish

        def slow_apply(entry_id, segment_id, chunks):
            if chunks[1] == b"k" and not arrived.is_set():
                arrived.set()
                assert proceed.wait(PATIENCE)
            apply(entry_id, segment_id, chunks)

        def told_publish(runs, segment_id):
            taken.set()
            publish(runs, segment_id)

        monkeypatch.setattr(memtable, "apply", slow_apply)
        db._parts.catalog.attach(told_publish, db._parts._compactor.bury)
        writer = Worker(lambda: db.put(b"k", b"new", durability=FSYNC))
        assert arrived.wait(PATIENCE)
        checkpoint = Worker(db.checkpoint)
        later = Worker(lambda: db.put(b"k", b"newer", durability=FSYNC))
        assert db[b"k"] == b"old"
        assert not taken.is_set()
        proceed.set()
        for worker in (writer, later, checkpoint):
            worker.join()
        assert taken.is_set()
        for _ in range(3):
            assert contents(db) == {b"k": b"newer", b"there": b"1"}
            db.checkpoint()

    def test_reads_while_a_table_is_built(self, system, db):
        """The sealed layer shows its keys until the table does; writes go over it."""
        hold = Hold(system, "tables")
        checkpoint = Worker(db.checkpoint)
        hold.arrival()
        assert contents(db) == {b"k": b"old", b"there": b"1"}
        with db.snapshot() as snap, db.transaction() as tx:
            db.write({b"k": b"new", b"there": None})
            assert contents(db) == {b"k": b"new"}
            hold.open()
            checkpoint.join()
            assert contents(db) == {b"k": b"new"}
            assert contents(snap) == contents(tx) == {b"k": b"old", b"there": b"1"}
        db.checkpoint()
        assert contents(db) == {b"k": b"new"}


@pytest.fixture
def _interrupts_are_heard():
    """A process that a shell starts in the background ignores SIGINT, and so do its tests."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_interrupts_are_heard")
class TestInterrupts:
    def test_in_a_transactions_block(self, db):
        db[b"k"] = b"old"
        for _ in range(3):
            with pytest.raises(KeyboardInterrupt), db.transaction() as tx:  # noqa: PT012
                tx[b"k"] = tx[b"k"] + b"+"
                list(tx.scan())
                signal.raise_signal(signal.SIGINT)
        assert contents(db) == {b"k": b"old"}
        with pytest.raises(kvstore.StoreError):
            tx.get(b"k")
        db.transact(lambda tx: tx.put(b"k", tx[b"k"] + b"!"))
        assert contents(db) == {b"k": b"old!"}

    def test_in_what_transact_calls(self, db):
        """It is no conflict: it comes out at once."""
        calls = []

        def interrupted(tx):
            calls.append(tx)
            tx[b"k"] = b""
            signal.raise_signal(signal.SIGINT)

        with pytest.raises(KeyboardInterrupt):
            db.transact(interrupted)
        assert len(calls) == 1
        assert list(db) == []

    @pytest.mark.parametrize("block", ["snapshot", "batch", "cursor"])
    def test_in_other_blocks(self, db, block):
        db[b"k"] = b"old"
        with pytest.raises(KeyboardInterrupt), getattr(db, block)() as held:  # noqa: PT012
            if block == "batch":
                held.put(b"k", b"new")
            signal.raise_signal(signal.SIGINT)
        assert contents(db) == {b"k": b"old"}
        db.checkpoint()

    @pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="nothing to signal it with")
    @pytest.mark.parametrize("how", ["put", "transaction", "add"])
    def test_in_a_waiter(self, db, flight, how):
        """Its write is in doubt, and goes on: here it lands. Nobody else is hindered."""
        flight.begin(lambda: db.put(b"k", b"new"))
        in_flight = db._engine.log._commits.in_flight

        def interrupt():
            until(lambda: len(in_flight) > 1 and in_flight[1].waited)
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

        def write():
            if how == "put":
                db[b"mine"] = b"1"
            elif how == "add":
                db.add(b"mine", b"1")
            else:
                with db.transaction() as tx:
                    tx[b"mine"] = tx[b"there"]

        interrupter = Worker(interrupt)
        with pytest.raises(KeyboardInterrupt):
            write()
        interrupter.join()
        assert b"mine" not in db
        flight.follow(lambda: db.put(b"there", b"2"))
        flight.land()
        assert contents(db) == {b"k": b"new", b"mine": b"1", b"there": b"2"}
        assert db.replace(b"mine", b"1", b"2")
        db.checkpoint()
        assert db[b"mine"] == b"2"

    def test_in_the_leader(self, db, system):
        """The log latches: what was in flight is in doubt, the rest goes on being read."""
        db.write({b"k": b"old"})

        def interrupt(kind, path, number):
            if kind == "sync" and "wal-" in path:
                system.on_call = None
                raise KeyboardInterrupt

        system.on_call = interrupt
        with pytest.raises(KeyboardInterrupt):
            db[b"k"] = b"new"
        with pytest.raises(kvstore.StoreFailedError):
            db[b"k"] = b"newer"
        with pytest.raises(kvstore.StoreFailedError):
            db.add(b"more", b"")
        with pytest.raises(kvstore.StoreFailedError), db.transaction() as tx:
            tx[b"more"] = b""
        with db.transaction() as tx:
            assert tx[b"k"] == b"old"
        with db.snapshot() as snap:
            assert contents(snap) == {b"k": b"old"}


class TestABatchOfTwoKeys:
    """Beside readers without locks: whoever saw the new x sees the new y."""

    @pytest.mark.parametrize("durability", [BUFFER, FSYNC], ids=lambda each: each.value)
    def test_in_either_order(self, durability):
        db = kvstore.open(
            "s", file_system=FaultyFileSystem().inner, durability=durability, memtable_bytes=SMALL
        )
        db.write({b"x": b"%08d" % 0, b"y": b"%08d" % 0})
        done = threading.Event()

        def writer():
            try:
                for n in range(1, 600):
                    db.write({b"x": b"%08d" % n, b"y": b"%08d" % n})
                    if n % 100 == 0:
                        db.checkpoint()
            finally:
                done.set()

        def reader(first, second):
            while not done.is_set():
                seen = db[first]
                assert db[second] >= seen

        workers = [
            Worker(writer),
            Worker(reader, b"x", b"y"),
            Worker(reader, b"y", b"x"),
        ]
        for worker in workers:
            worker.join()
        db.close()

    def test_walks_of_a_live_layer_while_it_grows(self):
        """Each walk is in order, shows every key that was there, and each batch whole."""
        db = kvstore.open(
            "s", file_system=FaultyFileSystem().inner, durability=BUFFER, memtable_bytes=4 << 20
        )
        kept = {b"%05d" % n: b"" for n in range(0, 10_000, 50)}
        db.write(kept)
        done = threading.Event()

        def writer():
            try:
                for n in range(1, 1500):
                    key = b"%05d" % (n * 7919 % 10_000)
                    db.write({key + b"-a": b"", key + b"-b": b""})
            finally:
                done.set()

        def walker(reverse):
            while not done.is_set():
                keys = list(db.keys(reverse=reverse))
                assert keys == sorted(set(keys), reverse=reverse)
                assert kept.keys() <= set(keys)
                assert (len(keys) - len(kept)) % 2 == 0

        for worker in [Worker(writer), Worker(walker, False), Worker(walker, True)]:
            worker.join()
        assert db.count() == len(kept) + 2 * 1499
        db.close()
