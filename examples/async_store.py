"""The store from asyncio: a queue of jobs, its workers, and one who watches what is committed.

Every step survives a power loss before the next one begins, and no task costs a thread: all that
write at the same time share each sync.

    python examples/async_store.py [directory]
"""

from __future__ import annotations

import asyncio
import sys
import time

import kvstore
import kvstore.aio

JOBS = 1000
WORKERS = 20


async def order(db: kvstore.aio.AsyncStore) -> None:
    """Put all the jobs down at once, each in a task and a write of its own."""
    jobs = db.namespace(b"jobs", kvstore.JSON)
    started = time.perf_counter()
    await asyncio.gather(*(jobs.put(b"%04d" % n, {"square": n}) for n in range(JOBS)))
    seconds = time.perf_counter() - started
    print(f"{JOBS} jobs were made durable by {JOBS} tasks, {JOBS / seconds:,.0f} a second")


async def work(db: kvstore.aio.AsyncStore, number: int) -> int:
    """Go through all the jobs, each worker from another place on; how many it has done."""
    keys = [key async for key in db.namespace(b"jobs", kvstore.JSON)]
    start = number * len(keys) // WORKERS
    return sum([await do(db, key) for key in keys[start:] + keys[:start]])


async def do(db: kvstore.aio.AsyncStore, key: bytes) -> bool:
    """Do a job, unless somebody else has: it goes and its result comes, or neither."""
    try:
        async with db.transaction() as tx:
            job = await tx.namespace(b"jobs", kvstore.JSON).pop(key)
            if job is None:
                return False
            await tx.namespace(b"results", kvstore.JSON).put(key, job["square"] ** 2)
    except kvstore.ConflictError:
        return False  # another worker was at it, and committed first
    return True


async def watch(db: kvstore.aio.AsyncStore, after: int) -> int:
    """Follow what is committed until all the jobs are done; how many commits that took."""
    left, commits = JOBS, 0
    async for change in db.changes(after=after, follow=True):
        if change.namespace == (b"results",):
            left -= len(change.items)
            commits += 1
            if not left:
                break
    return commits


async def main() -> None:
    path = sys.argv[1] if len(sys.argv) > 1 else "async.db"
    async with kvstore.aio.open(path, "n") as db:
        await order(db)
        watcher = asyncio.create_task(watch(db, db.last_entry_id))
        counts = await asyncio.gather(*(work(db, n) for n in range(WORKERS)))
        print(f"{sum(counts)} jobs were done by {WORKERS} workers, none of them twice")
        print(f"the watcher has seen {await watcher} commits")
        async with db.snapshot() as snap:
            results = snap.namespace(b"results", kvstore.JSON)
            right = [await results.get(b"%04d" % n) == n * n for n in range(JOBS)]
            last = [f"{int(key)}: {value}" async for key, value in results.scan(b"0997")]
        print(f"{right.count(True)} results are right, the last are {', '.join(last)}")


if __name__ == "__main__":
    asyncio.run(main())
