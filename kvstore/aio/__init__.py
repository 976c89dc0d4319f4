"""The store for ``asyncio``: everything of :mod:`kvstore`, to be awaited.

>>> import asyncio, kvstore.aio, wal
>>> files = wal.files.MemoryFileSystem()               # leave it away for real files
>>> async def main():
...     async with kvstore.aio.open("my.db", file_system=files) as db:
...         await db.put(b"apple", b"red")             # returns when it survives a power loss
...         async with db.batch() as batch:            # all or nothing
...             batch.put(b"banana", b"yellow")
...             batch.delete(b"apple")
...         async for key, value in db.scan():
...             print(key, value)
...         async with db.transaction() as tx:
...             await tx.put(b"count", b"%d" % await tx.count())
...         return await db.get(b"count")
>>> asyncio.run(main())
b'banana' b'yellow'
b'1'

Thousands of tasks that write at once share each sync: none of them costs a thread. No call waits
for a disk on the event loop. A store belongs to the loop in which it was opened.
"""

from kvstore.aio.batch import AsyncBatch, AsyncBatchPart
from kvstore.aio.cursor import AsyncCursor
from kvstore.aio.namespaces import AsyncNamespace, AsyncReadableNamespace
from kvstore.aio.opening import Opening, open  # noqa: A004
from kvstore.aio.snapshot import AsyncSnapshot
from kvstore.aio.store import AsyncStore
from kvstore.aio.transactions import AsyncTransaction

__all__ = [
    "AsyncBatch",
    "AsyncBatchPart",
    "AsyncCursor",
    "AsyncNamespace",
    "AsyncReadableNamespace",
    "AsyncSnapshot",
    "AsyncStore",
    "AsyncTransaction",
    "Opening",
    "open",
]
