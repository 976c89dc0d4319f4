"""The store for asyncio: the same answers, shared syncs, and nothing left by who is cancelled."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import inspect
import random
import threading

import pytest

import kvstore
import kvstore.aio
import wal
from tests.store.support import BUFFER, FSYNC, PATIENCE, SMALL, WRITE, apply, random_batch
from wal.files import MemoryFileSystem
from wal.files.faulty import FaultyFileSystem

LARGE = 100 << 10


def in_loop(test):
    """Runs a test, which is a coroutine function, in an event loop of its own."""

    def run(*args, **kwargs):
        asyncio.run(asyncio.wait_for(test(*args, **kwargs), PATIENCE))

    run.__name__ = test.__name__
    run.__doc__ = test.__doc__
    run.__signature__ = inspect.signature(test)
    return run


def opening(files=None, flag="c", **options):
    options = {"memtable_bytes": SMALL, "processes": False, **options}
    return kvstore.aio.open("s", flag, file_system=files or MemoryFileSystem(), **options)


async def contents(reads):
    return [item async for item in reads.scan()]


class Gate:
    """Holds calls to a file system, on whatever thread, until it is opened."""

    def __init__(self, files, *kinds):
        self.entered, self.open = threading.Event(), threading.Event()
        self._kinds = kinds
        files.on_call = self._on_call

    def _on_call(self, kind, path, number):
        if kind in self._kinds:
            self.entered.set()
            assert self.open.wait(PATIENCE)

    async def reached(self):
        assert await asyncio.get_running_loop().run_in_executor(None, self.entered.wait, PATIENCE)


class TestOpening:
    @in_loop
    async def test_both_ways(self, files, path):
        async with kvstore.aio.open(path, "n", file_system=files) as db:
            await db.put(b"k", b"v")
            assert (db.closed, db.read_only, db.path) == (False, False, path)
            assert repr(db) == f"<kvstore.aio.AsyncStore in {path!r}>"
        assert db.closed
        db = await kvstore.aio.open(path, "r", file_system=files)
        assert db.read_only
        assert await db.get(b"k") == b"v"
        async with db:
            pass
        assert db.closed
        with kvstore.open(path, "w", file_system=files) as same:
            assert same[b"k"] == b"v"

    @in_loop
    async def test_errors_are_those_of_any_opening(self):
        with pytest.raises(kvstore.StoreNotFoundError):
            await opening(flag="w")
        with pytest.raises(ValueError, match="flag"):
            await opening(flag="x")
        with pytest.raises(ValueError, match="memtable_bytes"):
            await opening(memtable_bytes=1)
        files = MemoryFileSystem()
        async with opening(files):
            with pytest.raises(kvstore.StoreLockedError):
                await opening(files)

    @in_loop
    async def test_cancelled_it_lets_go(self):
        files = FaultyFileSystem()
        async with opening(files):
            pass
        gate = Gate(files, "rename")
        task = asyncio.create_task(opening(files, "n")._open())
        await gate.reached()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        gate.open.set()
        async with opening(files, lock_timeout=PATIENCE) as db:
            assert await contents(db) == []

    def test_the_signature_is_shown(self):
        assert inspect.signature(kvstore.aio.open) == inspect.signature(kvstore.open)


class TestReading:
    @in_loop
    async def test_single_keys(self):
        async with opening() as db:
            await db.write({b"a": b"1", b"\xff\x01": b"2", b"gone": b"3"})
            await db.delete(b"gone")
            for _ in range(2):
                assert await db.get(b"a") == await db.get(bytearray(b"a")) == b"1"
                assert await db.get(b"\xff\x01") == b"2"
                assert (await db.get(b"gone"), await db.get(b"x", 7)) == (None, 7)
                assert await db.contains(b"a")
                assert not await db.contains(b"gone")
                assert await db.get_many([b"x", b"\xff\x01", b"a"]) == [None, b"2", b"1"]
                await db.checkpoint()

    @in_loop
    async def test_what_is_in_tables_and_not_cached(self):
        async with opening(cache_bytes=0) as db:
            await db.put(b"a", b"1")
            await db.checkpoint()
            assert (await db.get(b"a"), await db.get(b"b", 7)) == (b"1", 7)
            assert (await db.contains(b"a"), await db.contains(b"b")) == (True, False)
            assert not await db.add(b"a", b"2")
            assert await db.pop(b"a") == b"1"
            assert await db.pop(b"a", 7) == 7

    @in_loop
    async def test_large_values(self):
        async with opening() as db:
            await asyncio.gather(*(db.put(b"%d" % n, b"%d" % n * LARGE) for n in range(5)))
            for _ in range(2):
                assert await db.get(b"3") == b"3" * LARGE
                assert await db.contains(b"3")
                assert [key async for key in db] == [b"0", b"1", b"2", b"3", b"4"]
                assert [v[:1] async for v in db.values(reverse=True, limit=2)] == [b"4", b"3"]
                await db.checkpoint()
            assert await db.replace(b"3", b"3" * LARGE, b"small")
            assert await db.pop(b"4") == b"4" * LARGE
            async with db.transaction() as tx:
                assert await tx.pop(b"2") == b"2" * LARGE
                await tx.put(b"large", b"x" * LARGE)
            assert await db.count() == 4
            assert await db.get(b"large") == b"x" * LARGE

    @in_loop
    async def test_scans_beside_a_model(self):
        rng = random.Random(1)
        model = {}
        async with opening() as db:
            for n in range(60):
                batch = random_batch(rng, keys=200, most=40)
                apply(model, batch)
                await db.write(batch, durability=BUFFER)
                if n % 20 == 10:
                    await db.checkpoint()
            ordered = sorted(model.items())
            assert await contents(db) == ordered
            assert [item async for item in db.scan(reverse=True)] == ordered[::-1]
            start, stop = b"key-05", b"key-15"
            some = [key for key, _ in ordered if start < key <= stop]
            bounds = {"start": start, "stop": stop, "include_start": False, "include_stop": True}
            assert [key async for key in db.keys(**bounds)] == some
            assert await db.count(**bounds) == len(some)
            assert [key async for key in db.keys(prefix=b"key-1", limit=3)] == [
                key for key, _ in ordered if key.startswith(b"key-1")
            ][:3]

    @in_loop
    async def test_many_pages(self):
        async with opening() as db:
            expected = [(b"%05d" % n, b"v") for n in range(5000)]
            await db.write(dict(expected), durability=BUFFER)
            assert await contents(db) == expected

    @in_loop
    async def test_wrong_arguments_are_told_at_once(self):
        async with opening() as db:
            with pytest.raises(ValueError, match="prefix"):
                db.scan(b"a", prefix=b"b")
            with pytest.raises(TypeError, match="limit"):
                db.keys(limit="1")
            with pytest.raises(TypeError, match=r"key\.encode"):
                await db.get("a")
            with pytest.raises(TypeError, match=r"key\.encode"):
                await db.put("a", b"")
            with pytest.raises(kvstore.KeyTooLongError):
                await db.put(b"k" * 70_000, b"")
            with pytest.raises(TypeError, match="mapping"):
                await db.write([(b"a", b"b")])
            with pytest.raises(TypeError, match="durability"):
                await db.put(b"a", b"b", durability=1)

    @in_loop
    async def test_a_scan_sees_the_state_of_its_beginning_and_can_be_closed(self):
        async with opening() as db:
            await db.write({b"%03d" % n: b"" for n in range(100)})
            scan = db.scan()
            assert await anext_(scan) == (b"000", b"")
            await db.write({b"%03d" % n: None for n in range(100)})
            assert len([item async for item in scan]) == 99
            scan = db.scan()
            await scan.aclose()
            assert [item async for item in scan] == []
            async with contextlib.aclosing(db.keys()) as keys:
                async for _ in keys:
                    break

    @in_loop
    async def test_a_scan_that_is_cancelled_lets_go(self):
        files = FaultyFileSystem(count="read_at")
        async with opening(files, cache_bytes=0) as db:
            await db.write({b"%03d" % n: b"x" * 100 for n in range(100)})
            await db.checkpoint()
            gate = Gate(files, "read_at")
            task = asyncio.create_task(contents(db))
            await gate.reached()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            gate.open.set()
            assert await db.count() == 100
        assert db.closed

    @in_loop
    async def test_the_loop_goes_on_between_answers_from_memory(self):
        async with opening(durability=BUFFER) as db:
            ticks = []
            ticker = asyncio.create_task(tick(ticks))
            while len(ticks) < 3:
                await db.put(b"k", b"v")
            while len(ticks) < 6:
                await db.get(b"k")
            while len(ticks) < 9:
                await db.contains(b"k")
            ticker.cancel()

    @in_loop
    async def test_a_cursor(self):
        async with opening() as db:
            await db.write({b"a": b"1", b"c": b"3", b"e": b"5"})
            async with db.cursor(b"b") as cursor:
                assert (cursor.key, cursor.value) == (None, None)
                assert await cursor.first() == (b"c", b"3")
                assert await cursor.prev() is None
                assert await cursor.next() == (b"c", b"3")
                assert await cursor.seek(b"d") == (b"e", b"5")
                assert (cursor.key, cursor.value) == (b"e", b"5")
                assert await cursor.seek_last(b"d") == (b"c", b"3")
                assert [item async for item in cursor] == [(b"e", b"5")]
                assert await cursor.last() == (b"e", b"5")
            for use in (cursor.next, cursor.__aenter__, db.cursor().first):
                with pytest.raises(kvstore.StoreClosedError):
                    await use()


async def tick(ticks):
    while True:
        ticks.append(None)
        await asyncio.sleep(0)


async def anext_(iterator):
    return await iterator.__anext__()


class TestWriting:
    @pytest.mark.parametrize("durability", [FSYNC, WRITE, BUFFER])
    @in_loop
    async def test_each_durability(self, files, path, durability):
        async with kvstore.aio.open(path, file_system=files, durability=durability) as db:
            await asyncio.gather(*(db.put(b"%03d" % n, b"v") for n in range(100)))
            await db.delete(b"000")
            await db.put(b"\xff", b"v")
            assert await db.count() == 100
            assert db.last_entry_id == 102
            await db.sync()
            assert (await db.stats()).durable_entry_id >= 102
        with kvstore.open(path, "r", file_system=files) as db:
            assert db.count() == 100

    @in_loop
    async def test_a_thousand_tasks_share_syncs(self):
        files = FaultyFileSystem(count="sync")
        async with opening(files, memtable_bytes=8 << 20) as db:
            gate = Gate(files, "sync")
            first = asyncio.create_task(db.put(b"first", b""))
            await gate.reached()
            before = len(files.calls)
            tasks = [asyncio.create_task(db.put(b"%04d" % n, b"v" * 100)) for n in range(1000)]
            await asyncio.sleep(0)
            assert await db.get(b"0007") is None  # not durable, not visible
            gate.open.set()
            await asyncio.gather(first, *tasks)
            assert len(files.calls) - before <= 10
            assert await db.count() == 1001

    @in_loop
    async def test_conditional_writes_and_transactions_share_syncs(self):
        files = FaultyFileSystem(count="sync")

        async def increment(tx):
            await tx.put(b"n", b"%d" % (int(await tx.get(b"n", b"0")) + 1))

        async with opening(files, memtable_bytes=8 << 20) as db:
            gate = Gate(files, "sync")
            first = asyncio.create_task(db.put(b"first", b""))
            await gate.reached()
            before = len(files.calls)
            adds = [asyncio.create_task(db.add(b"a%d" % (n // 2), b"%d" % n)) for n in range(200)]
            counts = [asyncio.create_task(transfer(db, n)) for n in range(100)]
            await asyncio.sleep(0)
            gate.open.set()
            await first
            assert await asyncio.gather(*adds) == [n % 2 == 0 for n in range(200)]
            await asyncio.gather(*counts)
            assert len(files.calls) - before <= 20
            assert await db.count() == 1 + 100 + 200

    @in_loop
    async def test_replace_loses_no_update(self):
        async with opening() as db:
            await db.put(b"n", b"0")

            async def increment():
                while True:
                    old = await db.get(b"n")
                    if await db.replace(b"n", old, b"%d" % (int(old) + 1)):
                        return

            await asyncio.gather(*(increment() for _ in range(20)))
            assert await db.get(b"n") == b"20"
            assert await db.replace(b"n", None, b"x") is False
            assert await db.replace(b"n", b"20", None)
            assert await db.replace(b"n", None, None)
            assert await db.get(b"n") is None

    @in_loop
    async def test_of_those_who_pop_one_gets_it(self):
        async with opening() as db:
            await db.put(b"k", b"v")
            got = await asyncio.gather(*(db.pop(b"k") for _ in range(50)))
            assert sorted(map(str, got)) == sorted(["None"] * 49 + ["b'v'"])

    @in_loop
    async def test_batches(self):
        async with opening() as db:
            async with db.batch() as batch:
                batch.put(b"a", b"1")
                batch.put(b"\xff", b"2")
                batch.delete(b"c")
                assert len(batch) == 3
                batch.namespace(b"n", kvstore.JSON).put(b"k", [1])
            assert batch.entry_id == db.last_entry_id
            assert await contents(db) == [(b"a", b"1"), (b"\xff", b"2")]
            assert await contents(db.namespace(b"n", kvstore.JSON)) == [(b"k", [1])]
            with contextlib.suppress(ZeroDivisionError):
                async with db.batch() as batch:
                    batch.put(b"b", b"1")
                    raise ZeroDivisionError
            assert await db.count() == 2
            for use in (lambda: batch.put(b"a", b""), lambda: db.batch().delete(b"a")):
                with pytest.raises(kvstore.StoreError):
                    use()
            with pytest.raises(kvstore.StoreError):
                await batch.__aenter__()
            async with db.batch() as empty:
                assert empty
            assert empty.entry_id is None

    @in_loop
    async def test_a_log_without_room_does_not_hold_the_loop(self):
        """Segments fill while a checkpoint is held: writers wait, the loop goes on."""
        files = FaultyFileSystem(count="create")
        async with opening(files, durability=BUFFER) as db:
            gate = Gate(files, "create")  # of a segment, or of a table
            tasks = [asyncio.create_task(db.put(b"%04d" % n, bytes(1000))) for n in range(1000)]
            await gate.reached()
            for _ in range(100):
                await asyncio.sleep(0)
            assert not all(task.done() for task in tasks)
            assert await db.get(b"0000") == bytes(1000)
            tasks[-1].cancel()
            gate.open.set()
            done = await asyncio.gather(*tasks, return_exceptions=True)
            assert [error for error in done[:-1] if error is not None] == []
            assert await db.count() in (999, 1000)

    @in_loop
    async def test_beside_threads(self):
        async with opening(durability=BUFFER) as db:
            store = db._store

            def write():
                for n in range(500):
                    store.put(b"thread %d" % n, b"x" * LARGE if n % 100 == 50 else b"v")

            thread = threading.Thread(target=write)
            thread.start()
            await asyncio.gather(
                *(db.put(b"task %d" % n, b"v", durability=FSYNC) for n in range(500))
            )
            await asyncio.get_running_loop().run_in_executor(None, thread.join)
            assert await db.count() == 1000


async def transfer(db, n):
    async with db.transaction() as tx:
        assert await tx.get(b"from %d" % n) is None
        await tx.put(b"from %d" % n, b"-1")
        await tx.put(b"to %d" % n, b"1")


class TestNamespaces:
    @in_loop
    async def test_the_whole_api(self):
        async with opening() as db:
            users = db.namespace(b"users", kvstore.JSON)
            assert await users.get(b"ann") is None
            assert await contents(users) == []
            await asyncio.gather(*(users.put(b"%d" % n, {"n": n}) for n in range(20)))
            assert await users.get(b"7") == {"n": 7}
            assert await users.get_many([b"x", b"7"]) == [None, {"n": 7}]
            assert [value async for value in users.values(limit=1)] == [{"n": 0}]
            assert await users.replace(b"7", {"n": 7}, {"n": 8})
            assert not await users.add(b"7", 1)
            assert await users.pop(b"7") == {"n": 8}
            with pytest.raises(TypeError, match="None may be a value"):
                await users.write({b"a": None})
            inner = users.namespace(b"inner")
            await inner.put(b"\xff", b"x")
            assert (await db.namespaces(), await users.namespaces()) == ([b"users"], [b"inner"])
            assert inner.name == b"inner"
            await users.clear()
            assert (await users.count(), await inner.count(), await db.count()) == (0, 1, 0)
            async with inner.batch() as batch:
                batch.put(b"a", b"1")
            async with inner.cursor() as cursor:
                assert await cursor.first() == (b"a", b"1")

    @in_loop
    async def test_another_codec_is_an_error_at_the_first_use(self):
        async with opening() as db:
            await db.namespace(b"n", kvstore.JSON).put(b"k", 1)
            wrong = db.namespace(b"n", kvstore.UTF8)
            for use in (wrong.get(b"k"), wrong.put(b"k", "x"), wrong.count(), contents(wrong)):
                with pytest.raises(kvstore.CodecMismatchError):
                    await use
            with pytest.raises(kvstore.CodecMismatchError):
                async with db.batch() as batch:
                    batch.namespace(b"n", kvstore.UTF8).put(b"k", "x")
            async with db.snapshot() as snap:
                with pytest.raises(kvstore.CodecMismatchError):
                    await snap.namespace(b"n", kvstore.UTF8).get(b"k")

    @in_loop
    async def test_in_snapshots_and_transactions(self):
        async with opening() as db:
            users = db.namespace(b"users", kvstore.UTF8)
            await users.put(b"k", "old")
            async with db.snapshot() as snap, db.transaction() as tx:
                await users.put(b"other", "new")
                seen = snap.namespace(b"users", kvstore.UTF8)
                assert await seen.get(b"k") == "old"
                assert await contents(seen) == [(b"k", "old")]
                assert seen.namespace(b"x").name == b"x"
                within = tx.namespace(b"users", kvstore.UTF8)
                await within.put(b"k", "mine")
                assert await within.get(b"k") == "mine"
                assert await snap.namespaces() == [b"users"]
            assert await users.get(b"k") == "mine"


class TestSnapshots:
    @in_loop
    async def test_they_stay_as_they_are(self):
        async with opening() as db:
            await db.write({b"a": b"1", b"large": b"x" * LARGE})
            snap = db.snapshot()
            async with snap:
                await db.write({b"a": b"2", b"b": b"3", b"large": None})
                await db.checkpoint()
                assert await snap.get(b"a") == b"1"
                assert await snap.get(b"large") == b"x" * LARGE
                assert not await snap.contains(b"b")
                assert await snap.get_many([b"a", b"b"]) == [b"1", None]
                assert [key async for key in snap] == [b"a", b"large"]
                assert await snap.count() == 2
                assert snap.entry_id < db.last_entry_id
            assert snap.closed
            with pytest.raises(kvstore.StoreClosedError):
                await snap.get(b"a")


class TestTransactions:
    @in_loop
    async def test_reads_and_own_writes(self):
        async with opening() as db:
            await db.write({b"a": b"1", b"b": b"2"})
            async with db.transaction() as tx:
                await tx.delete(b"a")
                await tx.put(b"c", b"3")
                assert await tx.add(b"d", b"4")
                assert not await tx.add(b"b", b"4")
                assert (await tx.get(b"a"), await tx.get(b"c")) == (None, b"3")
                assert await contents(tx) == [(b"b", b"2"), (b"c", b"3"), (b"d", b"4")]
                assert await tx.pop(b"b") == b"2"
                async with tx.batch() as batch:
                    batch.put(b"e", b"5")
                assert await db.count() == 2
            assert tx.entry_id == db.last_entry_id
            assert [key async for key in db] == [b"c", b"d", b"e"]
            for use in (tx.get(b"a"), tx.put(b"a", b""), tx.__aenter__(), contents(tx)):
                with pytest.raises(kvstore.StoreError):
                    await use

    @in_loop
    async def test_conflicts(self):
        async def cross(db, read):
            async with db.transaction() as tx:
                await read(tx)
                await db.put(b"k", b"theirs")
                await tx.put(b"other", b"mine")

        async with opening() as db:
            for read in (
                lambda tx: tx.get(b"k"),
                lambda tx: tx.contains(b"k"),
                lambda tx: tx.count(),
                lambda tx: tx.get_many([b"k"]),
                contents,
            ):
                with pytest.raises(kvstore.ConflictError):
                    await cross(db, read)
            assert await contents(db) == [(b"k", b"theirs")]

    @in_loop
    async def test_in_flight_writes_conflict_too(self):
        files = FaultyFileSystem(count="sync")
        async with opening(files) as db:
            gate = Gate(files, "sync")
            async with contextlib.AsyncExitStack() as stack:
                tx = await stack.enter_async_context(db.transaction())
                assert await tx.get(b"k") is None
                put = asyncio.create_task(db.put(b"k", b"theirs"))
                await gate.reached()
                await tx.put(b"k", b"mine")
                with pytest.raises(kvstore.ConflictError):
                    await stack.aclose()
            gate.open.set()
            await put
            assert await db.get(b"k") == b"theirs"

    @in_loop
    async def test_rollback_and_read_only(self):
        async with opening() as db:
            async with db.transaction() as tx:
                await tx.put(b"k", b"v")
                tx.rollback()
            with contextlib.suppress(ZeroDivisionError):
                async with db.transaction() as tx:
                    await tx.put(b"k", b"v")
                    raise ZeroDivisionError
            async with db.transaction(read_only=True) as tx:
                with pytest.raises(kvstore.ReadOnlyError):
                    await tx.put(b"k", b"v")
            assert await db.count() == 0

    @in_loop
    async def test_transact(self):
        async with opening() as db:
            calls = []

            async def increment(tx):
                calls.append(None)
                n = int(await tx.get(b"n", b"0")) + 1
                await asyncio.sleep(0)
                await tx.put(b"n", b"%d" % n)
                return n

            done = await asyncio.gather(*(db.transact(increment, 1000) for _ in range(20)))
            assert sorted(done) == list(range(1, 21))
            assert len(calls) > 20

            async def in_vain(tx):
                await tx.get(b"n")
                await db.put(b"n", b"x")
                await tx.put(b"m", b"y")

            with pytest.raises(kvstore.ConflictError):
                await db.transact(in_vain, 2)
            with pytest.raises(ValueError, match="attempts"):
                await db.transact(increment, 0)

    @in_loop
    async def test_transfers_keep_the_sum(self):
        rng = random.Random(2)
        async with opening(durability=BUFFER) as db:
            await db.write({b"%d" % n: b"100" for n in range(10)})

            async def move():
                one, two = rng.sample(range(10), 2)

                async def work(tx):
                    left, right = await tx.get_many([b"%d" % one, b"%d" % two])
                    await tx.put(b"%d" % one, b"%d" % (int(left) - 1))
                    await tx.put(b"%d" % two, b"%d" % (int(right) + 1))

                await db.transact(work, 1000)

            async def look():
                async with db.snapshot() as snap:
                    assert sum([int(value) async for value in snap.values()]) == 1000

            await asyncio.gather(*(move() if n % 3 else look() for n in range(150)))
            await look()


class TestGathering:
    """Single writes of one turn of the loop go into the log in one step."""

    @in_loop
    async def test_each_is_an_entry_of_its_own(self):
        async with opening() as db:
            await asyncio.gather(
                *(db.put(b"%d" % n, b"v%d" % n) for n in range(50)),
                db.delete(b"7"),
                db.put(b"8", b"again"),
                db.put(b"\xff8", b"escaped"),
                db.put(bytearray(b"8"), memoryview(b"last")),
            )
            changes = [change async for change in db.changes()]
            assert [change.entry_id for change in changes] == [*range(1, 55)]
            assert [change.items for change in changes[:50]] == [
                ((b"%d" % n, b"v%d" % n),) for n in range(50)
            ]
            assert [change.items for change in changes[50:]] == [
                ((b"7", None),),
                ((b"8", b"again"),),
                ((b"\xff8", b"escaped"),),
                ((b"8", b"last"),),
            ]
            expected = {b"%d" % n: b"v%d" % n for n in range(50) if n != 7}
            assert dict(await contents(db)) == {**expected, b"8": b"last", b"\xff8": b"escaped"}

    @in_loop
    async def test_batches_of_one_know_their_own_entry(self):
        async with opening() as db:

            async def commit(n):
                async with db.batch() as batch:
                    batch.put(b"%d" % n, b"v")
                return batch.entry_id

            ids = await asyncio.gather(*(commit(n) for n in range(500)))
            assert ids == [*range(1, 501)]
            by_id = {change.entry_id: change.items async for change in db.changes()}
            assert by_id == {entry_id: ((b"%d" % n, b"v"),) for n, entry_id in enumerate(ids)}

    @pytest.mark.parametrize("durability", [FSYNC, WRITE, BUFFER])
    @in_loop
    async def test_what_follows_comes_after_it(self, durability):
        """Whatever a task does with the log, what was put before it has its place before it."""
        for follow in (
            lambda db: db.put(b"k", b"new", durability=durability),
            lambda db: db.write({b"k": b"new", b"other": b""}, durability=durability),
            lambda db: db.replace(b"k", b"old", b"new", durability=durability),
            lambda db: db.put(b"k", b"x" * LARGE, durability=durability),
        ):
            async with opening() as db:
                first = asyncio.ensure_future(db.put(b"k", b"old"))
                await asyncio.sleep(0)
                await follow(db)
                await first
                items = [change.items async for change in db.changes()]
                assert (b"k", b"old") in items[0]
                assert await db.get(b"k") != b"old"

    @in_loop
    async def test_a_sync_waits_for_it(self):
        async with opening() as db:
            put = asyncio.ensure_future(db.put(b"k", b"v"))
            await asyncio.sleep(0)
            await db.sync()
            assert (await db.stats()).durable_entry_id == 1
            await put

    @in_loop
    async def test_closing_waits_for_it_and_for_room(self):
        files = MemoryFileSystem()
        db = await opening(files)
        opened, proceed = threading.Event(), threading.Event()

        def hold():
            entry = db._engine.log.begin_entry()  # while it is open nobody has room
            opened.set()
            assert proceed.wait(PATIENCE)
            entry.rollback()

        thread = threading.Thread(target=hold)
        thread.start()
        loop = asyncio.get_running_loop()
        assert await loop.run_in_executor(None, opened.wait, PATIENCE)
        early = [asyncio.create_task(db.put(b"early%d" % n, b"v")) for n in range(20)]
        for _ in range(5):
            await asyncio.sleep(0)
        late = [asyncio.create_task(db.put(b"late%d" % n, b"v")) for n in range(20)]
        await asyncio.sleep(0)
        late[0].cancel()
        closing = asyncio.create_task(db.close())
        await asyncio.sleep(0)
        proceed.set()
        await asyncio.gather(*early, *late[1:])
        await closing
        await loop.run_in_executor(None, thread.join)
        async with opening(files) as db:
            assert await db.count() in (39, 40)  # what was cancelled is in doubt

    @in_loop
    async def test_a_refusal_reaches_everybody(self):
        db = await opening()
        tasks = [asyncio.create_task(db.put(b"%d" % n, b"v")) for n in range(5)]
        await asyncio.sleep(0)
        db._engine.log.shutdown()
        done = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(each, kvstore.StoreError) for each in done)
        assert len(set(map(id, done))) == 5

    @in_loop
    async def test_a_failed_store_tells_each_a_new_error(self):
        files = FaultyFileSystem()
        db = await opening(files)
        files.fail(errno.EIO, kinds="sync")
        done = await asyncio.gather(
            *(db.put(b"%d" % n, b"v") for n in range(5)), return_exceptions=True
        )
        assert {type(each) for each in done} == {kvstore.StoreFailedError}
        assert len(set(map(id, done))) == 5
        with pytest.raises(kvstore.StoreFailedError):
            await db.close()

    @in_loop
    async def test_an_interrupt_leaves_nobody_waiting(self, monkeypatch):
        async with opening() as db:

            def interrupted(*_, **__):
                raise KeyboardInterrupt

            tasks = [asyncio.create_task(db.put(b"%d" % n, b"v")) for n in range(5)]
            await asyncio.sleep(0)
            assert db._commits._gathering._puts
            monkeypatch.setattr(db._engine.log, "submit_ready", interrupted)
            with pytest.raises(KeyboardInterrupt):
                db._commits.submit_gathered()
            monkeypatch.undo()
            done = await asyncio.gather(*tasks, return_exceptions=True)
            assert {type(each) for each in done} == {asyncio.CancelledError}
            await db.put(b"on it goes", b"v")


class TestCancellation:
    @in_loop
    async def test_a_cancelled_put_is_in_doubt_and_nothing_else(self):
        files = FaultyFileSystem(count="sync")
        async with opening(files) as db:
            gate = Gate(files, "sync")
            tasks = [asyncio.create_task(db.put(b"%d" % n, b"v")) for n in range(10)]
            await gate.reached()
            for task in tasks[::2]:
                task.cancel()
            await asyncio.sleep(0)
            gate.open.set()
            done = await asyncio.gather(*tasks, return_exceptions=True)
            assert [type(each) for each in done] == [asyncio.CancelledError, type(None)] * 5
            await db.put(b"later", b"v")
            assert await db.count() == 11

    @in_loop
    async def test_a_cancelled_transaction(self):
        files = FaultyFileSystem(count="sync")
        async with opening(files) as db:
            gate = Gate(files, "sync")
            task = asyncio.create_task(transfer(db, 1))
            await gate.reached()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            gate.open.set()
            await db.sync()
            assert await db.count() == 2
            with db._store.snapshot():  # which closes what others let go of
                assert db._engine.memtable._active.newest.older is None

    @in_loop
    async def test_one_that_waits_for_room_is_given_up(self):
        """The thread that waits for it asks once more: what was cancelled is not written."""
        async with opening() as db:
            opened, proceed = threading.Event(), threading.Event()

            def hold():
                entry = db._engine.log.begin_entry()  # while it is open nobody has room
                opened.set()
                assert proceed.wait(PATIENCE)
                entry.rollback()

            thread = threading.Thread(target=hold)
            thread.start()
            loop = asyncio.get_running_loop()
            assert await loop.run_in_executor(None, opened.wait, PATIENCE)
            tasks = [asyncio.create_task(transfer(db, n)) for n in range(3)]
            put = asyncio.create_task(db.put(b"put", b"v"))
            for _ in range(20):
                await asyncio.sleep(0)
            for task in tasks:
                task.cancel()
            done = await asyncio.gather(*tasks, return_exceptions=True)
            assert {type(each) for each in done} == {asyncio.CancelledError}
            proceed.set()
            await put
            await loop.run_in_executor(None, thread.join)
            assert [key async for key in db] == [b"put"]

    @in_loop
    async def test_sync_is_shared(self):
        files = FaultyFileSystem(count="sync")
        async with opening(files, durability=BUFFER) as db:
            await db.put(b"k", b"v")
            gate = Gate(files, "sync")
            first = asyncio.create_task(db.sync())
            await gate.reached()
            before = len(files.calls)
            await db.put(b"k", b"w")
            others = [asyncio.create_task(db.sync()) for _ in range(100)]
            await asyncio.sleep(0)
            others[0].cancel()
            gate.open.set()
            await asyncio.gather(first, *others, return_exceptions=True)
            assert len(files.calls) - before <= 3
            assert (await db.stats()).durable_entry_id == db.last_entry_id


class TestTheEnd:
    @in_loop
    async def test_what_has_begun_ends(self):
        files = FaultyFileSystem(count="sync")
        db = await opening(files)
        gate = Gate(files, "sync")
        puts = [asyncio.create_task(db.put(b"%d" % n, b"v")) for n in range(10)]
        puts += [asyncio.create_task(db.put(b"large", b"x" * LARGE))]
        puts += [asyncio.create_task(db.add(b"added", b"x"))]
        await gate.reached()
        closing = asyncio.create_task(db.close())
        await asyncio.sleep(0)
        with pytest.raises(kvstore.StoreClosedError):
            await db.put(b"late", b"v")
        assert not closing.done()
        gate.open.set()
        await asyncio.gather(*puts)
        await closing
        files.on_call = None
        async with opening(files) as db:
            assert await db.count() == 12

    @in_loop
    async def test_after_it_everything_is_refused(self):
        db = await opening()
        snap, scan, users = db.snapshot(), db.scan(), db.namespace(b"u")
        await db.close()
        await db.close()
        for use in (
            lambda: db.get(b"k"),
            lambda: db.put(b"k", b""),
            lambda: db.count(),
            lambda: db.sync(),
            lambda: db.stats(),
            lambda: users.put(b"k", b""),
            lambda: snap.get(b"k"),
            lambda: anext_(scan),
            lambda: db.__aenter__(),
        ):
            with pytest.raises(kvstore.StoreClosedError):
                await use()
        for call in (db.scan, db.snapshot, db.transaction, db.batch, db.changes):
            with pytest.raises(kvstore.StoreClosedError):
                call()

    @in_loop
    async def test_what_was_left_open(self):
        db = await opening()
        tx, large = db.transaction(), db.transaction()
        await tx.__aenter__()
        await tx.put(b"k", b"v")
        await large.__aenter__()
        await large.put(b"k", b"v" * LARGE)
        cursor = db.cursor()
        await cursor.__aenter__()
        await asyncio.gather(*(db.close() for _ in range(3)))
        for each in (tx, large):
            with pytest.raises(kvstore.StoreClosedError):
                await each.__aexit__(None, None, None)
            assert each.entry_id is None
        with pytest.raises(kvstore.StoreClosedError):
            await cursor.first()
        await cursor.close()

    def test_another_loop_is_refused(self):
        files = MemoryFileSystem()
        db = asyncio.run(anext_opening(files))

        async def use():
            for call in (db.get(b"k"), db.put(b"k", b"v"), db.count()):
                with pytest.raises(kvstore.StoreError, match="event loop"):
                    await call

        asyncio.run(use())
        db._store.close()

    def test_a_loop_that_ends_under_writes(self):
        files = FaultyFileSystem(count="sync")

        async def main():
            db = await opening(files)
            gate = Gate(files, "sync")
            tasks = [asyncio.create_task(db.put(b"%d" % n, b"v")) for n in range(5)]
            await gate.reached()
            return db, gate, tasks

        db, gate, _ = asyncio.run(main())
        gate.open.set()
        db._store.sync()
        assert db._store.count() == 5
        db._store.close()

    @in_loop
    async def test_a_failed_store_tells_every_task(self, caplog):
        files = FaultyFileSystem()
        db = await opening(files)
        files.fail(errno.EIO, kinds="sync")
        done = await asyncio.gather(
            *(db.put(b"%d" % n, b"v") for n in range(20)), return_exceptions=True
        )
        assert {type(each) for each in done} == {kvstore.StoreFailedError}
        assert all(each.latched and each.errno == errno.EIO for each in done)
        with pytest.raises(kvstore.StoreFailedError):
            await db.put(b"k", b"v")
        with pytest.raises(kvstore.StoreFailedError):
            await db.sync()
        assert await db.get(b"1") is None
        with pytest.raises(kvstore.StoreFailedError):
            await db.close()
        assert db.closed
        await db.close()

    @in_loop
    async def test_a_read_only_store(self):
        files = MemoryFileSystem()
        async with opening(files) as db:
            await db.put(b"k", b"v")
            await db.checkpoint()
            async with opening(files, "r") as reader:
                assert await reader.get(b"k") == b"v"
                await reader.sync()
                for write in (
                    reader.put(b"k", b""),
                    reader.delete(b"k"),
                    reader.add(b"k", b""),
                    reader.write({}),
                    reader.checkpoint(),
                    reader.namespace(b"n").put(b"k", b""),
                ):
                    with pytest.raises(kvstore.ReadOnlyError):
                        await write
                with pytest.raises(kvstore.ReadOnlyError):
                    reader.batch()
                await db.put(b"new", b"v")
                await db.checkpoint()
                await reader.refresh()
                assert await reader.contains(b"new")


class TestChanges:
    @in_loop
    async def test_what_was_committed(self):
        async with opening() as db:
            for n in range(50):
                await db.put(b"%d" % n, b"v")
            found = [change async for change in db.changes()]
            assert [change.items for change in found] == [((b"%d" % n, b"v"),) for n in range(50)]
            later = db.changes(after=found[-2].entry_id)
            assert [change async for change in later] == found[-1:]

    @in_loop
    async def test_following(self):
        async with opening(retain_bytes=1 << 20) as db:
            caught_up, more = asyncio.Event(), asyncio.Event()
            followers = [asyncio.create_task(follow(db, caught_up, more)) for _ in range(2)]
            for n in range(600):
                await db.put(b"%d" % n, b"", durability=BUFFER)
            await db.put(b"all", b"")
            await caught_up.wait()
            followers[0].cancel()
            await asyncio.wait(followers[:1])
            await db.put(b"more", b"")
            await more.wait()
        assert await followers[1] == [*(b"%d" % n for n in range(600)), b"all", b"more"]

    @in_loop
    async def test_a_follower_that_is_left_ends(self):
        async with opening(retain_bytes=1 << 20) as db:
            await db.write({b"k": b"v"})
            async with contextlib.aclosing(db.changes(follow=True)) as changes:
                async for change in changes:
                    assert change.items == ((b"k", b"v"),)
                    break
            for n in range(300):
                await db.put(b"%d" % n, b"", durability=BUFFER)
            left = db.changes(follow=True)
            await anext_(left)
        assert len([change async for change in left]) < 300
        gc.collect()

    @in_loop
    async def test_errors_come_through(self):
        async with opening() as db:
            for follow in (False, True):
                with pytest.raises(ValueError, match="entry id"):
                    await anext_(db.changes(after=-1, follow=follow))


def test_what_is_exported():
    for name in kvstore.aio.__all__:
        assert getattr(kvstore.aio, name).__doc__
    assert wal.Durability is kvstore.Durability


async def follow(db, caught_up, more):
    seen = []
    async for change in db.changes(follow=True):
        seen += [key for key, _ in change.items]
        if seen[-1] == b"all":
            caught_up.set()
        if seen[-1] == b"more":
            more.set()
    return seen


async def anext_opening(files):
    db = await opening(files)
    await db.put(b"k", b"v")
    return db
