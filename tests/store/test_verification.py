"""Verifying: all damage is found, nothing else is, and nothing is changed."""

from __future__ import annotations

import os
from dataclasses import replace

import msgpack
import pytest

import kvstore
from kvstore.keyspaces import directory_key
from kvstore.mutations import encode_put
from kvstore.tables.compression import codec_of
from kvstore.tables.manifest import Manifest, read_manifest, write_manifest
from kvstore.upkeep.backup import back_up
from kvstore.upkeep.verification import Problem, verify
from tests.store.made import MadeStore, numbered
from tests.store.support import BUFFER, SMALL, read_file, write_file
from wal import Configuration, LogVoid
from wal.files import FaultyFileSystem, MemoryFileSystem


@pytest.fixture
def memory():
    return MemoryFileSystem()


@pytest.fixture
def filled(memory):
    """Some of everything, closed: two tables, a log, namespaces, a large value."""
    with kvstore.open("s", file_system=memory, large_value_bytes=1024) as db:
        db.write(numbered(0, 300))
        db.namespace(b"users", kvstore.codecs.JSON)[b"ann"] = {"age": 30}
        db.checkpoint()
        db.write({b"000001": None, b"large": bytes(5000)})
        users = db.namespace(b"users", kvstore.codecs.JSON)
        users.namespace(b"more")[b"x"] = b"y"
        db.checkpoint()
        db.write(numbered(290, 310), durability=BUFFER)
        db.namespace(b"others")[b"x"] = b"y"
    return memory


def flip(files, path, at):
    data = read_file(files, path)
    write_file(files, path, data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])


def tables(files, path="s"):
    directory = os.path.join(path, "tables")
    return [os.path.join(directory, name) for name in files.list(directory)]


def problems(files, path="s"):
    return verify(path, file_system=files).problems


def only_problem(files, path="s"):
    found = problems(files, path)
    assert len(found) == 1, found
    return found[0]


class TestSound:
    def test_what_is_told(self, filled):
        report = verify("s", file_system=filled)
        assert report.problems == ()
        assert report.ok
        assert (report.last_entry_id, report.checkpoint_entry_id) == (6, 4)
        assert (report.log_entries, report.runs, report.tables) == (2, 2, 2)
        assert report.namespaces == 3
        assert report.orphans == ()
        assert not report.is_backup
        manifest = read_manifest(filled, "s")
        assert report.table_items == sum(record.items for record in manifest.tables)
        assert report.table_bytes == sum(record.size for record in manifest.tables)
        assert str(report).startswith("s: sound\n")

    def test_nothing_is_changed(self, filled):
        system = FaultyFileSystem(filled)
        before = filled.contents()
        verify("s", file_system=system)
        assert system.calls == []
        assert filled.contents() == before

    def test_on_the_disk(self, files, path):
        store = MadeStore(files, path)
        store.add(numbered(0, 100), numbered(100, 200))
        store.begin_log()
        assert verify(path, file_system=files).tables == 2

    def test_an_empty_store(self, memory):
        kvstore.open("s", file_system=memory).close()
        report = verify("s", file_system=memory)
        assert report.ok
        assert (report.last_entry_id, report.tables, report.namespaces) == (0, 0, 0)

    def test_one_whose_creation_was_cut_short(self, memory):
        MadeStore(memory, "s")
        assert verify("s", file_system=memory).ok

    def test_one_that_is_being_emptied(self, filled):
        write_manifest(filled, "s", Manifest(clearing=True))
        filled.remove(tables(filled)[0])
        assert verify("s", file_system=filled).ok

    def test_a_backup(self, memory):
        store = MadeStore(memory, "s")
        store.add(numbered(0, 100))
        back_up(*store.present(), "b")
        report = verify("b", file_system=memory)
        assert report.ok
        assert report.is_backup
        assert (report.last_entry_id, report.checkpoint_entry_id, report.tables) == (1, 1, 1)
        assert "sound (a backup)" in str(report)

    def test_a_torn_tail_is_no_damage(self, memory):
        db = kvstore.open("s", file_system=memory)
        db[b"k"] = b"v"
        killed = memory.copy()
        (segment,) = (name for name in killed.list("s/wal") if name.startswith("wal-"))
        file = killed.open(os.path.join("s/wal", segment))
        file.write_at(500, [b"torn"])
        assert verify("s", file_system=killed).ok
        db.close()

    def test_orphans_are_told_of(self, filled):
        for name in ("tmp-1-2", "000000000099.table", "notes"):
            write_file(filled, os.path.join("s", "tables", name), b"?")
        report = verify("s", file_system=filled)
        assert report.ok
        assert report.orphans == ("000000000099.table", "notes", "tmp-1-2")
        assert "not part of it: 000000000099.table, notes, tmp-1-2" in str(report)

    def test_what_the_log_keeps_for_the_change_feed(self, memory):
        with kvstore.open("s", file_system=memory, retain_bytes=1 << 20) as db:
            db[b"k"] = b"v"
            db.checkpoint()
        assert verify("s", file_system=memory).ok
        (kept,) = (name for name in memory.list("s/wal") if name.startswith("kept-"))
        path = os.path.join("s/wal", kept)
        flip(memory, path, read_file(memory, path).index(b"k\xc4\x01v"))
        assert only_problem(memory).path == path

    def test_there_is_no_store(self, memory):
        memory.make_directory("empty")
        for path in ("nowhere", "empty"):
            with pytest.raises(kvstore.StoreNotFoundError):
                verify(path, file_system=memory)


class TestDamage:
    def test_any_bit_of_the_manifest(self, filled):
        path = os.path.join("s", "MANIFEST")
        data = read_file(filled, path)
        for at in range(0, len(data), 7):
            flip(filled, path, at)
            assert only_problem(filled).path == path
            write_file(filled, path, data)
        assert problems(filled) == ()

    def test_any_bit_of_a_table(self, filled):
        for path in tables(filled):
            data = read_file(filled, path)
            for at in range(0, len(data), 211):
                flip(filled, path, at)
                assert only_problem(filled).path == path, at
                write_file(filled, path, data)

    def test_all_of_it_is_found(self, filled):
        """Two tables, the log and the manifest's order: one does not hide the other."""
        for path in tables(filled):
            flip(filled, path, 100)
        segment = next(n for n in filled.list("s/wal") if n.startswith("wal-"))
        flip(filled, os.path.join("s/wal", segment), 40)
        found = problems(filled)
        assert [os.path.basename(each.path) for each in found] == [
            segment,
            "000000000001.table",
            "000000000002.table",
        ]
        report = verify("s", file_system=filled)
        assert not report.ok
        assert "DAMAGED, 3 problem(s)" in str(report)
        assert str(found[0]) in str(report)
        with pytest.raises(kvstore.CorruptStoreError):
            kvstore.open("s", file_system=filled)

    def test_a_segment_does_not_hide_the_next(self, memory):
        db = kvstore.open("s", file_system=memory, memtable_bytes=SMALL, processes=False)
        system = FaultyFileSystem(memory)
        db.close()
        system.fail(kinds="rename", path="tmp-*", forever=True)  # no checkpoint succeeds
        db = kvstore.open("s", file_system=system, memtable_bytes=SMALL, processes=False)
        for number in range(60):
            db.put(b"%d" % number, bytes(1000))
        killed = memory.copy()
        segments = [name for name in killed.list("s/wal") if name.startswith("wal-")]
        assert len(segments) >= 2
        whole = verify("s", file_system=killed)
        assert whole.ok
        assert whole.last_entry_id == 60
        assert whole.log_entries in (59, 60)  # is the last one known to be durable?
        for count in (1, 2):
            flip(killed, os.path.join("s/wal", segments[count - 1]), 9000)
            report = verify("s", file_system=killed)
            found = [os.path.basename(problem.path) for problem in report.problems]
            assert found == segments[:count]
            assert (report.log_entries > 0) == (count == 1)
        with pytest.raises(kvstore.StoreError):
            db.close()

    def test_a_missing_table(self, filled):
        path = tables(filled)[0]
        filled.remove(path)
        assert only_problem(filled) == Problem(path, 0, "the table is missing")

    def test_a_shortened_table(self, filled):
        path = tables(filled)[0]
        data = read_file(filled, path)
        write_file(filled, path, data[:-1])
        assert only_problem(filled).reason == (
            f"the file must have {len(data)} bytes and has {len(data) - 1}"
        )

    def test_two_tables_exchanged(self, filled):
        one, two = tables(filled)
        first, second = read_file(filled, one), read_file(filled, two)
        write_file(filled, one, second)
        write_file(filled, two, first)
        assert {problem.path for problem in problems(filled)} == {one, two}

    def test_a_missing_log(self, filled):
        for name in filled.list("s/wal"):
            filled.remove(os.path.join("s/wal", name))
        assert only_problem(filled) == Problem("s/wal", 0, "the log is missing")

    def test_another_log(self, filled):
        for name in filled.list("s/wal"):
            filled.remove(os.path.join("s/wal", name))
        Configuration("s/wal", filled).open(LogVoid()).shutdown()
        assert only_problem(filled).reason == (
            "it ends at entry 0, but the tables hold those up to 4"
        )

    def test_an_older_manifest(self, filled):
        manifest = read_manifest(filled, "s")
        write_manifest(filled, "s", replace(manifest, last_entry_id=2, runs=manifest.runs[1:]))
        assert only_problem(filled) == Problem(
            "s/MANIFEST", 0, "its tables end at entry 2, but the log begins after 4"
        )

    def test_a_missing_manifest(self, filled):
        filled.remove("s/MANIFEST")
        assert only_problem(filled) == Problem("s/MANIFEST", 0, "the manifest is missing")

    def test_a_missing_manifest_does_not_hide_the_log(self, filled):
        filled.remove("s/MANIFEST")
        filled.remove("s/wal/CHECKPOINT")
        assert [os.path.basename(each.path) for each in problems(filled)] == [
            "MANIFEST",
            "CHECKPOINT",
        ]

    def test_a_damaged_mark_of_a_backup(self, memory):
        store = MadeStore(memory, "s")
        store.add(numbered(0, 10))
        back_up(*store.present(), "b")
        write_file(memory, "b/BACKUP", b"?")
        assert problems(memory, "b")[0].path == "b/BACKUP"

    def test_an_entry_that_is_no_mutation(self, memory):
        store = MadeStore(memory, "s")
        store.add(numbered(0, 10))
        store.begin_log()
        with Configuration("s/wal", memory).open(LogVoid()) as log:
            log.append([b"?"])
            log.append([bytes([200]) + bytes(8)])
        first, second = problems(memory)
        assert "entry 2 of segment 2 is no mutation" in first.reason
        assert "version 200" in second.reason

    def test_a_damaged_log_is_not_a_short_one_too(self, memory):
        """What is in the tables already is damaged in the log: nothing tells where it ended."""
        store = MadeStore(memory, "s")
        store.add(numbered(0, 10), last_id=3)
        with Configuration("s/wal", memory).open(LogVoid()) as log:
            for _ in range(3):
                log.append(encode_put(b"k", b"v"))
            killed = memory.copy()
        (segment,) = (name for name in killed.list("s/wal") if name.startswith("wal-"))
        path = os.path.join("s/wal", segment)
        assert problems(killed) == ()
        flip(killed, path, 40)
        assert only_problem(killed).path == path

    def test_a_newer_manifest(self, filled):
        from crc32c import crc32c

        data = bytearray(read_file(filled, "s/MANIFEST"))
        data[4] = 77
        data[-4:] = crc32c(bytes(data[:-4])).to_bytes(4, "little")
        write_file(filled, "s/MANIFEST", bytes(data))
        assert "version 77" in only_problem(filled).reason

    def test_a_codec_that_is_not_installed(self, memory, monkeypatch):
        with kvstore.open("s", file_system=memory, compression="zlib") as db:
            db[b"k"] = b"v"
            db.checkpoint()

        def missing(name):
            if name == "zlib":
                raise kvstore.MissingCodecError("zlib is not installed")
            return codec_of(name)

        monkeypatch.setattr("kvstore.tables.reader.codec_of", missing)
        problem = only_problem(memory)
        assert problem.path == tables(memory)[0]
        assert "not installed" in problem.reason

    def test_a_disk_that_cannot_be_read(self, filled):
        system = FaultyFileSystem(filled)
        path = tables(filled)[0]
        system.fail(kinds="read_at", path=os.path.basename(path), forever=True)
        problem = only_problem(system)
        assert problem.path == path
        assert "Input/output error" in problem.reason or "Errno" in problem.reason


class TestOrder:
    def made(self, memory):
        store = MadeStore(memory, "s")
        store.add(numbered(0, 10), numbered(10, 20))
        store.add(numbered(5, 15))
        store.begin_log()
        return store

    def test_runs_in_another_order(self, memory):
        manifest = self.made(memory).catalog.manifest
        write_manifest(memory, "s", replace(manifest, runs=manifest.runs[::-1]))
        problem = only_problem(memory)
        assert problem.path == "s/MANIFEST"
        assert "000000000003.table is not older" in problem.reason

    def test_entries_beyond_the_last(self, memory):
        store = self.made(memory)
        first, second = store.catalog.manifest.runs
        later = tuple(replace(record, last_entry_id=3) for record in first)
        write_manifest(memory, "s", replace(store.catalog.manifest, runs=(later, second)))
        assert "is not older" in only_problem(memory).reason

    @pytest.mark.parametrize("turned", [True, False])
    def test_tables_of_a_run_that_do_not_follow_each_other(self, memory, turned):
        store = self.made(memory)
        first, (low, high) = store.catalog.manifest.runs
        runs = (first, (high, low)) if turned else ((*first, low, high),)
        write_manifest(memory, "s", replace(store.catalog.manifest, runs=runs))
        problem = only_problem(memory)
        assert problem.path == os.path.join("s/tables", low.name)
        assert "behind the table before it" in problem.reason


class TestNames:
    def written(self, memory, *items):
        store = MadeStore(memory, "s")
        store.add(dict(items))
        store.begin_log()
        return [problem.reason for problem in problems(memory)]

    def entry(self, parent, name, number, codec="bytes"):
        return directory_key(parent, name), msgpack.packb([number, codec])

    def test_sound_ones(self, memory):
        entries = (self.entry(0, b"a", 1), self.entry(1, b"a", 2), self.entry(0, b"b", 3))
        assert self.written(memory, *entries) == []
        assert verify("s", file_system=memory).namespaces == 3

    @pytest.mark.parametrize("value", [b"?", b"", b"\x92\x00\xc0", b"\x92\x01\x02"])
    def test_an_entry_that_is_none(self, memory, value):
        key, _ = self.entry(0, b"a", 1)
        (reason,) = self.written(memory, (key, value), self.entry(0, b"b", 2))
        assert "is not one" in reason

    def test_a_key_that_is_cut_short(self, memory):
        (reason,) = self.written(memory, (b"\xff\x02\x09a", msgpack.packb([1, None])))
        assert "cut short" in reason

    def test_an_id_given_twice(self, memory):
        (reason,) = self.written(memory, self.entry(0, b"a", 1), self.entry(0, b"b", 1))
        assert "another one has the id 1 too" in reason

    def test_a_parent_that_is_not_there(self, memory):
        (reason,) = self.written(memory, self.entry(7, b"a", 1))
        assert "there is no namespace 7" in reason

    def test_the_newest_entry_counts(self, memory):
        store = MadeStore(memory, "s")
        key, value = self.entry(0, b"a", 1)
        store.add({key: b"?"})
        store.add({key: value})
        store.begin_log()
        assert problems(memory) == ()

    def test_those_in_the_log(self, filled):
        assert verify("s", file_system=filled).namespaces == 3


class TestBesideAWriter:
    """Whatever the writer does between two calls of the verification is not damage."""

    def test_tables_that_are_removed_meanwhile(self, memory):
        db = kvstore.open("s", file_system=memory, processes=False)
        for number in range(3):
            db.put(b"%d" % number, b"v")
            db.checkpoint()
        system, left = FaultyFileSystem(memory, count=()), [1, 2]

        def compact(kind, path, number):
            if kind == "open" and path.endswith(".table") and left:
                db.put(b"%d" % left.pop(), b"v")
                db.checkpoint()
                db.compact()

        system.on_call = compact
        report = verify("s", file_system=system)
        assert report.problems == ()
        assert not left
        assert (report.tables, report.last_entry_id) == (1, 5)
        db.close()

    @pytest.mark.parametrize("what", ["read_at", "open", "list"])
    def test_a_checkpoint_meanwhile(self, memory, what):
        db = kvstore.open("s", file_system=memory, processes=False)
        db.put(b"k", b"v")
        for nth in range(1, 40):
            system, calls = FaultyFileSystem(memory, count=()), []

            def checkpoint(kind, path, number, nth=nth, calls=calls):
                if kind == what:
                    calls.append(path)
                    if len(calls) == nth:
                        db.put(b"%d" % nth, b"v")
                        db.checkpoint()

            system.on_call = checkpoint
            assert problems(system) == ()
            if len(calls) < nth:
                break
        else:
            pytest.fail("it never ends")
        db.close()

    def test_the_store_itself(self, opened):
        db = opened()
        db.write(numbered(0, 50))
        db.checkpoint()
        db.write(numbered(50, 60))
        report = db.verify()
        assert report.ok
        assert report.tables == 1
        assert opened("r").verify().ok
        db.close()
        with pytest.raises(kvstore.StoreClosedError):
            db.verify()
