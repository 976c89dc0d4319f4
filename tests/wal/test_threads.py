"""Many threads in one log, and what an interrupt in one of them does to the others."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import signal
import threading

import pytest

import wal
from tests.wal.support import PATIENCE, Gate, Holding, Recorder, Worker, threads, until
from wal import Durability
from wal.segments import format as fmt

BUFFER, WRITE, FSYNC = Durability.BUFFER, Durability.WRITE, Durability.FSYNC

#: One copy: slices of it are the chunks.
NOISE = random.Random(7).randbytes(1 << 20)


@pytest.fixture(autouse=True)
def _interrupts_are_heard():
    """A process that a shell starts in the background ignores SIGINT, and so do its tests."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def chunks_of(number):
    """From 1 to 8 chunks of up to 64 KiB, told by a number that the first begins with."""
    rng = random.Random(number)
    sizes = [min(int(rng.expovariate(1 / 8000)), 64 << 10) for _ in range(rng.randint(1, 8))]
    starts = [rng.randrange(len(NOISE) - size) for size in sizes]
    chunks = [NOISE[start : start + size] for start, size in zip(starts, sizes, strict=True)]
    return [b"%d" % number, *chunks[1:]]


class Store(wal.LogManager):
    """What ``checkpoint_to`` and ``recover`` brought, by id; each entry always the same."""

    def __init__(self, entries=None):
        self.entries = {} if entries is None else entries

    def take(self, entry):
        data = entry.read_all()
        assert self.entries.setdefault(entry.id, data) == data

    def recover(self, entry):
        self.take(entry)

    def checkpoint_to(self, last_id, entries, log):
        for entry in entries:
            self.take(entry)


class TestManyWriters:
    @pytest.mark.parametrize("durability", Durability, ids=lambda each: each.value)
    def test_while_checkpoints_run(self, place, durability):
        """Reopened, every entry is there, equal to what was written."""
        store = Store()
        log = place.open(store, preallocate_bytes=256 << 10, buffer_bytes=64 << 10)
        done = threading.Event()

        def write(thread):
            mine = {}
            for step in range(20):
                number = thread * 1000 + step
                chunks = chunks_of(number)
                if step % 3 == 0:
                    with log.begin_entry() as entry:
                        for chunk in chunks:
                            entry.write_chunk(chunk)
                        mine[entry.commit(durability)] = chunks
                elif step % 3 == 1:
                    mine[log.append(chunks, durability=durability)] = chunks
                else:
                    ticket = log.submit(chunks, durability=durability)
                    mine[ticket.entry_id] = chunks
            return mine

        def checkpoint():
            while not done.is_set():
                log.checkpoint_active(wait=True)

        checkpointer = Worker(checkpoint)
        workers = [Worker(write, thread) for thread in range(6)]
        expected = {}
        for worker in workers:
            expected.update(worker.join())
        done.set()
        checkpointer.join()
        log.shutdown()
        assert threads() == []
        place.open(Store(store.entries)).shutdown()
        assert len(expected) == 120
        assert store.entries == expected

    def test_what_on_commit_keeps_in_step_is_what_a_replay_gives(self, place):
        """Everybody overwrites everybody's keys: the order of the log decides."""
        log = place.open(Holding(), max_sealed_segments=100, buffer_bytes=4096)
        state = {}

        def write(thread):
            rng = random.Random(thread)
            for step in range(50):
                key, value = b"%d" % rng.randrange(5), b"%d.%d" % (thread, step)

                def apply(entry_id, segment_id, key=key, value=value):
                    state[key] = value

                log.append([key, value], apply, rng.choice(list(Durability)))
                if rng.random() < 0.1:
                    log.checkpoint_active()

        for worker in [Worker(write, thread) for thread in range(6)]:
            worker.join()
        log.sync()
        replayed = {}
        for entry in log.entries():
            key, value = entry.read_all()
            replayed[key] = value
        assert replayed == state
        assert {key: value for _, (key, value) in place.killed().recovered()} == state

    def test_everything_at_once(self, place):
        """Entries, rollbacks, tickets, syncs and checkpoints by turns: all goes on."""
        store = Store()
        log = place.open(store, buffer_bytes=4096, max_sealed_segments=2, flush_interval=0.002)
        expected, given = {}, []
        called = []

        def write(thread):
            rng = random.Random(thread)
            for step in range(60):
                chunks = [b"%d.%d" % (thread, step), NOISE[: rng.randrange(6000)]]
                durability = rng.choice(list(Durability))
                turn = rng.randrange(6)
                if turn == 0:
                    expected[log.append(chunks, durability=durability)] = chunks
                elif turn == 1:
                    ticket = log.submit(chunks, durability=durability)
                    ticket.add_done_callback(lambda ticket: called.append(ticket.entry_id))
                    expected[ticket.entry_id] = chunks
                    given.append(ticket.entry_id)
                elif turn == 2:
                    with log.begin_entry() as entry:
                        for chunk in chunks:
                            entry.write_chunk(chunk)
                        if rng.random() < 0.5:
                            entry.rollback()
                            continue
                    expected[entry.id] = chunks
                elif turn == 3:
                    log.sync()
                elif turn == 4:
                    log.checkpoint_active()
                else:
                    assert log.stats().last_entry_id >= log.durable_entry_id

        for worker in [Worker(write, thread) for thread in range(5)]:
            worker.join()
        log.shutdown()
        assert sorted(called) == sorted(given)
        place.open(Store(store.entries)).shutdown()
        assert store.entries == expected

    def test_back_pressure_with_many_writers(self, place):
        store = Store()
        log = place.open(store, max_sealed_segments=1)

        def write(thread):
            for _ in range(10):
                log.append([b"x" * 30_000])

        for worker in [Worker(write, thread) for thread in range(6)]:
            worker.join()
        log.shutdown()
        place.open(Store(store.entries)).shutdown()
        assert list(store.entries.values()) == [[b"x" * 30_000]] * 60

    def test_a_failure_ends_them_all(self, faulty_place, faulty):
        log = faulty_place.open()
        reached = threading.Barrier(6)
        acknowledged = []

        def write(thread):
            reached.wait(PATIENCE)
            with contextlib.suppress(wal.LogFailedError):
                while True:
                    acknowledged.append(log.append([b"%d" % thread]))

        workers = [Worker(write, thread) for thread in range(6)]
        until(lambda: len(acknowledged) > 20)
        faulty.fail(errno.EIO, kinds="sync", path="wal-*")
        for worker in workers:
            worker.join()
        with pytest.raises(wal.LogFailedError):
            log.shutdown()
        faulty.heal()
        recovered = [entry_id for entry_id, _ in faulty_place.recovered()]
        assert recovered == list(range(1, len(recovered) + 1))
        assert max(acknowledged) <= len(recovered)


class TestAbortedEntries:
    """In front of recycled bytes that look like valid entries, and full of them."""

    @pytest.mark.parametrize("end", ["killed", "rolled back"])
    @pytest.mark.parametrize("older", ["appended", "streamed"])
    def test_they_are_never_read_as_entries(self, place, end, older):
        log = place.open(buffer_bytes=4096)

        def fill():
            for number in range(8):
                if older == "appended":
                    log.append([b"old %d" % number * 300])
                else:
                    with log.begin_entry() as entry:
                        for _ in range(3):
                            entry.write_chunk(b"old %d" % number * 100)
            (name,) = place.names("wal-")
            return place.read(name)[: list(log._registry)[-1].committed_end]

        frames = fill()
        for _ in range(3):
            log.checkpoint_active(wait=True)
            until(lambda: len(place.names("wal-")) == 1 and log.stats().segments_spare)
            # the present segment's own header and frames too
            log.append([b"kept"])
            log.sync()
            (name,) = place.names("wal-")
            frames += place.read(name)[: list(log._registry)[-1].committed_end]
            entry = log.begin_entry()
            for start in range(7):
                entry.write_chunk(frames[start:])
            if end == "rolled back":
                entry.rollback()
            killed = place.killed()
            killed.open(manager := Recorder())
            assert [chunks for _, chunks in manager.recovered] == [[b"kept"]]
            if end == "killed":
                entry.rollback()
            frames = fill_up(log, place, frames)

    def test_nor_are_forged_frames_in_their_place(self, place):
        """Whoever knows the salt can frame an entry in a payload: it is no entry all the same."""
        log = place.open(buffer_bytes=4096)
        log.append([b"kept"])
        segment = list(log._registry)[-1]
        header, seed = segment.header, segment.header.seed
        entry = log.begin_entry()
        at = segment.end + fmt.ENTRY_BYTES + fmt.CHUNK.size
        forged = b"".join(fmt.encode_group(header, seed, at, entry.id, 1, [b"forged"], 1))
        record = entry.write_chunk(forged + bytes(8000))
        assert record.position.offset + fmt.CHUNK.size == at
        entry.write_chunk(b"pushes the first one out")
        entry.rollback()
        killed = place.killed()
        (name,) = killed.names("wal-")
        assert killed.read(name)[at : at + len(forged)] == forged
        with killed.open(manager := Recorder()) as after:
            assert manager.recovered == [(1, [b"kept"])]
            assert after.append([b"next"]) > entry.id


def fill_up(log, place, frames):
    """The rest of a round: a committed entry whose payload is all the frames so far."""
    log.append([frames[-8000:]])
    return frames[-20_000:]


@contextlib.contextmanager
def interrupted_at(faulty, kind, path, error=KeyboardInterrupt):
    """Hold the next thread that comes to a call; let it go with an error raised there."""
    arrived, proceed = threading.Event(), threading.Event()

    def on_call(called, at, number):
        if called == kind and path in os.path.basename(at) and not arrived.is_set():
            arrived.set()
            assert proceed.wait(PATIENCE)
            raise error

    faulty.on_call = on_call
    yield arrived, proceed
    proceed.set()
    faulty.on_call = None


class TestInterruptsInTheLeader:
    @pytest.mark.parametrize("kind", ["write_at", "sync"])
    @pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
    def test_it_latches_and_the_others_are_told(self, faulty_place, faulty, kind, error):
        log = faulty_place.open()
        log.append([b"before"])
        with interrupted_at(faulty, kind, "wal-", error) as (arrived, proceed):
            leader = Worker(log.append, [b"a"])
            assert arrived.wait(PATIENCE)
            ticket = log.submit([b"b"])
            waiters = [Worker(log.append, [b"c"], None, each) for each in Durability]
            until(lambda: log.last_entry_id == 6)
            syncer = Worker(log.sync)
            proceed.set()
            assert isinstance(leader.wait(), error)
            for worker in (*waiters, syncer):
                assert isinstance(worker.wait(), wal.LogFailedError)
            with pytest.raises(wal.LogFailedError) as caught:
                ticket.wait(PATIENCE)
        assert isinstance(caught.value.__cause__, error)
        for attempt in (lambda: log.append([b"d"]), log.sync, log.begin_entry):
            with pytest.raises(wal.LogFailedError):
                attempt()
        assert [entry.read_all() for entry in log.entries()] == [[b"before"]]
        with pytest.raises(wal.LogFailedError):
            log.shutdown()
        assert threads() == []
        recovered = [chunks for _, chunks in faulty_place.recovered()]
        assert recovered == [[b"before"], [b"a"]][: len(recovered)]
        assert recovered

    @pytest.mark.parametrize(
        ("kind", "path"),
        [("sync", "wal-"), ("write_at", "free-"), ("rename", "free-"), ("sync_directory", "log")],
    )
    def test_in_a_rotation(self, faulty_place, faulty, kind, path):
        manager = Recorder()
        log = faulty_place.open(manager)
        log.append([b"before"])
        with interrupted_at(faulty, kind, path) as (arrived, proceed):
            leader = Worker(log.checkpoint_active)
            assert arrived.wait(PATIENCE)
            waiter = Worker(log.append, [b"b"])
            ticket = log.submit([b"c"])
            until(lambda: log.last_entry_id >= 3)
            proceed.set()
            assert isinstance(leader.wait(), KeyboardInterrupt)
            assert isinstance(waiter.wait(), wal.LogFailedError)
            with pytest.raises(wal.LogFailedError):
                ticket.wait(PATIENCE)
        with pytest.raises(wal.LogFailedError):
            log.shutdown()
        assert threads() == []
        found = [*manager.checkpointed, *faulty_place.recovered()]
        assert found[0] == (1, [b"before"])

    def test_where_the_flusher_leads(self, faulty_place, faulty):
        log = faulty_place.open()
        log.append([b"before"])
        with interrupted_at(faulty, "sync", "wal-") as (arrived, proceed):
            ticket = log.submit([b"a"])
            assert arrived.wait(PATIENCE)
            waiter = Worker(log.append, [b"b"])
            until(lambda: log.last_entry_id == 3)
            proceed.set()
            with pytest.raises(wal.LogFailedError) as caught:
                ticket.wait(PATIENCE)
            assert isinstance(caught.value.__cause__, KeyboardInterrupt)
            assert isinstance(waiter.wait(), wal.LogFailedError)
        with pytest.raises(wal.LogFailedError):
            log.shutdown()
        assert threads() == []

    def test_in_the_callback_of_another_ones_commit(self, faulty_place, faulty):
        log = faulty_place.open()
        gate = Gate(faulty, "sync", "wal-")
        first = Worker(log.append, [b"a"])
        gate.arrival()
        order = []

        def interrupt(*_):
            order.append("interrupted")
            raise KeyboardInterrupt

        second = Worker(log.append, [b"b"], lambda *_: order.append("second"))
        until(lambda: log.last_entry_id == 2)
        third = Worker(log.append, [b"c"], interrupt)
        until(lambda: log.last_entry_id == 3)
        fourth = Worker(log.append, [b"d"], lambda *_: order.append("fourth"))
        until(lambda: log.last_entry_id == 4)
        gate.open()
        assert first.join() == 1
        errors = [worker.wait() for worker in (second, third, fourth)]
        assert sum(isinstance(error, KeyboardInterrupt) for error in errors) == 1
        assert all(isinstance(e, (KeyboardInterrupt, wal.LogFailedError)) for e in errors if e)
        assert isinstance(errors[2], wal.LogFailedError)
        assert order == ["second", "interrupted"]
        with pytest.raises(wal.LogFailedError):
            log.append([b"e"])
        with pytest.raises(wal.LogFailedError):
            log.shutdown()
        assert [chunks for _, chunks in faulty_place.recovered()] == [
            [b"a"],
            [b"b"],
            [b"c"],
            [b"d"],
        ]

    def test_in_the_callback_of_a_buffered_commit(self, place):
        log = place.open(durability=BUFFER)

        def interrupt(*_):
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            log.append([b"a"], interrupt)
        for attempt in (lambda: log.append([b"b"]), lambda: log.append([b"b"], durability=FSYNC)):
            with pytest.raises(wal.LogFailedError):
                attempt()
        with pytest.raises(wal.LogFailedError):
            log.shutdown()
        assert threads() == []

    def test_in_a_done_callback(self, faulty_place, faulty):
        """Who waited for the ticket came behind the callback, and waited for ever."""
        log = faulty_place.open()
        gate = Gate(faulty, "sync", "wal-")
        ticket = log.submit([b"a"])
        gate.arrival()
        called = []

        def interrupt(_):
            called.append("interrupted")
            raise KeyboardInterrupt

        ticket.add_done_callback(interrupt)
        others = [log.submit([b"b"]) for _ in range(3)]
        for other in others:
            other.add_done_callback(lambda ticket: called.append(ticket.entry_id))
        gate.open()
        assert ticket.wait(PATIENCE) == 1
        for other in others:
            with contextlib.suppress(wal.LogFailedError):
                other.wait(PATIENCE)
        until(lambda: len(called) == 4)
        with contextlib.suppress(wal.LogFailedError):
            log.shutdown()
        assert threads() == []
        assert faulty_place.recovered()[0] == (1, [b"a"])

    def test_an_entry_of_the_leaders_own_is_rolled_back(self, faulty_place, faulty):
        log = faulty_place.open(buffer_bytes=4096)
        log.append([b"before"])

        def write():
            with log.begin_entry() as entry:
                for _ in range(5):
                    entry.write_chunk(b"x" * 3000)

        with interrupted_at(faulty, "write_at", "wal-") as (arrived, proceed):
            worker = Worker(write)
            assert arrived.wait(PATIENCE)
            waiter = Worker(log.append, [b"y"])
            proceed.set()
            assert isinstance(worker.wait(), KeyboardInterrupt)
            assert isinstance(waiter.wait(), wal.LogFailedError)
        with pytest.raises(wal.LogFailedError):
            log.shutdown()
        assert faulty_place.recovered() == [(1, [b"before"])]


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="a thread cannot be signalled")
class TestInterruptsInAWaiter:
    """The main thread waits, as only there an interrupt comes by itself."""

    def interrupt(self, condition):
        until(condition)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    def test_it_propagates_and_the_others_go_on(self, faulty_place, faulty):
        log = faulty_place.open()
        gate = Gate(faulty, "sync", "wal-")
        leader = Worker(log.append, [b"a"])
        gate.arrival()
        in_flight = log._commits.in_flight
        interrupter = Worker(self.interrupt, lambda: len(in_flight) > 1 and in_flight[1].waited)
        with pytest.raises(KeyboardInterrupt):
            log.append([b"b"])
        interrupter.join()
        others = [Worker(log.append, [b"c"]) for _ in range(2)]
        until(lambda: log.last_entry_id == 4)
        gate.open()
        assert leader.join() == 1
        assert sorted(worker.join() for worker in others) == [3, 4]
        assert log.append([b"d"]) == 5
        ids = [entry.id for entry in log.entries()]
        assert ids == [1, 2, 3, 4, 5]  # in doubt when it was interrupted; here it is committed

    def test_while_it_waits_for_a_ticket(self, faulty_place, faulty):
        log = faulty_place.open()
        gate = Gate(faulty, "sync", "wal-")
        ticket = log.submit([b"a"])
        gate.arrival()
        interrupter = Worker(self.interrupt, lambda: ticket.callbacks)
        with pytest.raises(KeyboardInterrupt):
            ticket.wait()
        interrupter.join()
        gate.open()
        assert ticket.wait(PATIENCE) == 1
        assert log.append([b"b"]) == 2

    def test_while_it_waits_for_an_open_entry(self, place):
        log = place.open()
        opened, proceed = threading.Event(), threading.Event()

        def hold():
            with log.begin_entry() as entry:
                entry.write_chunk(b"a")
                opened.set()
                assert proceed.wait(PATIENCE)

        holder = Worker(hold)
        assert opened.wait(PATIENCE)
        waiting = threading.Event()
        original = log._buffer.entry_turn.wait

        def wait_for_entry():
            waiting.set()
            original()

        log._buffer.entry_turn.wait = wait_for_entry
        interrupter = Worker(self.interrupt, waiting.is_set)
        with pytest.raises(KeyboardInterrupt):
            log.append([b"b"])
        interrupter.join()
        other = Worker(log.append, [b"c"])
        proceed.set()
        holder.join()
        other.join()
        log.append([b"d"])
        assert [e.read_all() for e in log.entries()] == [[b"a"], [b"c"], [b"d"]]

    def test_while_it_waits_for_a_checkpoint(self, place):
        log = place.open(manager := Holding())
        log.append([b"a"])
        interrupter = Worker(self.interrupt, manager.entered.is_set)
        with pytest.raises(KeyboardInterrupt):
            log.checkpoint_active(wait=True)
        interrupter.join()
        manager.proceed.set()
        log.append([b"b"])
        log.checkpoint_active(wait=True)
        assert manager.checkpointed == [(1, [b"a"]), (2, [b"b"])]
