"""Compaction: which runs are merged, that the bounds hold, and that nobody waits without need."""

from __future__ import annotations

import contextlib
import errno
import random
import threading

import pytest

from kvstore.background import compaction
from kvstore.background.building import Shape
from kvstore.errors import CorruptStoreError, StoreClosedError, StoreError, StoreFailedError
from kvstore.tables.merging import (
    FAN_OUT,
    MOST_RUNS,
    RunSize,
    Stretch,
    cheapest,
    choose,
    stretches,
)
from kvstore.tables.records import TableRecord
from tests.store.disk import PATIENCE, Disk, contents_of
from tests.wal.support import until
from wal.files import FaultyFileSystem, MemoryFileSystem

# ------------------------------------------------------------------ which runs


def sizes(*numbers, tombstones=0):
    return [RunSize(number, number, tombstones) for number in numbers]


class TestChoice:
    def test_few_runs_are_left_alone(self):
        for runs in ((), sizes(1), sizes(100, 100), sizes(100, 100, 400)):
            assert choose(runs, 100) is None

    def test_four_of_a_tier(self):
        assert choose(sizes(100, 90, 110, 100, 2000), 100) == range(4)
        assert choose(sizes(100, 100, 400, 390, 410, 400, 9000), 100) == range(2, 6)

    def test_the_youngest_group_goes_first(self):
        assert choose(sizes(100, 90, 110, 100, 400, 400, 400, 400, 99_999), 100) == range(4)

    def test_a_small_run_behind_a_larger_one_counts_as_that(self):
        assert choose(sizes(400, 3, 400, 5, 9000), 100) == range(4)

    def test_the_younger_reach_the_oldest(self):
        assert choose(sizes(100, 400, 500, 1000), 100) == range(4)
        assert choose(sizes(100, 400, 500, 1001), 100) is None
        assert choose(sizes(100, 400, 500, 1000), 100, whole=False) is None

    def test_tombstones(self):
        few = [RunSize(10, 10, 9), RunSize(1000, 1000, 0)]
        many = [RunSize(300, 300, 260), RunSize(700, 700, 0)]
        assert choose(few, 100) is None
        assert choose(many, 100) == range(2)
        assert choose(many, 100, whole=False) is None
        assert choose([RunSize(10, 10, 5)], 100) == range(1)

    def test_too_many_of_any_size(self):
        strange = sizes(*(100 * 5**n for n in range(MOST_RUNS)))
        assert choose(strange[:-1], 1) is None
        assert choose(strange, 1) == range(2)

    def test_tiny_checkpoints_do_not_rewrite_a_large_one_often(self):
        runs, written, put = sizes(100), 0, 0
        for _ in range(300):
            runs.insert(0, RunSize(2, 2, 0))
            put += 2
            while (chosen := choose(runs, 100)) is not None:
                total = sum(run.size for run in runs[chosen.start : chosen.stop])
                runs[chosen.start : chosen.stop] = sizes(total)
                written += total
            assert len(runs) < MOST_RUNS
        assert written / put < 8

    @pytest.mark.parametrize("seed", range(5))
    def test_the_bounds_hold_for_any_sizes(self, seed):
        """Overwritten keys, deletions, checkpoints from tiny to large."""
        rng = random.Random(seed)
        runs, written, put = [], 0, 0
        for _ in range(600):
            size = rng.choice((5, 50, 90, 100, 100, 100))
            runs.insert(0, RunSize(size, size, int(size * rng.random() * 0.3)))
            put += size
            written += size
            while (chosen := choose(runs, 100)) is not None:
                merged = runs[chosen.start : chosen.stop]
                assert len(merged) >= 2 or merged[0].tombstones
                total = int(sum(run.size for run in merged) * rng.uniform(0.7, 1.0))
                left = 0 if chosen.stop == len(runs) else sum(r.tombstones for r in merged) // 2
                runs[chosen.start : chosen.stop] = [RunSize(total, total, left)]
                written += total
            assert len(runs) < MOST_RUNS
        assert 1 + written / put < 8

    def test_the_cheapest_neighbours(self):
        assert cheapest(sizes(10, 10, 500, 10)) == range(2)
        assert cheapest(sizes(500, 3, 3, 1, 1, 500)) == range(3, 5)
        assert cheapest(sizes(500)) is None


# ------------------------------------------------------------------ which tables


def record(number, low, high, size=100, tombstones=0):
    return TableRecord(number, bytes(16), size, 0, 1, 2, 10, tombstones, low, high, None, 100)


def planned(runs, drop=True, least=50):
    return [
        ([table.number for table in stretch.tables], kept)
        for stretch, kept in stretches(runs, drop_tombstones=drop, least_moved=least)
    ]


class TestStretches:
    def test_disjoint_tables_move(self):
        runs = [[record(2, b"m", b"p")], [record(1, b"a", b"c"), record(3, b"x", None)]]
        assert planned(runs) == [([1], True), ([2], True), ([3], True)]

    def test_what_overlaps_is_merged(self):
        runs = [[record(2, b"c", b"p")], [record(1, b"a", b"c"), record(3, b"x", b"z")]]
        assert planned(runs) == [([2, 1], False), ([3], True)]

    def test_a_chain_of_overlaps(self):
        runs = [
            [record(5, b"c", b"f"), record(6, b"k", b"m")],
            [record(1, b"a", b"d"), record(2, b"e", b"k"), record(3, b"n", b"o")],
        ]
        assert planned(runs) == [([5, 6, 1, 2], False), ([3], True)]

    def test_a_table_without_an_upper_bound(self):
        runs = [[record(2, b"m", None)], [record(1, b"a", b"c"), record(3, b"x", b"z")]]
        assert planned(runs) == [([1], True), ([2, 3], False)]

    def test_small_neighbours_are_joined(self):
        runs = [[record(3, b"m", b"n", 10)], [record(2, b"e", b"f", 10)], [record(1, b"a", b"b")]]
        assert planned(runs) == [([1], True), ([3, 2], False)]

    def test_a_small_one_between_large_ones_is_not_rewritten_for_nothing(self):
        runs = [[record(1, b"a", b"b"), record(2, b"e", b"f", 10), record(3, b"m", b"n")]]
        assert planned(runs) == [([1], True), ([2], True), ([3], True)]

    def test_tombstones_are_not_moved_where_they_are_to_go(self):
        runs = [[record(2, b"m", b"p", tombstones=1)], [record(1, b"a", b"c")]]
        assert planned(runs) == [([1], True), ([2], False)]
        assert planned(runs, drop=False) == [([1], True), ([2], True)]

    def test_runs_without_a_table_in_a_stretch_are_left_out(self):
        runs = [[record(3, b"a", b"b")], [record(2, b"x", b"y")], [record(1, b"a", b"b")]]
        (merged, _), (moved, _) = stretches(runs, drop_tombstones=True, least_moved=1)
        assert merged == Stretch(((runs[0][0],), (runs[2][0],)))
        assert moved.tables == (runs[1][0],)


# ------------------------------------------------------------------ in a store


@pytest.fixture
def files():
    return FaultyFileSystem()


def settle(disk):
    """Wait until the compactor has done all that it was asked for."""
    done = threading.Event()
    disk.compactor._queue.put(done.set)
    assert done.wait(PATIENCE)


def many_runs(disk, count, value=b"v" * 100):
    for number in range(count):
        disk.write_run({b"%02d" % (key + number): value for key in range(10)})


def test_what_was_replaced_goes_before_the_next_merge(files):
    """Else room was needed three times: what was replaced, what replaced it, and the new."""
    with Disk(files, "/db") as disk:
        many_runs(disk, 2)
        held, go_on = threading.Event(), threading.Event()
        disk.compactor._queue.put(lambda: (held.set(), go_on.wait(PATIENCE)))
        assert held.wait(PATIENCE)  # nothing is removed by the thread meanwhile
        disk.compactor._merge_all()
        many_runs(disk, 1)
        found = []

        def look(kind, path, number):
            if kind == "create" and "tmp-" in path:
                found.append(files.inner.list("/db/tables"))

        files.on_call = look
        disk.compactor._merge_all()
        files.on_call = None
        go_on.set()
        assert [len(names) for names in found] == [2]


def test_runs_are_merged_as_checkpoints_add_them(files):
    with Disk(files, "/db", work=True) as disk:
        many_runs(disk, 30)
        settle(disk)
        assert len(disk.catalog.runs) < MOST_RUNS
        assert disk.compactor.merges >= 30 // FAN_OUT
        assert disk.contents() == {b"%02d" % key: b"v" * 100 for key in range(39)}
        settle(disk)
        assert disk.table_names() == disk.named()
        assert disk.catalog.merge_bytes > 0


def test_what_was_left_is_done_at_the_next_opening(files):
    with Disk(files, "/db") as disk:
        many_runs(disk, 6)
        assert len(disk.catalog.runs) == 6
    with Disk(files, "/db", work=True) as disk:
        settle(disk)
        assert len(disk.catalog.runs) == 1


def test_forced_all_become_one_without_deletions(files):
    with Disk(files, "/db") as disk:
        disk.write_run({b"a": b"1", b"b": b"1", b"c": b"1"})
        disk.write_run({b"a": None})
        assert disk.compactor.compact().wait(PATIENCE) is None
        (run,) = disk.catalog.runs
        assert (run.items, run.tombstones) == (2, 0)
        merges = disk.compactor.merges
        disk.compact()
        assert disk.compactor.merges == merges  # there is nothing to do


def test_deletions_stay_while_something_older_is_not_merged(files):
    with Disk(files, "/db", unit=1 << 20) as disk:
        disk.write_run({b"%04d" % key: b"v" * 200 for key in range(2000)})
        for number in range(4):
            disk.write_run({b"%04d" % number: None, b"x": b"%d" % number})
        disk.compactor._compact()
        assert len(disk.catalog.runs) == 2
        assert disk.catalog.runs[0].tombstones == 4
        assert len(disk.contents()) == 1997


def test_large_values_survive(files):
    shape = Shape(large_value_bytes=1000)
    with Disk(files, "/db", shape=shape) as disk:
        disk.write_run({b"a": b"1" * 5000, b"b": b"x" * 3_000_000})
        disk.write_run({b"a": b"2" * 5000})
        disk.compact()
        assert disk.contents() == {b"a": b"2" * 5000, b"b": b"x" * 3_000_000}


def test_a_run_is_cut_into_files_and_disjoint_ones_move(files, monkeypatch):
    monkeypatch.setattr(compaction, "stretches", _moving_all)
    shape = Shape(file_bytes=20_000)
    with Disk(files, "/db", shape=shape) as disk:
        disk.write_run({b"a%05d" % key: b"v" * 100 for key in range(9000)})
        disk.write_run({b"b%05d" % key: b"v" * 100 for key in range(100)})
        tables = {table.record for run in disk.catalog.runs for table in run.tables}
        written = disk.catalog.merge_bytes
        disk.compact()
        (run,) = disk.catalog.runs
        assert {table.record for table in run.tables} == tables
        assert disk.catalog.merge_bytes == written
        disk.write_run({b"b00007": b"new"})
        disk.compact()
        (run,) = disk.catalog.runs
        assert len({table.record for table in run.tables} - tables) == 1
        assert disk.contents()[b"b00007"] == b"new"
        assert len(disk.contents()) == 9100


def _moving_all(runs, *, drop_tombstones):
    return stretches(runs, drop_tombstones=drop_tombstones, least_moved=1)


# ------------------------------------------------------------------ when it fails


class TestFailures:
    def test_no_room_puts_it_off(self, files, caplog):
        with Disk(files, "/db") as disk:
            many_runs(disk, 4)
            before = disk.catalog.manifest
            files.fail(errno.ENOSPC, kinds="write_at", path=lambda path: "tmp-" in path)
            disk.compactor._compact()
            assert disk.compactor.resting()
            assert disk.catalog.manifest == before
            assert disk.table_names() == disk.named()
            assert "no room to compact" in caplog.text
            disk.compactor._compact()
            assert len(disk.catalog.runs) == 4  # not yet again
            disk.compact()  # at once
            assert not disk.compactor.resting()
            assert len(disk.catalog.runs) == 1

    def test_it_is_tried_again_by_itself(self, files, monkeypatch):
        monkeypatch.setattr(compaction, "FIRST_PAUSE", 0.0)
        with Disk(files, "/db", work=True) as disk:
            files.fail(errno.ENOSPC, kinds="write_at", path=lambda path: "tmp-" in path, nth=5)
            many_runs(disk, 4)
            merged = threading.Event()
            publish = disk.catalog._publish

            def published(runs, segment_id):
                publish(runs, segment_id)
                merged.set()

            disk.catalog.attach(published, disk.compactor.bury)
            assert len(disk.catalog.runs) == 1 or merged.wait(PATIENCE)

    def test_a_wish_that_failed_is_not_tried_again_for_ever(self, files, monkeypatch):
        """Where nothing else was to be merged the thread looked again and again, never resting."""
        monkeypatch.setattr(compaction, "FIRST_PAUSE", 0.0)
        with Disk(files, "/db") as disk:
            many_runs(disk, 2)
            files.fail(errno.EIO, kinds="create", path=lambda path: "tmp-" in path)
            with pytest.raises(StoreFailedError):
                disk.compact()
            until(lambda: disk.compactor.error is None)  # and so it waits to be asked

    def test_whoever_forces_it_is_told(self, files):
        with Disk(files, "/db") as disk:
            many_runs(disk, 2)
            files.fail(errno.ENOSPC, kinds="write_at", path=lambda path: "tmp-" in path)
            with pytest.raises(StoreFailedError, match="No space") as caught:
                disk.compact()
            assert (caught.value.errno, caught.value.latched) == (errno.ENOSPC, False)
            assert len(disk.contents()) == 11

    def test_damage_is_told_and_nothing_is_changed(self, files):
        with Disk(files, "/db") as disk:
            many_runs(disk, 2)
            path = disk.catalog.runs[0].tables[0].path
            file = files.open(path)
            file.write_at(100, [b"\xff"])
            before = disk.table_names()
            with pytest.raises(CorruptStoreError) as caught:
                disk.compact()
            assert caught.value.path == path
            assert disk.table_names() == before

    def test_checkpoints_go_on_while_it_is_put_off(self, files):
        with Disk(files, "/db") as disk:
            many_runs(disk, 4)
            files.fail(errno.ENOSPC, kinds="write_at", path=lambda path: "tmp-" in path)
            disk.compactor._compact()
            many_runs(disk, 2 * MOST_RUNS)
            assert len(disk.catalog.runs) > 2 * MOST_RUNS

    def test_a_task_that_fails_does_not_end_the_thread(self, files, caplog):
        with Disk(files, "/db") as disk:
            disk.compactor._queue.put(lambda: 1 // 0)
            settle(disk)
            assert "ZeroDivisionError" in caplog.text

    def test_something_else(self, files, monkeypatch):
        with Disk(files, "/db") as disk:
            many_runs(disk, 2)
            monkeypatch.setattr(disk.compaction_worker, "run", lambda job: 1 // 0)
            with pytest.raises(StoreError, match="ZeroDivisionError"):
                disk.compact()


# ------------------------------------------------------------------ beside others


class Held:
    """A worker whose jobs wait until they may go on."""

    def __init__(self, worker):
        self.run_inside = worker.run
        self.entered, self.proceed = threading.Event(), threading.Event()
        worker.run = self.run

    def run(self, job):
        self.entered.set()
        assert self.proceed.wait(PATIENCE)
        return self.run_inside(job)


def test_readers_and_writers_do_not_wait_for_it(files):
    with Disk(files, "/db") as disk:
        many_runs(disk, 4)
        held = Held(disk.compaction_worker)
        wish = disk.compactor.compact()
        assert held.entered.wait(PATIENCE)
        disk.write_run({b"00": b"new"})
        assert disk.contents()[b"00"] == b"new"
        held.proceed.set()
        wish.wait(PATIENCE)
        assert len(disk.catalog.runs) == 2
        assert disk.contents()[b"00"] == b"new"
        assert len(disk.contents()) == 13


def test_never_more_than_so_many_runs(files):
    """While the compaction has some in hand a checkpoint's thread merges the younger ones."""
    with Disk(files, "/db") as disk:
        many_runs(disk, 6)
        held = Held(disk.compaction_worker)
        wish = disk.compactor.compact()
        assert held.entered.wait(PATIENCE)
        for number in range(30):
            disk.write_run({b"%d" % number: b"v"})
            assert len(disk.catalog.runs) <= MOST_RUNS
        held.proceed.set()
        wish.wait(PATIENCE)
        assert len(disk.contents()) == 15 + 30 - 5  # b"10" to b"14" are both


def test_a_checkpoint_waits_where_nothing_is_left_to_merge(files):
    with Disk(files, "/db") as disk:
        many_runs(disk, MOST_RUNS)
        held = Held(disk.compaction_worker)
        wish = disk.compactor.compact()
        assert held.entered.wait(PATIENCE)
        waiting = threading.Event()
        wait = disk.compactor._changed.wait

        def waits(timeout=None):
            waiting.set()
            return wait(timeout)

        disk.compactor._changed.wait = waits
        disk.write({b"x": b"1"})
        disk.log.checkpoint_active()
        assert waiting.wait(PATIENCE)
        assert len(disk.catalog.runs) == MOST_RUNS
        held.proceed.set()
        wish.wait(PATIENCE)
        disk.checkpoint_now()
        assert len(disk.catalog.runs) == 2
        assert disk.contents()[b"x"] == b"1"


def test_closing_ends_a_compaction_and_leaves_nothing(files):
    disk = Disk(files, "/db")
    many_runs(disk, 4)
    entered, proceed = threading.Event(), threading.Event()
    first = []

    def held(kind, path, number):
        if kind == "create" and "tmp-" in path and not first:
            first.append(path)
            entered.set()
            assert proceed.wait(PATIENCE)

    files.on_call = held
    wish = disk.compactor.compact()
    assert entered.wait(PATIENCE)
    closing = threading.Thread(target=disk.close)
    closing.start()
    with disk.compactor._changed:
        assert disk.compactor._changed.wait_for(lambda: disk.compactor._stopping, PATIENCE)
    proceed.set()
    closing.join(PATIENCE)
    assert not closing.is_alive()
    with contextlib.suppress(StoreClosedError):  # unless it was done by then
        wish.wait(PATIENCE)
    assert [name for name in disk.table_names() if "tmp" in name] == []


def test_a_wish_after_the_end(files):
    disk = Disk(files, "/db")
    many_runs(disk, 2)
    disk.close()
    with pytest.raises(StoreClosedError):
        disk.compactor.compact().wait(PATIENCE)


def test_waiting_may_be_limited(files):
    with Disk(files, "/db") as disk:
        many_runs(disk, 2)
        held = Held(disk.compaction_worker)
        wish = disk.compactor.compact()
        with pytest.raises(TimeoutError):
            wish.wait(0)
        held.proceed.set()
        wish.wait(PATIENCE)


@pytest.mark.parametrize("seed", range(4))
def test_beside_a_model(seed):
    rng = random.Random(seed)
    model = {}
    files = MemoryFileSystem()
    shape = Shape(large_value_bytes=2000, file_bytes=30_000)
    for _ in range(3):
        with Disk(files, "/db", work=True, unit=4000, shape=shape) as disk:
            assert disk.contents() == model
            for _ in range(25):
                batch = {
                    b"%03d" % rng.randrange(400): None
                    if rng.random() < 0.3
                    else rng.randbytes(rng.choice((5, 50, 3000)))
                    for _ in range(rng.randrange(60))
                }
                if not batch:
                    continue
                disk.write(batch)
                model.update(batch)
                model = {key: value for key, value in model.items() if value is not None}
                if rng.random() < 0.6:
                    disk.checkpoint_now()
                if rng.random() < 0.1:
                    disk.compact()
                assert disk.contents() == model
            disk.checkpoint_now()
            settle(disk)
            assert contents_of(disk.catalog.runs) == model
