"""Thirty faults that a write-ahead log has had elsewhere, each under what must not happen here."""

# ruff: noqa: PT012 - it is often the end of a block that raises

from __future__ import annotations

import contextlib
import errno
import itertools
import os

import pytest

import wal
from tests.wal.promises import end
from tests.wal.support import PATIENCE, Gate, Holding, Place, Recorder, Worker, until
from wal import Durability
from wal.files.faulty import PowerLoss

pytestmark = pytest.mark.usefixtures("no_power_no_noise")

BUFFER, WRITE, FSYNC = Durability.BUFFER, Durability.WRITE, Durability.FSYNC


def written(log):
    return [(entry.id, entry.read_all()) for entry in log.entries()]


def crash_recoveries(place, limit=40):
    """What is recovered in each state that a power loss at this moment may leave."""
    for state in place.files.crash_states(limit=limit):
        manager = Recorder()
        Place(state, place.directory).open(manager).shutdown()
        yield state.label, manager.recovered


def recycle(log):
    """Checkpoint what there is, and wait until the file may be used again."""
    before = log.stats().checkpoints
    log.checkpoint_active(wait=True)
    assert log.stats().checkpoints == before + 1
    until(lambda: log.stats().segments_spare >= 1)


class TestAcknowledgedCommitsAreNotLost:
    @pytest.mark.parametrize("size", [1000, 20_000])
    def test_1_a_rolled_back_entry_is_not_flushed_over_later_commits(self, place, size):
        log = place.open(buffer_bytes=4096)
        with log.begin_entry() as entry:
            for _ in range(size // 1000):
                entry.write_chunk(b"r" * 1000)
            entry.rollback()
        expected = [(log.append([b"%d" % number]), [b"%d" % number]) for number in range(5)]
        assert place.killed().recovered() == expected
        log.shutdown()
        assert place.recovered() == expected

    @pytest.mark.parametrize("wait", [False, True])
    def test_2_a_checkpoint_of_an_empty_log_loses_nothing(self, place, wait):
        manager = Recorder()
        log = place.open(manager)
        names = place.names("wal-")
        log.checkpoint_active(wait=wait)
        log.checkpoint_active(wait=wait)
        assert place.names("wal-") == names
        expected = [(log.append([b"%d" % number]), [b"%d" % number]) for number in range(5)]
        assert place.killed().recovered() == expected
        log.shutdown()
        assert manager.checkpoints == []
        assert place.recovered() == expected

    @pytest.mark.parametrize("read", [0, 1])
    def test_3_a_manager_that_skips_chunks_does_not_lose_the_rest(self, place, read):
        class Skips(Recorder):
            def recover(self, entry):
                self.recovered.append((entry.id, [c.read() for c in entry.chunks()[:read]]))

            def checkpoint_to(self, last_id, entries, log):
                found = [(e.id, [c.read() for c in e.chunks()[:read]]) for e in entries]
                self.checkpoints.append((last_id, found))

        chunks = [b"one" * 2000, b"two" * 2000]
        with place.open() as log:
            for _ in range(3):
                log.append(chunks)
            with log.begin_entry() as entry:
                for chunk in chunks:
                    entry.write_chunk(chunk)
        skipped = [(number, chunks[:read]) for number in range(1, 5)]
        with place.open(manager := Skips()) as log:
            assert manager.recovered == skipped
            log.append([b"next"])
        expected = [*((number, chunks) for number in range(1, 5)), (5, [b"next"])]
        assert place.killed().recovered() == expected
        with place.open(manager := Skips()) as log:
            log.checkpoint_active(wait=True)
        assert manager.checkpointed == [*skipped, (5, [b"next"][:read])]

    def test_4_a_recycled_name_is_not_acknowledged_before_it_is_durable(self, faulty_place):
        log = faulty_place.open()
        for number in range(3):
            log.append([b"%d" % number])
            recycle(log)
        log.append([b"kept"])
        for label, recovered in crash_recoveries(faulty_place):
            assert recovered == [(4, [b"kept"])], label

    def test_5_two_openers_do_not_both_write(self, place):
        log = place.open()
        log.append([b"first"])
        with pytest.raises(wal.LogLockedError):
            place.open()
        log.append([b"second"])
        log.shutdown()
        assert place.recovered() == [(1, [b"first"]), (2, [b"second"])]

    @pytest.mark.parametrize("streamed", [False, True], ids=["appended", "streamed"])
    def test_6_a_flipped_bit_of_structure_is_not_taken_for_the_end(self, place, streamed):
        """Every bit of a frame in the middle: damage that is named, or nothing missing."""
        log = place.open(preallocate_bytes=4096)
        starts = []
        for number in range(4):
            with log.begin_entry() as entry:
                record = entry.write_chunk(b"%d" % number) if streamed else None
                if not streamed:
                    entry.rollback()
                    log.append([b"%d" % number])
            segment = list(log._registry)[-1]
            starts.append(segment.committed_end)
            assert record is None or record.position.segment_id == segment.id
        expected = written(log)
        killed = place.killed()
        (name,) = killed.names("wal-")
        whole = killed.read(name)
        for offset, bit in itertools.product(range(starts[0], starts[1]), (0, 7)):
            killed.write(name, offset, bytes([whole[offset] ^ 1 << bit]))
            with pytest.raises(wal.CorruptLogError) as caught:
                killed.open()
            assert caught.value.path == killed.path(name)
            assert caught.value.offset == starts[0]
            killed.write(name, offset, whole[offset : offset + 1])
        assert killed.recovered() == expected


class TestWrongDataIsNotPresentedAsValid:
    def test_7_an_aborted_entry_is_not_completed_by_older_bytes(self, place):
        """The second chunk and the end mark of an earlier life lie just where they would fit."""
        log = place.open(buffer_bytes=4096)

        def write(letter, chunks):
            entry = log.begin_entry()
            for _ in range(chunks):
                entry.write_chunk(letter * 5000)
            return entry

        write(b"o", 3).commit()
        recycle(log)
        write(b"p", 3).commit()
        recycle(log)
        entry = write(b"n", 2)  # the first of the two is in the file by now
        killed = place.killed()
        (name,) = killed.names("wal-")
        assert b"n" * 5000 in killed.read(name)
        entry.rollback()
        rolled_back = place.killed()
        with killed.open(manager := Recorder()) as after:
            assert manager.recovered == []
            assert after.append([b"x"]) > entry.id
        with rolled_back.open(manager := Recorder()) as after:
            assert manager.recovered == []
            assert written(after) == []

    def test_8_payload_of_an_earlier_life_is_not_parsed_as_entries(self, place):
        """The payload is a copy of the segment's own frames, again and again."""
        log = place.open(manager := Recorder())
        for number in range(5):
            log.append([b"%d" % number])
        frames = place.read(place.names("wal-")[0])[:4096]
        for _ in range(3):
            log.append([frames * 3])
            recycle(log)
            log.append([b"short"])
            killed = place.killed()
            recovered = killed.recovered()
            assert [chunks for _, chunks in recovered] == [[b"short"]]
            recycle(log)
        assert len(manager.checkpointed) == 11

    def test_9_abandoned_entries_do_not_come_back(self, place):
        class Abandons(Recorder):
            def should_recover_segment(self, segment):
                return wal.Recovery.ABANDON

        with place.open() as log:
            log.append([b"a"])
        with place.open(manager := Abandons()) as log:
            assert log.append([b"b"]) > 1
            assert [chunks for _, chunks in written(log)] == [[b"b"]]
        assert manager.recovered == []
        for _ in range(3):
            with place.open(manager := Recorder()) as log:
                assert [chunks for _, chunks in manager.recovered] == [[b"b"]]
        with place.open(manager := Recorder()) as log:
            log.checkpoint_active(wait=True)
        assert [chunks for _, chunks in manager.checkpointed] == [[b"b"]]

    def test_10_a_checkpoint_during_read_at_does_not_change_what_is_read(
        self, faulty_place, faulty
    ):
        log = faulty_place.open()
        with log.begin_entry() as entry:
            record = entry.write_chunk(b"a" * 3000)
        gate = Gate(faulty, "read_at", "wal-")
        reader = Worker(log.read_at, record.position)
        gate.arrival()
        faulty.on_call = None
        for letter in (b"b", b"c", b"d"):
            with log.begin_entry() as entry:
                entry.write_chunk(letter * 3000)
            log.checkpoint_active(wait=True)
        gate.open()
        with reader.join() as chunk:
            assert chunk.crc_is_valid()
            assert chunk.read() == b"a" * 3000
        until(lambda: log.stats().segments_pinned == 0)
        with pytest.raises(wal.PositionNotFoundError):
            log.read_at(record.position)

    @pytest.mark.parametrize("size", [100, 10_000])
    def test_11_a_chunk_of_an_open_entry_is_not_read_as_nothing(self, place, size):
        log = place.open(buffer_bytes=4096)
        with log.begin_entry() as entry:
            records = [entry.write_chunk(letter * size) for letter in (b"a", b"b", b"c")]
            for record, letter in zip(records, (b"a", b"b", b"c"), strict=True):
                with log.read_at(record.position) as chunk:
                    assert chunk.length == size
                    assert chunk.read() == letter * size

    def test_12_read_at_does_not_accept_any_offset(self, place):
        log = place.open()
        position = wal.LogPosition(1, 0)
        with log.begin_entry() as entry:
            # what looks like a chunk, in the data of one
            records = [entry.write_chunk(b"\2\3\0\0\0abc\2\0\0\0\0" * 9) for _ in range(2)]
        good = {record.position.offset for record in records}
        end = list(log._registry)[-1].end
        for offset in range(end + 20):
            position = wal.LogPosition(records[0].position.segment_id, offset)
            if offset in good:
                continue
            with pytest.raises(wal.WalError), log.read_at(position) as chunk:
                assert not chunk.crc_is_valid()
                chunk.read()

    def test_13_new_entries_do_not_go_under_an_old_version_info(self, place):
        place.open(version_info=b"1").shutdown()
        with place.open(version_info=b"2") as log:
            last = log.append([b"x"])
        place.open(manager := Recorder()).shutdown()
        assert [(each.version_info, each.last_id) for each in manager.offered] == [(b"2", last)]


def first_steps(place):
    """Opening, commits, rotations, a checkpoint: what a crash may cut short."""
    log = place.open(preallocate_bytes=4096)
    for number in range(8):
        log.append([b"%d" % number * 1000])
        if number == 1:
            log.checkpoint_active(wait=True)
    log.shutdown()


class TestItOpensAfterAnOrdinaryCrash:
    def test_14_and_16_a_segment_cut_short_by_a_crash_is_no_damage(self, faulty_place, faulty):
        """Neither an empty file, nor a short one, nor one without a header is ever found."""
        first_steps(faulty_place)
        calls = len(faulty.calls)
        opened = 0
        for number in range(1, calls):
            system = type(faulty)()
            place = Place(system, "log")
            system.stop_at(number)
            with contextlib.suppress(PowerLoss, wal.WalError):
                first_steps(place)
            for log, _ in place._logs:
                end(log)
            for state in system.crash_states(seed=number, limit=12):
                manager = Recorder()
                after = Place(state, "log")
                log = after.open(manager)
                assert log.append([b"x"]) > len(manager.recovered), state.label
                log.shutdown()
                opened += 1
        assert opened > 2 * calls

    def test_15_a_kill_inside_an_entry_is_no_damage(self, place):
        log = place.open(buffer_bytes=4096)
        log.append([b"before"])
        entry = log.begin_entry()
        entry.write_chunk(b"x" * (40 << 10))
        chunk = entry.begin_chunk(10_000)
        for _ in range(4):
            chunk.write(b"y" * 2000)
        killed = place.killed()
        with killed.open(manager := Recorder()) as after:
            assert manager.recovered == [(1, [b"before"])]
            assert after.append([b"after"]) > entry.id
        entry.rollback()

    def test_16_a_file_shorter_than_it_was_is_damage(self, place):
        with place.open() as log:
            log.append([b"x"])
        (name,) = place.names("wal-")
        file = place.files.open(place.path(name))
        file.truncate(file.size() - 1)
        file.close()
        with pytest.raises(wal.CorruptLogError, match="bytes"):
            place.open()

    @pytest.mark.parametrize("length", [128 << 20, 0xFFFFFFFF, 0x7FFFFFFF])
    @pytest.mark.parametrize("streamed", [False, True], ids=["appended", "streamed"])
    def test_17_a_corrupt_length_does_not_make_a_file_grow(self, place, length, streamed):
        log = place.open()
        log.append([b"before"])
        start = list(log._registry)[-1].committed_end
        if streamed:
            with log.begin_entry() as entry:
                entry.write_chunk(b"after")
        else:
            log.append([b"after"])
        killed = place.killed()
        (name,) = killed.names("wal-")
        size = len(killed.read(name))
        at = start + (25 + 1 if streamed else 29)
        assert killed.read(name)[at : at + 4] == (b"\x05\0\0\0" if streamed else b"\x08\0\0\0")
        killed.write(name, at, length.to_bytes(4, "little"))
        with contextlib.suppress(wal.CorruptLogError):
            killed.open(manager := Recorder()).shutdown()
            assert manager.recovered == [(1, [b"before"])]
        assert max(len(killed.read(each)) for each in killed.names()) == size


class TestNothingHangs:
    @pytest.mark.parametrize(
        ("kind", "path", "code"),
        [
            ("sync", "wal-*", errno.EIO),
            ("write_at", "wal-*", errno.ENOSPC),
            ("allocate", "free-*", errno.ENOSPC),
            ("create", "free-*", errno.ENOSPC),
            ("sync_directory", None, errno.EIO),
            ("rename", "free-*", errno.EIO),
            ("sync", "free-*", errno.EIO),
            ("write_at", "free-*", errno.ENOSPC),
        ],
    )
    def test_18_and_19_one_failure_does_not_hang_later_commits(
        self, faulty_place, faulty, kind, path, code
    ):
        log = faulty_place.open()
        faulty.fail(code, kinds=kind, path=path)

        def write(letter):
            for _ in range(20):
                with contextlib.suppress(wal.LogFailedError, wal.SegmentAllocationError):
                    log.append([letter * 5000])

        for worker in [Worker(write, b"%d" % number) for number in range(4)]:
            worker.join()
        with contextlib.suppress(wal.WalError):
            log.shutdown(timeout=PATIENCE)
        assert faulty_place.open().append([b"x"]) > 0

    def test_20_an_error_of_checkpoint_to_does_not_end_the_checkpointer(self, place):
        class Fails(Recorder):
            failures = 3

            def checkpoint_to(self, last_id, entries, log):
                if self.failures:
                    self.failures -= 1
                    raise ZeroDivisionError
                super().checkpoint_to(last_id, entries, log)

        log = place.open(manager := Fails())
        for number in range(40):
            log.append([b"%d" % number * 2000])
        while manager.failures:
            with contextlib.suppress(wal.CheckpointError):
                log.checkpoint_active(wait=True)
        log.shutdown()
        recovered = place.recovered()
        found = manager.checkpointed + recovered
        assert found == [(number + 1, [b"%d" % number * 2000]) for number in range(40)]
        assert manager.checkpoints

    def test_21_log_void_over_leftover_segments(self, place):
        class Fails(Holding):
            def should_recover_segment(self, segment):
                return wal.Recovery.RECOVER

        log = place.open(Fails())
        for _ in range(30):
            log.append([b"x" * 5000])
        killed = place.killed()
        assert len(killed.names("wal-")) > 2
        log = killed.open(wal.LogVoid())
        assert written(log) == []
        first = log.append([b"y"])
        log.checkpoint_active(wait=True)
        second = log.append([b"z"])
        assert second > first > 30
        until(lambda: len(killed.names("wal-")) == 1 and not killed.names("abandoned-"))
        log.shutdown()
        assert killed.recovered() == [(second, [b"z"])]

    def test_22_a_reader_held_open_does_not_block_checkpoints(self, place):
        log = place.open(manager := Recorder(), max_sealed_segments=1)
        with log.begin_entry() as entry:
            record = entry.write_chunk(b"held")
        chunk = log.read_at(record.position)
        for _ in range(10):
            log.append([b"x"])
            log.checkpoint_active(wait=True)
        assert len(manager.checkpoints) == 10
        assert chunk.read() == b"held"
        chunk.close()


class TestSmallerFaults:
    def test_23_a_rolled_back_id_is_not_used_again(self, place):
        for clean in (True, False):
            log = place.open()
            log.append([b"x"])
            entry = log.begin_entry()
            entry.write_chunk(b"y")
            entry.rollback()
            here = place if clean else place.killed()
            log.shutdown()
            with here.open() as log:
                assert log.append([b"z"]) > entry.id

    def test_24_dropping_a_short_chunk_does_not_panic(self, place):
        log = place.open()
        with log.begin_entry() as entry:
            chunk = entry.begin_chunk(100)
            chunk.write(b"x")
            del chunk
            with pytest.raises(wal.WalError):
                entry.write_chunk(b"y")
            with pytest.raises(wal.ChunkLengthError):
                entry.commit()
        log.append([b"z"])
        assert [chunks for _, chunks in written(log)] == [[b"z"]]

    def test_25_an_aborted_entry_does_not_resurface(self, place):
        log = place.open(buffer_bytes=4096)
        with log.begin_entry() as entry:
            for _ in range(3):
                entry.write_chunk(b"r" * 3000)
            entry.rollback()
        log.append([b"valid"])
        expected = written(log)
        here = place
        for _ in range(4):
            here = here.killed()
            manager = Holding()
            here.open(manager)
            assert manager.recovered == expected

    def test_26_ids_do_not_restart_where_only_checkpointed_segments_are_left(self, place):
        log = place.open()
        last = [log.append([b"x"]) for _ in range(7)][-1]
        log.checkpoint_active(wait=True)
        killed = place.killed()
        log.shutdown()
        for here in (killed, place):
            with here.open(manager := Recorder()) as log:
                assert manager.recovered == []
                assert log.append([b"y"]) > last

    def test_27_entries_never_synced_are_not_handed_over_before_they_are(
        self, faulty_place, faulty
    ):
        log = faulty_place.open()
        log.append([b"x"], durability=WRITE)
        log.append([b"y"], durability=WRITE)
        killed = faulty.killed()
        seen = []

        class Looks(Recorder):
            def recover(self, entry):
                super().recover(entry)
                for state in killed.crash_states(limit=10):
                    manager = Recorder()
                    Place(state, faulty_place.directory).open(manager).shutdown()
                    seen.append(len(manager.recovered))

        Place(killed, faulty_place.directory).open(manager := Looks()).shutdown()
        assert [chunks for _, chunks in manager.recovered] == [[b"x"], [b"y"]]
        assert set(seen) == {2}

    def test_28_the_parent_of_a_new_directory_is_not_left_unsynced(self, faulty, tmp_path):
        place = Place(faulty, os.path.join(tmp_path, "a", "b", "log"))
        log = place.open()
        log.append([b"x"])
        for label, recovered in crash_recoveries(place, limit=20):
            assert recovered == [(1, [b"x"])], label
        log.shutdown()

    @pytest.mark.parametrize("written_bytes", [0, 1, 40, 100])
    def test_29_a_partial_write_does_not_shift_what_follows(
        self, faulty_place, faulty, written_bytes
    ):
        log = faulty_place.open()
        log.append([b"before"])
        faulty.fail(errno.ENOSPC, kinds="write_at", path="wal-*", written=written_bytes)
        with pytest.raises(wal.LogFailedError):
            log.append([b"torn" * 100])
        faulty.heal()
        with pytest.raises(wal.LogFailedError):
            log.append([b"after"])
        with pytest.raises(wal.LogFailedError):
            log.shutdown()
        with faulty_place.open(manager := Recorder()) as log:
            assert manager.recovered == [(1, [b"before"])]
            last = log.append([b"again"])
        (*_, found) = manager.checkpointed + faulty_place.recovered()
        assert found == (last, [b"again"])

    def test_30_large_entries_do_not_rotate_in_every_commit(self, faulty_place, faulty):
        log = faulty_place.open(preallocate_bytes=8 << 20, buffer_bytes=1 << 20)
        data = bytes(1 << 20)
        log.append([data])
        before = len(faulty.calls)
        for _ in range(5):
            log.append([data])
        kinds = [call.kind for call in faulty.calls[before:] if "free-" not in call.path]
        assert log.stats().rotations == 0
        assert kinds.count("sync") == 5
        assert set(kinds) == {"write_at", "sync"}
        assert sum(kind == "write_at" for kind in kinds) <= 10
