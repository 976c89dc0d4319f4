"""Many threads: batches are seen whole, in one order, and all of them are kept."""

from __future__ import annotations

import random
import threading

import pytest

import kvstore
from tests.store.support import BUFFER, FSYNC, PATIENCE, SMALL, WRITE, contents
from wal.files import MemoryFileSystem


def run(*functions):
    """Run all at once; the first error of any is raised."""
    errors = []

    def guarded(function):
        try:
            function()
        except BaseException as error:  # noqa: BLE001 - it is raised below
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(f,), daemon=True) for f in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive(), "a thread hangs"
    if errors:
        raise errors[0]


def test_writers_of_their_own_keys(opened):
    with opened() as db:

        def writer(name):
            rng = random.Random(name)
            for n in range(60):
                db.put(b"%d-%d" % (name, n), b"v", durability=rng.choice([FSYNC, WRITE, BUFFER]))
                assert db[b"%d-%d" % (name, n)] == b"v"
                if n % 20 == 19:
                    db.checkpoint()

        run(*(lambda name=name: writer(name) for name in range(6)))
        expected = {b"%d-%d" % (name, n): b"v" for name in range(6) for n in range(60)}
        assert contents(db) == expected
    with opened("r") as db:
        assert contents(db) == expected


KEYS = [b"a", b"f", b"k", b"p", b"z"]


@pytest.mark.parametrize("durability", [BUFFER, WRITE])
def test_a_batch_is_seen_whole(durability):
    """Each write gives all keys one value: whoever reads several at once finds them equal."""
    files = MemoryFileSystem()
    db = kvstore.open("s", file_system=files, memtable_bytes=SMALL, durability=durability)
    db.write(dict.fromkeys(KEYS, b"0"))
    done = threading.Event()

    def writer(name):
        try:
            for n in range(250):
                db.write(dict.fromkeys(KEYS, b"%d-%d" % (name, n)))
        finally:
            done.set()

    def check(values):
        assert len(values) == len(KEYS)
        assert len(set(values)) == 1

    def reader():
        while not done.is_set():
            check(db.get_many(KEYS))
            check(list(db.values()))
            check(list(db.values(reverse=True)))

    def checkpointer():
        while not done.is_set():
            db.checkpoint()

    run(lambda: writer(1), lambda: writer(2), reader, reader, checkpointer)
    db.close()
    with kvstore.open("s", "r", file_system=files) as db:
        check(list(db.values()))


def test_who_saw_a_batch_sees_it_in_later_reads():
    """Single reads take no lock, but never go back: keys are read in the order of a countdown."""
    db = kvstore.open("s", file_system=MemoryFileSystem(), durability=BUFFER, memtable_bytes=SMALL)
    db.write(dict.fromkeys(KEYS, b"%08d" % 0))
    done = threading.Event()

    def writer():
        try:
            for n in range(1, 800):
                db.write(dict.fromkeys(KEYS, b"%08d" % n))
        finally:
            done.set()

    def reader():
        rng = random.Random(1)
        last = b""
        while not done.is_set():
            value = db[rng.choice(KEYS)]
            assert value >= last
            last = value

    def scanner():
        last = b""
        while not done.is_set():
            value = next(db.values(limit=1))
            assert value >= last
            last = value

    run(writer, reader, reader, scanner)
    db.close()


def test_closing_while_others_write_and_read():
    db = kvstore.open("s", file_system=MemoryFileSystem(), memtable_bytes=SMALL)
    written = threading.Semaphore(0)

    def worker(name):
        with pytest.raises(kvstore.StoreClosedError):  # noqa: PT012 - which call is open
            for n in range(1_000_000):
                db.put(b"%d-%d" % (name, n), b"", durability=BUFFER)
                written.release()
                db.get(b"x")
                list(db.scan(limit=3))

    def closer():
        for _ in range(50):
            assert written.acquire(timeout=PATIENCE)
        db.close()

    run(*(lambda name=name: worker(name) for name in range(3)), closer, closer)
    assert db.closed
