"""What is done under strace: ``python -m tests.laboratory.syncs.scenes DIRECTORY SCENE…``."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from contextlib import suppress

import kvstore
import kvstore.aio
from kvstore import Durability
from tests.laboratory.syncs.stage import OPTIONS, Scene, mark, token, until


def create(scene):
    with scene.step("creation of a store"):
        scene.open()


def writes(scene):
    scene.put()
    with scene.step("put(), FSYNC"):
        scene.put()
    with scene.step("put(), WRITE"):
        scene.put(durability=Durability.WRITE)
    scene.settle()
    with scene.step("put(), BUFFER, then sync()"):
        name = token()
        scene.db.put(name, name, durability=Durability.BUFFER)
        mark(f"accepted {name.decode()}")
        scene.db.sync()
        scene.acknowledge(name)
    with scene.step("a batch, FSYNC"), scene.acknowledged() as name, scene.db.batch() as batch:
        for number in range(20):
            batch.put(name[number:], name)
    with (
        scene.step("a transaction, FSYNC"),
        scene.acknowledged() as name,
        scene.db.transaction() as tx,
    ):
        tx[name] = tx.get(b"key", b"") + name
    with scene.step("the first put() in a namespace, FSYNC"), scene.acknowledged() as name:
        scene.db.namespace(b"names").put(name, name)
    with scene.step("put() of a large value, FSYNC"):
        scene.put(size=24 << 10)


def idle(scene):
    scene.settle()
    with scene.step("idleness after put(), FSYNC"), scene.until_the_flusher_writes(1):
        scene.put()
    with scene.step("idleness after put(), BUFFER"), scene.until_the_flusher_writes(2):
        scene.put(durability=Durability.BUFFER)


def rotation(scene):
    """Fill a segment to just below its end, so that the next put begins another."""
    scene.db.checkpoint()
    scene.settle()
    for _ in range(7):
        scene.put(size=8 << 10)
    scene.settle()
    with scene.step("put() that begins a segment, FSYNC"):
        scene.put(size=8 << 10)
        scene.rest()


def checkpoint(scene):
    scene.settle()
    with scene.step("checkpoint()"):
        scene.db.checkpoint()
        mark("returned")
        scene.rest()


def compaction(scene):
    with scene.step("compact()"):
        scene.db.compact()
        mark("returned")
        until(lambda: len(os.listdir(os.path.join(scene.path, "tables"))) == 1)


def backup(scene):
    where = os.path.join(scene.directory, "backup")
    with scene.step("backup()"):
        scene.db.backup(where)
        mark("returned")
    scene.put()
    scene.db.checkpoint()
    scene.rest()
    with scene.step("backup() once more"):
        scene.db.backup(where)
        mark("returned")


def tasks(scene):
    """Many puts on one loop, all before the first sync has begun: they share it."""
    scene.db.close()

    async def put(db):
        name = token()
        await db.put(name, name)
        scene.acknowledge(name)

    async def main():
        async with kvstore.aio.open(scene.path, **OPTIONS) as db:
            mark("shown")
            with scene.step("50 puts of tasks"):
                await asyncio.gather(*(put(db) for _ in range(50)))

    asyncio.run(main())
    scene.open()


def threads(scene):
    """Eight threads, each with its own puts."""

    def work():
        with suppress(kvstore.StoreError):
            for _ in range(6):
                scene.put()

    with scene.step("puts of 8 threads"):
        workers = [threading.Thread(target=work) for _ in range(8)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()


def close(scene):
    scene.settle()
    with scene.step("close()"):
        scene.db.close()
        mark("returned")


def reopen(scene):
    with scene.step("opening after close()"):
        scene.open("w")


def orphan(scene):
    """A table that no manifest names, as a killed compaction leaves it."""
    scene.db.close()
    tables = os.path.join(scene.path, "tables")
    table = os.path.join(tables, sorted(os.listdir(tables))[-1])
    with open(table, "rb") as one, open(os.path.join(tables, "000000000900.table"), "wb") as other:
        other.write(one.read())
    with scene.step("opening where a table is left over"):
        scene.open("w")


def kill(scene):
    """A process that ends without closing, right after a put with WRITE."""
    scene.put()
    scene.db.close()
    pid = os.fork()
    if not pid:
        scene.open("w")
        scene.put()
        scene.put(durability=Durability.WRITE)
        os._exit(0)
    os.waitpid(pid, 0)
    with scene.step("opening after a kill"):
        scene.open("w")
        scene.rest()


def empty(scene):
    scene.db.close()
    scene.acked = []
    with scene.step('open() with flag "n"'):
        scene.open("n")


def restore(scene):
    """A backup is opened for writing."""
    scene.db.close()
    scene.acked = []
    scene.path = os.path.join(scene.directory, "backup")
    with scene.step("opening a backup for writing"):
        scene.open("w")
    scene.put()


SCENES = {
    each.__name__: each
    for each in (
        *(create, writes, idle, rotation, checkpoint, compaction, backup, tasks, threads),
        *(close, reopen, orphan, kill, empty, restore),
    )
}


def main(directory, *names):
    """Play the scenes; what the store raises ends them. Then open it once more, and look."""
    scene = Scene(directory)
    try:
        for name in names:
            SCENES[name](scene)
    except (kvstore.StoreError, OSError) as error:
        mark(f"failed {type(error).__name__} latched={getattr(error, 'latched', None)}")
        try_on(scene)
    if scene.db is not None:
        with suppress(kvstore.StoreError, OSError):
            scene.db.close()
    mark("again")
    with suppress(kvstore.StoreError, OSError):
        scene.open()
        scene.look()
        scene.put()
        scene.db.close()


def try_on(scene):
    """A store that has latched refuses what comes later, and can still be read."""
    if scene.db is not None and not scene.db.closed:
        for _ in range(2):
            with suppress(kvstore.StoreError):
                scene.put()
        scene.look()


if __name__ == "__main__":
    main(*sys.argv[1:])
