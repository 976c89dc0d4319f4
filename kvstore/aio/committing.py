"""Commits from an event loop.

An entry is handed to the log on the loop, which takes some microseconds, and a future waits for its
durability. The thread that writes and syncs for all puts down what it has completed and wakes the
loop once for each group: so thousands of tasks share a sync, and cost no thread.

Where the log has no room (a segment is full and none is ready, checkpoints have to catch up, a
large value is being written) one thread waits for all: whoever comes meanwhile waits for that one,
and then tries again on the loop.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, cast

from kvstore.aio.glance import in_tables
from kvstore.aio.home import Home, Waker
from kvstore.commit import StaleError
from kvstore.mutations import Encoded
from kvstore.values import MISSING, Found
from wal import PositionNotFoundError, WalError

if TYPE_CHECKING:
    from kvstore.commit import Choose, Commits, Decide, Mutations
    from kvstore.engine import Engine
    from kvstore.memory.state import State
    from wal import Durability, Ticket


class _Sync:
    """One sync, which everybody may join who comes before it has begun."""

    def __init__(self, home: Home, sync: Callable[[], None]) -> None:
        self.begun = False
        self._sync = sync
        self.job = home.start(self._run)

    def _run(self) -> None:
        self.begun = True
        self._sync()


class AsyncCommits:
    """The commits of one store, for the tasks of its loop."""

    def __init__(self, home: Home, engine: Engine, commits: Commits) -> None:
        self._home = home
        self._engine = engine
        self._commits = commits
        self._waker = Waker(home.loop, self._deliver)
        self._finished: deque[asyncio.Future[None]] = deque()
        self._waiting: asyncio.Future[Ticket] | None = None  # for room, in a thread, for all
        self._next_sync: _Sync | None = None
        self._sealing = False

    # -- whole entries -----------------------------------------------------------------------------

    def commit(
        self, mutations: Mutations, durability: Durability | None, decide: Decide | None = None
    ) -> Awaitable[int]:
        """Commit mutations of stored keys, at least one; see :meth:`Commits.commit`."""
        commits = self._commits
        if commits.is_large(mutations):
            return self._home.run(commits.commit, mutations, durability, decide)
        return self.commit_chunks(Encoded.of(mutations), durability, decide)

    async def commit_chunks(
        self, chunks: tuple[bytes, ...], durability: Durability | None, decide: Decide | None = None
    ) -> int:
        """Commit mutations that are encoded already; none of their values is large.

        A plain tuple is a single put (see :meth:`Memtable.apply`), any other entry is Encoded.
        """
        commits = self._commits
        ticket = None
        if self._waiting is None:
            ticket = commits.submit(chunks, durability, decide, wait=False)
        if ticket is None:
            ticket = await self._wait_for_room(chunks, durability, decide)
        if commits.seal_is_due and not self._sealing:
            self._sealing = True
            self._home.have_done(self._seal)
        if not ticket.finished:
            future = self._home.loop.create_future()
            ticket.add_done_callback(partial(self._finish, future))
            await future
        elif self._home.must_yield():
            await asyncio.sleep(0)
        try:
            return ticket.result()
        except WalError as error:
            raise self._engine.failure(error) from error

    async def _wait_for_room(
        self, chunks: tuple[bytes, ...], durability: Durability | None, decide: Decide | None
    ) -> Ticket:
        commits = self._commits
        self._home.enter()
        try:
            while self._waiting is not None:
                await asyncio.wait([self._waiting])
                if self._waiting is None:
                    ticket = commits.submit(chunks, durability, decide, wait=False)
                    if ticket is not None:
                        return ticket
            submit = partial(commits.submit, chunks, durability, decide, wait=True)
            job = cast("asyncio.Future[Ticket]", self._home.start(submit))
            self._waiting = job
            job.add_done_callback(self._has_room)
            return await asyncio.shield(job)
        finally:
            self._home.leave()

    def _has_room(self, job: asyncio.Future[Ticket]) -> None:
        self._waiting = None

    def _finish(self, future: asyncio.Future[None], ticket: Ticket) -> None:
        """Called where a ticket is done, on the log's thread."""
        self._finished.append(future)
        self._waker.wake()

    def _deliver(self) -> None:
        finished = self._finished
        while True:
            try:
                future = finished.popleft()
            except IndexError:
                return
            if not future.done():  # its task may have been cancelled
                future.set_result(None)

    def _seal(self) -> None:
        """In a thread: it writes what has gathered."""
        try:
            self._commits.seal()
        finally:
            self._sealing = False

    # -- decided by what is there ------------------------------------------------------------------

    async def change(
        self, key: bytes, choose: Choose, durability: Durability | None, extra: Mutations
    ) -> tuple[bytes | None, bool]:
        """Read a key and write what follows from it, as one step; see :meth:`Commits.change`.

        Among the tasks of the loop nobody comes between, if the key's value is in memory.
        """
        commits = self._commits
        while True:
            state, present, in_flight = commits.look(key)
            known = self._known(state, key, present)
            if known is MISSING:
                try:
                    known = await self._home.run(commits.load, key, state, present)
                except PositionNotFoundError:
                    continue
            old = cast("bytes | None", known)
            new = choose(old)
            if new is MISSING:
                if in_flight:
                    await self.sync()  # what was decided on must be durable
                return old, False
            decide = commits.unless_changed(key, state, present)
            try:
                await self.commit({**extra, key: cast("bytes | None", new)}, durability, decide)
            except StaleError:
                continue
            return old, True

    def _known(self, state: State, key: bytes, present: Found) -> Found:
        """The value of a key, MISSING if it has to be read."""
        if present is MISSING:
            present = in_tables(self._engine, state, key)
        return present if present is None or isinstance(present, bytes) else MISSING

    # -- durability --------------------------------------------------------------------------------

    async def sync(self) -> None:
        """Make all that was accepted before survive a power loss. Tasks share it."""
        sync = self._next_sync
        if sync is None or sync.begun:
            sync = self._next_sync = _Sync(self._home, self._commits.sync)
        await asyncio.shield(sync.job)
