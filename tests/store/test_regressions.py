"""Faults that were found once, each told first, then kept from coming back."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import struct
import sys
import threading
import traceback
from types import SimpleNamespace

import pytest
from crc32c import crc32c

import kvstore
import wal
from kvstore.tables.cache import Cache
from kvstore.values import MISSING
from tests.store.support import SMALL, contents, flipped, read_file, write_file
from wal.append_buffer import AppendBuffer
from wal.closing import Closing
from wal.entry_writer import EntryWriter
from wal.files import MemoryFileSystem
from wal.files.faulty import FaultyFileSystem
from wal.files.lock_file import LockFile
from wal.threads import JoinableThread

needs_alarms = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no alarms here")


def small_on(files, flag="c"):
    """A store that checkpoints, merges and streams values early."""
    return kvstore.open(
        "s", flag, file_system=files, memtable_bytes=SMALL, large_value_bytes=1 << 10
    )


@pytest.mark.parametrize("end", ["first", "last"])
def test_a_cursor_in_a_transaction_that_seeks_within_its_page(end):
    """What was passed over between the sought key and the one found was not counted as read.

    A cursor that had come from the other side found it in the page at hand, and noted the key that
    it found alone: another write in between went unnoticed, and the transaction was not
    serializable.
    """
    with kvstore.open("s", file_system=MemoryFileSystem()) as db:
        db.write({b"a": b"", b"c": b"", b"e": b""})
        tx = db.transaction().__enter__()
        cursor = tx.cursor()
        if end == "first":
            assert cursor.first() == (b"a", b"")
            assert cursor.seek_last(b"d") == (b"c", b"")
            db[b"cc"] = b"now this is the last up to d"
        else:
            assert cursor.last() == (b"e", b"")
            assert cursor.seek(b"b") == (b"c", b"")
            db[b"bb"] = b"now this is the first from b on"
        tx[b"found"] = b"c"
        with pytest.raises(kvstore.ConflictError):
            tx.__exit__(None, None, None)


def test_a_delete_in_a_namespace_that_was_never_written():
    """It went to the log without the directory's entry.

    The change feed then took the namespace's id, which the directory did not have, for damage.
    """
    files = MemoryFileSystem()
    with small_on(files) as db:
        db.namespace(b"n").delete(b"k")
        db.namespace(b"n").namespace(b"inner").delete(b"k")
        (change, inner) = db.changes()
    assert (change.namespace, change.items) == ((b"n",), ((b"k", None),))
    assert (inner.namespace, inner.items) == ((b"n", b"inner"), ((b"k", None),))


def test_large_values_of_a_reader_whose_writer_goes_on():
    """A reader had their positions in log segments, which its writer takes when it likes.

    Once that had checkpointed them, reading such a value, also from a snapshot, raised errors of
    the log, "cannot be found where it is said to be", or a struct.error.
    """
    files = MemoryFileSystem()
    items = {b"%02d" % n: bytes([n]) * 5000 for n in range(8)}
    with small_on(files) as db:
        db.write(items)
        db[b"witness"] = b""  # of what comes before it: now a reader sees that
        with small_on(files, "r") as reader, reader.snapshot() as snap, reader.cursor() as cursor:
            started = reader.scan(stop=b"w")
            assert next(started) == (b"00", items[b"00"])
            for _ in range(6):
                db.write(dict.fromkeys(items, b"new" * 3000))
                db.checkpoint()
            for view in (reader, snap):
                assert {key: contents(view)[key] for key in items} == items
                assert view[b"07"] == items[b"07"]
            assert cursor.seek(b"07") == (b"07", items[b"07"])
            assert dict(started) == {key: items[key] for key in list(items)[1:]}


def test_a_store_whose_log_has_closed_already():
    """Reads of large values met the closed log of a store that was not marked as closed yet.

    They raised the log's own error; taking a snapshot or a scan tried for ever, which was long
    where an interrupt had come just there. Each try made the traceback of the one error longer.
    """
    db = small_on(MemoryFileSystem())
    db[b"k"] = bytes(5000)
    snap = db.snapshot()
    db._engine.log.shutdown()
    depths = set()
    for _ in range(3):
        for read in (lambda: db[b"k"], lambda: snap[b"k"], db.snapshot, lambda: list(db.scan())):
            with pytest.raises(kvstore.StoreClosedError) as caught:
                read()
        cause = caught.value.__cause__
        depths.add(len(list(traceback.walk_tb(cause.__traceback__))))
    assert len(depths) == 1
    db.close()


@pytest.fixture
def interrupted():
    """Calls a function and interrupts the main thread while it waits in there."""
    previous = signal.signal(signal.SIGALRM, signal.default_int_handler)

    def call(function):
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        try:
            with pytest.raises(KeyboardInterrupt):
                function()
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)

    yield call
    signal.signal(signal.SIGALRM, previous)


@needs_alarms
def test_a_close_that_is_interrupted_while_a_merge_ends(interrupted, monkeypatch):
    """Closed again, the store let go of its lock while the merge was still at work.

    Before CPython 3.13 a join() that is interrupted takes its thread for ended. The next writer and
    the merge then renamed each other's manifest away.
    """
    files, going, go_on = MemoryFileSystem(), threading.Event(), threading.Event()
    db = small_on(files)
    compactor = db._parts._compactor

    def merge():
        going.set()
        go_on.wait(20)

    compactor._queue.put(merge)
    assert going.wait(20)
    interrupted(db.close)
    ending = threading.Thread(target=db.close)
    ending.start()
    ending.join(0.2)
    assert ending.is_alive()
    with pytest.raises(kvstore.StoreLockedError):
        small_on(files)
    go_on.set()
    ending.join(20)
    assert db.closed
    small_on(files).close()


@needs_alarms
def test_a_thread_that_was_joined_in_vain(interrupted):
    """The same of the log's threads, the checkpointer above all."""
    go_on = threading.Event()
    thread = JoinableThread(target=lambda: go_on.wait(20), daemon=True)
    assert not thread.is_alive()
    thread.start()
    interrupted(thread.join)
    thread.join(0.05)
    assert thread.is_alive()
    go_on.set()
    thread.join()
    assert not thread.is_alive()


@pytest.mark.parametrize("refused", [True, False])
def test_an_interrupt_just_when_an_entry_lets_others_go_on(refused, monkeypatch):
    """At the beginning of the very call that gives up the turn: every other writer waited for ever.

    And so did close(). It came to an entry that was refused, and to one that was committed.
    """
    db = small_on(MemoryFileSystem())
    leave, calls = EntryWriter._leave, []

    def interrupted_leave(entry):
        calls.append(entry)
        if len(calls) == 1:
            raise KeyboardInterrupt
        leave(entry)

    with monkeypatch.context() as patched:
        patched.setattr(EntryWriter, "_leave", interrupted_leave)
        if refused:
            patched.setattr(AppendBuffer, "begin_entry_locked", lambda self: 1 / 0)
        with pytest.raises(KeyboardInterrupt):
            db[b"k"] = bytes(5000)
    done = []
    for work in (lambda: db.put(b"l", bytes(5000)), db.close):

        def attempt(work=work):
            with contextlib.suppress(kvstore.StoreError):
                work()
            done.append(work)

        thread = threading.Thread(target=attempt, daemon=True)
        thread.start()
        thread.join(10)
    assert len(done) == 2


def test_a_close_that_is_interrupted_while_it_lets_go_of_the_locks(tmp_path, monkeypatch):
    """The log took itself for closed and kept its lock: nobody in this process could open it."""
    db = kvstore.open(tmp_path / "s")
    db[b"k"] = b"v"
    release, calls = LockFile.release, []

    def interrupted_release(lock):
        calls.append(lock)
        if len(calls) == 1:
            raise KeyboardInterrupt
        release(lock)

    with monkeypatch.context() as patched:
        patched.setattr(LockFile, "release", interrupted_release)
        with pytest.raises(KeyboardInterrupt):
            db.close()
    db.close()
    with kvstore.open(tmp_path / "s") as db:
        assert contents(db) == {b"k": b"v"}


def test_a_scan_that_is_first_asked_after_its_end():
    """A scan begun in a snapshot or transaction that had ended since yielded nothing, silently."""
    with kvstore.open("s", file_system=MemoryFileSystem()) as db:
        db.write({b"%d" % n: b"" for n in range(10)})
        with db.snapshot() as snap:
            begun = [snap.scan(), snap.keys(reverse=True), snap.values(limit=3)]
        with db.transaction() as tx:
            begun += [tx.scan(), tx.keys(reverse=True), tx.values(limit=3)]
        for walk in begun:
            with pytest.raises(kvstore.StoreClosedError):
                list(walk)


@pytest.mark.parametrize("every", [False, True])
def test_no_row_from_before_a_change_of_the_tables_is_found_after_it(every):
    """A look-up could find a value that had been overwritten, while a checkpoint let go of memory.

    The state was swapped first, the rows that it made wrong left the cache only then: a reader that
    takes no lock saw the new state, without the layer that had hidden the row, and the old row.
    """
    cache = Cache(1 << 20)
    store = SimpleNamespace(state=SimpleNamespace(runs=()))
    cache.add_row(b"key", b"old", store, store.state.runs)
    found = []

    def swap():
        found.append(cache.row(b"key"))

    if every:
        cache.forget_all_rows(swap)
    else:
        cache.forget_rows({b"key"}, swap)
    assert found == [MISSING]


@pytest.mark.parametrize("wrong", ["fsync", True, 0])
def test_a_wrong_durability_of_a_block_is_refused_at_its_beginning(wrong):
    """It was noticed only at the end of the block, after all its work."""
    with kvstore.open("s", file_system=MemoryFileSystem()) as db:
        for begin in (db.batch, db.transaction, db.namespace(b"n").batch):
            with pytest.raises(TypeError, match="durability must be"):
                begin(durability=wrong)


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs /proc to see open files")
def test_a_closed_store_has_no_file_open(tmp_path):
    """A writer's tables stayed open after its close, until the collector came by.

    So a disk could not be unmounted, and on Windows no directory removed, that no open store used.
    """
    path = os.path.join(tmp_path, "my.db")
    for _ in range(2):  # the second one reads a table that it has not made
        db = kvstore.open(path)
        db[b"k"] = b"v"
        db.checkpoint()
        with db.snapshot() as snap:
            assert list(snap) == list(db) == [b"k"]
        db.close()
        assert not [file for file in _open_files() if file.startswith(path)]


def _open_files():
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # that of the listing itself
            yield os.readlink(f"/proc/self/fd/{number}")


@pytest.mark.parametrize("step", ["_ended", "_mark_clean"])
def test_a_close_after_an_interrupted_one(step, tmp_path, monkeypatch):
    """It asked the log, which had closed, for a checkpoint, or wrote into the closed marker."""
    db = kvstore.open(tmp_path / "s")
    db[b"k"] = bytes(300 << 10)  # long enough for a checkpoint at the end
    usual, calls = getattr(Closing, step), []

    def interrupted(closing):
        calls.append(closing)
        if len(calls) == 1:
            raise KeyboardInterrupt
        usual(closing)

    with monkeypatch.context() as patched:
        patched.setattr(Closing, step, interrupted)
        with pytest.raises(KeyboardInterrupt):
            db.close()
        db.close()
    with kvstore.open(tmp_path / "s") as db:
        assert contents(db) == {b"k": bytes(300 << 10)}


@pytest.mark.parametrize("tail", [True, False])
def test_an_older_manifest_does_not_cost_the_newer_tables(tail):
    """Opening with it was refused, but took the tables that it does not name for orphans.

    Whoever then put the right manifest back had lost them. Where the log had nothing to replay it
    was opened, and changed, before it was refused.
    """
    files = MemoryFileSystem()
    manifests = []
    for value in (b"older", b"newer"):
        with small_on(files) as db:
            db[b"k"] = value
            if tail:
                db.checkpoint()
            db[b"tail"] = value
            if not tail:
                db.checkpoint()
        manifests.append(read_file(files, "s/MANIFEST"))
    older, newer = manifests
    write_file(files, "s/MANIFEST", older)
    before = files.contents()
    for flag in "rwc":
        with pytest.raises(kvstore.CorruptStoreError, match="the log begins after"):
            small_on(files, flag)
    after = files.contents()
    assert {path: after[path] for path in before if not path.endswith("LOCK")} == {
        path: data for path, data in before.items() if not path.endswith("LOCK")
    }
    write_file(files, "s/MANIFEST", newer)
    with small_on(files) as db:
        assert contents(db) == {b"k": b"newer", b"tail": b"newer"}


def test_a_backup_whose_mark_names_another_store():
    """A bit of the id in BACKUP was reported as a missing log, which no backup has."""
    files = MemoryFileSystem()
    with small_on(files) as db:
        db[b"k"] = b"v"
        db.backup("b")
    mark = read_file(files, "b/BACKUP")
    digit = mark[-2:-1]
    write_file(files, "b/BACKUP", mark[:-2] + (b"0" if digit != b"0" else b"1") + b"\n")
    assert [p.path for p in kvstore.verify("b", file_system=files).problems] == ["b/BACKUP"]
    for flag in "rw":
        with pytest.raises(kvstore.CorruptStoreError) as caught:
            kvstore.open("b", flag, file_system=files)
        assert caught.value.path == "b/BACKUP"


@pytest.mark.parametrize("at", [0, 41])
def test_verify_sees_a_damaged_header_of_a_kept_segment(at):
    """It was passed over with all that is older, as a gap that a crash may leave, without a word.

    But a file that has its name has its header, whatever crash there was.
    """
    files = MemoryFileSystem()
    with kvstore.open("s", file_system=files, retain_bytes=1 << 20) as db:
        for value in (b"1", b"2", b"3"):
            db[b"k"] = value
            db.checkpoint()
    kept = [name for name in files.list("s/wal") if name.startswith("kept-")]
    path = os.path.join("s/wal", kept[1])
    write_file(files, path, flipped(read_file(files, path), at))
    with kvstore.open("s", "r", file_system=files) as db:
        assert [change.items for change in db.changes()] == [((b"k", b"3"),)]
        assert [problem.path for problem in db.verify().problems] == [path]


def test_a_segment_of_another_store():
    """Where two stores were written alike, a segment of one was read as the other's.

    The ids are all that ties a segment to its log, and theirs were the same.
    """
    left = []
    for value in (b"mine", b"theirs"):
        files = MemoryFileSystem()
        db = small_on(files)
        db[b"k"] = value
        left.append(files.contents())
        db.close()
    mine, theirs = left
    (path,) = (path for path in mine if os.path.basename(path).startswith("wal-"))
    files = MemoryFileSystem({**mine, path: theirs[path]})
    (problem,) = kvstore.verify("s", file_system=files).problems
    for flag in "rw":
        with pytest.raises(kvstore.CorruptStoreError, match="another store") as caught:
            small_on(files, flag)
        assert caught.value.path == problem.path == path.lstrip(os.sep)
    with small_on(MemoryFileSystem(mine), "r") as db:
        assert contents(db) == {}  # nothing bears witness of it yet
    with small_on(MemoryFileSystem(mine)) as db:
        assert contents(db) == {b"k": b"mine"}


@pytest.mark.parametrize("flag", ["c", "n"])
def test_a_manifest_whose_sync_failed_is_written_again(flag):
    """An opening that found a fresh manifest, or one that says clearing, took it for durable.

    But where the sync of the directory had failed, in an opening before, it is never made durable
    by another one. A power loss brought back what was before it: no manifest, beside a log, or one
    that says clearing, so that what was acknowledged since was removed; or, after it was cleared,
    a manifest whose log and tables were gone. So it is put in its place anew.
    """
    for number in range(1, 12):
        system = FaultyFileSystem()
        if flag == "n":
            with small_on(system) as db:
                db[b"old"] = b"1"
                db.checkpoint()

        def puts_manifest_in_place(path, system=system):
            return any("MANIFEST.new to" in str(call) for call in system.calls[-2:])

        fault = system.fail(
            errno.EIO, kinds="sync_directory", path=puts_manifest_in_place, nth=number
        )
        with contextlib.suppress(kvstore.StoreError, OSError):
            small_on(system, flag).close()
        if not fault.hits:
            break
        killed = system.killed()
        with small_on(killed) as db:
            for state in killed.crash_states(limit=20):
                small_on(state).close()
            db[b"new"] = b"2"
            states = list(killed.crash_states(limit=20))
        for state in states:
            with small_on(state) as db:
                assert db[b"new"] == b"2", (number, state.label)
    else:
        raise AssertionError("syncs without end")


def test_a_kept_segment_that_was_cut_between_two_entries():
    """Reading ended there without a word: the changes behind it were missing, also to verify."""
    files = MemoryFileSystem()
    with kvstore.open("s", file_system=files, retain_bytes=1 << 20) as db:
        for number in range(4):
            db[b"k"] = b"%d" % number
        db.checkpoint()
        db[b"k"] = b"last"
    (kept,) = (name for name in files.list("s/wal") if name.startswith("kept-"))
    path = os.path.join("s/wal", kept)
    data = read_file(files, path)
    silent = []
    for length in range(len(data)):
        write_file(files, path, data[:length])
        found = [problem.path for problem in kvstore.verify("s", file_system=files).problems]
        with kvstore.open("s", "r", file_system=files) as db:
            values = []
            try:
                values = [change.items[0][1] for change in db.changes()]
                is_right = values in ([b"last"], [b"0", b"1", b"2", b"3", b"last"])
            except kvstore.CorruptStoreError as damage:
                is_right = damage.path == path
        if not is_right or (found != [path] and len(values) < 5):
            silent.append(length)
    assert silent == []


@pytest.mark.parametrize(
    "value",
    [
        b"\xdc" * 100_000,
        b"\xdd\0\0\0\0" * 20_000,
        [1.5, float.fromhex("-0x1.cdcdcdcdcdcdcp+456")] * 20_000,
        [b"\xdc\xdd", "\u0724\u0764" * 10] * 20_000,
    ],
    ids=["bytes like heads of arrays", "like heads of empty ones", "many numbers", "many keys"],
)
def test_what_looks_like_many_arrays_is_looked_through_at_once(value):
    """Each byte that might be an array's head was looked at by itself, and each number of a list.

    50 MB of 0xdc took twenty seconds to decode, and a list of numbers up to twenty times as long as
    msgpack itself needed.
    """
    data = kvstore.MSGPACK.encode(value)
    calls = []
    before = sys.getprofile()
    sys.setprofile(lambda frame, event, argument: calls.append(event))
    try:
        decoded = kvstore.MSGPACK.decode(data)
    finally:
        sys.setprofile(before)
    assert decoded == value
    assert len(calls) < 500


def test_a_write_that_is_committed_does_not_fail_for_the_sealing_of_its_segment(monkeypatch):
    """It raised the system's error though it was done, durable, and seen by everybody."""

    def refuse(log, wait=False):
        raise OSError(errno.EIO, "Input/output error")

    many = {b"%06d" % n: b"" for n in range(2000)}
    with kvstore.open("s", file_system=MemoryFileSystem(), memtable_bytes=SMALL) as db:
        with monkeypatch.context() as patched:
            patched.setattr(wal.WriteAheadLog, "checkpoint_active", refuse)
            db.write(many)
            db.put(b"one more", b"")
        assert db.count() == 2001


def test_a_large_value_that_comes_during_the_look_is_no_number():
    """A look-up that had the layer's dict in its hand returned the value's place in the log."""
    large = b"L" * 100_000

    class Key(bytes):
        def __hash__(self):
            db.put(bytes(self), large)
            return super().__hash__()

        __eq__ = bytes.__eq__

    with kvstore.open("s", file_system=MemoryFileSystem()) as db:
        db.put(b"k", b"small")
        assert db.get(Key(b"k")) == large


def test_a_reader_that_is_closed_while_it_is_refreshed_stays_closed(monkeypatch):
    """What the refresh had read was shown behind the end, and single keys found in it."""
    files = MemoryFileSystem()
    with kvstore.open("s", file_system=files) as db:
        db.put(b"k", b"v", durability=kvstore.Durability.FSYNC)
        reader = kvstore.open("s", "r", file_system=files)
        look = reader._parts._look

        def look_and_close(view):
            found = look(view)
            reader.close()
            return found

        monkeypatch.setattr(reader._parts, "_look", look_and_close)
        reader.refresh()
        with pytest.raises(kvstore.StoreClosedError):
            reader.get(b"k")


def _four_bytes_without_trace(crc):
    """Four bytes behind which a crc32c is what it was before them. (A crc is linear.)"""
    images = [crc32c(struct.pack("<I", 1 << bit), crc) ^ crc32c(bytes(4), crc) for bit in range(32)]
    wanted, chosen = crc ^ crc32c(bytes(4), crc), 0
    basis = {}
    for bit, image in enumerate(images):
        mask = 1 << bit
        while image and image.bit_length() in basis:
            other, others = basis[image.bit_length()]
            image, mask = image ^ other, mask ^ others
        if image:
            basis[image.bit_length()] = image, mask
    while wanted:
        image, mask = basis[wanted.bit_length()]
        wanted, chosen = wanted ^ image, chosen ^ mask
    return struct.pack("<I", chosen)


def test_a_value_is_not_cut_where_a_part_of_it_has_its_checksum():
    """A record was read by its average length; a value made for it came back without its end."""
    items = {b"%06d" % n: b"x" for n in range(1000)}
    for length in range(1, 60):
        key, value = b"victim%02d" % length, bytes(range(65, 65 + length))
        value += _four_bytes_without_trace(crc32c(value, crc32c(key)))
        assert crc32c(key + value[:-4]) == crc32c(key + value)
        items[key] = value
    with kvstore.open("s", file_system=MemoryFileSystem()) as db:
        db.write(items)
        db.checkpoint()
        assert {key: db.get(key) for key in items} == items


def test_a_block_that_comes_twice_is_counted_once():
    """Moved to the young ones while another thread added it there, it was counted twice."""
    cache, page = Cache(1 << 20), ([b"k"], [b"v"])
    cache.add_block(1, page, 1000)
    number = 2
    while 1 in cache._young.blocks:
        cache.add_block(number, page, 200_000)
        number += 1
    real, cache.lock = cache.lock, _Before(cache.lock, lambda: cache.add_block(1, page, 1000))
    assert cache.block(1) is page
    cache.lock = real
    assert cache._young.blocks_size == sum(cache._young.block_bytes.values())
    for number in range(100, 200):
        cache.add_block(number, page, 200_000)


class _Before:
    """A lock before which something happens once."""

    def __init__(self, lock, event):
        self.lock, self.events = lock, [event]

    def __enter__(self):
        if self.events:
            self.events.pop()()
        return self.lock.__enter__()

    def __exit__(self, *error):
        return self.lock.__exit__(*error)


def test_a_row_read_before_a_refresh_is_not_kept_behind_it():
    """The look-up had the memtable of before, and that its tables: so the old row was kept."""
    files = MemoryFileSystem()
    with kvstore.open("s", file_system=files) as db:
        db.put(b"k", b"old")
        db.checkpoint()
        with kvstore.open("s", "r", file_system=files) as reader:
            db.put(b"k", b"new")
            db.checkpoint()
            state = reader._engine.memtable.state
            (look_up,) = state.look_ups

            def look_up_and_refresh(key, crc):
                found = look_up(key, crc)
                reader.refresh()
                return found

            state.look_ups = (look_up_and_refresh,)
            assert reader.get(b"k") == b"old"
            assert reader.get(b"k") == reader.get(b"k") == b"new"


@pytest.mark.parametrize("key", [memoryview(bytearray(b"k")), memoryview(b"kkkk").cast("i")])
def test_a_buffer_that_has_no_hash_is_a_key(key):
    """It was a ValueError of the dict's."""
    with kvstore.open("s", file_system=MemoryFileSystem()) as db:
        db.put(key, b"v")
        assert db.get(key) == b"v"


def test_a_put_to_a_closed_reader_says_that_it_is_closed():
    """It said that the store was open for reading."""
    files = MemoryFileSystem()
    kvstore.open("s", file_system=files).close()
    reader = kvstore.open("s", "r", file_system=files)
    with pytest.raises(kvstore.ReadOnlyError):
        reader.put(b"k", b"v")
    reader.close()
    with pytest.raises(kvstore.StoreClosedError):
        reader.put(b"k", b"v")
