"""A sealed segment becomes a run of tables: exactly, idempotently, whatever fails on the way."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import threading
from dataclasses import replace

import pytest

import wal
from kvstore.background.building import MergeJob, Shape, StoppedError, values_of
from kvstore.errors import CorruptStoreError, FormatVersionError
from kvstore.mutations import encode
from kvstore.tables.cache import Cache
from kvstore.tables.runs import SortedRun
from kvstore.tables.table import Table
from tests.store.disk import Disk, contents_of, merge_job, pages_as_dict, segment_job
from wal.files import FaultyFileSystem, MemoryFileSystem, PowerLoss, StandardFileSystem

LARGE = bytes(range(256)) * 40  # 10 KiB


@pytest.fixture
def memory():
    return MemoryFileSystem()


def named(files, directory, built):
    """Built tables under numbers, opened."""
    tables = []
    for number, each in enumerate(built, 1):
        record = replace(each.record, number=number)
        files.rename(os.path.join(directory, each.name), os.path.join(directory, record.name))
        tables.append(Table(files, directory, record, Cache(0)))
    return tables


def read(files, directory, built):
    run = SortedRun(named(files, directory, built))
    for table in run.tables:
        table.verify()
    return pages_as_dict(run.pages(b"", None))


def temporaries(files, directory):
    return [name for name in files.list(directory) if name.startswith("tmp-")]


# ------------------------------------------------------------------ the job


class TestSegmentJob:
    def test_the_newest_of_each_key(self, memory):
        batches = [{b"a": b"1", b"b": b"1"}, {b"b": None, b"c": b"2"}, {b"a": b"3"}]
        built = segment_job(memory, "/d", batches).run(memory)
        assert [(each.record.first_entry_id, each.record.last_entry_id) for each in built] == [
            (1, 3)
        ]
        assert read(memory, "/d", built) == {b"a": b"3", b"b": None, b"c": b"2"}

    def test_the_same_contents_each_time(self, memory):
        batches = [{b"%d" % n: b"v" * n} for n in range(300)]
        job = segment_job(memory, "/d", batches)
        first, second = job.run(memory), job.run(memory)
        assert {each.name for each in first}.isdisjoint(each.name for each in second)
        records = [replace(each.record, table_id=b"", footer_crc=0) for each in (*first, *second)]
        assert records[0] == records[1]

    def test_only_entries_above_what_tables_hold(self, memory):
        batches = [{b"a": b"1"}, {b"b": b"2"}, {b"c": b"3"}]
        job = segment_job(memory, "/d", batches, after=2)
        assert read(memory, "/d", job.run(memory)) == {b"c": b"3"}
        assert replace(job, after=3).run(memory) == []

    def test_deletions_are_dropped_where_nothing_is_older(self, memory):
        batches = [{b"a": b"1", b"b": b"1"}, {b"b": None}]
        job = segment_job(memory, "/d", batches, drop=True)
        assert read(memory, "/d", job.run(memory)) == {b"a": b"1"}
        only = segment_job(memory, "/e", [{b"a": None}], drop=True)
        assert only.run(memory) == []
        assert temporaries(memory, "/e") == []

    @pytest.mark.parametrize("after", [0, 1, 30, 59])
    def test_of_what_was_written_together(self, memory, after):
        """Single puts in groups, taken over whole where no table holds any of them."""
        batches = [{b"%02d" % (n % 25): b"%02d" % n} for n in range(40)]
        batches += [{b"%02d" % (n % 7): None if n % 3 else b"x"} for n in range(20)]
        expected = {key: value for batch in batches[after:] for key, value in batch.items()}
        durability = wal.Durability.BUFFER
        job = segment_job(memory, "/d", batches, after=after, durability=durability)
        assert read(memory, "/d", job.run(memory)) == expected

    def test_single_puts_and_long_batches(self, memory):
        batches = [{b"k%d" % n: b"v%d" % n} for n in range(100)]
        batches.append({b"l%d" % n: b"w" * 200 for n in range(3000)})  # too large for a group
        expected = {key: value for batch in batches for key, value in batch.items()}
        assert read(memory, "/d", segment_job(memory, "/d", batches).run(memory)) == expected

    def test_large_values_are_streamed(self, memory):
        """From the log's chunk to the table's blob; the longest is larger than a scan's window."""
        long = os.urandom(5 << 20)
        batches = [{b"a": long, b"b": b"small", b"gone": None}, {b"c": LARGE * 30}]
        job = segment_job(memory, "/d", batches, shape=Shape(large_value_bytes=4096))
        found = read(memory, "/d", job.run(memory))
        assert found.pop(b"gone") is None
        assert found.pop(b"b") == b"small"
        assert {key: value.read() for key, value in found.items()} == {
            b"a": long,
            b"c": LARGE * 30,
        }

    def test_long_keys_and_heads_are_no_large_values(self, memory):
        batch = {bytes([n % 256, n // 256]) * 1000: b"x" * 300 for n in range(2000)}
        job = segment_job(memory, "/d", [batch], shape=Shape(large_value_bytes=1 << 10))
        assert read(memory, "/d", job.run(memory)) == batch

    def test_cut_into_files(self, memory):
        batches = [{b"%06d" % n: b"v" * 100 for n in range(20_000)}]
        job = segment_job(memory, "/d", batches, shape=Shape(file_bytes=500_000))
        built = job.run(memory)
        assert len(built) == 5
        for first, second in itertools.pairwise(built):
            assert first.record.high < second.record.low
        assert max(each.record.size for each in built) < 1_100_000
        assert read(memory, "/d", built) == batches[0]

    def test_damage_leaves_nothing(self, memory):
        job = segment_job(memory, "/d", [{b"a": b"1"}, {b"victim": b"2"}])
        file = memory.open(job.segment.path)
        offset = file.read_at(0, job.segment.end).rindex(b"victim")
        file.write_at(offset, [b"V"])
        with pytest.raises(CorruptStoreError) as caught:
            job.run(memory)
        assert caught.value.path == job.segment.path
        assert temporaries(memory, "/d") == []

    @pytest.mark.parametrize("failing", range(1, 5))
    def test_no_room_leaves_nothing(self, failing):
        files = FaultyFileSystem()
        batches = [{b"%06d" % n: b"v" * 100 for n in range(20_000)}]
        job = segment_job(files, "/d", batches, shape=Shape(file_bytes=500_000))
        files.fail(errno.ENOSPC, nth=failing * 2, kinds={"create", "write_at", "sync"})
        with pytest.raises(OSError, match="No space"):
            job.run(files)
        assert temporaries(files, "/d") == []

    def test_given_up(self, memory):
        job = segment_job(memory, "/d", [{b"%05d" % n: b"" for n in range(20_000)}])
        asked = []
        with pytest.raises(StoppedError):
            job.run(memory, lambda: len(asked) > 2 or asked.append(1))
        assert len(asked) == 3
        assert temporaries(memory, "/d") == []


class TestMergeJob:
    def test_newer_hides_older(self, memory):
        runs = []
        batches = [{b"a": b"3", b"b": None}, {b"b": b"2", b"c": b"2"}, {b"a": b"1", b"d": None}]
        for number, batch in enumerate(batches, 1):
            built = segment_job(memory, f"/d{number}", [batch]).run(memory)
            record = replace(built[0].record, number=number)
            data = memory.open(f"/d{number}/{built[0].name}").read_at(0, 1 << 20)
            if number == 1:
                memory.make_directory("/m")
            file = memory.create(f"/m/{record.name}")
            file.write_at(0, [data])
            file.close()
            runs.append([record])
        kept = merge_job("/m", runs).run(memory)
        assert read(memory, "/m", kept) == {b"a": b"3", b"b": None, b"c": b"2", b"d": None}
        memory.remove("/m/000000000001.table")
        with pytest.raises(CorruptStoreError, match="missing"):
            merge_job("/m", runs).run(memory)

    def test_nothing(self, memory):
        assert MergeJob("/d", (), True, Shape()).run(memory) == []


def test_an_entry_that_is_no_mutation(memory):
    class Hands(wal.LogManager):
        def recover(self, entry):
            with pytest.raises(CorruptStoreError, match="is no mutation"):
                values_of(entry, 1000, "the log")
            raise FormatVersionError("seen")

        def checkpoint_to(self, last_id, entries, log):
            raise AssertionError

    with wal.Configuration("/log", memory).open(wal.LogVoid()) as log:
        log.append([b"\x01" + bytes(8) + b"\x01", b"no value"])
    with pytest.raises(FormatVersionError, match="seen"):
        wal.Configuration("/log", memory).open(Hands())


# ------------------------------------------------------------------ in a store


class TestCheckpoints:
    def test_what_is_in_tables_leaves_memory(self, memory):
        with Disk(memory, "/db") as disk:
            disk.write({b"a": b"1", b"b": b"2"})
            disk.checkpoint_now()
            assert disk.memtable.items() == 0
            assert contents_of(disk.catalog.runs) == disk.contents() == {b"a": b"1", b"b": b"2"}
            assert disk.catalog.manifest.last_entry_id == 1
            assert disk.catalog.checkpoint_bytes == sum(run.size for run in disk.catalog.runs)

    def test_replay_begins_behind_the_tables(self, memory):
        with Disk(memory, "/db") as disk:
            disk.write_run({b"a": b"1"})
            disk.write({b"b": b"2"})
        with Disk(memory, "/db") as disk:
            assert disk.checkpoint.replayed == 1
            assert disk.contents() == {b"a": b"1", b"b": b"2"}

    def test_large_values_are_replayed_as_positions(self, memory):
        shape = Shape(large_value_bytes=4096)
        big = LARGE * 30
        with Disk(memory, "/db", shape=shape) as disk:
            disk.write({b"big": big, b"small": b"1"})
        with Disk(memory, "/db", shape=shape) as disk:
            layer = disk.memtable.state.layers[0].values
            assert type(layer[b"big"]) is int
            assert disk.contents() == {b"big": big, b"small": b"1"}
            disk.checkpoint_now()
            assert disk.contents() == {b"big": big, b"small": b"1"}

    @pytest.mark.parametrize("puts", [0, 1, 5, 100])
    def test_replay_of_what_was_written_together(self, memory, puts):
        """Single puts, taken over a group at a time, and among other entries one by one."""
        others = [{b"a": None}, {b"a": b"4", b"": b""}, {b"q": None, b"r": None}, {b"z": b"5"}]
        batches = [{b"abc"[n % 3 :][:1]: b"%02d" % n} for n in range(puts)]
        for mixed in (batches, batches + others[:1], others + batches, others[3:] + batches):
            files, expected = MemoryFileSystem(), {}
            with Disk(files, "/db") as disk:
                disk.write_run({b"z": b"0", b"b": b"0"})
                for batch in mixed:
                    disk.log.append(encode(batch), durability=wal.Durability.BUFFER)
                    expected |= batch
            with Disk(files, "/db") as disk:
                assert disk.checkpoint.replayed == len(mixed)
                assert disk.memtable.state.layers[0].values == expected
                assert disk.memtable.last_id == 1 + len(mixed)

    @pytest.mark.parametrize(
        ("position", "byte", "error", "reason"),
        [
            (0, 2, FormatVersionError, "format version 2"),
            (9, 7, FormatVersionError, "unknown operation 7"),
            (9, 0, CorruptStoreError, "entry 2 .* is no mutation"),
        ],
    )
    @pytest.mark.parametrize(("count", "digits"), [(3, 1), (40, 2), (40, 1)])
    def test_one_bad_head_among_single_puts(
        self, memory, position, byte, error, reason, count, digits
    ):
        with Disk(memory, "/db") as disk:
            for number in range(count):
                chunks = encode({b"k": b"%0*d" % (digits, number)})
                if number == 1:
                    head = bytearray(chunks[0])
                    head[position] = byte
                    chunks[0] = bytes(head)
                disk.log.submit(chunks, durability=wal.Durability.BUFFER)
                disk.checkpoint.memtable.apply = lambda *_: None  # it would not show them
        with pytest.raises(error, match=reason):
            Disk(memory, "/db")

    def test_a_checkpoint_that_leaves_nothing_makes_no_run(self, memory):
        with Disk(memory, "/db") as disk:
            disk.write_run({b"a": None})
            assert disk.catalog.runs == ()
            assert disk.catalog.manifest.last_entry_id == 1
            assert disk.table_names() == []

    def test_a_failed_one_is_repeated(self):
        files = FaultyFileSystem()
        with Disk(files, "/db") as disk:
            disk.write({b"a": b"1"})
            for kind in ("create", "rename", "sync_directory"):
                files.fail(errno.EIO, kinds=kind, path=lambda path: "tables" in path)
                with pytest.raises(wal.CheckpointError):
                    disk.checkpoint_now()
                assert disk.contents() == {b"a": b"1"}
            disk.checkpoint_now()
            assert disk.contents() == {b"a": b"1"}
            assert disk.table_names() == disk.named()

    def test_of_another_log(self, memory):
        with Disk(memory, "/db") as disk:
            disk.write_run({b"a": b"1"})
        for name in memory.list("/db/wal"):
            memory.remove(f"/db/wal/{name}")
        with pytest.raises(CorruptStoreError, match="the log ends at entry 0"):
            Disk(memory, "/db")

    def test_a_log_that_has_lost_its_tables(self, memory):
        with Disk(memory, "/db") as disk:
            disk.write_run({b"a": b"1"})
            disk.write({b"b": b"1"})
        memory.remove("/db/MANIFEST")
        for name in memory.list("/db/tables"):
            memory.remove(f"/db/tables/{name}")
        with pytest.raises(CorruptStoreError, match="the manifest is missing"):
            Disk(memory, "/db")

    def test_the_lock_lasts_until_the_log_has_closed(self, memory):
        disk = Disk(memory, "/db")
        disk.log.shutdown()
        memory.lock("/db/LOCK").release()
        disk.close()


# ------------------------------------------------------------------ crashes


def history(disk, model):
    """A few checkpoints and a merge; ``model`` is always what was acknowledged."""

    def write(batch):
        disk.write(batch)
        model.update(batch)

    for number in range(3):
        write({b"a": b"%d" % number, b"n%d" % number: LARGE})
        write({b"n%d" % (number - 1): None, b"k": b"x" * number})
        disk.checkpoint_now()
    disk.compact()
    write({b"z": b"last"})
    disk.checkpoint_now()


def present(model):
    return {key: value for key, value in model.items() if value is not None}


def run_history(files, model):
    disk = Disk(files, "/db", shape=Shape(large_value_bytes=4096))
    try:
        history(disk, model)
    finally:
        disk.close()


def steps_of_history():
    files = FaultyFileSystem()
    files.make_directory("/db")
    before = len(files.calls)
    run_history(files, {})
    return range(before + 1, len(files.calls) + 2)


STEPS = steps_of_history()
SOME = STEPS[:: max(1, len(STEPS) // 13)]
EACH = [*SOME, *(pytest.param(n, marks=pytest.mark.long) for n in STEPS if n not in SOME)]


@pytest.mark.parametrize("step", EACH)
def test_a_power_loss_at_any_step_loses_nothing(step):
    files, model = FaultyFileSystem(), {}
    files.make_directory("/db")
    files.stop_at(step)
    with contextlib.suppress(PowerLoss, Exception):
        run_history(files, model)
    for state in files.crash_states(limit=12):
        _check_after_crash(FaultyFileSystem(state), model, state.label)


@pytest.mark.parametrize("step", EACH)
def test_a_kill_and_then_a_power_loss(step):
    """What the second opening relies on was perhaps never synced by the first."""
    files, model = FaultyFileSystem(), {}
    files.make_directory("/db")
    files.stop_at(step)
    with contextlib.suppress(PowerLoss, Exception):
        run_history(files, model)
    for number in (3, 8, 14, 25):
        second = files.killed()
        second.stop_at(number)
        with contextlib.suppress(PowerLoss, Exception):
            disk = Disk(second, "/db")
            try:
                disk.checkpoint_now()
            finally:
                disk.close()
        for state in second.crash_states(limit=6):
            _check_after_crash(state, model, f"{number}: {state.label}")


def _check_after_crash(files, model, label):
    with Disk(files, "/db", shape=Shape(large_value_bytes=4096)) as disk:
        found, expected = disk.contents(), present(model)
        # The last batch may be there without having been acknowledged.
        assert expected.items() <= found.items() or found in _one_more(model), label
        disk.checkpoint_now()
        assert disk.contents() == found
    # Not before: what was recovered is checkpointed in the background.
    assert disk.table_names() == disk.named(), label


def _one_more(model):
    """What the batch that was under way may have left."""
    after = []
    whole = {}
    for number in range(3):
        for batch in (
            {b"a": b"%d" % number, b"n%d" % number: LARGE},
            {b"n%d" % (number - 1): None, b"k": b"x" * number},
        ):
            whole |= batch
            after.append(present(whole))
    return after


def test_the_log_lets_go_of_nothing_before_the_manifest_is_durable():
    """A writer is killed between the manifest's rename and its sync; the next has nothing to do."""
    files = FaultyFileSystem()
    with contextlib.suppress(wal.CheckpointError), Disk(files, "/db") as disk:
        disk.write({b"a": b"1"})
        files.fail(errno.EIO, kinds="sync_directory", path="db", forever=True)
        with pytest.raises(wal.CheckpointError):
            disk.checkpoint_now()
        killed = files.killed()
    with Disk(killed, "/db") as disk:
        assert disk.checkpoint.replayed == 0
        assert disk.contents() == {b"a": b"1"}
    for state in killed.crash_states():
        with Disk(state, "/db") as disk:
            assert disk.contents() == {b"a": b"1"}, state.label


# ------------------------------------------------------------------ beside others


def test_writers_go_on_while_a_table_is_built(memory):
    """What they write is newer than the table, and stays so."""
    with Disk(memory, "/db") as disk:
        entered, proceed = threading.Event(), threading.Event()
        run = disk.worker.run

        def held(job):
            entered.set()
            assert proceed.wait(20)
            return run(job)

        disk.worker.run = held
        disk.write({b"a": b"old", b"b": b"old"})
        disk.log.checkpoint_active()
        assert entered.wait(20)
        disk.write({b"a": b"new"})
        assert disk.contents() == {b"a": b"new", b"b": b"old"}
        proceed.set()
        disk.checkpoint_now()
        assert disk.contents() == {b"a": b"new", b"b": b"old"}


def test_encode_is_what_the_log_holds(memory):
    with Disk(memory, "/db") as disk:
        disk.log.append(encode({b"a": b"1"}))
        assert disk.contents() == {b"a": b"1"}


def test_on_real_files(tmp_path):
    with Disk(StandardFileSystem(), tmp_path / "db") as disk:
        disk.write_run({b"a": b"1"})
    with Disk(StandardFileSystem(), tmp_path / "db") as disk:
        assert disk.contents() == {b"a": b"1"}
