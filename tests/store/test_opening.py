"""Flags, locks, closing, forks, and reading beside a writer."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time

import pytest

import kvstore
from tests.store.support import (
    BUFFER,
    PATIENCE,
    SMALL,
    contents,
    random_history,
    read_file,
    write_file,
)
from tests.wal.support import until
from wal.files import MemoryFileSystem
from wal.files.faulty import FaultyFileSystem

OPERATIONS = {
    "get": lambda db: db.get(b"k"),
    "getitem": lambda db: db[b"k"],
    "in": lambda db: b"k" in db,
    "get_many": lambda db: db.get_many([b"k"]),
    "scan": lambda db: db.scan(),
    "keys": lambda db: db.keys(),
    "values": lambda db: db.values(),
    "count": lambda db: db.count(),
    "iter": iter,
    "reversed": reversed,
    "reversed keys": lambda db: db.keys(reverse=True),
    "snapshot": lambda db: db.snapshot(),
    "cursor": lambda db: db.cursor(),
    "transaction": lambda db: db.transaction(),
    "namespace": lambda db: db.namespace(b"n"),
    "namespaces": lambda db: list(db.namespaces()),
    "changes": lambda db: db.changes(),
    "verify": lambda db: db.verify(),
    "refresh": lambda db: db.refresh(),
    "sync": lambda db: db.sync(),
    "stats": lambda db: db.stats(),
    "with": lambda db: db.__enter__(),
    "put": lambda db: db.put(b"k", b"v"),
    "setitem": lambda db: db.__setitem__(b"k", b"v"),
    "delete": lambda db: db.delete(b"k"),
    "delitem": lambda db: db.__delitem__(b"missing"),
    "write": lambda db: db.write({b"k": b"v"}),
    "batch": lambda db: db.batch(),
    "add": lambda db: db.add(b"k", b"v"),
    "replace": lambda db: db.replace(b"k", None, b"v"),
    "pop": lambda db: db.pop(b"k"),
    "write in a transaction": lambda db: db.transact(lambda tx: tx.put(b"k", b"v")),
    "write in a namespace": lambda db: db.namespace(b"n").put(b"k", b"v"),
    "clear a namespace": lambda db: db.namespace(b"n").clear(),
    "checkpoint": lambda db: db.checkpoint(),
    "compact": lambda db: db.compact(),
    "backup": lambda db: db.backup("elsewhere"),
}
WRITES = [*OPERATIONS][[*OPERATIONS].index("put") :]


class TestFlags:
    def test_c_creates_and_keeps(self, opened):
        opened("c").close()
        with opened("c") as db:
            db[b"k"] = b"v"
        with opened("c") as db:
            assert contents(db) == {b"k": b"v"}

    @pytest.mark.parametrize("flag", ["r", "w"])
    def test_r_and_w_want_a_store(self, opened, files, path, flag):
        for prepare in (lambda: None, lambda: files.make_directory(path)):
            prepare()
            with pytest.raises(kvstore.StoreNotFoundError) as caught:
                opened(flag)
            assert isinstance(caught.value, FileNotFoundError)
            assert isinstance(caught.value, kvstore.StoreError)
            assert caught.value.filename == path
            assert path in str(caught.value)
        assert files.list(path) == []

    def test_w_writes(self, opened):
        opened("c").close()
        with opened("w") as db:
            db[b"k"] = b"v"
        with opened("r") as db:
            assert contents(db) == {b"k": b"v"}

    @pytest.mark.parametrize("ending", ["closed", "checkpointed", "tail"])
    def test_n_empties(self, opened, ending):
        with opened() as db:
            db.write({b"%d" % n: b"" for n in range(100)})
            if ending != "closed":
                db.checkpoint()
            if ending == "tail":
                db[b"k"] = b"v"
        with opened("n") as db:
            assert contents(db) == {}
            db[b"new"] = b""
        with opened("r") as db:
            assert list(db) == [b"new"]

    def test_n_creates(self, opened):
        with opened("n") as db:
            assert not db.read_only
            assert list(db) == []

    @pytest.mark.parametrize("flag", ["n", "c"])
    def test_what_is_not_a_store_is_left_alone(self, opened, files, path, flag):
        files.make_directory(path)
        write_file(files, os.path.join(path, "thesis.txt"), b"years of work")
        with pytest.raises(kvstore.StoreError, match="not a store"):
            opened(flag)
        assert files.list(path) == ["thesis.txt"]

    def test_n_replaces_a_damaged_store(self, opened, files, path):
        opened().close()
        write_file(files, os.path.join(path, "MANIFEST"), b"?")
        with pytest.raises(kvstore.CorruptStoreError):
            opened("w")
        assert list(opened("n")) == []

    def test_a_file_is_no_directory(self, opened, files, path):
        files.make_directory(os.path.dirname(path))
        write_file(files, path, b"")
        with pytest.raises((NotADirectoryError, FileExistsError)):
            opened()

    def test_parents_are_created(self, files, path):
        deep = os.path.join(path, "a", "b")
        kvstore.open(deep, file_system=files, memtable_bytes=SMALL).close()
        assert files.list(deep) == ["LOCK", "MANIFEST", "tables", "wal"]


class TestReopening:
    def test_everything_is_there(self, opened):
        batches, models = random_history(3, 60)
        for number, batch in enumerate(batches):
            with opened() as db:
                assert contents(db) == models[number]
                db.write(batch, durability=BUFFER)
                if number % 7 == 3:
                    db.checkpoint()
        with opened("r") as db:
            assert contents(db) == models[-1]

    def test_ids_go_on(self, opened):
        last = 0
        for _ in range(3):
            with opened() as db:
                assert db.last_entry_id == last
                db[b"k"] = b"v"
                db.checkpoint()
                assert db.last_entry_id > last
                last = db.last_entry_id

    def test_closing_checkpoints_a_long_tail_only(self, opened):
        with opened(memtable_bytes=8 << 20) as db:
            db[b"small"] = b""
        with opened(memtable_bytes=8 << 20) as db:
            assert (db.stats().tables, db.stats().replayed_entries) == (0, 1)
            db.write({b"%d" % n: bytes(1000) for n in range(300)})
        with opened("r") as db:
            assert (db.stats().tables, db.stats().memtable_items) == (1, 0)
            assert db.count() == 301

    def test_what_is_deleted_stays_so(self, opened):
        with opened() as db:
            db.write({b"a": b"1", b"b": b"2"})
            db.checkpoint()
            db.delete(b"a")
            db.checkpoint()
            assert list(db) == [b"b"]
        with opened() as db:
            assert list(db) == [b"b"]
            for n in range(10):
                db[b"%d" % n] = b""
                db.checkpoint()
            db.delete(b"b")
            for n in range(10):
                db.delete(b"%d" % n)
                db.checkpoint()
        with opened("r") as db:
            assert list(db) == []

    def test_deletions_free_the_space(self, opened, files, path):
        """Tables of deletions stood beside the tables of what they delete, and none ever shrank."""
        keys = [b"%06d" % n for n in range(2_000)]
        with opened(memtable_bytes=8 << 20) as db:
            for first in range(0, 2_000, 500):
                db.write(dict.fromkeys(keys[first : first + 500], b"v" * 20))
            db.compact()
            full = db.stats()
            assert (full.tables, full.table_items) == (1, 2_000)
            db.write(dict.fromkeys(keys[:1_000]))
            db.compact()
            half = db.stats()
            assert (half.tables, half.table_items, half.table_tombstones) == (1, 1_000, 0)
            assert half.table_bytes < full.table_bytes * 0.6
            assert len(files.list(os.path.join(path, "tables"))) == 1
            db.write(dict.fromkeys(keys))
            db.compact()
            assert (db.stats().tables, db.stats().table_bytes) == (0, 0)
            assert files.list(os.path.join(path, "tables")) == []
        with opened("r") as db:
            assert (list(db), db.stats().memtable_items) == ([], 0)

    def test_deletions_free_the_space_by_themselves(self, opened):
        """Where a quarter of what is in the tables is deletions they are merged, unasked."""
        keys = [b"%06d" % n for n in range(2_000)]
        with opened(memtable_bytes=8 << 20) as db:
            db.write(dict.fromkeys(keys, b"v" * 20))
            db.checkpoint()
            db.write(dict.fromkeys(keys[:1_500]))
            db.checkpoint()
            until(lambda: (db.stats().table_items, db.stats().table_tombstones) == (500, 0))
            assert list(db) == keys[1_500:]

    def test_many_mutations_are_moved_to_tables_by_themselves(self, opened):
        items = {b"%06d" % n: b"" for n in range(3_000)}
        with opened(durability=BUFFER) as db:
            for key in items:
                db.put(key, b"")
            assert db.stats().last_entry_id == len(items)
        with opened("r") as db:
            assert db.stats().table_items > len(items) // 2
            assert contents(db) == items

    def test_there_are_never_many_tables(self, opened):
        with opened(durability=BUFFER) as db:
            for n in range(60):
                db[b"%d" % n] = b""
                db.checkpoint()
                assert db.stats().runs <= 12
            assert db.count() == 60


class TestLocking:
    def test_one_writer(self, opened, path):
        db = opened()
        for flag in "cwn":
            with pytest.raises(kvstore.StoreLockedError) as caught:
                opened(flag)
            assert caught.value.pid == os.getpid()
            assert str(os.getpid()) in str(caught.value)
            assert caught.value.path == os.path.join(path, "LOCK")
        db[b"k"] = b"v"
        db.close()
        assert opened("w")[b"k"] == b"v"

    def test_waiting_for_the_lock(self, opened):
        first = opened()
        thread = threading.Timer(0.05, first.close)
        thread.start()
        assert opened(lock_timeout=20).get(b"k") is None
        thread.join()

    @pytest.mark.parametrize("damaged", ["MANIFEST", "wal", "tables"])
    def test_a_failed_opening_lets_go(self, opened, files, path, damaged):
        """What is missing is told; once it is back, the store is as it was, and nobody has it."""
        with opened() as db:
            db[b"k"] = b"v"
            db.checkpoint()
            db[b"m"] = b"w"
        place = os.path.join(path, damaged)
        names = [damaged] if damaged == "MANIFEST" else files.list(place)
        place = path if damaged == "MANIFEST" else place
        names = [os.path.join(place, name) for name in names if name != "LOCK"]
        kept = {name: read_file(files, name) for name in names}
        before = threading.active_count()
        for name in kept:
            files.remove(name)
        for flag in "rwc":
            with pytest.raises(kvstore.CorruptStoreError, match="missing"):
                self.read_and_close(opened, flag)
        for name, data in kept.items():
            write_file(files, name, data)
        assert threading.active_count() == before
        assert contents(opened("w")) == {b"k": b"v", b"m": b"w"}

    def read_and_close(self, opened, flag):
        with opened(flag) as db:  # a missing table is noticed by a writer when it is read
            contents(db)

    def test_the_log_in_use_by_somebody_else(self, opened, files, path):
        """Whoever has the log alone has it; the opening that fails gives the store's lock back."""
        opened().close()
        lock = files.lock(os.path.join(path, "wal", "LOCK"))
        before = threading.active_count()
        with pytest.raises(kvstore.StoreLockedError):
            opened()
        assert threading.active_count() == before
        lock.release()
        opened()[b"k"] = b"v"

    def test_another_process(self, path):
        with kvstore.open(path, memtable_bytes=SMALL) as db:
            db[b"k"] = b"v"
            program = (
                "import kvstore, sys\n"
                "try: kvstore.open(sys.argv[1])\n"
                "except kvstore.StoreLockedError as error: print(error.pid)\n"
                "with kvstore.open(sys.argv[1], 'r') as db: print(db.read_only)\n"
            )
            command = [sys.executable, "-W", "error", "-c", program, path]
            done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
            assert done.stdout.split() == [str(os.getpid()), "True"]


class TestReadOnly:
    @pytest.mark.parametrize("operation", WRITES)
    def test_writing_is_refused(self, opened, operation):
        """Where the key was missing ``del`` raised KeyError, as if the store could be written."""
        with opened() as db:
            db.namespace(b"n")[b"m"] = b"1"
        db = opened("r")
        assert db.read_only
        assert "read-only" in repr(db)
        with pytest.raises(kvstore.ReadOnlyError, match='"w"'):
            OPERATIONS[operation](db)
        assert contents(db.namespace(b"n")) == {b"m": b"1"}

    def test_beside_a_writer(self, opened):
        writer = opened()
        writer[b"a"] = b"1"
        writer.checkpoint()
        writer[b"b"] = b"2"
        writer[b"c"] = b"3"
        reader = opened("r")
        # The last flush before an idle log's witness may not show yet.
        assert list(reader) in ([b"a", b"b"], [b"a", b"b", b"c"])
        seen = contents(reader)
        writer.write({b"a": None, b"d": b"4"})
        writer.checkpoint()
        assert contents(reader) == seen
        assert contents(opened("r")) == contents(writer)
        reader.sync()

    def test_it_catches_up_with_an_idle_writer(self, opened):
        """A reader may lag by about the log's flush interval, as ``open`` says, and no longer."""
        writer = opened()
        for n in range(3):
            writer[b"%d" % n] = b""
            deadline = time.monotonic() + PATIENCE
            while True:
                with opened("r") as reader:
                    found = list(reader)
                assert [b"%d" % m for m in range(n)] == found[:n]  # idle since: there
                if len(found) == n + 1:
                    break
                assert time.monotonic() < deadline

    def test_it_changes_nothing(self, path):
        made = MemoryFileSystem()
        with kvstore.open(path, file_system=made, memtable_bytes=SMALL) as db:
            db[b"k"] = b"v"
            db.checkpoint()
            db[b"m"] = b"w"
        system = FaultyFileSystem(made)
        with kvstore.open(path, "r", file_system=system) as db:
            assert contents(db) == {b"k": b"v", b"m": b"w"}
        assert system.calls == []

    def test_while_a_writer_checkpoints_and_merges(self, path):
        """The writer goes on after each look of the reader at a file: it starts again as needed."""
        system = FaultyFileSystem(count={"open", "read_at"})
        writer = kvstore.open(path, file_system=system, memtable_bytes=SMALL)
        written = 0

        def write(count=1):
            nonlocal written
            for _ in range(count):
                writer[b"%04d" % written] = b""
                written += 1
            writer.checkpoint()

        write()
        for at in range(1, 40):
            calls = 0

            def on_call(kind, name, number, at=at):
                nonlocal calls
                if threading.current_thread() is threading.main_thread() and kind == "open":
                    calls += 1
                    if calls == at:
                        system.on_call = None
                        write(3)

            before = written
            system.on_call = on_call
            with kvstore.open(path, "r", file_system=system) as db:
                found = list(db)
            system.on_call = None
            assert found == [b"%04d" % n for n in range(len(found))]
            assert before <= len(found) <= written
        writer.close()


class TestClosing:
    @pytest.mark.parametrize("operation", OPERATIONS)
    @pytest.mark.parametrize("flag", ["c", "r"])
    def test_a_closed_store_says_so(self, opened, operation, flag):
        opened().close()
        db = opened(flag)
        db.close()
        db.close()
        error = kvstore.StoreClosedError
        if flag == "r" and operation in WRITES:
            error = (kvstore.StoreClosedError, kvstore.ReadOnlyError)
        with pytest.raises(error):
            OPERATIONS[operation](db)

    def test_leaving_the_block_closes(self, opened):
        with opened() as db:
            db[b"k"] = b"v"
        assert db.closed
        with pytest.raises(ZeroDivisionError), opened() as db:
            raise ZeroDivisionError
        assert db.closed

    def test_a_batch_begun_before(self, opened):
        db = opened()
        with pytest.raises(kvstore.StoreClosedError), db.batch() as batch:  # noqa: PT012
            batch.put(b"k", b"v")
            db.close()
        assert list(opened("r")) == []

    def test_its_threads_end(self, opened):
        before = threading.active_count()
        db = opened()
        db[b"k"] = b"v"
        db.close()
        assert threading.active_count() == before

    def test_a_dropped_store_has_lost_nothing_acknowledged(self, path):
        """It lets go of its lock, its files and its threads, whenever the log gets to it."""
        before = threading.active_count()
        for n in range(3):
            db = kvstore.open(path, memtable_bytes=SMALL, lock_timeout=PATIENCE)
            assert contents(db) == {b"%d" % m: b"v" for m in range(n)}
            db[b"%d" % n] = b"v"
            db.checkpoint()
            del db
        with kvstore.open(path, "w", memtable_bytes=SMALL, lock_timeout=PATIENCE) as db:
            assert contents(db) == {b"%d" % n: b"v" for n in range(3)}
        until(lambda: threading.active_count() == before)

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
    @pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
    def test_in_the_child_of_a_fork(self, path):
        with kvstore.open(path, memtable_bytes=SMALL) as db:
            db[b"k"] = b"v"
            child = os.fork()
            if child == 0:  # pragma: no cover
                try:
                    self.in_the_child(db)
                    os._exit(0)
                finally:
                    os._exit(1)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
            db[b"k"] = b"w"
            with pytest.raises(kvstore.StoreLockedError):
                kvstore.open(path)
        with kvstore.open(path, "r") as db:
            assert db[b"k"] == b"w"

    def in_the_child(self, db):
        for operation in OPERATIONS.values():
            with pytest.raises(kvstore.StoreClosedError, match="parent"):
                operation(db)
        db.close()
