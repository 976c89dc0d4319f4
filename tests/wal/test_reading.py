"""Reading a log while it is written: single chunks, entries in order, and read-only."""

# ruff: noqa: PT012 - it is often the end of a block that raises

from __future__ import annotations

import contextlib
import itertools
import threading

import pytest

import wal
from tests.wal.support import Gate, Holding, Recorder, Worker, until
from wal import Durability
from wal.files.faulty import FaultyFileSystem

BUFFER, WRITE, FSYNC = Durability.BUFFER, Durability.WRITE, Durability.FSYNC


def written(log, after=None):
    return [(entry.id, entry.read_all()) for entry in log.entries(after)]


def stream(log, *chunks, durability=None):
    """Commit a streamed entry; the records of its chunks."""
    with log.begin_entry() as entry:
        records = [entry.write_chunk(chunk) for chunk in chunks]
        entry.commit(durability)
    return records


def read(log, position):
    with log.read_at(position) as chunk:
        assert chunk.crc_is_valid()
        data = chunk.read()
        assert chunk.length == len(data)
        assert chunk.position == position
        return data


class TestReadAt:
    @pytest.mark.parametrize("durability", Durability, ids=lambda each: each.value)
    @pytest.mark.parametrize("size", [0, 1, 100, 5000, 300_000])
    def test_at_every_stage_of_a_chunks_life(self, place, durability, size):
        log = place.open(buffer_bytes=4096)
        data = b"ab" * (size // 2) + b"c" * (size % 2)
        with log.begin_entry() as entry:
            records = [entry.write_chunk(data)]
            assert read(log, records[0].position) == data  # in the buffer, or just written
            with entry.begin_chunk(size) as chunk:
                chunk.write(data)
            records.append(chunk.record)
            entry.commit(durability)
        positions = [record.position for record in records]
        assert [read(log, position) for position in positions] == [data] * 2
        log.sync()
        assert [read(log, position) for position in positions] == [data] * 2
        log.shutdown()
        log = place.open()
        assert [read(log, position) for position in positions] == [data] * 2
        with log.pin(positions[0].segment_id):
            log.checkpoint_active(wait=True)
            assert [read(log, position) for position in positions] == [data] * 2
        until(lambda: log.stats().segments_pinned == 0)
        for position in positions:
            with pytest.raises(wal.PositionNotFoundError):
                log.read_at(position)

    def test_while_a_leader_writes_it(self, faulty_place, faulty):
        log = faulty_place.open()
        with log.begin_entry() as entry:
            record = entry.write_chunk(b"x" * 1000)
            gate = Gate(faulty, "write_at", "wal-")
            worker = Worker(entry.commit)
            gate.arrival()
            assert read(log, record.position) == b"x" * 1000
            gate.open()
            worker.join()
        assert read(log, record.position) == b"x" * 1000

    def test_it_needs_nobody_elses_lock(self, place):
        log = place.open()
        (record,) = stream(log, b"x")
        with log._buffer.lock, log._commits.leadership.lock:
            assert Worker(read, log, record.position).join() == b"x"

    def test_in_pieces(self, place):
        log = place.open()
        data = bytes(range(256)) * 2000
        (record,) = stream(log, data)
        with log.read_at(record.position) as chunk:
            pieces = [chunk.read(0), chunk.read(1), chunk.read(99_999)]
            assert chunk.crc_is_valid()
            pieces += [chunk.read(), chunk.read(), chunk.read(5)]
            assert b"".join(pieces) == data
            assert pieces[-2:] == [b"", b""]
            assert bytes(chunk) == data
            assert chunk == data
            assert chunk != data[:-1]

    def test_two_readers_do_not_share_their_place(self, place):
        log = place.open()
        (record,) = stream(log, b"abcdef")
        with log.read_at(record.position) as one, log.read_at(record.position) as two:
            assert (one.read(2), two.read(3), one.read(), two.read()) == (
                b"ab",
                b"abc",
                b"cdef",
                b"def",
            )
            assert one == two

    @pytest.mark.parametrize(
        "chunks", [[b"x"], [b""], [b"a", b"", b"c"], [b"%d" % n for n in range(50)]], ids=len
    )
    def test_chunks_of_groups_by_the_positions_that_entries_tell(self, place, chunks):
        log = place.open()
        log.append([b"before"], durability=BUFFER)
        log.append(chunks, durability=BUFFER)
        log.append([], durability=BUFFER)
        log.append([b"after", b"wards"])
        positions = [chunk.position for entry in log.entries() for chunk in entry.chunks()]
        expected = [b"before", *chunks, b"after", b"wards"]
        assert len(set(positions)) == len(expected)
        assert [read(log, position) for position in positions] == expected
        packed = [position.to_bytes() for position in positions]
        log.shutdown()

        class Positions(Recorder):
            def recover(self, entry):
                self.recovered += [(chunk.position, chunk.read()) for chunk in entry.chunks()]

        with place.open(manager := Positions()) as log:
            assert manager.recovered == list(zip(positions, expected, strict=True))
            again = [wal.LogPosition.from_bytes(each) for each in packed]
            assert [read(log, position) for position in again] == expected
            log.checkpoint_active(wait=True)
            until(lambda: log.stats().segments_spare)
            for position in positions:
                with pytest.raises(wal.PositionNotFoundError):
                    log.read_at(position)

    def test_positions_that_nobody_was_told(self, place):
        log = place.open()
        log.append([b"a", b"b"])
        (record,) = stream(log, b"c")
        (group,) = {chunk.position[:2] for entry in log.entries(0) for chunk in entry.chunks()} - {
            record.position[:2]
        }
        segment, offset = group
        end = list(log._registry)[-1].end
        for position in (
            wal.LogPosition(segment, offset, 2),
            wal.LogPosition(segment, offset, 0xFFFFFE),
            wal.LogPosition(segment, offset),
            wal.LogPosition(segment, record.position.offset, 0),
            wal.LogPosition(segment, 0, 0),
            wal.LogPosition(segment, 0),
            wal.LogPosition(segment, end),
            wal.LogPosition(segment, end, 0),
            wal.LogPosition(segment, (64 << 10) - 1),
            wal.LogPosition(segment, (1 << 40) - 1),
            wal.LogPosition(segment + 1, offset, 0),
            wal.LogPosition(0, offset, 0),
            wal.LogPosition((1 << 64) - 1, 0),
        ):
            with pytest.raises(wal.PositionNotFoundError):
                log.read_at(position)

    @pytest.mark.parametrize("grouped", [False, True])
    def test_every_offset_but_the_right_ones(self, place, grouped):
        log = place.open()
        for number in range(4):
            stream(log, b"%d" % number, b"\2\1\0\0\0x" * 3)
            log.append([b"%d" % number, b"y"])
        right = {chunk.position[:2] for entry in log.entries() for chunk in entry.chunks()}
        segment = list(log._registry)[-1]
        for offset in range(segment.end + 10):
            if (segment.id, offset) in right:
                continue
            position = wal.LogPosition(segment.id, offset, 0 if grouped else 0xFFFFFF)
            with pytest.raises(wal.WalError), log.read_at(position) as chunk:
                assert not chunk.crc_is_valid()
                chunk.read()

    @pytest.mark.parametrize("wrong", [None, 5, (1, 2, 3), b"x" * 16], ids=repr)
    def test_what_is_not_a_position(self, place, wrong):
        log = place.open()
        with pytest.raises(TypeError, match="position"):
            log.read_at(wrong)

    @pytest.mark.parametrize("size", [100, 20_000])
    def test_of_a_rolled_back_entry(self, place, size):
        """Void: never the data of what was written there afterwards."""
        log = place.open(buffer_bytes=4096)
        entry = log.begin_entry()
        records = [entry.write_chunk(b"r" * size) for _ in range(2)]
        entry.rollback()
        for record in records:
            with pytest.raises(wal.PositionNotFoundError):
                log.read_at(record.position)
        stream(log, b"s" * (size - 1))
        for record in records[1:]:
            with pytest.raises(wal.WalError), log.read_at(record.position) as chunk:
                chunk.read()

    @pytest.mark.parametrize("size", [100, 300_000])
    def test_of_damaged_data(self, place, size):
        log = place.open()
        (record,) = stream(log, b"x" * size)
        (name,) = place.names("wal-")
        place.flip(name, record.position.offset + 5 + size // 2)
        with log.read_at(record.position) as chunk:
            assert not chunk.crc_is_valid()
            with pytest.raises(wal.CorruptLogError) as caught:
                chunk.read()
        assert caught.value.path == place.path(name)
        assert caught.value.offset == record.position.offset

    def test_of_a_damaged_group(self, place):
        log = place.open()
        log.append([b"needle", b"x"])
        log.append([b"more"])
        positions = [chunk.position for entry in log.entries() for chunk in entry.chunks()]
        (name,) = place.names("wal-")
        place.flip(name, place.read(name).index(b"needle"))
        for position in positions[:2]:
            with pytest.raises(wal.CorruptLogError) as caught:
                log.read_at(position)
            assert caught.value.path == place.path(name)
            assert caught.value.offset == position.offset
        assert read(log, positions[2]) == b"more"

    def test_readers_while_files_are_recycled(self, place):
        """Whatever is read is right, or not there any more."""
        log = place.open()
        known, done = [], threading.Event()

        def look():
            count = 0
            while not done.is_set():
                for record, letter in known[-5:]:
                    try:
                        assert read(log, record.position) == letter * 500
                        count += 1
                    except wal.PositionNotFoundError:
                        pass
            return count

        workers = [Worker(look) for _ in range(2)]
        for number in range(60):
            letter = b"%c" % (65 + number % 26)
            known.append((stream(log, letter * 500)[0], letter))
            log.checkpoint_active(wait=number % 3 == 0)
        done.set()
        assert sum(worker.join() for worker in workers) > 0


class TestEntries:
    def test_after(self, place):
        log = place.open(Holding())
        for number in range(1, 11):
            log.append([b"%d" % number])
            if number % 3 == 0:
                log.checkpoint_active()
        everything = [(number, [b"%d" % number]) for number in range(1, 11)]
        assert written(log) == everything
        for after in range(12):
            assert written(log, after) == everything[after:]
        assert written(log, 1 << 64) == []

    @pytest.mark.parametrize("wrong", [-1, "1", 1.5, b""], ids=repr)
    def test_after_must_be_an_id(self, place, wrong):
        log = place.open()
        with pytest.raises((TypeError, ValueError), match="after"):
            log.entries(wrong)

    def test_of_an_empty_log(self, place):
        log = place.open()
        for after in (None, 0, 5):
            assert written(log, after) == []

    def test_only_what_is_durable_as_of_each_step(self, place):
        log = place.open()
        log.append([b"a"])
        entries = log.entries()
        assert next(entries).id == 1
        log.append([b"b"], durability=BUFFER)
        log.append([b"c"], durability=WRITE)
        assert written(log) == [(1, [b"a"])]
        log.sync()
        assert [entry.id for entry in entries] == [2, 3]
        log.append([b"d"])
        assert list(entries) == []
        assert written(log, 3) == [(4, [b"d"])]

    def test_it_follows_into_the_next_segment(self, place):
        log = place.open(Holding())
        log.append([b"a"])
        entries = log.entries()
        assert next(entries).id == 1
        log.checkpoint_active()
        log.append([b"b"])
        log.checkpoint_active()
        log.append([b"c"])
        assert [entry.id for entry in entries] == [2, 3]

    def test_gone_at_the_start(self, place):
        log = place.open()
        for _ in range(3):
            log.append([b"x"])
        log.checkpoint_active(wait=True)
        until(lambda: len(place.names("wal-")) == 1)
        for after in (0, 1, 2):
            with pytest.raises(wal.PositionNotFoundError):
                written(log, after)
        assert written(log, 3) == []
        assert written(log) == []
        log.append([b"y"])
        with pytest.raises(wal.PositionNotFoundError):
            next(log.entries(2))
        assert written(log) == written(log, 3) == [(4, [b"y"])]

    def test_gone_midway(self, place):
        log = place.open()
        log.append([b"a"])
        log.append([b"b"])
        entries = log.entries()
        assert next(entries).id == 1
        log.checkpoint_active(wait=True)
        log.append([b"c"])
        log.checkpoint_active(wait=True)
        until(lambda: len(place.names("wal-")) == 2)
        log.append([b"d"])
        assert next(entries).id == 2
        with pytest.raises(wal.PositionNotFoundError):
            next(entries)

    def test_one_segment_is_held_at_a_time(self, place):
        log = place.open(manager := Holding())
        for _ in range(3):
            log.append([b"x"])
            log.checkpoint_active()
        log.append([b"x"])
        entries = log.entries()
        next(entries)
        next(entries)
        manager.proceed.set()
        log.checkpoint_active(wait=True)
        until(lambda: log.stats().segments_pinned == 1 and len(place.names("wal-")) == 2)
        entries.close()
        until(lambda: len(place.names("wal-")) == 1)

    def test_rolled_back_entries_do_not_show(self, place):
        log = place.open(Holding(), buffer_bytes=4096)
        expected = []
        for number in range(10):
            with log.begin_entry() as entry:
                entry.write_chunk(b"%d" % number * 3000)
                if number % 2:
                    entry.rollback()
                else:
                    expected.append((entry.commit(), [b"%d" % number * 3000]))
        assert written(log) == expected
        assert written(log, expected[1][0]) == expected[2:]
        assert written(log, expected[1][0] + 1) == expected[2:]

    def test_beside_a_writer(self, place):
        """Always a prefix without gaps, each time as long as before or longer."""
        log = place.open(Holding(), max_sealed_segments=100)
        done = threading.Event()

        def write():
            for number in range(60):
                durability = list(Durability)[number % 3]
                if number % 4:
                    log.append([b"x" * 300] * (number % 3), durability=durability)
                else:
                    stream(log, b"y" * 3000, durability=durability)
                if number % 20 == 0:
                    log.checkpoint_active()

        def look():
            longest, follower, followed = 0, None, []
            while not done.is_set():
                durable = log.durable_entry_id
                ids = [entry.id for entry in log.entries()]
                assert ids == list(range(1, len(ids) + 1))
                assert max(longest, durable) <= len(ids)
                longest = len(ids)
                follower = log.entries(followed[-1] if followed else 0)
                followed += [entry.id for entry in follower]
            assert followed == list(range(1, len(followed) + 1))

        readers = [Worker(look) for _ in range(2)]
        writers = [Worker(write) for _ in range(3)]
        for worker in writers:
            worker.join()
        log.sync()
        done.set()
        for worker in readers:
            worker.join()
        assert len(written(log)) == 180

    def test_a_failed_log_can_be_read(self, faulty_place, faulty):
        log = faulty_place.open()
        (record,) = stream(log, b"a")
        log.append([b"b"])
        faulty.fail(kinds="sync", path="wal-*")
        with pytest.raises(wal.LogFailedError):
            log.append([b"c"])
        assert written(log) == [(1, [b"a"]), (2, [b"b"])]
        assert read(log, record.position) == b"a"


class TestReadOnly:
    def test_what_a_clean_shutdown_left(self, place):
        with place.open(version_info=b"v") as log:
            (record,) = stream(log, b"a")
            log.append([b"b", b"c"], durability=BUFFER)
        log = place.open(manager := Recorder(), read_only=True)
        assert manager.recovered == [(1, [b"a"]), (2, [b"b", b"c"])]
        assert [segment.version_info for segment in manager.offered] == [b"v"]
        assert written(log) == manager.recovered
        assert written(log, 1) == manager.recovered[1:]
        assert read(log, record.position) == b"a"
        assert (log.last_entry_id, log.durable_entry_id) == (2, 2)
        with log.pin(record.position.segment_id):
            pass
        log.sync()
        assert log.stats().last_entry_id == 2
        log.shutdown()
        log.shutdown()
        for attempt in (
            lambda: log.read_at(record.position),
            lambda: list(log.entries()),
            lambda: log.pin(record.position.segment_id).__enter__(),
            log.sync,
        ):
            with pytest.raises(wal.LogClosedError):
                attempt()

    def test_it_writes_nothing(self, place):
        with place.open() as log:
            log.append([b"x"])
        before = {name: place.read(name) for name in place.names()}
        system = FaultyFileSystem(place.files)
        manager = Recorder()
        with place.open(manager, read_only=True, file_system=system) as log:
            assert manager.recovered == written(log) == [(1, [b"x"])]
            for attempt in (
                lambda: log.append([b"y"]),
                lambda: log.submit([b"y"]),
                log.begin_entry,
                log.checkpoint_active,
            ):
                with pytest.raises(wal.ReadOnlyLogError):
                    attempt()
        assert system.calls == []
        assert {name: place.read(name) for name in place.names()} == before
        assert manager.checkpoints == []

    def test_of_what_is_not_there(self, place):
        with pytest.raises(FileNotFoundError):
            place.open(read_only=True)
        assert not place.files.exists(place.directory)
        place.files.make_directory(place.directory)
        with place.open(manager := Recorder(), read_only=True) as log:
            assert manager.recovered == written(log) == []
        assert place.names() == []

    def test_it_takes_no_lock(self, place):
        writer = place.open()
        writer.append([b"a"])
        writer.append([b"b"])
        readers = [place.open(read_only=True) for _ in range(3)]
        writer.append([b"c"])
        writer.shutdown()
        writer = place.open()
        assert writer.append([b"d"]) == 4
        assert [written(reader) for reader in readers] == [[(1, [b"a"])]] * 3

    def test_it_never_shows_what_is_not_durable(self, faulty_place, faulty):
        """Whatever it shows is there after any power loss."""
        log = faulty_place.open()
        for number in range(1, 13):
            log.append([b"%d" % number], durability=list(Durability)[number % 3])
            manager = Recorder()
            faulty_place.open(manager, read_only=True).shutdown()
            shown = manager.recovered
            assert len(shown) <= log.durable_entry_id
            for state in faulty.crash_states(limit=12):
                manager = Recorder()
                options = {"file_system": state, "preallocate_bytes": 64 << 10}
                wal.Configuration(faulty_place.directory, **options).open(manager).shutdown()
                assert manager.recovered[: len(shown)] == shown, state.label
        assert len(shown) >= 9

    def test_nor_what_was_written_but_not_synced(self, faulty_place, faulty):
        log = faulty_place.open()
        log.append([b"a"])
        log.append([b"b"])
        gate = Gate(faulty, "sync", "wal-")
        worker = Worker(log.append, [b"c"])
        gate.arrival()
        on_call, faulty.on_call = faulty.on_call, None
        manager = Recorder()
        faulty_place.open(manager, read_only=True).shutdown()
        assert manager.recovered in ([(1, [b"a"])], [(1, [b"a"]), (2, [b"b"])])
        assert b"c" in faulty_place.read(faulty_place.names("wal-")[0])
        faulty.on_call = on_call
        gate.open()
        worker.join()

    def test_an_idle_writer_bears_witness_of_everything(self, place):
        log = place.open(flush_interval=0.005)
        log.append([b"a"], durability=BUFFER)
        log.append([b"b"])

        def shown():
            manager = Recorder()
            place.open(manager, read_only=True).shutdown()
            return manager.recovered

        until(lambda: shown() == [(1, [b"a"]), (2, [b"b"])])

    def test_beside_a_writer_that_rotates_and_recycles(self, place):
        """Every opening succeeds, and shows a run without gaps of what was written."""
        log = place.open()
        done = threading.Event()

        def write():
            number = 0
            while not done.is_set():
                number += 1
                assert log.append([b"%d" % number, b"x" * 2000]) == number
                if number % 5 == 0:
                    log.checkpoint_active(wait=number % 2 == 0)
            return number

        def look():
            newest, shown = 0, 0
            for _ in range(40):
                manager = Recorder()
                with place.open(manager, read_only=True) as reader:
                    ids = [entry_id for entry_id, _ in manager.recovered]
                    assert not ids or ids == list(range(ids[0], ids[0] + len(ids)))
                    for entry_id, chunks in manager.recovered:
                        assert chunks == [b"%d" % entry_id, b"x" * 2000]
                    assert reader.last_entry_id >= newest
                    newest = reader.last_entry_id
                    shown += len(ids)
            return shown

        writer = Worker(write)
        readers = [Worker(look) for _ in range(2)]
        errors = [reader.wait() for reader in readers]
        done.set()
        writer.join()
        assert errors == [None, None]

    def test_what_it_reads_later_is_right_or_gone(self, place):
        """The writer had recycled the file since: that was called damage."""
        log = place.open()
        for number in range(4):
            stream(log, b"%d" % number * 100)
        log.append([b"group", b"ed"])
        log.append([b"witness"])
        with place.open(Recorder(), read_only=True) as reader:
            positions = [c.position for e in reader.entries() for c in e.chunks()]
            before = written(reader)
            for _ in range(6):
                log.checkpoint_active(wait=True)
                until(lambda: len(place.names("wal-")) == 1)
                log.append([b"other" * 200])
                log.append([b"witness"])
                with contextlib.suppress(wal.PositionNotFoundError):
                    assert written(reader) == before
                for position, number in zip(positions, itertools.count()):
                    try:
                        found = read(reader, position)
                    except wal.PositionNotFoundError:
                        continue
                    assert found == [*(b"%d" % n * 100 for n in range(4)), b"group", b"ed"][number]

    def test_abandoning_in_passing(self, place):
        with place.open() as log:
            log.append([b"x"])
        before = place.names()
        with place.open(wal.LogVoid(), read_only=True) as log:
            assert written(log) == []
        assert place.names() == before
        assert place.recovered() == [(1, [b"x"])]

    def test_damage_is_told(self, place):
        log = place.open(Holding())
        for _ in range(3):
            log.append([b"needle"])
        killed = place.killed()
        (name,) = killed.names("wal-")
        killed.flip(name, killed.read(name).index(b"needle"))
        with pytest.raises(wal.CorruptLogError) as caught:
            killed.open(read_only=True)
        assert caught.value.path == killed.path(name)
