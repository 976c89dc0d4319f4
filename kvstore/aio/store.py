"""The store for tasks: :class:`AsyncStore`."""

from __future__ import annotations

import os
import weakref
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, TypeVar

from kvstore.aio.committing import AsyncCommits
from kvstore.aio.following import Follower
from kvstore.aio.glance import at_present
from kvstore.aio.home import Home
from kvstore.aio.iterating import Pages, items_of
from kvstore.aio.namespaces import AsyncNamespace
from kvstore.aio.places import Places, child_of
from kvstore.aio.snapshot import AsyncSnapshot
from kvstore.aio.transactions import AsyncTransaction, transact
from kvstore.aio.writing import AsyncWrites
from kvstore.batch import Mutations
from kvstore.codecs import Codec
from kvstore.commit import read_only
from kvstore.keyspaces import ESCAPE, ROOT
from kvstore.mutations import MAX_KEY, MAX_VALUE, Buffer, as_key, as_value
from kvstore.values import Found

if TYPE_CHECKING:
    from types import TracebackType

    from kvstore.change_feed import Change
    from kvstore.statistics import StoreStats
    from kvstore.store import Store
    from kvstore.upkeep.verification import Report
    from wal import Durability

T = TypeVar("T")
W = TypeVar("W")


class AsyncStore(AsyncWrites[bytes, Buffer]):
    """An ordered map from bytes to bytes, for the tasks of one event loop.

    It has the methods of :class:`kvstore.Store`, to be awaited; ``contains`` stands for ``in``.
    Made by :func:`kvstore.aio.open`. It belongs to the loop in which it was opened.

    - What is in memory is answered on the loop; only what must be read from a file goes through a
      thread. Who is answered at once over and over lets the loop go on now and then.
    - A write waits for its durability as a future; all that wait share a sync.
    - A task that is cancelled leaves nothing behind. A write that it waited for is in doubt, as
      after a crash: it is there whole, or not at all. A call that runs in a thread goes on there.
    - :meth:`close` refuses what is new and lets what has begun end.

    >>> import asyncio, kvstore.aio, wal
    >>> async def main():
    ...     async with kvstore.aio.open("db", file_system=wal.files.MemoryFileSystem()) as db:
    ...         await asyncio.gather(*(db.put(b"%d" % n, b"x") for n in range(3)))
    ...         print([key async for key, value in db.scan()], await db.get(b"7"))
    >>> asyncio.run(main())
    [b'0', b'1', b'2'] None
    """

    def __init__(self, home: Home, store: Store) -> None:
        """Take over an open store. Use :func:`kvstore.aio.open`."""
        self._home = home
        self._store = store
        self._engine = store._engine
        self._places = Places(home, store._names)
        self._root = self
        self._commits: AsyncCommits | None = None
        if store._commits is not None:
            self._commits = AsyncCommits(home, store._engine, store._commits)
        self._followers: weakref.WeakSet[Follower] = weakref.WeakSet()

    async def put(
        self, key: Buffer, value: Buffer, *, durability: Durability | None = None
    ) -> None:
        """Set a key.

        Raises KeyTooLongError and ValueTooLongError, StoreFailedError (``latched``: in doubt, and
        no later write succeeds; else nothing was written), ReadOnlyError, StoreClosedError.
        """
        # The same as in every namespace; in fewer frames a third faster.
        if type(key) is not bytes or len(key) > MAX_KEY or key >= ESCAPE:
            key = ROOT.stored(as_key(key))
        if type(value) is not bytes or len(value) > MAX_VALUE:
            value = as_value(value)
        self._home.check()
        await self._writer().put(key, value, durability)

    # -- several keys ------------------------------------------------------------------------------

    def snapshot(self) -> AsyncSnapshot:
        """The store as it is at this moment: ``async with db.snapshot() as snap:``. O(1)."""
        self._home.check()
        return AsyncSnapshot(self._home, self._engine, self._places, self._store.snapshot())

    def transaction(
        self, *, durability: Durability | None = None, read_only: bool = False
    ) -> AsyncTransaction:
        """Reads and writes as one step: ``async with db.transaction() as tx:``. See there.

        With ``read_only`` a write in it is a ReadOnlyError.
        """
        self._home.check()
        inner = self._store.transaction(durability=durability, read_only=read_only)
        return AsyncTransaction(self._home, self._places, self._commits, inner)

    async def transact(
        self,
        function: Callable[[AsyncTransaction], Awaitable[T]],
        attempts: int = 10,
        *,
        durability: Durability | None = None,
    ) -> T:
        """Await ``function(tx)`` in a transaction and return what it returns.

        After a conflict it is called again in a new one, ``attempts`` times in all, with growing
        random pauses; then the last ConflictError is raised. What else it raises ends it.

        >>> import asyncio, kvstore.aio, wal
        >>> async def increment(tx):
        ...     await tx.put(b"n", b"%d" % (int(await tx.get(b"n", b"0")) + 1))
        >>> async def main():
        ...     async with kvstore.aio.open("db", file_system=wal.files.MemoryFileSystem()) as db:
        ...         await asyncio.gather(*(db.transact(increment, 100) for _ in range(5)))
        ...         print(await db.get(b"n"))
        >>> asyncio.run(main())
        b'5'
        """
        return await transact(lambda: self.transaction(durability=durability), function, attempts)

    def namespace(self, name: Buffer, codec: Codec[W] | None = None) -> AsyncNamespace[W]:
        """A part of the store with keys of its own; see :class:`AsyncNamespace`."""
        self._home.check()
        return AsyncNamespace(self, child_of((), name, codec))

    def changes(
        self, after: int | None = None, *, follow: bool = False
    ) -> AsyncGenerator[Change, None]:
        """What was committed, in the order of the log: see :meth:`kvstore.Store.changes`.

        With ``follow`` it goes on until the store is closed, or the iterator is.
        """
        self._home.check()

        def begin() -> Iterator[Change]:
            return self._store.changes(after, follow=follow)

        if not follow:
            return items_of(self, Pages(begin, _weight_of_change))
        follower = Follower(self._home, begin)
        self._followers.add(follower)
        return follower.changes()

    # -- what reads and writes rest on -------------------------------------------------------------

    def _look(self, stored: bytes) -> Found:
        return at_present(self._engine, stored)

    def _twin(self) -> Store:
        return self._store

    async def _run(self, function: Callable[..., T], *arguments: object) -> T:
        return await self._home.run(function, *arguments)

    def _check_writable(self) -> None:
        self._home.check()
        self._writer()

    def _writer(self) -> AsyncCommits:
        if self._commits is None:
            raise read_only()
        return self._commits

    def _commit_stored(self, mutations: Mutations, durability: Durability | None) -> Awaitable[int]:
        return self._writer().commit(mutations, durability)

    async def _change_stored(
        self,
        key: bytes,
        choose: Callable[[bytes | None], Found],
        durability: Durability | None,
        extra: Mutations,
    ) -> tuple[bytes | None, bool]:
        return await self._writer().change(key, choose, durability, extra)

    # -- durability --------------------------------------------------------------------------------

    async def sync(self) -> None:
        """Make all that was written before survive a power loss, whatever its durability."""
        self._home.check()
        if self._commits is not None:
            await self._commits.sync()

    async def checkpoint(self) -> None:
        """Move all that was written before from the log to tables. Waits until it is done."""
        await self._call(self._store.checkpoint)

    async def compact(self) -> None:
        """Merge everything into as few tables as can be; see :meth:`kvstore.Store.compact`."""
        await self._call(self._store.compact)

    async def backup(self, path: str | os.PathLike[str]) -> None:
        """Copy the store to a directory; see :meth:`kvstore.Store.backup`."""
        await self._call(self._store.backup, path)

    async def verify(self) -> Report:
        """Read everything on the disk, check it, and report; changes nothing."""
        return await self._call(self._store.verify)

    async def refresh(self) -> None:
        """For a store opened with flag ``"r"``: show what its writer has made durable since."""
        await self._call(self._store.refresh)

    async def stats(self) -> StoreStats:
        """Where the store stands, as an immutable snapshot."""
        return await self._call(self._store.stats)

    async def _call(self, function: Callable[..., T], *arguments: object) -> T:
        self._home.check()
        return await self._home.run(function, *arguments)

    # -- the end -----------------------------------------------------------------------------------

    @property
    def path(self) -> str | os.PathLike[str]:
        """The directory, as it was given."""
        return self._store.path

    @property
    def last_entry_id(self) -> int:
        """The id of the last log entry that is visible; 0 before the first."""
        return self._store.last_entry_id

    @property
    def closed(self) -> bool:
        """Whether the store was closed."""
        return self._store.closed

    @property
    def read_only(self) -> bool:
        """Whether it was opened with flag ``"r"``."""
        return self._store.read_only

    async def close(self) -> None:
        """Let end what has begun, sync, checkpoint unless the log is short, and let go.

        Idempotent. What comes later is a StoreClosedError. Everything is released even where that
        fails; the failure is raised then.
        """
        for follower in list(self._followers):
            follower.stop()
        if self._commits is not None:
            self._commits.submit_gathered()
        await self._home.close(self._store.close)

    async def __aenter__(self) -> AsyncStore:
        self._home.check()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return repr(self._store).replace("kvstore.", "kvstore.aio.Async", 1)


def _weight_of_change(change: Change) -> int:
    return sum(len(value) for _, value in change.items if value is not None)
