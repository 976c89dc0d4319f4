"""Callers that ask a store, from threads or from tasks, for random things, and note what they see.

What is asked is written once, for tasks. A thread has it done through :class:`Direct`, which gives
a store the methods of one for tasks; none of them ever waits for a loop, so that :func:`run_now`
runs the whole of it.
"""

from __future__ import annotations

import asyncio
import random
import time

import kvstore
from tests.laboratory.machines.history import Other
from tests.store.support import FSYNC
from wal.files.faulty import PowerLoss

KEYS = [b"a", b"b", b"c"]
LARGE = 1 << 10
"""Values of so many bytes stay in the log, and go to blobs: the least that there is."""


SINGLE = ("get", "put", "put", "delete", "add", "replace", "pop")
"""Operations of one key."""
EVERY = (
    *SINGLE,
    *("get_many", "scan", "hold_snapshot", "write", "batch"),
    *("transfer", "transfer", "skew", "gather", "look"),
)


class Direct:
    """A store, snapshot or transaction with the methods of one for tasks."""

    def __init__(self, inner):
        self._inner = inner

    def __getattr__(self, name):
        method = getattr(self._inner, name)

        async def call(*arguments, **options):
            return method(*arguments, **options)

        return call

    def transaction(self, **options):
        return Direct(self._inner.transaction(**options))

    def snapshot(self):
        return Direct(self._inner.snapshot())

    def batch(self, **options):
        return _DirectBatch(self._inner.batch(**options))

    async def scan(self, **options):
        for item in self._inner.scan(**options):
            yield item

    async def __aenter__(self):
        self._inner.__enter__()
        return self

    async def __aexit__(self, *error):
        return self._inner.__exit__(*error)


class _DirectBatch:
    def __init__(self, batch):
        self._batch = batch

    async def __aenter__(self):
        return self._batch.__enter__()

    async def __aexit__(self, *error):
        return self._batch.__exit__(*error)


def run_now(coroutine):
    """Run what never waits; what it returns."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value
    raise AssertionError("it waits")


async def pause(db, seconds=0):
    """Let others go on."""
    if isinstance(db, Direct):
        _hold_thread(seconds)
    else:
        await asyncio.sleep(seconds)


_hold_thread = time.sleep


class Caller:
    """Asks for one thing after another until there are enough, or the store has ended."""

    def __init__(self, name, db, history, seed, names, *, durabilities=(FSYNC,)):
        self.name = name
        self._db = db
        self._history = history
        self._rng = random.Random(seed)
        self._durabilities = durabilities
        self._serial = 0
        self._snapshot = None  # and the operation that it is
        self._steps = [getattr(self, f"_{each}") for each in names]
        self._reading = [self._get, self._scan] if "scan" in names else [self._get]

    async def run(self, count):
        """So many operations, or fewer where the power is lost.

        The one that met that may have happened or not; so may one that failed for good, and after
        it there are but reads.
        """
        try:
            for _ in range(count):
                try:
                    await self._rng.choice(self._steps)()
                except kvstore.StoreFailedError as error:
                    if not error.latched:
                        raise
                    self._steps = self._reading
            if self._snapshot is not None:
                await self._look_at_snapshot()
        except PowerLoss:
            return

    # -- one key -----------------------------------------------------------------------------------

    async def _get(self):
        key = self._key()
        operation = self._begin(f"get {key.decode()}")
        operation.seen = {key: await self._db.get(key)}
        self._history.end(operation)

    async def _put(self):
        key, value = self._key(), self._value()
        operation, durability = self._begin_write("put", left={key: value})
        await self._db.put(key, value, durability=durability)
        self._history.end(operation)

    async def _delete(self):
        key = self._key()
        operation, durability = self._begin_write("delete", left={key: None})
        await self._db.delete(key, durability=durability)
        self._history.end(operation)

    async def _add(self):
        key, value = self._key(), self._value()
        operation, durability = self._begin_write("add", seen={key: None}, left={key: value})
        if not await self._db.add(key, value, durability=durability):
            self._only_saw(operation, {key: Other(None)})
        self._history.end(operation)

    async def _replace(self):
        """Of a value that was just read: so it often succeeds, and often not."""
        key, new = self._key(), self._rng.choice((None, self._value()))
        await self._get_again(key)
        expected = self._last_seen
        seen, left = {key: expected}, {key: new}
        operation, durability = self._begin_write("replace", seen=seen, left=left)
        if not await self._db.replace(key, expected, new, durability=durability):
            self._only_saw(operation, {key: Other(expected)})
        elif expected is new is None:
            self._only_saw(operation, seen)  # there was nothing to write
        self._history.end(operation)

    async def _get_again(self, key):
        operation = self._begin(f"get {key.decode()}")
        self._last_seen = await self._db.get(key)
        operation.seen = {key: self._last_seen}
        self._history.end(operation)

    async def _pop(self):
        key = self._key()
        operation, durability = self._begin_write("pop", left={key: None})
        value = await self._db.pop(key, durability=durability)
        if value is None:
            self._only_saw(operation, {key: None})
        operation.seen = {key: value}
        self._history.end(operation)

    # -- several -----------------------------------------------------------------------------------

    async def _get_many(self):
        keys = self._some_keys()
        operation = self._begin("get_many")
        operation.seen = dict(zip(keys, await self._db.get_many(keys), strict=True))
        self._history.end(operation)

    async def _scan(self):
        operation = self._begin("scan")
        operation.seen = await self._all(self._db)
        self._history.end(operation)

    async def _write(self):
        items = {key: self._rng.choice((None, self._value())) for key in self._some_keys()}
        operation, durability = self._begin_write("write", left=items)
        await self._db.write(items, durability=durability)
        self._history.end(operation)

    async def _batch(self):
        items = {key: self._value() for key in self._some_keys()}
        operation, durability = self._begin_write("batch", left=items)
        async with self._db.batch(durability=durability) as batch:
            for key, value in items.items():
                batch.put(key, value)
        self._history.end(operation)

    async def _hold_snapshot(self):
        """A snapshot is of the moment when it is taken; what it shows is seen much later."""
        if self._snapshot is not None:
            await self._look_at_snapshot()
        operation = self._begin("snapshot")
        self._snapshot = operation, self._db.snapshot()
        self._history.end(operation)

    async def _look_at_snapshot(self):
        (operation, snapshot), self._snapshot = self._snapshot, None
        async with snapshot:
            found = await self._all(snapshot)
            assert [found[key] for key in KEYS] == await snapshot.get_many(KEYS)
            key = self._key()
            assert found[key] == await snapshot.get(key)
        operation.seen = found

    # -- transactions ------------------------------------------------------------------------------

    async def _transfer(self):
        """Read two keys and write both: updates get lost where others come between."""
        one, other = self._rng.sample(KEYS, 2)
        await self._transact("transfer", [one, other], lambda seen: {one: seen[other], other: None})

    async def _skew(self):
        """Read two keys and write one of them: write skew."""
        one, other = self._rng.sample(KEYS, 2)
        await self._transact("skew", [one, other], lambda seen: {one: None})

    async def _gather(self):
        """Walk over all keys and write one: phantoms."""
        await self._transact("gather", None, lambda seen: {self._key(): None})

    async def _look(self):
        await self._transact("look", self._some_keys(), lambda seen: {})

    async def _transact(self, what, keys, choose):
        """A transaction, of which what ``choose`` leaves empty becomes a value of its own."""
        operation, durability = self._begin_write(what)
        try:
            async with self._db.transaction(durability=durability) as tx:
                seen = await (self._all(tx) if keys is None else self._each(tx, keys))
                await pause(self._db)
                values = [(key, value or self._value()) for key, value in choose(seen).items()]
                for key, value in values:
                    await tx.put(key, value)
                operation.seen, operation.left = seen, dict(values)
        except kvstore.ConflictError:
            self._only_saw(operation, seen)  # which was so when it began
        if not operation.left:
            operation.durability = ""
        self._history.end(operation)

    async def _each(self, reads, keys):
        return {key: await reads.get(key) for key in keys}

    async def _all(self, reads):
        found = dict.fromkeys(KEYS)
        found.update([item async for item in reads.scan()])
        return found

    # ----------------------------------------------------------------------------------------------

    def _begin(self, what):
        return self._history.begin(self.name, what)

    def _begin_write(self, what, seen=(), left=()):
        durability = self._rng.choice(self._durabilities)
        operation = self._history.begin(self.name, what, seen, left, durability.value)
        return operation, durability

    def _only_saw(self, operation, seen):
        operation.seen, operation.left, operation.durability = dict(seen), {}, ""

    def _key(self):
        return self._rng.choice(KEYS)

    def _some_keys(self):
        return self._rng.sample(KEYS, self._rng.randint(2, len(KEYS)))

    def _value(self):
        """No other call writes it; some are large."""
        self._serial += 1
        value = b"%s.%d" % (str(self.name).encode(), self._serial)
        return value.ljust(LARGE + 200, b".") if self._rng.random() < 0.15 else value
