"""Sealed segments go to ``checkpoint_to`` whole and in order, and their files come back."""

# ruff: noqa: PT012 - it is often the end of a block that raises

from __future__ import annotations

import contextlib
import errno
import os
import random
import threading

import pytest

import wal
from tests.wal.support import PATIENCE, Gate, Holding, Recorder, Worker, threads, until
from wal import Durability


class Failing(Recorder):
    """``failing`` names the callbacks that raise; it counts how often they did."""

    def __init__(self, *failing, error=ZeroDivisionError):
        super().__init__()
        self.failing = set(failing)
        self.error = error
        self.failures = 0

    def _fail(self, name):
        if name in self.failing:
            self.failures += 1
            raise self.error(name)

    def checkpoint_to(self, last_id, entries, log):
        self._fail("checkpoint_to")
        super().checkpoint_to(last_id, entries, log)

    def archive(self, segment):
        self._fail("archive")
        super().archive(segment)


class Abandons(Recorder):
    def should_recover_segment(self, segment):
        super().should_recover_segment(segment)
        return wal.Recovery.ABANDON


def written(log):
    return [(entry.id, entry.read_all()) for entry in log.entries()]


class TestOrder:
    def test_after_nearly_every_entry_and_a_hundred_openings(self, place):
        """Every entry reaches ``checkpoint_to`` exactly as written, and no id repeats."""
        rng = random.Random(1)
        expected, given, store = {}, [], {}

        class Stores(Recorder):
            def checkpoint_to(self, last_id, entries, log):
                found = {entry.id: entry.read_all() for entry in entries}
                assert max(found) == last_id
                # again only what was checkpointed after the files were copied
                assert all(store.get(entry_id, data) == data for entry_id, data in found.items())
                store.update(found)

        here = place
        for life in range(100):
            log = here.open(Stores())
            for _ in range(rng.randrange(4)):
                count = rng.choice((0, 1, 1, 3))
                chunks = [rng.randbytes(rng.choice((0, 1, 50, 3000))) for _ in range(count)]
                if rng.random() < 0.4:
                    entry = log.begin_entry()
                    given.append(entry.id)
                    for chunk in chunks:
                        entry.write_chunk(chunk)
                    if rng.random() < 0.3:
                        entry.rollback()
                    else:
                        expected[entry.commit()] = chunks
                else:
                    durability = rng.choice(list(Durability))
                    given.append(log.append(chunks, durability=durability))
                    expected[given[-1]] = chunks
                if rng.random() < 0.8:
                    log.checkpoint_active(wait=rng.random() < 0.5)
            if life % 10 == 9:
                log.sync()
                killed = here.killed()
                log.shutdown()
                here = killed
            else:
                log.shutdown()
        log = here.open(Stores())
        log.checkpoint_active(wait=True)
        log.shutdown()
        assert store == expected
        assert given == sorted(set(given))

    def test_each_segment_by_itself_and_in_order(self, place):
        log = place.open(manager := Recorder())
        where = {}
        for number in range(30):
            log.append([b"%d" % number * 2000], where.__setitem__)
        log.shutdown()
        assert [call[0] for call in manager.calls] == ["checkpoint_to", "archive"] * len(
            manager.checkpoints
        )
        for last_id, entries in manager.checkpoints:
            assert entries[-1][0] == last_id
            assert len({where[entry_id] for entry_id, _ in entries}) == 1
        ids = [entry_id for entry_id, _ in manager.checkpointed]
        assert ids == list(range(1, len(ids) + 1))

    def test_not_before_every_callback_has_returned(self, place):
        entered, proceed = threading.Event(), threading.Event()
        log = place.open(manager := Recorder())

        def on_commit(*_):
            entered.set()
            assert proceed.wait(PATIENCE)
            assert manager.checkpoints == []

        ticket = log.submit([b"x"], on_commit)
        assert entered.wait(PATIENCE)
        worker = Worker(log.checkpoint_active, True)
        assert manager.checkpoints == []
        proceed.set()
        assert ticket.wait(PATIENCE) == 1
        worker.join()
        assert manager.checkpoints == [(1, [(1, [b"x"])])]

    def test_entries_may_be_read_twice_or_not_at_all(self, place):
        class Reads(Recorder):
            def checkpoint_to(self, last_id, entries, log):
                if last_id % 2:
                    first, second = ([(e.id, e.read_all()) for e in entries] for _ in range(2))
                    assert first == second
                    assert entries.last_id == last_id
                    assert os.path.basename(entries.path).endswith(str(entries.segment_id))
                    next(iter(entries))
                self.checkpoints.append((last_id, []))

        log = place.open(manager := Reads())
        for _ in range(4):
            log.append([b"x"])
            log.checkpoint_active(wait=True)
        assert [last_id for last_id, _ in manager.checkpoints] == [1, 2, 3, 4]

    def test_a_marker_is_durable_before_the_file_is_given_up(self, faulty_place, faulty):
        log = faulty_place.open()
        log.append([b"x"])
        before = len(faulty.calls)
        log.checkpoint_active(wait=True)
        until(lambda: log.stats().segments_spare >= 1)
        calls = [(c.kind, os.path.basename(c.path)[:5]) for c in faulty.calls[before:]]
        marker = calls.index(("sync", "CHECK"))
        given_up = calls.index(("rename", "wal-0"))
        assert calls.index(("write_at", "CHECK")) < marker < given_up
        assert ("sync_directory", "log") in calls[given_up:]
        assert calls.index(("rename", "free-")) < marker  # the next one was activated before

    def test_an_empty_segment_is_stepped_over(self, place):
        """Another version_info seals what there is, also where that is nothing."""
        manager = Recorder()
        for number in range(6):
            place.open(manager, version_info=b"%d" % number).shutdown()
        assert manager.calls == []
        assert len(place.names("wal-")) == 1
        log = place.open(manager, buffer_bytes=4096)
        for _ in range(5):
            with log.begin_entry() as entry:
                for _ in range(4):
                    entry.write_chunk(b"r" * 3000)
                entry.rollback()
        last = log.append([b"x"])
        log.checkpoint_active(wait=True)
        assert [entries for _, entries in manager.checkpoints] == [[(last, [b"x"])]]

    def test_a_log_without_an_entry_has_nothing_to_checkpoint(self, faulty_place, faulty):
        log = faulty_place.open(manager := Recorder())
        before = len(faulty.calls)
        log.checkpoint_active(wait=True)
        log.checkpoint_active()
        assert len(faulty.calls) == before
        assert manager.calls == []

    def test_the_checkpoint_may_write_to_the_log(self, place):
        """One entry of each kind for each segment, also while other writers have to wait."""

        class Writes(Recorder):
            def checkpoint_to(self, last_id, entries, log):
                super().checkpoint_to(last_id, entries, log)
                if len(self.checkpoints) < 8:
                    log.append([b"about %d" % last_id])
                    log.append([b"large" * (60 << 10)])
                    with log.begin_entry() as entry:
                        entry.write_chunk(b"streamed")

        log = place.open(manager := Writes(), max_sealed_segments=1)

        def write():
            for _ in range(10):
                with log.begin_entry() as entry:
                    entry.write_chunk(b"x" * 20_000)
                log.append([b"y" * 20_000])

        for worker in [Worker(write) for _ in range(3)]:
            worker.join()
        log.shutdown()
        found = manager.checkpointed + place.recovered()
        ids = [entry_id for entry_id, _ in found]
        assert ids == sorted(set(ids))
        assert sum(chunks == [b"streamed"] for _, chunks in found) == 7
        assert sum(chunks[0][:1] in b"xy" for _, chunks in found) == 60

    def test_begin_entry_in_a_checkpoint_while_another_waits_for_room(self, place):
        """The waiting writer kept its turn, which the checkpoint needed to go on."""

        class Writes(Holding):
            def checkpoint_to(self, last_id, entries, log):
                super().checkpoint_to(last_id, entries, log)
                if len(self.checkpoints) == 1:
                    with log.begin_entry() as entry:
                        entry.write_chunk(b"from the checkpoint")

        log = place.open(manager := Writes(), max_sealed_segments=1)
        for _ in range(2):
            log.append([b"x"])
            log.checkpoint_active()
        log.append([b"y" * 60_000])
        assert manager.entered.wait(PATIENCE)
        waiting = threading.Event()
        log._checkpointer._wait_for_room, wait = (
            lambda: (waiting.set(), wait()),
            log._checkpointer._wait_for_room,
        )

        def write():
            for _ in range(2):
                with log.begin_entry() as entry:
                    entry.write_chunk(b"z" * 60_000)

        worker = Worker(write)
        assert waiting.wait(PATIENCE)
        manager.proceed.set()
        worker.join()
        log.shutdown()
        found = manager.checkpointed + place.recovered()
        assert [b"from the checkpoint"] in [chunks for _, chunks in found]

    def test_the_checkpoint_cannot_wait_for_itself(self, place):
        class Waits(Recorder):
            def checkpoint_to(self, last_id, entries, log):
                for attempt in (
                    lambda: log.checkpoint_active(wait=True),
                    log.shutdown,
                    lambda: log.shutdown(timeout=0),
                ):
                    with pytest.raises(wal.WalError):
                        attempt()
                log.checkpoint_active()
                super().checkpoint_to(last_id, entries, log)

        log = place.open(manager := Waits())
        log.append([b"x"])
        log.checkpoint_active(wait=True)
        log.append([b"y"])
        log.shutdown()
        assert manager.checkpointed == [(1, [b"x"])]


class TestErrors:
    @pytest.mark.parametrize("where", ["checkpoint_to", "archive"])
    @pytest.mark.parametrize("error", [ZeroDivisionError, SystemExit, KeyboardInterrupt])
    def test_one_is_kept_retried_and_surfaced(self, place, where, error):
        log = place.open(manager := Failing(where, error=error))
        log.append([b"x"])
        log.checkpoint_active()
        until(lambda: manager.failures >= 3)
        with pytest.raises(wal.CheckpointError) as caught:
            log.checkpoint_active(wait=True)
        assert isinstance(caught.value.__cause__, error)
        assert log.append([b"y"]) == 2
        manager.failing.clear()
        log.checkpoint_active(wait=True)
        assert manager.checkpointed == [(1, [b"x"]), (2, [b"y"])]
        assert len(manager.archived) >= 1
        log.shutdown()

    def test_the_archive_is_not_skipped_after_an_error(self, place):
        log = place.open(manager := Failing("archive"))
        log.append([b"x"])
        log.checkpoint_active()
        until(lambda: manager.failures >= 2)
        assert manager.checkpointed == [(1, [b"x"])]
        manager.failing.clear()
        log.append([b"y"])
        log.checkpoint_active(wait=True)
        log.shutdown()
        assert manager.checkpointed == [(1, [b"x"]), (2, [b"y"])]
        assert [segment.last_id for segment in manager.archived] == [1, 2]

    @pytest.mark.parametrize("where", ["checkpoint_to", "archive"])
    def test_shutdown_raises_it_after_everything_is_released(self, place, where):
        log = place.open(manager := Failing(where))
        log.append([b"x"])
        log.checkpoint_active()
        with pytest.raises(wal.CheckpointError) as caught:
            log.shutdown()
        assert isinstance(caught.value.__cause__, ZeroDivisionError)
        assert threads() == []
        log.shutdown()
        with place.open(manager := Recorder()) as log:
            assert manager.recovered == ([(1, [b"x"])] if where == "checkpoint_to" else [])
            until(lambda: len(manager.archived) == 1)

    @pytest.mark.parametrize(
        ("kind", "path"),
        [
            ("write_at", "CHECKPOINT"),
            ("sync", "CHECKPOINT"),
            ("rename", "wal-*"),
            ("truncate", None),
        ],
    )
    def test_one_of_the_file_system_is_retried_too(self, faulty_place, faulty, kind, path):
        log = faulty_place.open(manager := Recorder())
        log.append([b"x" * 100_000])  # the segment grew, and is cut when it is recycled
        fault = faulty.fail(errno.EIO, kinds=kind, path=path)
        with contextlib.suppress(wal.CheckpointError):
            log.checkpoint_active(wait=True)
        until(lambda: fault.hits or log.stats().segments_spare)
        log.append([b"y"])
        until(lambda: not faulty_place.names("wal-")[1:])
        log.checkpoint_active(wait=True)
        log.shutdown()
        found = dict(manager.checkpointed)  # again where the marker failed
        assert [chunks[0][:1] for chunks in found.values()] == [b"x", b"y"]
        assert [segment.last_id for segment in manager.archived] == [1, 2]
        assert faulty_place.recovered() == []

    def test_a_damaged_segment_is_not_checkpointed(self, place):
        with place.open() as log:
            log.append([b"x" * 100])
            log.append([b"y" * 100])
        log = place.open(manager := Recorder())
        (name,) = place.names("wal-")
        place.flip(name, place.read(name).index(b"y" * 100) + 50)
        with pytest.raises(wal.CheckpointError) as caught:
            log.checkpoint_active(wait=True)
        assert isinstance(caught.value.__cause__, wal.CorruptLogError)
        assert place.path(name) in str(caught.value)
        assert manager.checkpoints == []
        with contextlib.suppress(wal.WalError):
            log.shutdown()


class TestArchive:
    def test_it_gets_the_whole_file_before_it_changes(self, place):
        class Copies(Recorder):
            def archive(self, segment):
                super().archive(segment)
                self.copy = place.read(os.path.basename(segment.path))[: segment.length]
                assert self.calls[-2] == ("checkpoint_to", segment.last_id)

        log = place.open(manager := Copies(), version_info=b"v")
        log.append([b"needle"])
        log.checkpoint_active(wait=True)
        log.shutdown()
        (segment,) = manager.archived
        assert (segment.last_id, segment.version_info) == (1, b"v")
        assert manager.copy.startswith(b"WALS")
        assert b"needle" in manager.copy

    def test_it_is_called_again_after_a_crash(self, faulty_place, faulty):
        """The marker has passed the segment, and its file is still there."""
        log = faulty_place.open(manager := Recorder())
        log.append([b"x"])
        gate = Gate(faulty, "rename", "wal-")
        log.checkpoint_active()
        gate.arrival()
        killed = faulty_place.killed()
        gate.open()
        assert len(manager.archived) == 1
        with killed.open(again := Recorder()) as log:
            assert log.append([b"y"]) > 1
        assert again.recovered == []
        (first,), (second,) = manager.archived, again.archived
        assert (second.segment_id, second.last_id) == (first.segment_id, first.last_id)
        assert (second.length, second.version_info) == (first.length, first.version_info)
        with killed.open(third := Recorder()):
            assert [chunks for _, chunks in third.recovered] == [[b"y"]]


class TestBackPressure:
    def test_writers_wait_while_there_is_progress(self, place, caplog):
        log = place.open(manager := Holding(), max_sealed_segments=2)

        def write():
            for _ in range(20):
                log.append([b"x" * 20_000])

        worker = Worker(write)
        until(lambda: "writers wait" in caplog.text)
        assert log.stats().segments_sealed <= 3
        assert worker.running()
        manager.proceed.set()
        worker.join()
        stats = log.stats()
        assert stats.waits >= 1
        assert stats.wait_seconds > 0
        log.shutdown()
        assert len(manager.checkpointed + place.recovered()) == 20

    def test_they_get_the_error_of_a_failed_attempt(self, place):
        log = place.open(manager := Failing("checkpoint_to"), max_sealed_segments=1)
        with pytest.raises(wal.CheckpointError) as caught:
            for _ in range(20):
                log.append([b"x" * 20_000])
        assert isinstance(caught.value.__cause__, ZeroDivisionError)
        last = log.last_entry_id
        for attempt in (
            lambda: log.append([b"x" * 60_000]),
            lambda: log.submit([b"x" * 60_000]),
        ):
            with pytest.raises(wal.CheckpointError):
                attempt()
        assert log.last_entry_id == last
        manager.failing.clear()
        until(lambda: log.stats().segments_sealed == 0)
        log.append([b"y" * 60_000])
        log.shutdown()
        found = manager.checkpointed + place.recovered()
        assert len(found) == last + 1
        assert [entry_id for entry_id, _ in found[:-1]] == list(range(1, last + 1))

    def test_waiting_writers_get_it_too(self, place, caplog):
        class FailsLater(Holding):
            def checkpoint_to(self, last_id, entries, log):
                super().checkpoint_to(last_id, entries, log)
                raise ZeroDivisionError

        log = place.open(manager := FailsLater(), max_sealed_segments=1)

        def write():
            for _ in range(20):
                log.append([b"x" * 20_000])

        workers = [Worker(write) for _ in range(3)]
        until(lambda: "writers wait" in caplog.text)
        manager.proceed.set()
        for worker in workers:
            assert isinstance(worker.wait(), wal.CheckpointError)

    def test_a_shutdown_ends_the_wait(self, place, caplog):
        log = place.open(manager := Holding(), max_sealed_segments=1)

        def write():
            for _ in range(20):
                log.append([b"x" * 20_000])

        worker = Worker(write)
        until(lambda: "writers wait" in caplog.text)
        closer = Worker(log.shutdown)
        until(lambda: log._buffer.refusal is not None)
        manager.proceed.set()
        assert isinstance(worker.wait(), wal.LogClosedError)
        closer.join()


class TestFullDisk:
    def test_spare_segments_go_first(self, place, caplog):
        """A checkpoint is what lets segments go: what lies ready for later must not stop it."""

        class NoRoom(Recorder):
            def checkpoint_to(self, last_id, entries, log):
                if place.names("free-"):
                    raise OSError(errno.ENOSPC, "no room")
                super().checkpoint_to(last_id, entries, log)

        manager = NoRoom()
        with place.open(manager, keep_free_segments=2) as log:
            for _ in range(3):
                log.append([b"x"])
                log.checkpoint_active(wait=True)
            assert [last for last, _ in manager.checkpoints] == [1, 2, 3]
        assert not caplog.records

    def test_whatever_happens_while_room_is_made_is_no_end(self, faulty_place, faulty):
        """The checkpointer ended there, and whoever waited for it waited for ever."""
        failing = Failing("checkpoint_to", error=lambda name: OSError(errno.ENOSPC, "no room"))
        with faulty_place.open(failing, keep_free_segments=2) as log:
            log.append([b"x"])
            with pytest.raises(wal.CheckpointError):
                log.checkpoint_active(wait=True)
            failing.failing.clear()
            log.checkpoint_active(wait=True)  # a spare is there now
            failing.failing.add("checkpoint_to")

            def strike(kind, path, number):
                if kind == "remove":
                    raise MemoryError

            faulty.on_call = strike
            log.append([b"y"])
            with pytest.raises(wal.CheckpointError, match="no room"):
                log.checkpoint_active(wait=True)
            faulty.on_call = None
            failing.failing.clear()
            log.checkpoint_active(wait=True)
        assert [last for last, _ in failing.checkpoints] == [1, 2]

    def test_it_is_told_in_a_line(self, place, caplog):
        failing = Failing("checkpoint_to", error=lambda name: OSError(errno.ENOSPC, "no room"))
        with place.open(failing) as log:
            log.append([b"x"])
            with pytest.raises(wal.CheckpointError):
                log.checkpoint_active(wait=True)
            failing.failing.clear()
            log.checkpoint_active(wait=True)
        assert all("no room" in record.message for record in caplog.records)
        assert not any(record.exc_info for record in caplog.records)

    def test_a_checkpoint_that_is_asked_for_is_tried_at_once(self, place):
        """It met the error of the last attempt in the seconds until the next, room or not.

        So many segments waited that sealing one more was refused, for a reason that was gone.
        """
        failing = Failing("checkpoint_to", error=lambda name: OSError(errno.ENOSPC, "no room"))
        with place.open(failing, max_sealed_segments=1) as log:
            log.append([b"x"])
            with pytest.raises(wal.CheckpointError):
                while True:
                    log.append([bytes(40 << 10)])
            for _ in range(8):  # by now the pauses are long
                with pytest.raises(wal.CheckpointError):
                    log.checkpoint_active(wait=True)
            failing.failing.clear()
            log.checkpoint_active(wait=True)
            until(lambda: log.stats().segments_sealed == 0)


class TestPins:
    def test_they_delay_recycling_and_nothing_else(self, place):
        log = place.open(manager := Recorder(), max_sealed_segments=1)
        where = {}
        log.append([b"held"], where.__setitem__)
        with log.pin(where[1]):
            (name,) = place.names("wal-")
            for _ in range(10):
                log.append([b"x" * 5000])
                log.checkpoint_active(wait=True)
            assert name in place.names("wal-")
            assert log.stats().segments_pinned == 1
            assert log.stats().checkpoint_lag == 0
            assert next(log.entries()).read_all() == [b"held"]
        until(lambda: name not in place.names("wal-"))
        assert len(manager.checkpointed) == 11
        with pytest.raises(wal.PositionNotFoundError):
            log.pin(where[1]).__enter__()

    def test_each_of_several_counts(self, place):
        log = place.open()
        where = {}
        log.append([b"held"], where.__setitem__)
        (name,) = place.names("wal-")
        with log.pin(where[1]):
            with log.pin(where[1]):
                log.checkpoint_active(wait=True)
            log.append([b"x"])
            log.checkpoint_active(wait=True)
            assert name in place.names("wal-")
        until(lambda: name not in place.names("wal-"))

    @pytest.mark.parametrize("by", ["read_at", "entries", "pin"])
    def test_every_kind_of_reader_holds_its_segment(self, place, by):
        log = place.open()
        with log.begin_entry() as entry:
            record = entry.write_chunk(b"held" * 100)
        (name,) = place.names("wal-")
        with contextlib.ExitStack() as stack:
            if by == "read_at":
                stack.enter_context(log.read_at(record.position))
            elif by == "entries":
                entries = log.entries()
                next(entries)
                stack.callback(entries.close)
            else:
                stack.enter_context(log.pin(record.position.segment_id))
            for _ in range(3):
                log.append([b"x"])
                log.checkpoint_active(wait=True)
            assert name in place.names("wal-")
        until(lambda: name not in place.names("wal-"))

    def test_a_dropped_reader_lets_go(self, place):
        log = place.open()
        with log.begin_entry() as entry:
            record = entry.write_chunk(b"held")
        chunk = log.read_at(record.position)
        (name,) = place.names("wal-")
        log.append([b"x"])
        log.checkpoint_active(wait=True)
        assert chunk.read() == b"held"
        del chunk
        until(lambda: name not in place.names("wal-"))

    def test_a_pinned_segment_is_passed_by_at_the_next_opening(self, place):
        log = place.open()
        with log.begin_entry() as entry:
            record = entry.write_chunk(b"held")
        log.append([b"x"])
        chunk = log.read_at(record.position)
        log.checkpoint_active(wait=True)
        log.shutdown()
        chunk.close()
        with place.open(manager := Recorder()) as log:
            assert manager.recovered == []
            until(lambda: len(place.names("wal-")) == 1)


class TestFiles:
    @pytest.mark.parametrize("keep", [0, 1, 2, 4])
    def test_they_are_bounded(self, place, keep):
        log = place.open(keep_free_segments=keep)
        most = 0
        for _ in range(20):
            log.append([b"x" * 1000])
            log.checkpoint_active(wait=True)
            until(lambda: len(place.names("wal-")) == 1)
            most = max(most, len(place.names()))
        assert most <= 2 + 1 + max(keep, 1) + 1
        log.shutdown()
        assert len(place.names("free-")) <= max(keep, 1) + 1
        place.open(keep_free_segments=keep).shutdown()
        assert len(place.names()) <= 2 + 1 + max(keep, 1)

    def test_they_are_used_again(self, faulty_place, faulty):
        log = faulty_place.open()
        for _ in range(4):
            log.append([b"x"])
            log.checkpoint_active(wait=True)
            until(lambda: log.stats().segments_spare >= 1)
        before = len(faulty.calls)
        for _ in range(5):
            log.append([b"x"])
            log.checkpoint_active(wait=True)
            until(lambda: log.stats().segments_spare >= 1)
        assert not [call for call in faulty.calls[before:] if call.kind in ("create", "allocate")]

    def test_one_that_grew_is_cut_to_its_length(self, place):
        log = place.open()
        log.append([b"x" * 500_000])
        log.checkpoint_active(wait=True)
        until(lambda: len(place.names("wal-")) == 1)
        log.shutdown()
        assert {len(place.read(name)) for name in place.names("free-")} <= {64 << 10}

    def test_another_size_is_taken_at_the_next_opening(self, place):
        with place.open() as log:
            log.append([b"x"])
            log.checkpoint_active(wait=True)
        with place.open(preallocate_bytes=128 << 10) as log:
            log.append([b"y"])
            log.checkpoint_active(wait=True)
            log.append([b"z"])
        assert {len(place.read(name)) for name in place.names("free-")} <= {128 << 10}


class TestAbandoning:
    def test_abandoned_entries_go_to_nobody(self, place):
        with place.open() as log:
            log.append([b"a"])
        with place.open(manager := Abandons()) as log:
            assert manager.recovered == []
            last = log.append([b"b"])
            assert written(log) == [(last, [b"b"])]
            log.checkpoint_active(wait=True)
            until(lambda: place.names("abandoned-") == [])
        assert manager.checkpointed == [(last, [b"b"])]
        assert [segment.last_id for segment in manager.archived] == [last]
        assert place.recovered() == []

    def test_one_of_several(self, place):
        log = place.open(Holding())
        where = {}
        for number in range(6):
            log.append([b"%d" % number], where.__setitem__)
            log.checkpoint_active()
        killed = place.killed()

        class Middle(Recorder):
            def should_recover_segment(self, segment):
                super().should_recover_segment(segment)
                middle = segment.segment_id in (where[3], where[4])
                return wal.Recovery.ABANDON if middle else wal.Recovery.RECOVER

        with killed.open(manager := Middle()) as log:
            assert [entry_id for entry_id, _ in manager.recovered] == [1, 2, 5, 6]
            log.append([b"next"])
            log.checkpoint_active(wait=True)
        assert [chunks[0] for _, chunks in manager.checkpointed] == [
            b"0",
            b"1",
            b"4",
            b"5",
            b"next",
        ]
        assert [segment.first_after for segment in manager.offered] == [0, 1, 2, 3, 4, 5]

    def test_it_is_durable_before_anything_is_shown(self, faulty_place, faulty):
        log = faulty_place.open(Holding())
        log.append([b"a"])
        log.checkpoint_active()
        log.append([b"b"])
        killed = faulty.killed()
        shown = []

        class First(Recorder):
            def should_recover_segment(self, segment):
                first = segment.last_id == 1
                return wal.Recovery.ABANDON if first else wal.Recovery.RECOVER

            def recover(self, entry):
                shown.append(entry.id)
                for state in killed.crash_states(limit=10):
                    manager = Recorder()
                    options = {"file_system": state, "preallocate_bytes": 64 << 10}
                    wal.Configuration(faulty_place.directory, **options).open(manager).shutdown()
                    assert manager.recovered == [(2, [b"b"])], state.label

        options = {"file_system": killed, "preallocate_bytes": 64 << 10}
        wal.Configuration(faulty_place.directory, **options).open(First()).shutdown()
        assert shown == [2]

    @pytest.mark.parametrize("which", [0, 1, 2])
    @pytest.mark.parametrize("what", ["header", "entry"])
    def test_a_damaged_segment_may_be_abandoned(self, place, which, what):
        log = place.open(Holding())
        for number in range(3):
            log.append([b"needle %d" % number])
            log.append([b"more"])
            if number < 2:
                log.checkpoint_active()
        killed = place.killed()
        name = killed.names("wal-")[which]
        data = killed.read(name)
        killed.flip(name, 20 if what == "header" else data.index(b"needle") + 1)
        with pytest.raises(wal.CorruptLogError) as caught:
            killed.open()
        assert caught.value.path == killed.path(name)

        class Damaged(Holding):
            def should_recover_segment(self, segment):
                super().should_recover_segment(segment)
                return wal.Recovery.ABANDON if segment.damage else wal.Recovery.RECOVER

        with killed.open(manager := Damaged()) as log:
            assert [s.damage is not None for s in manager.offered] == [n == which for n in range(3)]
            whole = [number for number in range(3) if number != which]
            expected = [each for n in whole for each in ([b"needle %d" % n], [b"more"])]
            assert [chunks for _, chunks in manager.recovered] == expected
            assert log.append([b"next"]) > 6
            assert [chunks for _, chunks in written(log)] == [*expected, [b"next"]]
            manager.proceed.set()
            log.checkpoint_active(wait=True)
            until(lambda: killed.names("abandoned-") == [])
        assert [chunks for _, chunks in manager.checkpointed] == [*expected, [b"next"]]
        assert killed.recovered() == []

    def test_log_void_recovers_and_keeps_nothing(self, place):
        log = place.open(Holding())
        for number in range(4):
            log.append([b"%d" % number])
            log.checkpoint_active()
        killed = place.killed()
        for _ in range(3):
            with killed.open(wal.LogVoid()) as log:
                assert written(log) == []
                log.append([b"y"])
                assert len(written(log)) == 1
        with killed.open(manager := Recorder()):
            assert len(manager.recovered) == 1
