"""Backups: complete, verified, incremental, and whole at any crash."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import threading

import pytest

import kvstore
from kvstore.directory import Directory
from kvstore.tables.manifest import read_manifest
from kvstore.upkeep.backup import back_up
from kvstore.upkeep.restoring import directory_of_log, is_backup, restore
from tests.store.made import MadeStore, numbered, read_store
from tests.store.support import BUFFER, contents, read_file, write_file
from wal import Configuration, LogVoid, WalError
from wal.files import FaultyFileSystem, MemoryFileSystem, PowerLoss, StandardFileSystem

ONE, TWO, THREE = numbered(0, 60), numbered(40, 100), numbered(0, 5, size=2000)


@pytest.fixture
def target(tmp_path):
    return os.path.join(tmp_path, "saved", "backup")


@pytest.fixture
def made(files, path):
    store = MadeStore(files, path)
    store.add(ONE)
    store.add(TWO)
    return store


def tables_in(files, path):
    return files.list(os.path.join(path, "tables"))


def restored(files, path):
    """A backup opened for writing: its log, its manifest."""
    directory = Directory(files, path)
    lock = directory.lock(0.0)
    try:
        manifest = restore(directory, read_manifest(files, path))
    finally:
        lock.release()
    return Configuration(directory.log, files, preallocate_bytes=8192).open(LogVoid()), manifest


class TestCopying:
    def test_everything_is_there(self, files, made, target):
        back_up(*made.present(), target)
        assert read_store(files, target) == {**ONE, **TWO}
        assert read_manifest(files, target) == made.catalog.manifest
        assert tables_in(files, target) == ["000000000001.table", "000000000002.table"]

    def test_nothing_else_is(self, files, made, target):
        made.begin_log()
        back_up(*made.present(), target)
        assert files.list(target) == ["BACKUP", "LOCK", "MANIFEST", "tables"]

    def test_of_nothing(self, files, path, target):
        store = MadeStore(files, path)
        back_up(*store.present(), target)
        assert read_store(files, target) == {}
        assert is_backup(Directory(files, target), read_manifest(files, target))

    def test_tables_are_linked_where_they_can_be(self, made, target, path):
        if not isinstance(made.files, StandardFileSystem):
            pytest.skip("there are no inodes")
        back_up(*made.present(), target)
        name = os.path.join("tables", "000000000001.table")
        assert os.path.samefile(os.path.join(path, name), os.path.join(target, name))

    @pytest.mark.parametrize("refusal", [OSError(errno.EXDEV, "far away"), NotImplementedError()])
    def test_and_copied_where_not(self, files, made, target, path, monkeypatch, refusal):
        def refuse(old, new):
            raise refusal

        monkeypatch.setattr(files, "link", refuse)
        made.add(THREE)
        back_up(*made.present(), target)
        assert read_store(files, target) == {**ONE, **TWO, **THREE}
        name = os.path.join("tables", "000000000001.table")
        original, copy = os.path.join(path, name), os.path.join(target, name)
        assert read_file(files, original) == read_file(files, copy)
        if isinstance(files, StandardFileSystem):
            assert not os.path.samefile(original, copy)

    def test_a_long_table_is_copied_in_pieces(self, path, target):
        system = FaultyFileSystem(MemoryFileSystem(), count={"write_at"})
        store = MadeStore(system, path)
        store.add({b"key": bytes(2_500_000)})
        system.fail(kinds="link")
        system.calls.clear()
        back_up(*store.present(), target)
        written = [call.detail for call in system.calls if call.path.startswith(target)]
        assert [detail for detail in written if int(detail.split("+")[0])] == [
            "1048576+1048576",
            f"2097152+{store.catalog.manifest.tables[0].size - 2097152}",
        ]
        assert read_store(system, target) == {b"key": bytes(2_500_000)}

    def test_the_store_may_go_on_meanwhile(self, files, made, target):
        """A compaction replaces the tables; the backup holds them until it is done."""
        present = made.present()
        made.merge({**ONE, **TWO})
        back_up(*present, target)
        assert read_store(files, target) == {**ONE, **TWO}
        assert len(tables_in(files, target)) == 2


class TestIncrements:
    def test_what_is_there_stays(self, made, target):
        back_up(*made.present(), target)
        made.add(THREE)
        counting = FaultyFileSystem(made.files, count={"link", "create", "read_at"})
        directory, *present = made.present()
        back_up(Directory(counting, directory.path), *present, target)
        calls = [(call.kind, os.path.basename(call.path)) for call in counting.calls]
        assert [name for kind, name in calls if kind == "link"] == ["000000000003.table"]
        assert [name for kind, name in calls if kind == "create"] == ["MANIFEST.new"]
        assert read_store(made.files, target) == {**ONE, **TWO, **THREE}

    def test_what_is_not_needed_any_more_goes(self, files, made, target):
        back_up(*made.present(), target)
        made.merge(ONE, numbered(60, 100))
        back_up(*made.present(), target)
        assert tables_in(files, target) == ["000000000003.table", "000000000004.table"]
        assert read_store(files, target) == {**ONE, **numbered(60, 100)}

    def test_but_only_once_the_new_manifest_is_there(self, made, target):
        back_up(*made.present(), target)
        made.merge({**ONE, **TWO})
        system = FaultyFileSystem(made.files)
        directory, *present = made.present()
        back_up(Directory(system, directory.path), *present, target)
        kinds = [(call.kind, call.path) for call in system.calls]
        durable = kinds.index(("sync_directory", target))
        removed = [at for at, (kind, path) in enumerate(kinds) if kind == "remove"]
        assert [at for at in removed if kinds[at][1].endswith(".table")]
        assert all(at > durable for at in removed)

    def test_nothing_new(self, files, made, target):
        back_up(*made.present(), target)
        back_up(*made.present(), target)
        assert read_store(files, target) == {**ONE, **TWO}

    @pytest.mark.parametrize("damage", ["missing", "cut", "another"])
    def test_a_kept_table_that_is_damaged_is_brought_again(self, files, made, target, damage):
        back_up(*made.present(), target)
        path = os.path.join(target, "tables", "000000000001.table")
        data = read_file(files, path)
        files.remove(path)
        if damage != "missing":
            write_file(files, path, data[:-1] if damage == "cut" else data[:-1] + b"\0")
        back_up(*made.present(), target)
        assert read_store(files, target) == {**ONE, **TWO}

    @pytest.mark.parametrize("whole", [True, False])
    def test_what_an_attempt_left_is_taken_over_if_it_is_whole(self, files, made, target, whole):
        back_up(*made.present(), target)
        made.add(THREE)
        name = os.path.join("tables", "000000000003.table")
        data = read_file(files, os.path.join(made.directory.path, name))
        at = len(data) // 2
        data = data if whole else data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        write_file(files, os.path.join(target, name), data)
        write_file(files, os.path.join(target, "tables", "tmp-1-0"), b"half of it")
        counting = FaultyFileSystem(files, count={"link"})
        directory, *present = made.present()
        back_up(Directory(counting, directory.path), *present, target)
        assert len(counting.calls) == (not whole)
        assert read_store(files, target) == {**ONE, **TWO, **THREE}
        assert len(tables_in(files, target)) == 3

    def test_what_belongs_to_somebody_else_stays(self, files, made, target):
        back_up(*made.present(), target)
        for name in ("notes", os.path.join("tables", "notes")):
            write_file(files, os.path.join(target, name), b"mine")
        back_up(*made.present(), target)
        assert "notes" in files.list(target)
        assert "notes" in tables_in(files, target)


class TestRefusing:
    def refused(self, made, path, match):
        before = self.seen(made.files, path)
        with pytest.raises(kvstore.StoreError, match=match):
            back_up(*made.present(), path)
        assert self.seen(made.files, path) == before

    def seen(self, files, path):
        names = files.list(path) if files.exists(path) else None
        manifest = os.path.join(path, "MANIFEST")
        return names, read_file(files, manifest) if files.exists(manifest) else None

    def test_the_store_itself(self, made, path):
        self.refused(made, path, "into itself")
        self.refused(made, os.path.join(path, "..", "my.db"), "into itself")

    def test_a_place_in_it(self, made, path):
        self.refused(made, os.path.join(path, "backup"), "into itself")
        self.refused(made, os.path.join(path, "tables"), "into itself")

    def test_but_not_one_beside_it(self, made, path):
        back_up(*made.present(), path + "-backup")

    def test_a_link_to_it(self, made, path, tmp_path):
        if not isinstance(made.files, StandardFileSystem):
            pytest.skip("there are no links")
        link = os.path.join(tmp_path, "link")
        try:
            os.symlink(path, link)
        except OSError:
            pytest.skip("links are not allowed")
        self.refused(made, link, "into itself")

    def test_a_directory_with_something_else(self, files, made, target):
        files.make_directory(target)
        write_file(files, os.path.join(target, "notes"), b"mine")
        self.refused(made, target, "not empty, and not a backup")

    def test_a_store(self, files, made, target):
        MadeStore(files, target)
        self.refused(made, target, "a store, not a backup")

    def test_a_backup_of_another_store(self, files, made, target, tmp_path):
        other = MadeStore(files, os.path.join(tmp_path, "other"), store_id=b"x" * 16)
        back_up(*other.present(), target)
        self.refused(made, target, "of another store")

    def test_one_that_is_not_complete(self, files, made, target):
        files.make_directory(target)
        mark = b"kvstore: a backup of the store %s\n"
        write_file(files, os.path.join(target, "BACKUP"), mark % (b"01" * 16))
        self.refused(made, target, "of another store")
        write_file(files, os.path.join(target, "BACKUP"), mark % (b"00" * 16))
        back_up(*made.present(), target)

    @pytest.mark.parametrize("mark", [b"", b"mine", b"kvstore: a backup of the store 00\n"])
    def test_a_damaged_mark(self, files, made, target, mark):
        files.make_directory(target)
        write_file(files, os.path.join(target, "BACKUP"), mark)
        self.refused(made, target, "damaged at offset 0")

    def test_one_that_was_written_to(self, files, made, target):
        back_up(*made.present(), target)
        log, _ = restored(files, target)
        log.append([b"something"])
        log.shutdown()
        self.refused(made, target, "a store, not a backup")

    def test_one_that_goes_further(self, files, made, target):
        older = made.present()
        made.add(THREE)
        back_up(*made.present(), target)
        with pytest.raises(kvstore.StoreError, match="entry 3, beyond the store, which ends at 2"):
            back_up(*older, target)
        assert read_store(files, target) == {**ONE, **TWO, **THREE}

    def test_one_that_is_open(self, files, made, target):
        back_up(*made.present(), target)
        lock = Directory(files, target).lock(0.0)
        with pytest.raises(kvstore.StoreLockedError):
            back_up(*made.present(), target)
        lock.release()
        back_up(*made.present(), target)

    def test_a_damaged_manifest(self, files, made, target):
        back_up(*made.present(), target)
        write_file(files, os.path.join(target, "MANIFEST"), b"?")
        self.refused(made, target, "MANIFEST: damaged")

    def test_a_damaged_table_of_the_store(self, files, made, target):
        back_up(*made.present(), target)
        made.add(THREE)
        path = os.path.join(made.directory.tables, "000000000003.table")
        data = read_file(files, path)
        write_file(files, path, data[:100] + b"?" + data[101:])
        with pytest.raises(kvstore.CorruptStoreError) as caught:
            back_up(*made.present(), target)
        assert caught.value.path == path
        assert read_store(files, target) == {**ONE, **TWO}
        files.remove(path)
        with pytest.raises(kvstore.CorruptStoreError, match="missing"):
            back_up(*made.present(), target)

    def test_no_room(self, made, target):
        system = FaultyFileSystem(made.files)
        directory, *present = made.present()
        system.fail(kinds="link", forever=True)
        system.fail(errno.ENOSPC, kinds="write_at", path="tmp-*")
        with pytest.raises(kvstore.StoreFailedError) as caught:
            back_up(Directory(system, directory.path), *present, target)
        assert caught.value.errno == errno.ENOSPC
        assert not caught.value.latched
        assert tables_in(made.files, target) == []
        back_up(Directory(system, directory.path), *present, target)
        assert read_store(made.files, target) == {**ONE, **TWO}


class TestRestoring:
    def test_it_goes_on_at_the_next_id(self, files, made, target):
        back_up(*made.present(), target)
        log, manifest = restored(files, target)
        assert log.append([b"something"]) == made.last_id + 1
        log.shutdown()
        assert manifest == read_manifest(files, target)
        assert manifest.runs == made.catalog.manifest.runs
        assert files.list(target) == ["LOCK", "MANIFEST", "tables", "wal"]

    def test_it_is_another_store_from_then_on(self, files, made, target):
        back_up(*made.present(), target)
        _, manifest = restored(files, target)
        assert manifest.store_id != made.catalog.manifest.store_id

    def test_what_is_no_backup_is_left_alone(self, made):
        system = FaultyFileSystem(made.files)
        directory = Directory(system, made.directory.path)
        assert restore(directory, made.catalog.manifest) == made.catalog.manifest
        assert system.calls == []

    def test_reading_changes_nothing(self, files, made, target):
        made.begin_log()
        back_up(*made.present(), target)
        directory = Directory(files, target)
        before = files.list(target)
        there = directory_of_log(directory, read_manifest(files, target))
        with Configuration(there.log, there.files, read_only=True).open(LogVoid()) as log:
            assert log.last_entry_id == made.last_id
        assert files.list(target) == before
        assert directory_of_log(made.directory, made.catalog.manifest) is made.directory

    def test_a_crash_leaves_a_backup_or_a_store(self):
        stores = 0
        for number in itertools.count(1):
            system = FaultyFileSystem()
            store = MadeStore(system, "s")
            store.add(ONE)
            back_up(*store.present(), "b")
            system.stop_at(len(system.calls) + number)
            acknowledged = 0
            with contextlib.suppress(PowerLoss):
                log, _ = restored(system, "b")
                acknowledged = log.append([b"first"])
            for state in system.crash_states(seed=number, limit=20):
                if is_backup(Directory(state, "b"), read_manifest(state, "b")):
                    assert not acknowledged
                    _, *present = store.present()
                    back_up(Directory(state, "s"), *present, "b")
                else:
                    stores += 1
                log, manifest = restored(state, "b")
                assert log.last_entry_id >= acknowledged
                assert log.append([b"another"]) >= 2
                log.shutdown()
                assert manifest.store_id != store.catalog.manifest.store_id
                assert read_store(state, "b") == ONE
            if not system.lost_power:
                break
        assert stores

    @pytest.mark.parametrize("after", [True, False])
    @pytest.mark.parametrize("kind", ["rename", "sync_directory", "remove"])
    def test_failing_calls(self, kind, after):
        """What the next opening finds may not be durable: nothing rests on it unsynced."""
        for first, second in itertools.product(range(1, 6), range(1, 6)):
            system = FaultyFileSystem()
            store = MadeStore(system, "s")
            store.add(ONE)
            back_up(*store.present(), "b")
            system.make_directory("b/wal")  # nothing makes up for the failed sync of a directory
            for nth in (first, second):
                system.fail(kinds=kind, nth=nth, after=after)
                with contextlib.suppress(OSError, kvstore.StoreError, WalError):
                    restored(system, "b")
                system = system.killed()
            log, _ = restored(system, "b")
            last_id = log.append([b"acknowledged"])
            for state in system.crash_states(seed=first, limit=30):
                assert not is_backup(Directory(state, "b"), read_manifest(state, "b"))
                again, _ = restored(state, "b")
                assert again.last_entry_id == last_id
                again.shutdown()


class TestCrashes:
    """Power loss before any call leaves the earlier backup or the new one, to go on from."""

    def life(self, number, *, link):
        """The first backup and two increments, until the power goes; which were complete."""
        system = FaultyFileSystem()
        store = MadeStore(system, "s")
        store.add(ONE)
        states, complete = [{}], 0
        if not link:
            system.fail(kinds="link", forever=True)
        system.stop_at(len(system.calls) + number)
        with contextlib.suppress(PowerLoss):
            for change in (lambda: None, lambda: store.add(TWO), lambda: store.merge(THREE)):
                change()
                states.append(read_store(system, "s"))
                back_up(*store.present(), "b")
                complete = len(states) - 1
        return system, store, states, complete

    def check(self, state, label, life):
        _, store, states, complete = life
        manifest = read_manifest(state, "b") if state.exists("b") else None
        if manifest is not None:
            assert read_store(state, "b") in states[max(1, complete) :], label
            assert is_backup(Directory(state, "b"), manifest), label
        else:
            assert not complete, label
        if read_manifest(state, "s") == store.catalog.manifest:
            _, *present = store.present()
            back_up(Directory(state, "s"), *present, "b")
            assert read_store(state, "b") == read_store(state, "s"), label
            assert len(tables_in(state, "b")) == len(store.catalog.manifest.tables), label

    @pytest.mark.parametrize("link", [True, False])
    def test_power_loss_before_a_call(self, link):
        for number in itertools.count(1):
            life = self.life(number, link=link)
            for state in life[0].crash_states(seed=number, limit=8):
                self.check(state, f"before {number}, {state.label}", life)
            if not life[0].lost_power:
                break
        assert number > 40

    @pytest.mark.parametrize("first", [True, False])
    @pytest.mark.parametrize("after", [True, False])
    @pytest.mark.parametrize(
        "kind", ["create", "link", "remove", "rename", "sync", "sync_directory", "write_at"]
    )
    def test_a_failing_call(self, kind, after, first):
        """It is refused or done; the next attempt succeeds, and survives a power loss then."""
        for nth in itertools.count(1):
            if first and kind == "sync_directory" and nth == 2:
                continue  # nothing makes up for it where a directory was made: tables/
            system = FaultyFileSystem()
            store = MadeStore(system, "s")
            system.make_directory("b")
            store.add(ONE)
            if kind in ("sync", "write_at"):
                system.fail(kinds="link", forever=True)
            if not first:
                back_up(*store.present(), "b")
            store.merge(TWO, THREE)
            path = None if kind == "link" else lambda path: path.startswith("b")
            fault = system.fail(kinds=kind, path=path, nth=nth, after=after)
            with contextlib.suppress(kvstore.StoreFailedError):
                back_up(*store.present(), "b")
            for state in system.crash_states(seed=nth, limit=8):
                if not first or read_manifest(state, "b") is not None:
                    assert read_store(state, "b") in (ONE, {**TWO, **THREE}), state.label
            if not fault.hits:
                break
            back_up(*store.present(), "b")
            for state in system.crash_states(seed=nth, limit=8):
                assert read_store(state, "b") == {**TWO, **THREE}, state.label
                assert is_backup(Directory(state, "b"), read_manifest(state, "b"))


class TestOfAStore:
    """Through :meth:`kvstore.Store.backup`."""

    @pytest.fixture
    def saved(self, opened, target):
        """A store with something in tables, something in the log, and its backup."""
        db = opened()
        db.write(ONE)
        db.checkpoint()
        db.namespace(b"users", kvstore.codecs.JSON)[b"ann"] = {"age": 30}
        db.write(THREE)
        db.delete(b"000007")
        db.backup(target)
        return db

    def test_everything_before_it_is_there_and_nothing_after(self, files, saved, target):
        before = contents(saved)
        saved[b"later"] = b"x"
        with kvstore.open(target, "r", file_system=files) as backup:
            assert contents(backup) == before
            assert backup.namespace(b"users", kvstore.codecs.JSON)[b"ann"] == {"age": 30}
            assert backup.last_entry_id == saved.last_entry_id - 1
            assert backup.verify().is_backup
            assert backup.stats().tables > 0
        assert kvstore.open(target, "r", file_system=files).verify().ok

    def test_of_an_empty_store(self, opened, files, target):
        opened().backup(target)
        with kvstore.open(target, "r", file_system=files) as backup:
            assert contents(backup) == {}
        with kvstore.open(target, file_system=files) as restored:
            restored[b"k"] = b"v"
            assert restored.last_entry_id == 1

    def test_restoring_is_opening(self, files, saved, target):
        before, last_id = contents(saved), saved.last_entry_id
        for number in range(3):
            with kvstore.open(target, file_system=files) as restored:
                assert contents(restored) == before
                assert restored.last_entry_id == last_id + number
                restored[b"k%d" % number] = before[b"k%d" % number] = b"v"
                restored.compact()
                assert restored.verify().ok

    def test_it_is_refused_from_then_on(self, files, saved, target):
        with kvstore.open(target, file_system=files) as restored:
            restored[b"k"] = b"v"
            with pytest.raises(kvstore.StoreError, match="a store, not a backup"):
                saved.backup(target)
        with pytest.raises(kvstore.StoreError, match="a store, not a backup"):
            saved.backup(target)
        with kvstore.open(target, "r", file_system=files) as restored:
            assert restored[b"k"] == b"v"

    def test_a_backup_of_what_was_restored(self, files, saved, target):
        with kvstore.open(target, file_system=files) as restored:
            restored[b"k"] = b"v"
            restored.backup(target + "-2")
            with pytest.raises(kvstore.StoreError, match="of another store"):
                saved.backup(target + "-2")

    def test_emptying_one(self, files, saved, target):
        with kvstore.open(target, "n", file_system=files) as emptied:
            assert contents(emptied) == {}
            emptied[b"k"] = b"v"
        assert not files.exists(os.path.join(target, "BACKUP"))
        with kvstore.open(target, "w", file_system=files) as emptied:
            assert contents(emptied) == {b"k": b"v"}

    def test_increments(self, files, saved, target):
        with kvstore.open(target, "r", file_system=files) as backup:
            for number in range(5):
                saved.write({b"k%d" % number: b"v", b"000001": None})
                if number == 3:
                    saved.compact()
                saved.backup(target)
                backup.refresh()
                assert contents(backup) == contents(saved)
                assert backup.last_entry_id == saved.last_entry_id

    def test_one_that_is_not_complete_is_no_store(self, files, saved, target):
        files.remove(os.path.join(target, "MANIFEST"))
        for flag, match in (
            ("r", "not completed"),
            ("w", "not completed"),
            ("c", "not a store"),
            ("n", "not a"),
        ):
            with pytest.raises(kvstore.StoreError, match=match):
                kvstore.open(target, flag, file_system=files)
        saved.backup(target)
        with kvstore.open(target, "r", file_system=files) as backup:
            assert contents(backup) == contents(saved)

    def test_a_reader_makes_none(self, opened, saved, target):
        with pytest.raises(kvstore.ReadOnlyError):
            opened("r").backup(target)

    def test_a_closed_store_makes_none(self, saved, target):
        saved.close()
        with pytest.raises(kvstore.StoreClosedError):
            saved.backup(target)

    def test_while_segments_are_recycled_and_tables_merged(self, opened, files, target):
        """Two writers move what is conserved; each backup has all that was there before it."""
        db = opened(log_segment_bytes=32 << 10, processes=False)
        accounts = [b"account-%d" % number for number in range(10)]
        db.write(dict.fromkeys(accounts, b"100"))
        stop, moved = threading.Event(), [0, 0]

        def move(me):
            number = me
            while not stop.is_set():
                one, two = accounts[number % 10], accounts[(number // 3 + 5) % 10]
                number += 7

                def pay(tx, one=one, two=two):
                    tx[one] = b"%d" % (int(tx[one]) - 1)
                    tx[two] = b"%d" % (int(tx[two]) + 1)
                    tx[b"note-%d" % me] = bytes(2000)

                if one != two:
                    db.transact(pay, attempts=1000, durability=BUFFER)
                    db.put(b"moved-%d" % me, b"%d" % (moved[me] + 1), durability=BUFFER)
                    moved[me] += 1

        threads = [threading.Thread(target=move, args=(me,)) for me in range(2)]
        for thread in threads:
            thread.start()
        try:
            for _ in range(6):
                before = list(moved)
                db.backup(target)
                with kvstore.open(target, "r", file_system=files) as backup:
                    assert sum(int(backup[account]) for account in accounts) == 1000
                    for me in range(2):
                        assert int(backup.get(b"moved-%d" % me, b"0")) >= before[me]
                    assert backup.verify().ok
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        assert db.verify().ok
