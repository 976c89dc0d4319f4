"""Single mutations of one turn of the event loop, handed to the log in one step.

Each is an entry of its own in the log, with an id of its own, and each task waits for a future of
its own, which can be cancelled. All else is once for the whole: the step in the append lock, the
ticket, the hooks, which show all of them at once, and the wake-up of the loop. A task that puts
costs 4.4 us so, where one ticket each took 12 (CPython 3.11, 1,000 tasks).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final, NamedTuple

from kvstore.commit import PUT_BYTES
from kvstore.mutations import Singles
from wal import WalError

if TYPE_CHECKING:
    from kvstore.errors import StoreError
    from wal import Ticket

GROUP_BYTES: Final = 32 << 10
"""So much is handed over before the turn ends: it fits into one group of the log."""
GATHERED_BYTES: Final = 16 << 10
"""The limit of a mutation that is gathered; a longer one gains nothing."""

Failure = Callable[[WalError], "StoreError"]
"""What to raise for an error of the log."""
Put = tuple[bytes, "bytes | None", "asyncio.Future[int]"]


class Gathered(NamedTuple):
    """Mutations on their way into the log, and who waits for them."""

    entries: Singles
    size: int
    """As the log counts it, at most."""
    chunks: int
    futures: tuple[asyncio.Future[int], ...]

    @classmethod
    def of(cls, puts: list[Put]) -> Gathered:
        """What the log has to know of them, at least one."""
        keys, values, futures = zip(*puts, strict=True)
        data = sum(map(len, keys)) + sum(map(len, filter(None, values)))
        chunks = 3 * len(puts) - values.count(None)
        return cls(Singles.of(keys, values), data + PUT_BYTES * len(puts), chunks, futures)

    def tell(self, ticket: Ticket, failure: Failure) -> None:
        """Give everybody the outcome; an entry's id is its place before the last one's."""
        if ticket.error is not None:
            for future in self.futures:
                _fail(future, ticket, failure)
            return
        first = ticket.entry_id - len(self.futures) + 1
        for entry_id, future in enumerate(self.futures, first):
            if not future.done():  # its task may have been cancelled
                future.set_result(entry_id)


def refuse(puts: Iterable[Put], error: BaseException, failure: Failure) -> None:
    """Tell everybody why the log has not taken a mutation; after an interrupt, cancel it."""
    for _, _, future in puts:
        if future.done():
            continue
        if isinstance(error, WalError):
            future.set_exception(_caused(error, failure))
        elif isinstance(error, Exception):
            future.set_exception(error)
        else:
            future.cancel()


class Gathering:
    """What gathers in a turn of the loop. Only the loop's thread comes here."""

    def __init__(self, loop: asyncio.AbstractEventLoop, submit: Callable[[], object]) -> None:
        """``submit`` is called when the turn is over, or enough has gathered."""
        self._loop = loop
        self._submit = submit
        self._puts: list[Put] = []
        self._bytes = 0

    def add(self, key: bytes, value: bytes | None, size: int) -> asyncio.Future[int]:
        """A mutation of a stored key and the bytes in it; a future of its entry's id."""
        if not self._puts:  # first: what has gathered is never forgotten
            self._loop.call_soon(self._submit)
        future: asyncio.Future[int] = self._loop.create_future()
        self._puts.append((key, value, future))
        self._bytes += size + PUT_BYTES
        if self._bytes >= GROUP_BYTES:
            self._submit()
        return future

    def take(self) -> list[Put]:
        """What has gathered, and nothing has any more."""
        puts, self._puts, self._bytes = self._puts, [], 0
        return puts


def _fail(future: asyncio.Future[int], ticket: Ticket, failure: Failure) -> None:
    if not future.done():
        try:
            ticket.result()
        except WalError as error:
            future.set_exception(_caused(error, failure))


def _caused(error: WalError, failure: Failure) -> StoreError:
    """An error for one task: an exception collects the tracebacks of whoever raises it."""
    raised = failure(error)
    raised.__cause__ = error
    return raised
