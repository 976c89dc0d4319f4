"""What a log promises to those who write to it, on every file system."""

# ruff: noqa: PT012, PT031 - it is often the end of a block that raises

from __future__ import annotations

import array
import contextlib
import dataclasses
import errno
import gc
import os
import shutil
import signal
import subprocess
import sys
import threading
import warnings
import weakref
from itertools import chain

import pytest

import wal
from tests.wal.support import PATIENCE, Gate, Holding, Recorder, Worker, threads, until
from wal import Durability

BUFFER, WRITE, FSYNC = Durability.BUFFER, Durability.WRITE, Durability.FSYNC

durabilities = pytest.mark.parametrize("durability", Durability, ids=lambda each: each.value)


def chunks_of(entry):
    return entry.read_all()


def written(log):
    return [(entry.id, entry.read_all()) for entry in log.entries()]


class Events(Recorder):
    """Notes the calls of ``committed`` too, and of an ``on_commit`` handed to commits."""

    def committed(self, entry_id, segment_id, chunks):
        self.calls.append(("committed", entry_id, chunks))

    def on_commit(self, entry_id, segment_id):
        self.calls.append(("on_commit", entry_id))


class TestOneLife:
    def test_write_reopen_recover_read_checkpoint_shut_down(self, place):
        manager = Events()
        with place.open(manager) as log:
            assert log.append([b"one"], manager.on_commit) == 1
            with log.begin_entry() as entry:
                record = entry.write_chunk(b"two")
                assert entry.id == 2
                entry.commit(on_commit=manager.on_commit)
            with log.read_at(record.position) as chunk:
                assert chunk.read() == b"two"
                assert chunk.crc_is_valid()
                assert (chunk.length, chunk.position) == (3, record.position)
        assert manager.calls == [("committed", 1, [b"one"]), ("on_commit", 1), ("on_commit", 2)]

        manager = Events()
        with place.open(manager) as log:
            (segment,) = manager.offered
            assert (segment.first_after, segment.last_id, segment.damage) == (0, 2, None)
            assert manager.recovered == [(1, [b"one"]), (2, [b"two"])]
            with log.read_at(record.position) as chunk:
                assert chunk.read() == b"two"
            manager.calls.clear()
            assert log.append([b"three"], manager.on_commit) == 3
            log.checkpoint_active(wait=True)
            assert log.append([b"four"], manager.on_commit) == 4
        assert manager.checkpoints == [(3, [(1, [b"one"]), (2, [b"two"]), (3, [b"three"])])]
        # archive comes after the checkpoint, but nobody waits for it
        assert [call for call in manager.calls if call[0] != "archive"] == [
            ("committed", 3, [b"three"]),
            ("on_commit", 3),
            ("checkpoint_to", 3),
            ("committed", 4, [b"four"]),
            ("on_commit", 4),
        ]
        assert manager.calls.count(("archive", segment.segment_id)) == 1
        assert place.recovered() == [(4, [b"four"])]

    def test_every_entry_is_recovered_once_at_each_opening(self, place):
        with place.open() as log:
            for number in range(10):
                log.append([b"%d" % number])
        expected = [(number + 1, [b"%d" % number]) for number in range(10)]
        assert place.recovered() == expected
        assert place.recovered() == expected

    def test_after_a_kill_too(self, place):
        log = place.open()
        for number in range(10):
            log.append([b"%d" % number])
        killed = place.killed()
        expected = [(number + 1, [b"%d" % number]) for number in range(10)]
        manager = Recorder()
        killed.open(manager).shutdown()
        assert manager.recovered == expected
        assert manager.checkpointed == expected  # a segment that a crash left is sealed
        assert killed.recovered() == []

    def test_what_was_written_together_comes_together_to_who_wants_it_so(self, place):
        class Groups(Recorder):
            def recover_group(self, group):
                assert len(group.items) == group.last_id - group.first_id + 1
                assert [entry.id for entry in group.entries()] == list(
                    range(group.first_id, group.last_id + 1)
                )
                assert {entry.segment_id for entry in group.entries()} == {group.segment_id}
                self.calls.append((group.first_id, group.items))

        log = place.open()
        for number in range(3):
            log.append([b"%d" % number, b"x"], durability=wal.Durability.BUFFER)
        log.append([b"together"])
        with log.begin_entry() as entry:
            entry.write_chunk(b"streamed")
        log.append([b"alone"])
        place.killed().open(manager := Groups()).shutdown()
        shown = [call for call in manager.calls if call[0] != "should_recover_segment"]
        together = [[b"0", b"x"], [b"1", b"x"], [b"2", b"x"], b"together"]
        assert shown[:3] == [(1, together), ("recover", 5), (6, [b"alone"])]

    def test_a_witness_is_no_group(self, place):
        class Groups(Recorder):
            def recover_group(self, group):
                assert group.items
                super().recover_group(group)

        log = place.open(flush_interval=0.01)
        log.append([b"x"])
        before = log.stats().bytes_written
        until(lambda: log.stats().bytes_written > before)
        place.killed().open(manager := Groups()).shutdown()
        assert manager.recovered == [(1, [b"x"])]

    def test_the_default_configuration_takes_a_directory(self, tmp_path):
        with wal.WriteAheadLog.recover(tmp_path / "a" / "b", wal.LogVoid()) as log:
            assert log.append([b"x"]) == 1
        with wal.recover(str(tmp_path / "a" / "b"), manager := Recorder()):
            assert manager.recovered == [(1, [b"x"])]

    def test_a_manager_is_wanted(self, place):
        with pytest.raises(TypeError, match="manager"):
            place.open(manager=object())

    def test_a_manager_that_raises_while_recovering_leaves_the_log_as_it_was(self, place):
        with place.open() as log:
            log.append([b"x"])

        class Refuses(Recorder):
            def recover(self, entry):
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            place.open(Refuses())
        assert place.recovered() == [(1, [b"x"])]

    def test_last_ids(self, place):
        log = place.open()
        assert (log.last_entry_id, log.durable_entry_id) == (0, 0)
        log.append([b"x"], durability=BUFFER)
        assert (log.last_entry_id, log.durable_entry_id) == (1, 0)
        log.append([b"y"])
        assert (log.last_entry_id, log.durable_entry_id) == (2, 2)
        log.shutdown()
        log = place.open()
        assert (log.last_entry_id, log.durable_entry_id) == (2, 2)


SHAPES = {
    "none": [],
    "one empty": [b""],
    "two empty": [b"", b""],
    "one byte": [b"x"],
    "one": [b"some bytes"],
    "empty, then not": [b"", b"x"],
    "many": [b"%d" % number for number in range(1000)],
    "many empty": [b""] * 1000,
    "a frame's size": [bytes(64 << 10)],
    "beyond a group": [b"z" * (300 << 10)],
    "larger than a segment": [b"a" * (70 << 10), b"b" * (200 << 10)],
    "one byte more than a group": [b"g" * (256 << 10)],
}
shapes = pytest.mark.parametrize("chunks", SHAPES.values(), ids=SHAPES.keys())


class TestShapes:
    @durabilities
    @shapes
    def test_appended(self, place, chunks, durability):
        manager = Holding()
        with place.open(manager) as log:
            log.append([b"before"])
            assert log.append(chunks, durability=durability) == 2
            log.append([b"after"])
            expected = [(1, [b"before"]), (2, chunks), (3, [b"after"])]
            assert written(log) == expected
            killed = place.killed()
            manager.proceed.set()
        assert manager.checkpointed + place.recovered() == expected
        assert killed.recovered() == expected

    @shapes
    def test_streamed(self, place, chunks):
        log = place.open(Holding())
        log.append([b"before"])
        with log.begin_entry() as entry:
            records = [entry.write_chunk(chunk) for chunk in chunks]
            entry.commit()
        log.append([b"after"])
        expected = [(1, [b"before"]), (2, chunks), (3, [b"after"])]
        assert written(log) == expected
        manager = Holding()
        with place.killed().open(manager) as log:
            assert manager.recovered == expected
            for record, chunk in zip(records, chunks, strict=True):
                with log.read_at(record.position) as reader:
                    assert reader.read() == chunk
                assert record.length == len(chunk)
            manager.proceed.set()

    def test_appended_beyond_a_group(self, place):
        """Many chunks and long ones: framed in runs, and each has its position."""
        chunks = [b"%04d" % number * (number % 7) for number in range(9000)]
        chunks[100] = bytes(300 << 10)
        chunks[200:200] = [b"", bytes(600 << 10), b"x"]
        with place.open(preallocate_bytes=4 << 20) as log:
            log.append(chunks)
            log.append([b"next"])
            entry, following = log.entries()
            assert entry.read_all() == chunks
            for number in (0, 99, 100, 101, 201, 8999):
                with log.read_at(entry.chunks()[number].position) as chunk:
                    assert chunk.read() == chunks[number]
            assert following.read_all() == [b"next"]
            killed = place.killed()
        assert killed.recovered() == [(1, chunks), (2, [b"next"])]

    @shapes
    def test_in_pieces(self, place, chunks):
        with place.open() as log:
            with log.begin_entry() as entry:
                for chunk in chunks:
                    with entry.begin_chunk(len(chunk)) as writer:
                        for start in range(0, len(chunk), 10_007):
                            piece = chunk[start : start + 10_007]
                            assert writer.write(piece) == len(piece)
                    with log.read_at(writer.record.position) as reader:
                        assert reader.read() == chunk
            assert written(log) == [(1, chunks)]
        assert place.recovered() == [(1, chunks)]

    def test_records_are_the_same_in_pieces(self, place):
        log = place.open()
        with log.begin_entry() as entry:
            whole = entry.write_chunk(b"some bytes")
        log.shutdown()
        log = place.open()
        with log.begin_entry() as entry, entry.begin_chunk(10) as chunk:
            chunk.write(b"some ")
            chunk.write(b"bytes")
        assert chunk.close() == chunk.record
        assert chunk.record.length == whole.length
        assert chunk.record.position.segment_id == whole.position.segment_id

    def test_an_entry_may_span_what_many_buffers_hold(self, place):
        """Much larger than ``buffer_bytes`` and than a segment, and still one entry."""
        data = os.urandom(1 << 20)
        with place.open(buffer_bytes=4096) as log, log.begin_entry() as entry:
            records = [entry.write_chunk(data[at : at + 5000]) for at in range(0, len(data), 5000)]
            with log.read_at(records[3].position) as chunk:
                assert chunk.read() == data[15_000:20_000]
        ((entry_id, chunks),) = place.recovered()
        assert (entry_id, b"".join(chunks)) == (1, data)

    @pytest.mark.long
    def test_the_largest_chunk(self, tmp_path):
        """4 GiB - 1, on real files only."""
        length = (1 << 32) - 1
        piece = bytes(range(256)) * (1 << 16)
        with wal.recover(tmp_path, wal.LogVoid()) as log:
            with log.begin_entry() as entry, entry.begin_chunk(length) as chunk:
                for left in range(length, 0, -len(piece)):
                    chunk.write(piece[:left])
            with log.read_at(chunk.record.position) as reader:
                assert reader.length == length
                assert reader.crc_is_valid()

        class Counts(wal.LogManager):
            def recover(self, entry):
                (chunk,) = entry.chunks()
                self.length = chunk.length
                self.valid = chunk.crc_is_valid()

            def checkpoint_to(self, last_id, entries, log):
                """Nothing is kept."""

        with wal.recover(tmp_path, counts := Counts()):
            assert (counts.length, counts.valid) == (length, True)
        shutil.rmtree(tmp_path)

    def test_a_chunk_of_4_gib_is_refused(self, place):
        log = place.open()
        with log.begin_entry() as entry:
            with pytest.raises(ValueError, match="4 GiB"):
                entry.begin_chunk(1 << 32)
            with pytest.raises(ValueError, match="length"):
                entry.begin_chunk(-1)
            for wrong in (1.0, "1", True, None):
                with pytest.raises(TypeError, match="length"):
                    entry.begin_chunk(wrong)
        assert written(log) == [(1, [])]


class TestArguments:
    @pytest.mark.parametrize("call", ["append", "submit"])
    @pytest.mark.parametrize(
        "chunks",
        [b"ab", bytearray(b"ab"), memoryview(b"ab"), "ab", ["ab"], [b"ab", "c"], [1], [None]],
        ids=repr,
    )
    def test_what_are_not_chunks(self, place, call, chunks):
        log = place.open()
        with pytest.raises(TypeError):
            getattr(log, call)(chunks)
        assert log.append([b"x"]) == 1

    def test_no_chunks_at_all(self, place):
        log = place.open()
        for wrong in (None, 5):
            with pytest.raises(TypeError):
                log.append(wrong)

    def test_a_chunk_must_be_bytes(self, place):
        log = place.open()
        with log.begin_entry() as entry:
            for wrong in ("ab", 5, None, [b"ab"]):
                with pytest.raises(TypeError, match="bytes"):
                    entry.write_chunk(wrong)
            with entry.begin_chunk(2) as chunk:
                for wrong in ("ab", 5, None):
                    with pytest.raises(TypeError, match="bytes"):
                        chunk.write(wrong)
                chunk.write(b"ab")
        assert written(log) == [(1, [b"ab"])]

    def test_any_iterable_of_any_buffers(self, place):
        log = place.open()
        log.append(iter([bytearray(b"a"), memoryview(b"xbx")[1:2], array.array("B", b"c")]))
        log.append((b"d",))
        log.append([memoryview(b"e-f-g-")[::2]])
        log.append([memoryview(array.array("H", [0x6868]))])
        assert [chunks for _, chunks in written(log)] == [
            [b"a", b"b", b"c"],
            [b"d"],
            [b"efg"],
            [b"hh"],
        ]

    @durabilities
    def test_buffers_are_copied_before_the_call_returns(self, place, durability):
        log = place.open(Holding())
        small, large = bytearray(b"small"), bytearray(b"l" * (300 << 10))
        tickets = [log.submit([small], durability=durability)]
        tickets.append(log.submit([large, small], durability=durability))
        with log.begin_entry() as entry:
            entry.write_chunk(small)
            with entry.begin_chunk(5) as chunk:
                chunk.write(small)
                small[:] = b"wrong"
            large[:] = b"w" * len(large)
            entry.commit(durability)
        for ticket in tickets:
            ticket.wait(PATIENCE)
        log.sync()
        assert [chunks for _, chunks in written(log)] == [
            [b"small"],
            [b"l" * (300 << 10), b"small"],
            [b"small", b"small"],
        ]

    def test_a_list_that_changes_later_does_not_matter(self, place):
        log = place.open()
        chunks = [b"a", b"b"]
        ticket = log.submit(chunks)
        chunks.append(b"c")
        ticket.wait(PATIENCE)
        assert written(log) == [(1, [b"a", b"b"])]

    @pytest.mark.parametrize("wrong", ["fsync", 1, True], ids=repr)
    def test_a_durability_is_one_of_three(self, place, wrong):
        log = place.open()
        for call in (log.append, log.submit):
            with pytest.raises(TypeError, match="durability"):
                call([b"x"], durability=wrong)
        entry = log.begin_entry()
        with pytest.raises(TypeError, match="durability"):
            entry.commit(wrong)
        with contextlib.suppress(wal.EntryStateError):
            entry.rollback()
        assert log.append([b"y"], durability=FSYNC) > 0


class TestIds:
    def test_rolling_back_the_very_first_entry(self, place):
        log = place.open()
        entry = log.begin_entry()
        entry.write_chunk(b"x" * 1000)
        entry.rollback()
        assert written(log) == []
        second = log.append([b"y"])
        assert second > entry.id
        assert written(log) == [(second, [b"y"])]
        log.shutdown()
        assert place.recovered() == [(second, [b"y"])]

    def test_they_only_grow(self, place):
        """Over restarts, clean and not, rollbacks, checkpoints, and any mixture of them."""
        given, committed = [], []
        here = place
        for life in range(12):
            killed = life % 3 == 2
            log = here.open(Holding() if killed else None, max_sealed_segments=50)
            for step in range(6):
                with log.begin_entry() as entry:
                    given.append(entry.id)
                    entry.write_chunk(b"x" * (step * 2000))
                    if (life + step) % 3 == 0:
                        entry.rollback()
                    else:
                        entry.commit()
                        committed.append(entry.id)
                given.append(log.append([b"y"], durability=Durability.BUFFER))
                committed.append(given[-1])
                if (life + step) % 4 == 0:
                    log.checkpoint_active(wait=step % 2 == 0 and not killed)
            log.sync()
            if killed:
                here = here.killed()
            else:
                log.shutdown()
        assert given == sorted(set(given))
        assert committed == sorted(set(committed))
        assert here.open().append([b"z"]) > given[-1]

    def test_a_rolled_back_id_does_not_come_back_after_a_restart(self, place):
        log = place.open()
        entry = log.begin_entry()
        entry.rollback()
        log.shutdown()
        assert place.open().append([b"x"]) > entry.id

    def test_an_id_without_a_checkpoint_left_behind_does_not_come_back(self, place):
        log = place.open()
        last = [log.append([b"x"]) for _ in range(5)][-1]
        log.checkpoint_active(wait=True)
        log.shutdown()
        for _ in range(3):
            manager = Recorder()
            log = place.open(manager)
            assert manager.recovered == []
            assert log.last_entry_id == last
            log.shutdown()
        assert place.open().append([b"x"]) > last

    def test_reaching_the_limit_of_a_segment_goes_on_in_the_next(self, place):
        """A segment gives out a bounded number of ids; rolled-back entries use them up."""
        log = place.open(manager := Recorder(), preallocate_bytes=4096, durability=BUFFER)
        first = log.append([b"first"])
        last = 0
        while log.stats().rotations == 0:
            for _ in range(10_000):
                entry = log.begin_entry()
                entry.rollback()
                assert entry.id > last
                last = entry.id
            log.sync()
            assert last < 1_000_000
        log.append([])
        assert log.append([b"last"]) > last
        log.shutdown()
        assert manager.checkpointed[0] == (first, [b"first"])
        assert [chunks for _, chunks in place.recovered()] == [[], [b"last"]]


class TestDurability:
    @durabilities
    def test_each_commit_may_choose(self, place, durability):
        log = place.open(durability=durability)
        expected = []
        for number, each in enumerate([None, *Durability, *reversed(Durability)]):
            chunk = [b"%d" % number]
            expected.append((log.append(chunk, durability=each), chunk))
            with log.begin_entry() as entry:
                entry.write_chunk(b"s%d" % number)
                expected.append((entry.commit(each), [b"s%d" % number]))
        log.sync()
        assert written(log) == expected
        log.shutdown()
        assert place.recovered() == expected

    def test_what_each_costs(self, faulty_place, faulty):
        log = faulty_place.open()
        log.append([b"x"])

        def calls(durability):
            before = len(faulty.calls)
            log.append([b"x"], durability=durability)
            return [call.kind for call in faulty.calls[before:]]

        assert calls(FSYNC) == ["write_at", "sync"]
        assert calls(WRITE) == ["write_at"]
        assert calls(BUFFER) == []
        assert calls(FSYNC) == ["write_at", "sync"]

    def test_write_survives_a_kill(self, place):
        log = place.open()
        log.append([b"x"], durability=WRITE)
        assert place.killed().recovered() == [(1, [b"x"])]

    def test_buffer_does_not_reach_a_file_by_itself(self, place):
        log = place.open()
        log.append([b"x"], durability=BUFFER)
        assert place.killed().recovered() == []
        log.append([b"y"], durability=WRITE)
        assert place.killed().recovered() == [(1, [b"x"]), (2, [b"y"])]

    def test_a_later_fsync_makes_all_earlier_entries_durable(self, faulty_place, faulty):
        log = faulty_place.open()
        log.append([b"a"], durability=BUFFER)
        log.append([b"b"], durability=WRITE)
        log.append([b"c"], durability=FSYNC)
        assert log.durable_entry_id == 3
        for state in faulty.crash_states(limit=30):
            manager = Recorder()
            files = {"file_system": state, "flush_interval": 3600, "preallocate_bytes": 65536}
            wal.Configuration(faulty_place.directory, **files).open(manager).shutdown()
            assert [chunks for _, chunks in manager.recovered] == [[b"a"], [b"b"], [b"c"]]

    def test_sync_covers_everything_before_it(self, faulty_place, faulty):
        log = faulty_place.open()
        log.append([b"a"], durability=BUFFER)
        log.append([b"b"], durability=WRITE)
        log.sync()
        assert log.durable_entry_id == 2
        assert faulty.calls[-1].kind == "sync"

    def test_sync_waits_for_who_is_at_it(self, faulty_place, faulty):
        log = faulty_place.open()
        gate = Gate(faulty, "sync", "wal-")
        first = Worker(log.append, [b"a"])
        gate.arrival()
        second = Worker(log.sync)
        gate.open()
        first.join()
        second.join()
        assert log.durable_entry_id == 1

    def test_a_buffered_commit_waits_behind_a_pending_fsync(self, faulty_place, faulty):
        log = faulty_place.open()
        order = []
        gate = Gate(faulty, "sync", "wal-")
        first = Worker(log.append, [b"a"], lambda *_: order.append("fsync"))
        gate.arrival()
        ticket = log.submit([b"b"], lambda *_: order.append("buffer"), BUFFER)
        second = Worker(log.append, [b"c"], lambda *_: order.append("buffer too"), BUFFER)
        until(lambda: log.last_entry_id == 3)
        assert not ticket.done()
        assert order == []
        gate.open()
        assert (first.join(), ticket.wait(PATIENCE), second.join()) == (1, 2, 3)
        assert order == ["fsync", "buffer", "buffer too"]

    def test_write_commits_complete_before_the_sync_of_their_round(self, faulty_place, faulty):
        log = faulty_place.open()
        gate = Gate(faulty, "sync", "wal-")
        first = Worker(log.append, [b"a"])
        gate.arrival()
        ticket = log.submit([b"b"], durability=WRITE)
        last = log.submit([b"c"], durability=FSYNC)
        second_gate = Gate(faulty, "sync", "wal-")
        gate._opened.set()
        first.join()
        second_gate.arrival()
        assert ticket.wait(PATIENCE) == 2
        assert not last.done()
        second_gate.open()
        assert last.wait(PATIENCE) == 3

    def test_one_sync_serves_all_that_have_gathered(self, faulty_place, faulty):
        log = faulty_place.open()
        gate = Gate(faulty, "sync", "wal-")
        first = Worker(log.append, [b"a"])
        gate.arrival()
        tickets = [log.submit([b"b"]) for _ in range(100)]
        before = log.stats().syncs
        gate.open()
        first.join()
        assert [ticket.wait(PATIENCE) for ticket in tickets] == list(range(2, 102))
        assert log.stats().syncs == before + 2

    @pytest.mark.parametrize("durability", [BUFFER, WRITE], ids=lambda each: each.value)
    @pytest.mark.parametrize("streamed", [False, True], ids=["appended", "streamed"])
    def test_it_is_synced_in_the_background(self, faulty_place, faulty, durability, streamed):
        synced = threading.Event()
        log = faulty_place.open(flush_interval=0.01)

        def on_call(kind, path, number):
            if kind == "sync" and os.path.basename(path).startswith("wal-"):
                synced.set()

        faulty.on_call = on_call
        if streamed:
            with log.begin_entry() as entry:
                entry.write_chunk(b"x")
                entry.commit(durability)
        else:
            log.append([b"x"], durability=durability)
        assert synced.wait(PATIENCE)
        until(lambda: log.durable_entry_id == 1)
        assert faulty_place.killed().recovered() == [(1, [b"x"])]

    @pytest.mark.parametrize("durability", [BUFFER, WRITE], ids=lambda each: each.value)
    def test_an_entry_open_for_long_is_synced_in_the_background_too(self, place, durability):
        """The flusher went to sleep while the entry was open, and nothing woke it at the commit."""
        log = place.open(flush_interval=0.001)
        with log.begin_entry() as entry:
            until(lambda: not log._buffer.armed)
            entry.write_chunk(b"x")
            entry.commit(durability)
        until(lambda: log.durable_entry_id == 1)

    def test_one_that_comes_just_as_the_flusher_goes_to_sleep(self, place):
        """The group had room, so the append did not look whether the flusher was awake."""
        log = place.open(flush_interval=0.001)
        with log._buffer.lock:
            log._buffer.make_room_locked(10)
        until(lambda: not log._buffer.armed)
        log.append([b"x"], durability=BUFFER)
        until(lambda: log.durable_entry_id == 1)

    def test_an_idle_log_bears_witness_and_then_is_quiet(self, faulty_place, faulty):
        log = faulty_place.open(flush_interval=0.01)
        written = threading.Semaphore(0)
        log.append([b"x"])
        size = log.stats().bytes_written
        faulty.on_call = lambda kind, *_: written.release() if kind == "write_at" else None
        assert written.acquire(timeout=PATIENCE)
        until(lambda: log.stats().bytes_written > size)
        assert log.last_entry_id == 1
        assert log.stats().commits == 1
        assert log.append([b"y"]) == 2
        log.shutdown()
        assert faulty_place.recovered() == [(1, [b"x"]), (2, [b"y"])]


class TestCallbacks:
    def test_order_over_many_threads_and_durabilities(self, place):
        """Every callback once, in EntryId order, before its commit returns."""
        manager = Events()
        log = place.open(manager, buffer_bytes=4096)
        order, here = [], threading.local()

        def note(entry_id, segment_id):
            order.append((entry_id, segment_id))

        def write(number):
            here.mine = []
            for step in range(40):
                durability = list(Durability)[(number + step) % 3]
                if (number + step) % 5 == 0:
                    with log.begin_entry() as entry:
                        entry.write_chunk(b"x" * step)
                        entry_id = entry.commit(durability, note)
                elif (number + step) % 5 == 1:
                    entry_id = log.submit([b"x"], note, durability).wait(PATIENCE)
                else:
                    entry_id = log.append([b"x"] * step, note, durability)
                here.mine.append(entry_id)
                assert any(entry_id == noted for noted, _ in reversed(order))
            return here.mine

        workers = [Worker(write, number) for number in range(8)]
        returned = [worker.join() for worker in workers]
        assert all(ids == sorted(ids) for ids in returned)
        assert [entry_id for entry_id, _ in order] == sorted(chain(*returned))
        segments = [segment_id for _, segment_id in order]
        assert segments == sorted(segments)
        appended = [call[1] for call in manager.calls if call[0] == "committed"]
        assert appended == sorted(appended)
        assert len(appended) == 8 * 32

    def test_the_segment_is_the_one_that_holds_the_entry(self, place):
        log = place.open(Holding(), max_sealed_segments=20)
        where = {}
        for _ in range(30):
            log.append([b"x" * 7000], where.__setitem__)
        assert len(set(where.values())) > 2
        held = {entry.id: entry.segment_id for entry in log.entries()}
        assert held == where

    @durabilities
    def test_one_that_raises(self, place, durability):
        """The entry stays committed, and only its own commit is told."""
        log = place.open(durability=durability)
        order = []

        def fails(entry_id, segment_id):
            order.append(entry_id)
            raise ZeroDivisionError

        with pytest.raises(wal.CallbackError, match="entry 1") as caught:
            log.append([b"a"], fails)
        assert caught.value.entry_id == 1
        assert isinstance(caught.value.__cause__, ZeroDivisionError)
        ticket = log.submit([b"b"], fails)
        last = log.submit([b"c"], lambda entry_id, _: order.append(entry_id))
        assert last.wait(PATIENCE) == 3
        with pytest.raises(wal.CallbackError, match="entry 2"):
            ticket.wait(PATIENCE)
        with pytest.raises(wal.CallbackError), log.begin_entry() as entry:
            entry.commit(on_commit=fails)
        assert order == [1, 2, 3, 4]
        log.sync()
        assert [chunks for _, chunks in written(log)] == [[b"a"], [b"b"], [b"c"], []]
        log.shutdown()
        assert len(place.recovered()) == 4

    def test_a_managers_hook_that_raises(self, place):
        class Fails(Recorder):
            def committed(self, entry_id, segment_id, chunks):
                raise ZeroDivisionError

        log = place.open(Fails())
        seen = []
        with pytest.raises(wal.CallbackError):
            log.append([b"a"], lambda entry_id, _: seen.append(entry_id))
        assert seen == [1]
        with log.begin_entry() as entry:
            entry.write_chunk(b"not appended")
        assert written(log) == [(1, [b"a"]), (2, [b"not appended"])]

    def test_the_managers_hook_comes_for_large_entries_too(self, place):
        log = place.open(manager := Events())
        large = [b"x" * (300 << 10), b""]
        log.append(large, manager.on_commit)
        assert manager.calls == [("committed", 1, large), ("on_commit", 1)]

    @durabilities
    def test_one_that_would_wait_for_itself_gets_an_error_at_once(self, place, durability):
        log = place.open(durability=durability)
        log.append([b"before"])
        ticket_before = log.submit([b"before"])
        errors = []

        def attempts(entry_id, segment_id):
            for attempt in (
                lambda: log.append([b"x"]),
                lambda: log.append([b"x" * (300 << 10)]),
                lambda: log.submit([b"x"]),
                log.begin_entry,
                log.sync,
                log.checkpoint_active,
                lambda: log.checkpoint_active(wait=True),
                log.shutdown,
                lambda: log.shutdown(timeout=0),
            ):
                try:
                    attempt()
                except wal.WalError as error:
                    errors.append(error)

        ticket_before.wait(PATIENCE)
        worker = Worker(log.append, [b"y"], attempts)
        assert worker.join() == 3
        assert len(errors) == 9
        assert log.append([b"z"]) == 4
        log.shutdown()

    @durabilities
    def test_one_that_waits_for_another_ticket_gets_an_error_at_once(
        self, faulty_place, faulty, durability
    ):
        log = faulty_place.open()
        gate = Gate(faulty, "sync", "wal-")
        first = Worker(log.append, [b"a"])
        gate.arrival()
        tickets = []
        ticket = log.submit([b"b"], lambda *_: tickets[0].wait(), durability)
        tickets.append(log.submit([b"c"]))
        gate.open()
        first.join()
        with pytest.raises(wal.CallbackError) as caught:
            ticket.wait(PATIENCE)
        assert isinstance(caught.value.__cause__, wal.WalError)
        assert tickets[0].wait(PATIENCE) == 3

    @durabilities
    def test_one_may_look_at_the_log(self, place, durability):
        """``last_entry_id`` waited for the append lock, held while a buffered commit's runs."""
        log = place.open(durability=durability)
        seen = []

        def look(entry_id, segment_id):
            seen.append((log.last_entry_id, log.stats().last_entry_id, list(log.entries())))
            assert log.durable_entry_id <= entry_id

        assert Worker(log.append, [b"x"], look).join() == 1
        assert [each[:2] for each in seen] == [(1, 1)]

    def test_a_commit_after_the_callback_is_free_again(self, place):
        log = place.open()

        def fails(*_):
            log.append([b"x"])

        with pytest.raises(wal.CallbackError):
            log.append([b"a"], fails)
        assert log.append([b"b"]) == 2


class TestTickets:
    def test_it_completes_by_itself(self, place):
        log = place.open()
        done = threading.Event()
        ticket = log.submit([b"x"])
        ticket.add_done_callback(lambda _: done.set())
        assert done.wait(PATIENCE)
        assert ticket.done()
        assert ticket.entry_id == 1
        assert log.durable_entry_id == 1

    def test_waiting_too_long_cancels_nothing(self, faulty_place, faulty):
        log = faulty_place.open()
        gate = Gate(faulty, "sync", "wal-")
        ticket = log.submit([b"x"])
        gate.arrival()
        with pytest.raises(TimeoutError):
            ticket.wait(timeout=0.001)
        with pytest.raises(TimeoutError):
            ticket.wait(timeout=0)
        assert not ticket.done()
        gate.open()
        assert ticket.wait(PATIENCE) == 1
        assert written(log) == [(1, [b"x"])]

    def test_many_threads_may_wait_for_one(self, faulty_place, faulty):
        log = faulty_place.open()
        gate = Gate(faulty, "sync", "wal-")
        ticket = log.submit([b"x"])
        gate.arrival()
        workers = [Worker(ticket.wait) for _ in range(5)]
        gate.open()
        assert [worker.join() for worker in workers] == [1] * 5

    def test_done_callbacks_run_once_and_after_on_commit(self, faulty_place, faulty):
        log = faulty_place.open()
        order = []
        gate = Gate(faulty, "sync", "wal-")
        ticket = log.submit([b"x"], lambda *_: order.append("on_commit"))
        gate.arrival()
        ticket.add_done_callback(lambda t: order.append((1, t is ticket, t.done())))
        ticket.add_done_callback(lambda t: order.append((2, t is ticket, t.done())))
        assert order == []
        gate.open()
        ticket.wait(PATIENCE)
        until(lambda: len(order) == 3)
        assert order == ["on_commit", (1, True, True), (2, True, True)]
        log.sync()
        assert len(order) == 3

    @durabilities
    def test_a_done_callback_of_a_done_ticket_runs_at_once(self, place, durability):
        log = place.open()
        ticket = log.submit([b"x"], durability=durability)
        ticket.wait(PATIENCE)
        seen = []
        ticket.add_done_callback(seen.append)
        assert seen == [ticket]

    def test_what_a_done_callback_raises_goes_no_further(self, place, caplog):
        """Where the ticket was done already, it went to who added the callback."""
        log = place.open()
        ticket = log.submit([b"x"])
        ticket.wait(PATIENCE)

        def fails(_):
            raise ZeroDivisionError

        ticket.add_done_callback(fails)
        assert "done callback of entry 1" in caplog.text
        assert log.append([b"y"]) == 2

    def test_nor_where_the_leader_runs_it(self, faulty_place, faulty, caplog):
        log = faulty_place.open()
        gate = Gate(faulty, "sync", "wal-")
        ticket = log.submit([b"x"])
        gate.arrival()
        seen = []

        def fails(_):
            raise ZeroDivisionError

        ticket.add_done_callback(fails)
        ticket.add_done_callback(seen.append)
        gate.open()
        until(lambda: seen == [ticket])
        assert "done callback of entry 1" in caplog.text
        assert log.append([b"y"]) == 2

    @durabilities
    def test_a_done_callback_that_would_wait_for_itself_gets_an_error_at_once(
        self, faulty_place, faulty, durability
    ):
        """It runs on the leader's thread: a commit in it waited for a round that never came."""
        log = faulty_place.open()
        errors = []
        gate = Gate(faulty, "sync", "wal-")
        ticket = log.submit([b"x"])
        gate.arrival()

        def commits(_):
            for attempt in (
                lambda: log.append([b"y"], durability=durability),
                log.sync,
                lambda: log.checkpoint_active(wait=True),
                log.shutdown,
            ):
                try:
                    attempt()
                except wal.WalError as error:
                    errors.append(error)

        ticket.add_done_callback(commits)
        gate.open()
        until(lambda: len(errors) == 4)
        assert Worker(log.append, [b"z"]).join() == 2

    def test_a_failed_commit_ends_its_ticket(self, faulty_place, faulty):
        log = faulty_place.open()
        faulty.fail(errno.EIO, kinds="sync", path="wal-*")
        seen = []
        ticket = log.submit([b"x"])
        ticket.add_done_callback(seen.append)
        with pytest.raises(wal.LogFailedError) as caught:
            ticket.wait(PATIENCE)
        assert caught.value.errno == errno.EIO
        assert isinstance(caught.value.__cause__, OSError)
        until(lambda: seen == [ticket])
        assert ticket.done()


class TestEntries:
    def test_a_second_entry_in_one_thread(self, place):
        log = place.open()
        with log.begin_entry() as entry:
            entry.write_chunk(b"x")
            for attempt in (
                log.begin_entry,
                lambda: log.append([b"y"]),
                lambda: log.append([b"y"], durability=BUFFER),
                lambda: log.append([b"y" * (300 << 10)]),
                lambda: log.submit([b"y"]),
                log.sync,
                log.checkpoint_active,
                log.shutdown,
            ):
                with pytest.raises(wal.WalError):
                    attempt()
        assert written(log) == [(1, [b"x"])]
        assert log.append([b"z"]) == 2

    def test_another_thread_waits_for_the_end(self, place):
        log = place.open()
        entry = log.begin_entry()
        workers = [Worker(log.append, [b"y"]), Worker(lambda: log.begin_entry().commit())]
        entry.write_chunk(b"x")
        entry.commit()
        assert sorted(worker.join() for worker in workers) == [2, 3]
        assert entry.id == 1

    def test_another_thread_may_end_it(self, place):
        log = place.open()
        entry = log.begin_entry()
        entry.write_chunk(b"x")
        assert Worker(entry.commit).join() == 1
        assert log.append([b"y"]) == 2

    @pytest.mark.parametrize("end", ["commit", "rollback"])
    def test_every_method_raises_after_the_end(self, place, end):
        log = place.open()
        entry = log.begin_entry()
        with entry.begin_chunk(1) as chunk:
            chunk.write(b"x")
        getattr(entry, end)()
        for attempt in (
            lambda: entry.write_chunk(b"y"),
            lambda: entry.begin_chunk(1),
            entry.commit,
            entry.rollback,
            entry.__enter__,
            lambda: chunk.write(b""),
        ):
            with pytest.raises(wal.WalError):
                attempt()
        assert len(written(log)) == (end == "commit")

    def test_ending_it_inside_its_block(self, place):
        log = place.open()
        with log.begin_entry() as entry:
            entry.commit()
        with log.begin_entry() as entry:
            entry.rollback()
        assert written(log) == [(1, [])]

    def test_an_exception_rolls_back(self, place):
        log = place.open()
        with pytest.raises(ZeroDivisionError), log.begin_entry() as entry:
            entry.write_chunk(b"x")
            raise ZeroDivisionError
        assert written(log) == []
        assert log.append([b"y"]) > entry.id

    def test_an_exception_inside_a_chunk_rolls_back(self, place):
        log = place.open()
        with (
            pytest.raises(ZeroDivisionError),
            log.begin_entry() as entry,
            entry.begin_chunk(5) as chunk,
        ):
            chunk.write(b"x")
            raise ZeroDivisionError
        log.append([b"y"])
        assert [chunks for _, chunks in written(log)] == [[b"y"]]

    def test_dropped_unfinished(self, place):
        log = place.open()
        entry = log.begin_entry()
        entry.write_chunk(b"x")
        with pytest.warns(ResourceWarning, match="entry 1"):
            del entry
            gc.collect()
        assert Worker(log.append, [b"y"]).join() == 2
        assert log.append([b"z"]) == 3
        assert written(log) == [(2, [b"y"]), (3, [b"z"])]

    def test_dropped_where_warnings_are_errors(self, place, monkeypatch):
        """The warning went out as an exception, before the entry was rolled back: the log hung."""
        log = place.open()
        unraisable = []
        monkeypatch.setattr(sys, "unraisablehook", lambda args: unraisable.append(args.exc_type))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            log.begin_entry().write_chunk(b"x")
            gc.collect()
        assert unraisable == [ResourceWarning]
        assert Worker(log.append, [b"y"]).join() == 2
        assert written(log) == [(2, [b"y"])]

    def test_a_short_chunk(self, place):
        log = place.open()
        with pytest.raises(wal.ChunkLengthError) as caught, log.begin_entry() as entry:
            entry.write_chunk(b"before")
            with entry.begin_chunk(5) as chunk:
                chunk.write(b"1234")
        assert (caught.value.announced, caught.value.written) == (5, 4)
        with pytest.raises(wal.WalError):
            chunk.record  # noqa: B018
        log.append([b"y"])
        assert [chunks for _, chunks in written(log)] == [[b"y"]]

    def test_a_chunk_too_long(self, place):
        log = place.open()
        with (
            pytest.raises(wal.ChunkLengthError),
            log.begin_entry() as entry,
            entry.begin_chunk(5) as chunk,
        ):
            chunk.write(b"1234")
            chunk.write(b"56")
        log.append([b"y"])
        assert [chunks for _, chunks in written(log)] == [[b"y"]]

    def test_a_commit_with_a_short_chunk_open(self, place):
        log = place.open()
        entry = log.begin_entry()
        entry.begin_chunk(5).write(b"1234")
        with pytest.raises(wal.ChunkLengthError):
            entry.commit()
        log.append([b"y"])
        assert [chunks for _, chunks in written(log)] == [[b"y"]]

    def test_one_chunk_at_a_time(self, place):
        log = place.open()
        with log.begin_entry() as entry:
            with entry.begin_chunk(1) as chunk:
                for attempt in (lambda: entry.write_chunk(b"x"), lambda: entry.begin_chunk(1)):
                    with pytest.raises(wal.EntryStateError):
                        attempt()
                with pytest.raises(wal.EntryStateError):
                    chunk.record  # noqa: B018
                chunk.write(b"a")
            entry.write_chunk(b"b")
        assert written(log) == [(1, [b"a", b"b"])]

    @pytest.mark.parametrize("size", [10, 5000, 100_000, 300_000])
    def test_a_rollback_leaves_nothing(self, place, size):
        """Whatever of it had reached the file, and whatever follows."""
        manager = Holding()
        log = place.open(manager, buffer_bytes=4096, max_sealed_segments=50)
        expected = []
        for number in range(6):
            expected.append((log.append([b"%d" % number]), [b"%d" % number]))
            with log.begin_entry() as entry:
                for _ in range(3):
                    entry.write_chunk(b"r" * size)
                entry.rollback()
        assert written(log) == expected
        assert place.killed().recovered() == expected
        manager.proceed.set()
        log.shutdown()
        assert manager.checkpointed + place.recovered() == expected


class TestStats:
    def test_a_snapshot_never_changes(self, place):
        log = place.open()
        stats = log.stats()
        with pytest.raises(dataclasses.FrozenInstanceError):
            stats.commits = 5
        with pytest.raises(TypeError):
            stats.group_sizes[0] = 1
        log.append([b"x"])
        assert stats.commits == 0
        assert stats != log.stats()

    def test_what_it_counts(self, place):
        log = place.open()
        for _ in range(3):
            log.append([b"x"])
        log.append([b"x"], durability=BUFFER)
        log.checkpoint_active(wait=True)
        log.append([b"x"])
        stats = log.stats()
        assert (stats.commits, stats.rotations, stats.checkpoints) == (5, 1, 1)
        assert stats.bytes_written > 0
        assert stats.syncs >= 4
        assert sum(stats.sync_latency) == stats.syncs
        assert sum(stats.group_sizes) == stats.rounds
        assert (stats.last_entry_id, stats.durable_entry_id) == (5, 5)
        assert (stats.checkpointed_entry_id, stats.checkpoint_lag) == (4, 1)
        assert (stats.segments_active, stats.segments_sealed) == (1, 0)
        assert (stats.waits, stats.wait_seconds) == (0, 0)

    def test_data(self, place):
        """Whatever the entries and the chunks are like; and rolled-back ones do not count."""
        log = place.open()
        log.append([])
        log.append([b"x" * 100])
        log.append([b"x" * 100, b"", b"x" * 300])
        log.append([b"x" * 300_000, b"y"])
        with log.begin_entry() as entry:
            entry.write_chunk(b"x" * 1000)
            with entry.begin_chunk(3000) as chunk:
                chunk.write(bytes(3000))
        log.begin_entry().rollback()
        entry = log.begin_entry()
        entry.write_chunk(b"lost")
        entry.rollback()
        stats = log.stats()
        assert stats.commits == 5
        assert stats.chunks == 8
        assert stats.chunk_bytes == pytest.approx(304_501, abs=stats.chunks + stats.commits)

    def test_bytes_that_await_their_checkpoint(self, place):
        log = place.open()
        log.append([bytes(10_000)])
        assert 10_000 < log.stats().bytes_live < 11_000
        with place.open(read_only=True) as reader:
            assert reader.stats().bytes_live <= log.stats().bytes_live
        log.checkpoint_active(wait=True)
        assert log.stats().bytes_live < 1_000


class TestShutdown:
    def test_it_is_idempotent_and_refuses_what_follows(self, place):
        log = place.open()
        log.append([b"x"])
        log.shutdown()
        log.shutdown()
        for attempt in (
            lambda: log.append([b"y"]),
            lambda: log.append([b"y"], durability=BUFFER),
            lambda: log.append([b"y" * (300 << 10)]),
            lambda: log.submit([b"y"]),
            log.begin_entry,
            log.sync,
            log.checkpoint_active,
            lambda: log.read_at(wal.LogPosition(1, 100)),
            lambda: list(log.entries()),
            lambda: log.pin(1).__enter__(),
        ):
            with pytest.raises(wal.LogClosedError):
                attempt()
        assert place.recovered() == [(1, [b"x"])]

    def test_nothing_is_left_running(self, place):
        log = place.open()
        for _ in range(30):
            log.append([b"x" * 5000], durability=BUFFER)
        log.checkpoint_active()
        log.submit([b"x"])
        assert threads()
        log.shutdown()
        assert threads() == []

    def test_it_syncs_what_is_buffered(self, place):
        log = place.open()
        log.append([b"x"], durability=BUFFER)
        ticket = log.submit([b"y"], durability=BUFFER)
        log.shutdown()
        assert ticket.wait(0) == 2
        assert place.recovered() == [(1, [b"x"]), (2, [b"y"])]

    def test_tickets_in_flight_are_completed(self, place):
        log = place.open()
        tickets = [log.submit([b"x"]) for _ in range(100)]
        log.shutdown()
        assert [ticket.wait(0) for ticket in tickets] == list(range(1, 101))

    def test_it_finishes_the_checkpoints_of_sealed_segments(self, place):
        manager = Recorder()
        log = place.open(manager)
        for _ in range(5):
            log.append([b"x"])
            log.checkpoint_active()
        log.shutdown()
        assert [last_id for last_id, _ in manager.checkpoints] == [1, 2, 3, 4, 5]
        assert place.recovered() == []

    def test_it_waits_for_an_open_entry(self, place):
        log = place.open()
        entry = log.begin_entry()
        entry.write_chunk(b"x")
        worker = Worker(log.shutdown)
        until(lambda: log._buffer.refusal is not None)
        assert Worker(log.append, [b"y"]) is not None
        entry.write_chunk(b"z")
        assert entry.commit() == 1
        worker.join()
        assert place.recovered() == [(1, [b"x", b"z"])]

    def test_what_waits_for_an_open_entry_is_refused_then(self, place):
        log = place.open()
        entry = log.begin_entry()
        closer = Worker(log.shutdown)
        until(lambda: log._buffer.refusal is not None)
        workers = [Worker(log.append, [b"y"]), Worker(log.begin_entry)]
        entry.commit()
        closer.join()
        for worker in workers:
            assert isinstance(worker.wait(), wal.LogClosedError)

    def test_with_a_timeout_it_can_be_called_again(self, place):
        log = place.open()
        held, proceed = threading.Event(), threading.Event()

        def hold():
            with log.begin_entry() as entry:
                held.set()
                assert proceed.wait(PATIENCE)
                entry.write_chunk(b"x")

        worker = Worker(hold)
        assert held.wait(PATIENCE)
        for timeout in (0, 0.001):
            with pytest.raises(TimeoutError):
                log.shutdown(timeout=timeout)
        proceed.set()
        worker.join()
        log.shutdown(timeout=PATIENCE)
        assert place.recovered() == [(1, [b"x"])]

    def test_a_timeout_covers_the_checkpoints(self, place):
        proceed = threading.Event()

        class Slow(Recorder):
            def checkpoint_to(self, last_id, entries, log):
                assert proceed.wait(PATIENCE)

        log = place.open(Slow())
        log.append([b"x"])
        log.checkpoint_active()
        with pytest.raises(TimeoutError):
            log.shutdown(timeout=0.001)
        proceed.set()
        log.shutdown(timeout=PATIENCE)
        assert threads() == []
        assert place.recovered() == []

    def test_from_two_threads_at_once(self, faulty_place, faulty):
        """The second one closed again what the first one had closed: ValueError, a closed file."""
        log = faulty_place.open()
        log.append([b"x"], durability=BUFFER)
        gate = Gate(faulty, "sync", "wal-")
        workers = [Worker(log.shutdown)]
        gate.arrival()
        workers += [Worker(log.shutdown) for _ in range(3)]
        gate.open()
        for worker in workers:
            worker.join()
        assert threads() == []
        assert faulty_place.recovered() == [(1, [b"x"])]

    def test_the_second_returns_when_the_log_is_released(self, faulty_place, faulty):
        log = faulty_place.open()
        log.append([b"x"])
        gate = Gate(faulty, "sync", "CHECKPOINT")
        first = Worker(log.shutdown)
        gate.arrival()
        second = Worker(log.shutdown)
        gate.open()
        second.join()
        assert faulty_place.recovered() == [(1, [b"x"])]
        first.join()

    def test_a_latch_is_raised_after_everything_is_released(self, faulty_place, faulty):
        log = faulty_place.open()
        log.append([b"x"])
        fault = faulty.fail(errno.EIO, kinds="sync", path="wal-*")
        with pytest.raises(wal.LogFailedError):
            log.append([b"y"])
        with pytest.raises(wal.LogFailedError) as caught:
            log.shutdown()
        assert caught.value.errno == errno.EIO
        assert fault.hits == 1
        assert threads() == []
        log.shutdown()
        recovered = faulty_place.recovered()
        assert recovered in ([(1, [b"x"])], [(1, [b"x"]), (2, [b"y"])])

    def test_leaving_the_block_shuts_down(self, place):
        with pytest.raises(ZeroDivisionError), place.open() as log:
            log.append([b"x"])
            raise ZeroDivisionError
        with pytest.raises(wal.LogClosedError):
            log.append([b"y"])
        assert place.recovered() == [(1, [b"x"])]

    def test_it_does_not_wait_for_readers(self, place):
        log = place.open()
        with log.begin_entry() as entry:
            record = entry.write_chunk(b"x" * 1000)
        chunk = log.read_at(record.position)
        entries = log.entries()
        first = next(entries)
        log.shutdown()
        assert chunk.read() == b"x" * 1000
        assert first.read_all() == [b"x" * 1000]
        chunk.close()
        entries.close()

    def test_readers_do_not_fail_a_reopened_log(self, place):
        log = place.open()
        with log.begin_entry() as entry:
            record = entry.write_chunk(b"x" * 1000)
        chunk = log.read_at(record.position)
        log.shutdown()
        with place.open() as log:
            assert chunk.read() == b"x" * 1000
            with log.read_at(record.position) as again:
                assert again.read() == b"x" * 1000


def dropped(files, directory, act):
    """Open a log, do something with it, and let go of it without a shutdown."""
    options = {"file_system": files, "flush_interval": 3600, "preallocate_bytes": 64 << 10,
               "lock_timeout": PATIENCE}  # fmt: skip
    log = wal.Configuration(directory, **options).open(Recorder())
    kept = act(log)
    reference = weakref.ref(log)
    del log
    gc.collect()
    return reference, kept


class TestDropping:
    def test_without_a_shutdown(self, place):
        """What is acknowledged is written, the threads end and the lock is free."""
        reference, _ = dropped(
            place.files, place.directory, lambda log: log.append([b"x"], durability=BUFFER)
        )
        assert reference() is None
        until(lambda: threads() == [])
        assert place.recovered() == [(1, [b"x"])]

    def test_an_open_entry_keeps_the_log(self, place):
        reference, entry = dropped(place.files, place.directory, lambda log: log.begin_entry())
        assert reference() is not None
        entry.write_chunk(b"x")
        assert entry.commit() == 1
        del entry
        gc.collect()
        until(lambda: threads() == [])
        assert place.recovered() == [(1, [b"x"])]

    @pytest.mark.filterwarnings("ignore::ResourceWarning")
    def test_together_with_an_open_entry(self, place):
        """The last reference goes on the flusher's thread, which kept it until its next task."""

        def act(log):
            log.append([b"x"])
            log.begin_entry().write_chunk(b"y")

        reference, _ = dropped(place.files, place.directory, act)
        until(lambda: reference() is None)
        until(lambda: threads() == [])
        assert place.recovered() == [(1, [b"x"])]

    def test_while_it_checkpoints(self, place):
        """The last reference goes on the checkpointer's thread."""
        entered, proceed = threading.Event(), threading.Event()

        class Slow(Recorder):
            def checkpoint_to(self, last_id, entries, log):
                entered.set()
                assert proceed.wait(PATIENCE)

        options = {"file_system": place.files, "preallocate_bytes": 64 << 10}
        log = wal.Configuration(place.directory, **options).open(Slow())
        log.append([b"x"])
        log.checkpoint_active()
        assert entered.wait(PATIENCE)
        del log
        proceed.set()
        until(lambda: threads() == [])
        assert place.recovered() == []

    def test_a_dropped_log_is_opened_again_at_once(self, place):
        ids = []
        for _ in range(3):
            _, entry_id = dropped(place.files, place.directory, lambda log: log.append([b"x"]))
            ids.append(entry_id)
        assert ids == sorted(set(ids))
        assert place.recovered(lock_timeout=PATIENCE)[-1] == (ids[-1], [b"x"])

    def test_a_ticket_outlives_it(self, place):
        _, ticket = dropped(place.files, place.directory, lambda log: log.submit([b"x"]))
        assert ticket.wait(PATIENCE) == 1


class TestLocking:
    def test_a_second_writer_in_the_process(self, place):
        log = place.open()
        log.append([b"x"])
        with pytest.raises(wal.LogLockedError, match=str(os.getpid())) as caught:
            place.open()
        assert caught.value.pid == os.getpid()
        assert caught.value.path == place.path("LOCK")
        assert log.append([b"y"]) == 2
        log.shutdown()
        assert place.recovered() == [(1, [b"x"]), (2, [b"y"])]

    def test_one_that_waits_for_it(self, place):
        log = place.open()
        log.append([b"x"])
        worker = Worker(lambda: place.open(lock_timeout=PATIENCE).append([b"y"]))
        log.shutdown()
        assert worker.join() == 2

    def test_a_writer_in_another_process(self, tmp_path):
        program = (
            "import sys, wal\n"
            "log = wal.recover(sys.argv[1], wal.LogVoid())\n"
            "print(log.append([b'x']), flush=True)\n"
            "sys.stdin.read()\n"
        )
        command = [sys.executable, "-c", program, str(tmp_path)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
        ) as process:
            assert process.stdout.readline().strip() == b"1"
            with pytest.raises(wal.LogLockedError, match=f"process {process.pid}") as caught:
                wal.recover(tmp_path, wal.LogVoid())
            assert caught.value.pid == process.pid
            process.kill()
            process.communicate(timeout=PATIENCE)
        manager = Recorder()
        wal.recover(tmp_path, manager).shutdown()
        assert manager.recovered == [(1, [b"x"])]

    def test_a_failed_opening_lets_go_of_it(self, place):
        with place.open() as log:
            log.append([b"x"])

        class Refuses(Recorder):
            def should_recover_segment(self, segment):
                return True

        with pytest.raises(TypeError, match="Recovery"):
            place.open(Refuses())
        assert place.recovered() == [(1, [b"x"])]


def in_a_fork(act):
    """Run something in the child of a fork; its exit code is whether it returned true."""
    with warnings.catch_warnings():
        # Only this thread goes on in the child, and it does next to nothing.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        code = 2
        try:
            signal.alarm(int(PATIENCE))
            code = 0 if act() else 1
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status)


def refused(*attempts):
    for attempt in attempts:
        try:
            attempt()
        except wal.WalError:
            continue
        return False
    return True


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
class TestForking:
    def test_the_child_is_refused_everything(self, place):
        log = place.open()
        with log.begin_entry() as entry:
            record = entry.write_chunk(b"x")

        def use():
            return refused(
                lambda: log.append([b"y"]),
                lambda: log.append([b"y"], durability=BUFFER),
                lambda: log.submit([b"y"]),
                log.begin_entry,
                log.sync,
                log.checkpoint_active,
                lambda: log.checkpoint_active(wait=True),
                lambda: log.read_at(record.position),
                lambda: list(log.entries()),
                lambda: log.pin(record.position.segment_id).__enter__(),
                log.stats,
                log.shutdown,
            )

        assert in_a_fork(use) == 0
        assert log.append([b"z"]) == 2
        log.shutdown()
        assert place.recovered() == [(1, [b"x"]), (2, [b"z"])]

    def test_the_child_does_not_wait_for_what_the_parent_held(self, place):
        """An entry was open in another thread: the child waited for its end."""
        log = place.open()
        opened, proceed = threading.Event(), threading.Event()

        def hold():
            with log.begin_entry() as entry:
                opened.set()
                assert proceed.wait(PATIENCE)
                entry.write_chunk(b"x")

        worker = Worker(hold)
        assert opened.wait(PATIENCE)

        def use():
            return refused(log.begin_entry, lambda: log.append([b"y"]), log.sync, log.shutdown)

        assert in_a_fork(use) == 0
        with log._buffer.lock, log._commits.leadership.lock:
            assert in_a_fork(use) == 0
        proceed.set()
        worker.join()
        assert written(log) == [(1, [b"x"])]

    def test_the_child_does_not_let_go_of_the_lock(self, tmp_path):
        log = wal.recover(tmp_path, wal.LogVoid())
        held = [log]

        def drop():
            held.clear()
            gc.collect()
            return True

        del log
        assert in_a_fork(drop) == 0
        with pytest.raises(wal.LogLockedError):
            wal.recover(tmp_path, wal.LogVoid())
        assert held[0].append([b"x"]) == 1
        held[0].shutdown()

    def test_the_child_may_open_a_log_of_its_own(self, place, tmp_path):
        place.open()
        other = os.fspath(tmp_path / "other")

        def use():
            with wal.recover(other, wal.LogVoid()) as log:
                return log.append([b"x"]) == 1

        assert in_a_fork(use) == 0
        manager = Recorder()
        wal.recover(other, manager).shutdown()
        assert manager.recovered == [(1, [b"x"])]


class TestConfiguration:
    @pytest.mark.parametrize(
        ("name", "value", "error"),
        [
            ("directory", b"log", TypeError),
            ("preallocate_bytes", 4095, ValueError),
            ("preallocate_bytes", 1.5, TypeError),
            ("preallocate_bytes", True, TypeError),
            ("checkpoint_after_bytes", 0, ValueError),
            ("checkpoint_after_bytes", "1", TypeError),
            ("buffer_bytes", 4095, ValueError),
            ("buffer_bytes", None, TypeError),
            ("version_info", "1", TypeError),
            ("version_info", bytes(256), ValueError),
            ("durability", "fsync", TypeError),
            ("flush_interval", 0, ValueError),
            ("flush_interval", -1, ValueError),
            ("flush_interval", float("nan"), ValueError),
            ("flush_interval", "1", TypeError),
            ("max_sealed_segments", 0, ValueError),
            ("keep_free_segments", -1, ValueError),
            ("lock_timeout", -1, ValueError),
            ("lock_timeout", float("inf"), ValueError),
            ("lock_timeout", None, TypeError),
        ],
    )
    def test_a_wrong_value_is_named(self, name, value, error):
        with pytest.raises(error, match=name):
            wal.Configuration(**{"directory": "log", name: value})

    def test_it_is_frozen(self):
        configuration = wal.Configuration("log")
        with pytest.raises(dataclasses.FrozenInstanceError):
            configuration.buffer_bytes = 1

    def test_the_log_tells_it(self, place):
        log = place.open(version_info=b"v1")
        assert log.configuration.version_info == b"v1"

    def test_another_version_info_begins_a_new_segment(self, place):
        class Versions(Recorder):
            def should_recover_segment(self, segment):
                self.offered.append((segment.segment_id, segment.version_info, segment.last_id))
                return wal.Recovery.RECOVER

        with place.open(version_info=b"one") as log:
            log.append([b"a"])
        with place.open(version_info=b"one") as log:
            log.append([b"b"])
        manager = Versions()
        log = place.open(manager, version_info=b"two" + bytes(252))
        assert [each[1:] for each in manager.offered] == [(b"one", 2)]
        segments = []
        log.append([b"c"], lambda _, segment_id: segments.append(segment_id))
        assert segments[0] > manager.offered[0][0]
        killed = place.killed()
        log.shutdown()
        manager = Versions()
        with killed.open(manager):
            assert manager.offered[-1][1:] == (b"two" + bytes(252), 3)

    @pytest.mark.parametrize("version_info", [b"", b"x", bytes(range(255))], ids=len)
    def test_version_info_is_kept_as_it_is(self, place, version_info):
        with place.open(version_info=version_info) as log:
            log.append([b"x"])
        with place.open(manager := Recorder()):
            assert [each.version_info for each in manager.offered] == [version_info]

    def test_a_segment_is_sealed_at_checkpoint_after_bytes(self, place):
        manager = Recorder()
        log = place.open(manager, checkpoint_after_bytes=1000)
        for _ in range(20):
            log.append([b"x" * 300])
        log.shutdown()
        assert len(manager.checkpoints) >= 4


class TestFailing:
    @pytest.mark.parametrize("kind", ["write_at", "sync"])
    @durabilities
    def test_the_first_failure_latches(self, faulty_place, faulty, kind, durability):
        """Every later commit is refused with the same cause; reads go on; reopening heals."""
        log = faulty_place.open()
        log.append([b"x"])
        fault = faulty.fail(errno.ENOSPC, kinds=kind, path="wal-*")
        with pytest.raises(wal.LogFailedError) as first:
            log.append([b"y"])
        faulty.heal()
        assert first.value.errno == errno.ENOSPC
        calls = len(faulty.calls)
        for attempt in (
            lambda: log.append([b"z"], durability=durability),
            lambda: log.append([b"z" * (300 << 10)], durability=durability),
            lambda: log.submit([b"z"], durability=durability),
            lambda: log.begin_entry(),
            log.sync,
            log.checkpoint_active,
        ):
            with pytest.raises(wal.LogFailedError) as caught:
                attempt()
            assert caught.value.__cause__ is first.value.__cause__
            assert caught.value.errno == errno.ENOSPC
        assert len(faulty.calls) == calls
        assert fault.hits == 1
        assert written(log) == [(1, [b"x"])]
        with pytest.raises(wal.LogFailedError):
            log.shutdown()
        recovered = faulty_place.recovered()
        assert recovered in ([(1, [b"x"])], [(1, [b"x"]), (2, [b"y"])])

    def test_it_reaches_an_open_entry(self, faulty_place, faulty):
        log = faulty_place.open(buffer_bytes=4096)
        faulty.fail(errno.EIO, kinds="write_at", path="wal-*")
        with pytest.raises(wal.LogFailedError), log.begin_entry() as entry:
            for _ in range(10):
                entry.write_chunk(b"x" * 1000)
        with pytest.raises(wal.LogFailedError):
            log.append([b"y"])

    def test_it_wakes_everybody(self, faulty_place, faulty):
        log = faulty_place.open()
        gate = Gate(faulty, "sync", "wal-")
        workers = [Worker(log.append, [b"x"])]
        gate.arrival()
        tickets = [log.submit([b"y"]) for _ in range(3)]
        workers += [Worker(log.append, [b"z"], None, each) for each in Durability]
        workers.append(Worker(log.sync))
        until(lambda: log.last_entry_id == 7)
        faulty.fail(errno.EIO, kinds=("sync", "write_at"), path="wal-*", forever=True)
        gate.open()
        errors = [worker.wait() for worker in workers]
        # the sync that stood at the gate was asked for before the fault was
        assert errors[0] is None or isinstance(errors[0], wal.LogFailedError)
        assert all(isinstance(error, wal.LogFailedError) for error in errors[1:])
        for ticket in tickets:
            with pytest.raises(wal.LogFailedError):
                ticket.wait(PATIENCE)

    @pytest.mark.parametrize("kind", ["create", "allocate", "sync"])
    def test_no_room_for_a_segment_fails_that_commit_alone(self, faulty_place, faulty, kind):
        log = faulty_place.open(Holding())
        log.append([b"x"])
        fault = faulty.fail(errno.ENOSPC, kinds=kind, path="free-*", forever=True)
        with pytest.raises(wal.SegmentAllocationError) as caught:
            for _ in range(20):
                log.append([b"y" * 7000])
        assert caught.value.errno == errno.ENOSPC
        assert isinstance(caught.value, OSError)
        assert fault.hits
        last = log.last_entry_id
        assert faulty_place.names("free-") == []
        faulty.heal()
        assert log.append([b"z" * 7000]) > last
        expected = written(log)
        assert len(expected) == last + 1
        assert faulty_place.killed().recovered() == expected

    def test_no_room_for_a_large_entry_fails_that_entry_alone(self, faulty_place, faulty):
        log = faulty_place.open(Holding())
        log.append([b"x"])
        faulty.fail(errno.ENOSPC, kinds="allocate", forever=True)
        with pytest.raises(wal.SegmentAllocationError):
            log.append([b"y" * (300 << 10)])
        with pytest.raises(wal.SegmentAllocationError):
            log.append([b"y" * (100 << 10)])
        assert log.append([b"z"]) > 1
        faulty.heal()
        log.append([b"y" * (300 << 10)])
        expected = written(log)
        assert [chunks[0][:1] for _, chunks in expected] == [b"x", b"z", b"y"]
        assert faulty_place.killed().recovered() == expected

    @pytest.mark.parametrize("kind", ["write_at", "sync", "rename", "sync_directory"])
    def test_a_rotation_that_fails_latches(self, faulty_place, faulty, kind):
        log = faulty_place.open(manager := Recorder())
        log.append([b"x"])
        before = len(faulty.calls)

        def of_the_rotation(path):
            return "CHECKPOINT" not in path and len(faulty.calls) > before

        faulty.fail(errno.EIO, kinds=kind, path=of_the_rotation)
        with pytest.raises((wal.LogFailedError, wal.SegmentAllocationError)):
            for _ in range(20):
                log.append([b"y" * 7000], durability=BUFFER)
            log.sync()
        faulty.heal()
        with contextlib.suppress(wal.LogFailedError):
            log.shutdown()
        assert threads() == []
        recovered = faulty_place.recovered()
        assert recovered == [] or recovered[0][0] == len(manager.checkpointed) + 1
        assert (manager.checkpointed + recovered)[0] == (1, [b"x"])
