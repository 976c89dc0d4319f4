"""Commits from an event loop.

An entry is handed to the log on the loop, which takes some microseconds, and a future waits for its
durability. The thread that writes and syncs for all puts down what it has completed and wakes the
loop once for each group: so thousands of tasks share a sync, and cost no thread.

Single puts and deletes that wait for a sync are gathered for one turn of the loop, and handed to
the log at its end in one step (:mod:`kvstore.aio.gathering`). Each is an entry of its own. Whatever
else a task does with the log hands it what has gathered first.

Where the log has no room (a segment is full and none is ready, checkpoints have to catch up, a
large value is being written) one thread waits for all: whoever comes meanwhile waits for that one,
and then tries again on the loop.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Final, cast

from kvstore.aio.gathering import GATHERED_BYTES, Gathered, Gathering, Put, refuse
from kvstore.aio.glance import in_tables
from kvstore.aio.home import Home, Waker
from kvstore.commit import StaleError
from kvstore.mutations import PUT, VERSION, Encoded, now, pack_single
from kvstore.values import MISSING, Found
from wal import Durability, PositionNotFoundError, WalError

if TYPE_CHECKING:
    from kvstore.commit import Choose, Commits, Decide, Mutations
    from kvstore.engine import Engine
    from kvstore.memory.state import State
    from wal import Ticket

FSYNC: Final = Durability.FSYNC
Submit = Callable[..., "Ticket | None"]
"""Hands something to the log; takes ``wait``, as :meth:`Commits.submit`."""
Tell = Callable[["Ticket"], object]


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
        self._finished: deque[tuple[Tell, Ticket]] = deque()
        self._waiting: asyncio.Future[Ticket] | None = None  # for room, in a thread, for all
        self._next_sync: _Sync | None = None
        self._sealing = False
        self._always_syncs = engine.options.durability is FSYNC
        self._large = engine.options.large_value_bytes
        self._gathered_bytes = min(GATHERED_BYTES, self._large)
        self._gathering = Gathering(home.loop, self.submit_gathered)
        self._tasks: set[asyncio.Task[Ticket]] = set()  # the loop would not keep them

    # -- single mutations --------------------------------------------------------------------------

    def put(self, key: bytes, value: bytes | None, durability: Durability | None) -> Awaitable[int]:
        """Commit a mutation of one stored key, None to delete it; the id of its entry."""
        size = len(key) if value is None else len(key) + len(value)
        if size < self._gathered_bytes and (
            self._always_syncs if durability is None else durability is FSYNC
        ):
            return self._gathering.add(key, value, size)
        if value is None or size >= self._large:
            return self._commit({key: value}, durability)
        return self._commit_chunks((pack_single(VERSION, now(), PUT), key, value), durability)

    def submit_gathered(self) -> None:
        """Hand to the log what has gathered; whoever waits for it is told how it ends."""
        puts = self._gathering.take()
        if not puts:
            return
        try:
            gathered = Gathered.of(puts)
            entries, size, chunks, _ = gathered
            submit = partial(self._engine.log.submit_ready, entries, size, chunks, FSYNC)
            ticket = submit(wait=False) if self._waiting is None else None
            if ticket is None:
                self._submit_later(gathered, submit, puts)
            else:
                self._tell_when_done(ticket, partial(gathered.tell, failure=self._engine.failure))
        except BaseException as error:
            refuse(puts, error, self._engine.failure)
            if not isinstance(error, Exception):
                raise
        self._seal_if_due()

    def _submit_later(self, gathered: Gathered, submit: Submit, puts: list[Put]) -> None:
        self._home.enter()  # at once: what has begun is to end before the store is closed
        task = self._home.loop.create_task(self._wait_for_room(submit))
        self._tasks.add(task)
        task.add_done_callback(partial(self._has_submitted, gathered, puts))

    def _has_submitted(
        self, gathered: Gathered, puts: list[Put], task: asyncio.Task[Ticket]
    ) -> None:
        self._tasks.discard(task)
        self._home.leave()
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        if error is None:
            tell = partial(gathered.tell, failure=self._engine.failure)
            self._tell_when_done(task.result(), tell)
        else:
            refuse(puts, error, self._engine.failure)

    # -- whole entries -----------------------------------------------------------------------------

    def commit(
        self, mutations: Mutations, durability: Durability | None, decide: Decide | None = None
    ) -> Awaitable[int]:
        """Commit mutations of stored keys, at least one; see :meth:`Commits.commit`."""
        if len(mutations) == 1 and decide is None:
            [(key, value)] = mutations.items()
            return self.put(key, value, durability)
        return self._commit(mutations, durability, decide)

    def _commit(
        self, mutations: Mutations, durability: Durability | None, decide: Decide | None = None
    ) -> Awaitable[int]:
        commits = self._commits
        if commits.is_large(mutations):
            self.submit_gathered()
            return self._home.run(commits.commit, mutations, durability, decide)
        return self._commit_chunks(Encoded.of(mutations), durability, decide)

    async def _commit_chunks(
        self, chunks: tuple[bytes, ...], durability: Durability | None, decide: Decide | None = None
    ) -> int:
        """Commit mutations that are encoded already; none of their values is large.

        A plain tuple is a single put (see :meth:`Memtable.apply`), any other entry is Encoded.
        """
        self.submit_gathered()
        submit = partial(self._commits.submit, chunks, durability, decide)
        ticket = submit(wait=False) if self._waiting is None else None
        if ticket is None:
            ticket = await self._wait_for_room(submit)
        self._seal_if_due()
        if not ticket.finished:
            future = self._home.loop.create_future()
            self._tell_when_done(ticket, partial(_wake, future))
            await future
        elif self._home.must_yield():
            await asyncio.sleep(0)
        try:
            return ticket.result()
        except WalError as error:
            raise self._engine.failure(error) from error

    async def _wait_for_room(self, submit: Submit) -> Ticket:
        self._home.enter()
        try:
            while self._waiting is not None:
                await asyncio.wait([self._waiting])
                if self._waiting is None:
                    ticket = submit(wait=False)
                    if ticket is not None:
                        return ticket
            job = cast("asyncio.Future[Ticket]", self._home.start(partial(submit, wait=True)))
            self._waiting = job
            job.add_done_callback(self._has_room)
            return await asyncio.shield(job)
        finally:
            self._home.leave()

    def _has_room(self, job: asyncio.Future[Ticket]) -> None:
        self._waiting = None

    def _tell_when_done(self, ticket: Ticket, tell: Tell) -> None:
        """Have ``tell(ticket)`` called on the loop."""
        ticket.add_done_callback(partial(self._finish, tell))

    def _finish(self, tell: Tell, ticket: Ticket) -> None:
        """Called where a ticket is done, on the log's thread."""
        self._finished.append((tell, ticket))
        self._waker.wake()

    def _deliver(self) -> None:
        finished = self._finished
        while True:
            try:
                tell, ticket = finished.popleft()
            except IndexError:
                return
            tell(ticket)

    def _seal_if_due(self) -> None:
        if self._commits.seal_is_due and not self._sealing:
            self._sealing = True
            self._home.have_done(self._seal)

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
        self.submit_gathered()
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
        self.submit_gathered()
        sync = self._next_sync
        if sync is None or sync.begun:
            sync = self._next_sync = _Sync(self._home, self._commits.sync)
        await asyncio.shield(sync.job)


def _wake(future: asyncio.Future[None], ticket: Ticket) -> None:
    if not future.done():  # its task may have been cancelled
        future.set_result(None)
