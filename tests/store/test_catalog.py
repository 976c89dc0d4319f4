"""The catalog: each change is durable before it is seen, and nothing is removed too early."""

from __future__ import annotations

import contextlib
import errno
import gc

import pytest
from crc32c import crc32c

from kvstore.background.building import MergeJob, Shape
from kvstore.errors import CorruptStoreError
from kvstore.tables.manifest import read_manifest
from tests.store.disk import Disk, contents_of
from wal.files import FaultyFileSystem, MemoryFileSystem, PowerLoss


@pytest.fixture
def files():
    return FaultyFileSystem()


def merge_all(disk, shape=None):
    """The new tables that all runs make, not yet in the catalog."""
    runs = tuple(tuple(table.record for table in run.tables) for run in disk.catalog.runs)
    return MergeJob(disk.directory.tables, runs, True, shape or Shape()).run(disk.files)


def test_runs_are_newest_first(files):
    with Disk(files, "/db") as disk:
        disk.write_run({b"a": b"1"})
        disk.write_run({b"a": b"2"})
        assert [run.get(b"a", crc32c(b"a")) for run in disk.catalog.runs] == [b"2", b"1"]
    with Disk(files, "/db") as disk:
        assert [run.get(b"a", crc32c(b"a")) for run in disk.catalog.runs] == [b"2", b"1"]
        assert disk.contents() == {b"a": b"2"}


def test_neighbours_are_replaced_by_one(files):
    with Disk(files, "/db") as disk:
        for number in range(4):
            disk.write_run({b"a": b"%d" % number})
        newest, *middle, oldest = disk.catalog.runs
        runs = tuple(tuple(table.record for table in run.tables) for run in middle)
        built = MergeJob(disk.directory.tables, runs, False, Shape()).run(files)
        disk.catalog.replace(tuple(middle), built)
        assert (disk.catalog.runs[0], disk.catalog.runs[-1]) == (newest, oldest)
        assert [run.get(b"a", crc32c(b"a")) for run in disk.catalog.runs] == [b"3", b"2", b"0"]
        assert disk.memtable.state.runs is disk.catalog.runs


def test_a_table_that_moves_is_kept(files):
    with Disk(files, "/db") as disk:
        disk.write_run({b"a": b"1"})
        disk.write_run({b"z": b"1"})
        old = disk.catalog.runs
        tables = [run.tables[0] for run in reversed(old)]
        disk.catalog.replace(old, tables)
        (run,) = disk.catalog.runs
        assert list(run.tables) == tables
        assert disk.table_names() == disk.named() == sorted(t.record.name for t in tables)
        assert disk.contents() == {b"a": b"1", b"z": b"1"}


def test_a_run_that_comes_to_nothing(files):
    with Disk(files, "/db") as disk:
        disk.write_run({b"a": b"1"})
        disk.write_run({b"a": None})
        disk.compact()
        assert disk.catalog.runs == ()
        assert disk.table_names() == []
    with Disk(files, "/db") as disk:
        assert disk.contents() == {}


def test_a_replaced_table_is_there_as_long_as_somebody_has_it(files):
    with Disk(files, "/db") as disk:
        disk.write_run({b"a": b"1"})
        disk.write_run({b"a": b"2"})
        state = disk.memtable.state
        disk.compact()
        assert len(disk.table_names()) == 3
        assert [run.get(b"a", crc32c(b"a")) for run in state.runs] == [b"2", b"1"]
        del state
        gc.collect()
        disk.compact()  # behind the removals
        assert disk.table_names() == disk.named()


def test_tables_that_are_let_go_of_while_it_closes_are_removed(files):
    disk = Disk(files, "/db")
    disk.write_run({b"a": b"1"})
    disk.write_run({b"a": b"2"})
    state = disk.memtable.state
    disk.compact()
    del state
    disk.close()
    assert disk.table_names() == disk.named()


def test_a_table_that_cannot_be_removed_waits_for_the_next_opening(files):
    with Disk(files, "/db") as disk:
        disk.write_run({b"a": b"1"})
        disk.write_run({b"a": b"2"})
        files.fail(errno.EACCES, kinds="remove", path=lambda path: "table" in path, forever=True)
        disk.compact()
        assert len(disk.table_names()) == 3
    files.heal()
    with Disk(files, "/db") as disk:
        assert disk.table_names() == disk.named()


def test_numbers_are_never_used_twice(files):
    used = set()
    for _ in range(3):
        with Disk(files, "/db") as disk:
            disk.write_run({b"a": b"1"})
            disk.write_run({b"a": b"2"})
            disk.compact()
            disk.write_run({b"b": b"2"})
            numbers = {record.number for record in disk.catalog.manifest.tables}
            assert max(numbers) < disk.catalog.manifest.next_number
            assert numbers - used
            used |= numbers
    assert disk.catalog.manifest.next_number > 10


def test_an_orphans_number_is_not_used_again(files):
    with Disk(files, "/db"):
        pass
    files.create("/db/tables/000000000041.table").close()
    files.create("/db/tables/tmp-1-abc").close()
    files.create("/db/tables/notes.txt").close()
    with Disk(files, "/db") as disk:
        assert disk.table_names() == ["notes.txt"]
        disk.write_run({b"a": b"1"})
        assert disk.named() == ["000000000042.table"]


class TestFailures:
    """Of a manifest that may, or may not, have been written."""

    def disk(self, files):
        disk = Disk(files, "/db")
        disk.write_run({b"a": b"1"})
        disk.write_run({b"a": b"2"})
        return disk

    @pytest.mark.parametrize("kind", ["create", "write_at", "sync"])
    def test_before_the_rename_the_new_tables_are_removed(self, files, kind):
        with self.disk(files) as disk:
            built = merge_all(disk)
            before = (disk.catalog.manifest, disk.table_names())
            files.fail(errno.ENOSPC, kinds=kind, path=lambda path: "MANIFEST" in path)
            with pytest.raises(OSError, match="No space"):
                disk.catalog.replace(disk.catalog.runs, built)
            named = disk.named()
            assert disk.table_names() == named
            assert disk.catalog.manifest == before[0]
            assert disk.contents() == {b"a": b"2"}

    @pytest.mark.parametrize("after", [False, True], ids=["not done", "done"])
    @pytest.mark.parametrize("kind", ["rename", "sync_directory"])
    def test_from_the_rename_on_nothing_is_removed_until_a_success(self, files, kind, after):
        with self.disk(files) as disk:
            built = merge_all(disk)
            files.fail(
                errno.EIO,
                kinds=kind,
                path=lambda path: not path.endswith("tables") and "tmp-" not in path,
                after=after,
            )
            with pytest.raises(OSError, match="Input/output"):
                disk.catalog.replace(disk.catalog.runs, built)
            assert len(disk.table_names()) == 3
            assert disk.contents() == {b"a": b"2"}
            for state in files.crash_states():
                manifest = read_manifest(state, "/db")
                assert {record.name for record in manifest.tables} <= set(state.list("/db/tables"))
                with Disk(state, "/db") as reopened:
                    assert reopened.contents() == {b"a": b"2"}
            disk.write_run({b"b": b"3"})
            assert disk.table_names() == disk.named()
            assert len(disk.named()) == 3
            assert disk.contents() == {b"a": b"2", b"b": b"3"}

    @pytest.mark.parametrize("kind", ["rename", "sync_directory"])
    def test_tables_without_their_name_are_removed(self, files, kind):
        with self.disk(files) as disk:
            built = merge_all(disk)
            files.fail(errno.EIO, kinds=kind, path=lambda path: "tables" in path)
            with pytest.raises(OSError, match="Input/output"):
                disk.catalog.replace(disk.catalog.runs, built)
            assert disk.table_names() == disk.named()
            assert disk.contents() == {b"a": b"2"}


def test_an_opening_removes_nothing_before_its_manifest_is_durable(files):
    """A writer is killed between the manifest's rename and its sync; then the power fails."""
    with Disk(files, "/db") as disk:
        disk.write_run({b"a": b"1"})
        disk.write_run({b"a": b"2"})
        built = merge_all(disk)
        files.fail(errno.EIO, kinds="sync_directory", path="db")
        with pytest.raises(OSError, match="Input/output"):
            disk.catalog.replace(disk.catalog.runs, built)
        killed = files.killed()
    for step in range(1, 12):
        second = killed.killed()
        second.stop_at(step)
        _open_until_the_power_fails(second)
        for state in second.crash_states():
            with Disk(state, "/db") as reopened:
                assert reopened.contents() == {b"a": b"2"}, (step, state.label)


def _open_until_the_power_fails(files):
    with contextlib.suppress(PowerLoss, Exception):
        Disk(files, "/db").close()


def test_tables_are_opened_when_they_are_touched():
    opened = []
    inner = MemoryFileSystem()
    with Disk(inner, "/db") as disk:
        disk.write_run({b"a": b"1"})
    files = FaultyFileSystem(inner)
    files.on_call = lambda kind, path, number: kind == "open" and opened.append(path)
    with Disk(files, "/db") as disk:
        assert not [path for path in opened if path.endswith(".table")]
        assert disk.contents() == {b"a": b"1"}
        assert [path for path in opened if path.endswith(".table")]


def test_all_tables_may_be_opened_at_once(files):
    with Disk(files, "/db") as disk:
        disk.write_run({b"a": b"1"})
        disk.write_run({b"b": b"1"})
        disk.catalog.open_tables()
        for name in disk.named():
            files.remove(f"/db/tables/{name}")
        assert contents_of(disk.catalog.runs) == {b"a": b"1", b"b": b"1"}


def test_a_missing_table_is_damage(files):
    with Disk(files, "/db") as disk:
        disk.write_run({b"a": b"1"})
        files.remove("/db/tables/" + disk.named()[0])
    with Disk(files, "/db") as disk, pytest.raises(CorruptStoreError, match="missing"):
        disk.catalog.open_tables()


def test_tables_are_shared_with_a_former_catalog(files):
    with Disk(files, "/db") as disk:
        disk.write_run({b"a": b"1"})
        known = disk.catalog.tables()
        again = type(disk.catalog)(disk.directory, disk.catalog.manifest, disk.cache, known)
        assert again.tables() == known
