"""Transactions for tasks.

All of a transaction's reading and writing rests on its synchronous counterpart. That is for one
thread at a time; so is this one for one task, but a cancelled read may still be at it in its
thread. Hence its turn, and the lock that lets it either commit or be given up.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from kvstore.aio.committing import AsyncCommits
from kvstore.aio.glance import in_pinned
from kvstore.aio.home import Home, Turn
from kvstore.aio.namespaces import AsyncNamespace
from kvstore.aio.places import Places, child_of
from kvstore.aio.writing import AsyncWrites
from kvstore.batch import Mutations
from kvstore.codecs import Codec
from kvstore.errors import ConflictError, StoreError
from kvstore.mutations import Buffer
from kvstore.transactions import Transaction, check_attempts, pause_after
from kvstore.values import MISSING, Found

if TYPE_CHECKING:
    from types import TracebackType

    from wal import Durability

T = TypeVar("T")
W = TypeVar("W")


class AsyncTransaction(AsyncWrites[bytes, Buffer]):
    """Reads and writes that happen as if nothing else happened meanwhile, or not at all.

    See :class:`kvstore.Transaction`: it begins with its ``async with`` block and commits at the end
    of it; ConflictError is raised there. For one task at a time. What a scan has fetched counts as
    read, and that may be a page more than was looked at: ``limit`` says how much is wanted.

    >>> import asyncio, kvstore.aio, wal
    >>> async def main():
    ...     async with kvstore.aio.open("db", file_system=wal.files.MemoryFileSystem()) as db:
    ...         async with db.transaction() as tx:
    ...             await tx.put(b"n", b"%d" % (int(await tx.get(b"n", b"0")) + 1))
    ...         print(await db.get(b"n"), tx.entry_id == db.last_entry_id)
    >>> asyncio.run(main())
    b'1' True
    """

    def __init__(
        self,
        home: Home,
        places: Places,
        commits: AsyncCommits | None,
        transaction: Transaction,
    ) -> None:
        """Use :meth:`AsyncStore.transaction`. Without ``commits`` it can only read."""
        self._home = home
        self._places = places
        self._commits = commits
        self._transaction = transaction
        self._turn = Turn()
        self._ending = threading.Lock()
        self._root = self

    @property
    def entry_id(self) -> int | None:
        """The id of the log entry, once it is committed; None if nothing was written."""
        return self._transaction.entry_id

    def namespace(self, name: Buffer, codec: Codec[W] | None = None) -> AsyncNamespace[W]:
        """A namespace, whose reads and writes are the transaction's."""
        return AsyncNamespace(self, child_of((), name, codec))

    # -- what reads and writes rest on -------------------------------------------------------------

    def _look(self, stored: bytes) -> Found:
        tx = self._transaction
        source = tx._source()
        if stored in tx._own:
            return tx._own[stored]
        source._seen.keys.add(stored)
        return in_pinned(tx._engine, tx._pinned, stored)

    def _twin(self) -> Transaction:
        self._transaction._source()
        return self._transaction

    async def _run(self, function: Callable[..., T], *arguments: object) -> T:
        return await self._home.run(self._turn.run, function, *arguments)

    def _check_writable(self) -> None:
        self._home.check()
        self._transaction._sink()

    async def _commit_stored(self, mutations: Mutations, durability: Durability | None) -> None:
        keep = partial(self._transaction.commit, mutations, durability)
        if not self._turn.try_to_run(keep):
            await self._run(keep)

    async def _change_stored(
        self,
        key: bytes,
        choose: Callable[[bytes | None], Found],
        durability: Durability | None,
        extra: Mutations,
    ) -> tuple[bytes | None, bool]:
        tx = self._transaction
        old = self._look(key)
        if old is not None and type(old) is not bytes:
            return await self._run(tx.change, key, choose, durability, extra)
        new = choose(old)
        if new is MISSING:
            return old, False
        await self._commit_stored({**extra, key: new}, durability)  # type: ignore[dict-item]
        return old, True

    # -- the block ---------------------------------------------------------------------------------

    async def __aenter__(self) -> AsyncTransaction:
        self._home.check()
        self._transaction.__enter__()
        return self

    def rollback(self) -> None:
        """Drop everything that was written in it, and end it. Idempotent; needs no ``await``."""
        with self._ending:
            self._transaction.rollback()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        tx = self._transaction
        if tx._over:
            return
        try:
            if kind is None and tx._own:
                assert self._commits is not None
                tx._seen.settle()
                tx.entry_id = await self._commits.commit(tx._own, tx._durability, self._decide)
        finally:
            self._give_up()

    def _decide(self) -> None:
        with self._ending:
            if self._transaction._over:  # cancelled while it waited for room in the log
                raise StoreError("the transaction was given up")
            self._transaction._decide()

    def _give_up(self) -> None:
        with self._ending:
            if not self._transaction._over:
                self._transaction._end()

    def __repr__(self) -> str:
        return repr(self._transaction).replace("kvstore.", "kvstore.aio.Async")


async def transact(
    begin: Callable[[], AsyncTransaction],
    function: Callable[[AsyncTransaction], Awaitable[T]],
    attempts: int,
) -> T:
    """Run a function in a transaction, again after a conflict, with growing random pauses."""
    for attempt in range(check_attempts(attempts)):
        try:
            async with begin() as tx:
                result = await function(tx)
        except ConflictError:
            if attempt == attempts - 1:
                raise
            await asyncio.sleep(pause_after(attempt))
        else:
            return result
    raise AssertionError("unreachable")
