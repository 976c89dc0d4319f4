"""The asyncio part of a soak: tasks on the same store as the threads, each with its own keys."""

from __future__ import annotations

import asyncio

from kvstore.aio.home import Home
from kvstore.aio.store import AsyncStore
from tests.laboratory.soak.actors import ACCOUNTS, DURABILITIES, EACH, Actor, total

TASKS = 12
KEYS = 60


class Tasks(Actor):
    """One event loop in a thread. Its tasks put, delete and look, and at times are cancelled."""

    def __init__(self, soak, name):
        super().__init__(soak, name)
        self.models = [{} for _ in range(TASKS)]

    def step(self, db):
        asyncio.run(self._sit(db))

    async def _sit(self, db):
        store = AsyncStore(Home(), db)  # beside the threads, which have the same store
        tasks = [asyncio.create_task(self._task(store, n)) for n in range(TASKS)]
        try:
            await asyncio.gather(*tasks)
        finally:
            await store._home.close(lambda: None)  # the store stays open, for the others

    async def _task(self, store, number):
        prefix, model = b"task%02d/" % number, self.models[number]
        while not self.soak.stopping.is_set():
            await self._step(store, prefix, model)
            self.counts["steps"] += 1
            await asyncio.sleep(0.005 * self.rng.random())
        found = {key: value async for key, value in store.scan(prefix=prefix)}
        self.check(found, model, f"task {number} at its end")

    async def _step(self, store, prefix, model):
        key = prefix + b"%03d" % self.rng.randrange(KEYS)
        value, chance = self.rng.randbytes(self.rng.randrange(200)), self.rng.random()
        how = self.rng.choice(DURABILITIES)
        if chance < 0.5:
            await store.put(key, value, durability=how)
            model[key] = value
        elif chance < 0.6:
            await store.delete(key, durability=how)
            model.pop(key, None)
        elif chance < 0.9:
            self.check(await store.get(key), model.get(key), f"get {key}")
        elif chance < 0.95:
            await self._cancelled(store, key, value, model)
        else:
            async with store.snapshot() as snapshot:
                wanted = dict(model)
                await store.put(key, value, durability=how)
                model[key] = value
                found = {key: value async for key, value in snapshot.scan(prefix=prefix)}
                self.check(found, wanted, "a snapshot of a task")

    async def _cancelled(self, store, key, value, model):
        """A write that is cancelled is in doubt: whole, or not at all. Then written once more."""
        put = asyncio.ensure_future(store.put(key, value))
        await asyncio.sleep(0)
        put.cancel()
        await asyncio.wait([put])
        found = await store.get(key)
        if found not in (value, model.get(key)):
            raise AssertionError(f"{key} after a cancelled put: {found!r}")
        await store.put(key, value)
        model[key] = value
        self.counts["writes cancelled"] += 1

    def end(self, db):
        self.check(total(db), ACCOUNTS * EACH, "the sum at the end of a sitting")
