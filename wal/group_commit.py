"""Committing: accept an entry, write and sync it together with others, complete it in order.

A commit is *accepted* under the append lock, where it gets its id and its place in ``in_flight``.
Whoever has the leadership then writes one round: it takes all that has gathered, writes it, syncs
if any of it asks for that, runs the hooks of what has reached its durability, in EntryId order,
and wakes the waiters. A commit completes only after every earlier one.

The first failed write or sync, and an interrupt inside a round, *latch*: every commit in flight
fails with that cause, and so does every later one, until the log is reopened.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from threading import get_ident
from typing import Final

from wal.append_buffer import Wait, again
from wal.config import Durability
from wal.errors import CallbackError, EntryStateError, WalError, copy_of_interrupt
from wal.leadership import FLUSHER, pass_on
from wal.positions import EntryId
from wal.rounds import FSYNC, IN_CALLBACK, Rounds
from wal.segments import format as fmt
from wal.segments.format import Appended
from wal.tickets import Entries, OnCommit, Ticket, callback_error, chunks_of, run_hooks

BUFFER: Final = Durability.BUFFER.rank

IN_ENTRY: Final = "inside the thread's own open entry"

AcceptStreamed = Callable[
    ["GroupCommit", Appended, "OnCommit | None", int, "Decide | None"], Ticket
]
"""Accepts an appended entry that is too large for a group."""

Decide = Callable[[], object]
"""The last word on an entry, when it is its turn: what it raises keeps the entry out of the log."""


class GroupCommit:
    """The ways into the log, for many threads; ``rounds`` is what happens behind them."""

    def __init__(
        self,
        rounds: Rounds,
        durability: Durability,
        defer: Callable[[Callable[[], object]], object],
        accept_streamed: AcceptStreamed,
    ) -> None:
        self.buffer = rounds.buffer
        self.in_flight = rounds.in_flight
        self.leadership = rounds.leadership
        self.barred = rounds.barred
        self.rank = durability.rank
        self.defer = defer  # have a function called on another thread: for finalizers
        self._rounds = rounds
        self._committed = rounds.committed
        self._accepted = rounds.accepted
        self._accept_streamed = accept_streamed
        self.buffer.write_out = self.write_out

    # -- accepting ---------------------------------------------------------------------------------

    def append(
        self,
        chunks: Iterable[bytes],
        on_commit: OnCommit | None = None,
        durability: Durability | None = None,
        decide: Decide | None = None,
    ) -> EntryId:
        """Commit one whole entry; see :meth:`wal.WriteAheadLog.append`."""
        if type(chunks) is list and len(chunks) == 1 and type(chunks[0]) is bytes:
            chunk = chunks[0]
            return self.append_ready(chunk, len(chunk) + 5, durability, decide, on_commit, 1)
        item, size, count = prepare(chunks)
        return self.append_ready(item, size, durability, decide, on_commit, count)

    def append_ready(
        self,
        item: Appended,
        size: int,
        durability: Durability | None = None,
        decide: Decide | None = None,
        on_commit: OnCommit | None = None,
        count: int | None = None,
    ) -> EntryId:
        """Commit one entry of which all is known; see :attr:`wal.WriteAheadLog.append_ready`.

        One frame for the common buffered case, the manager's hook called from it, and nothing in it
        that the case does not need: as four methods it reached 0.39 instead of 0.62 million appends
        per second (128 bytes, CPython 3.11).
        """
        ready = count is None  # without on_commit; a tuple, which the hook may have as it is
        if count is None:
            count = len(item)
        rank = self.rank if durability is None else rank_of(durability)
        if not rank:
            buffer = self.buffer
            if self.barred or buffer.hook_thread:
                self.check_barred()
            with buffer.lock:
                if size <= buffer.room and not self.in_flight:
                    if decide is not None:
                        decide()  # nothing has changed yet
                    try:
                        failure = None
                        entry_id: EntryId = buffer.next_id  # type: ignore[assignment]
                        buffer.next_id = entry_id + 1
                        buffer.room -= size
                        buffer.chunks += count
                        buffer.items.append(item)
                        if not ready:
                            if on_commit is not None or self._committed is not None:
                                failure = self._run_hooks_inline(entry_id, on_commit, item)
                        elif self._committed is not None:
                            buffer.hook_thread = get_ident()
                            try:
                                self._committed(entry_id, buffer.writer.segment_id, item)  # type: ignore[arg-type]
                            except Exception as error:  # noqa: BLE001 - of this commit alone
                                failure = callback_error(entry_id, error)
                            finally:
                                buffer.hook_thread = 0
                    except BaseException as error:
                        # The entry, its hooks and what they keep may be out of step.
                        buffer.latch_locked(copy_of_interrupt(error))
                        raise
                    if failure is None:
                        return entry_id
                    raise failure
        return self.wait(self.accept(item, size, count, on_commit, rank, decide))

    def submit(
        self,
        chunks: Iterable[bytes],
        on_commit: OnCommit | None = None,
        durability: Durability | None = None,
        decide: Decide | None = None,
        wait: bool = True,
    ) -> Ticket | None:
        """Accept one whole entry; see :meth:`wal.WriteAheadLog.submit`."""
        rank = self.rank if durability is None else rank_of(durability)
        item, size, count = prepare(chunks)
        return self.submit_item(item, size, count, on_commit, rank, decide, wait)

    def submit_item(
        self,
        item: Appended,
        size: int,
        count: int,
        on_commit: OnCommit | None,
        rank: int,
        decide: Decide | None,
        wait: bool,
    ) -> Ticket | None:
        """Accept what is ready for a group, and see to it that somebody leads for it."""
        if wait:
            ticket: Ticket | None = self.accept(item, size, count, on_commit, rank, decide)
        else:
            ticket = self.accept_at_once(item, size, count, on_commit, rank, decide)
        if ticket is not None and not ticket.finished:
            self.leadership.see_led()
        return ticket

    def submit_ready(
        self, entries: Entries, size: int, count: int, durability: Durability | None, wait: bool
    ) -> Ticket | None:
        """Accept entries in one step; see :meth:`wal.WriteAheadLog.submit_ready`."""
        rank = self.rank if durability is None else rank_of(durability)
        if not entries or size > fmt.MAX_GROUP_PAYLOAD:
            raise ValueError(f"{len(entries)} entries of {size:,} bytes are not for one group")
        return self.submit_item(entries, size, count, None, rank, None, wait)

    def accept(
        self,
        item: Appended,
        size: int,
        count: int,
        on_commit: OnCommit | None,
        rank: int,
        decide: Decide | None = None,
    ) -> Ticket:
        """Give an entry its id and its place in the log and in ``in_flight``."""
        if size > fmt.MAX_GROUP_PAYLOAD:
            return self._accept_streamed(self, item, on_commit, rank, decide)
        while True:
            accepted = self._try_to_accept(item, size, count, on_commit, rank, decide)
            if isinstance(accepted, Ticket):
                return accepted
            accepted()

    def accept_at_once(
        self,
        item: Appended,
        size: int,
        count: int,
        on_commit: OnCommit | None,
        rank: int,
        decide: Decide | None = None,
    ) -> Ticket | None:
        """As :meth:`accept`; None where it would have to wait for anything but locks."""
        if size > fmt.MAX_GROUP_PAYLOAD:
            return None
        accepted: Ticket | Wait = again
        while accepted is again:
            accepted = self._try_to_accept(item, size, count, on_commit, rank, decide)
        return accepted if isinstance(accepted, Ticket) else None

    def _try_to_accept(
        self,
        item: Appended,
        size: int,
        count: int,
        on_commit: OnCommit | None,
        rank: int,
        decide: Decide | None,
    ) -> Ticket | Wait:
        """The ticket of an entry that has its place, or what to wait for before the next try."""
        buffer = self.buffer
        if self.barred or buffer.hook_thread:
            self.check_barred()
        with buffer.lock:
            try:  # what ``buffer.whole`` does, without its two frames
                wait = None if size <= buffer.room else buffer.make_room_locked(size)
                if wait is not None:
                    return wait
                if decide is not None:
                    decide()  # nothing has changed yet
                if isinstance(item, Entries):  # each takes some of the room: so there are ids
                    entry_id = buffer.next_id + len(item) - 1
                    buffer.items.extend(item)
                else:
                    entry_id = buffer.next_id
                    buffer.items.append(item)
                buffer.next_id = entry_id + 1
                buffer.room -= size
                buffer.chunks += count
                return self.enter_flight_locked(entry_id, rank, on_commit, item)
            except Exception:
                raise
            except BaseException as error:
                buffer.latch_locked(copy_of_interrupt(error))
                raise

    def enter_flight_locked(
        self,
        entry_id: int,
        rank: int,
        on_commit: OnCommit | None,
        item: Appended | None,
        on_accept: Callable[[], object] | None = None,
    ) -> Ticket:
        """The ticket of an entry just accepted. Buffered behind nothing, it is complete."""
        kept = item if self._committed is not None else None
        segment_id = self.buffer.writer.segment_id
        ticket = Ticket(self, entry_id, segment_id, rank, on_commit, kept)  # type: ignore[arg-type]
        if rank == BUFFER and not self.in_flight:
            ticket.error = self._run_hooks_inline(entry_id, on_commit, item)
            ticket.finished = True
            return ticket
        # Told before a leader can find it: a buffered one is complete as soon as it is found.
        if on_accept is not None or (self._accepted is not None and item is not None):
            self._tell_accepted_locked(ticket, item, on_accept)
        self.in_flight.append(ticket)
        if rank == FSYNC:
            self.buffer.sync_wanted_id = entry_id
        return ticket

    def _tell_accepted_locked(
        self, ticket: Ticket, item: Appended | None, on_accept: Callable[[], object] | None
    ) -> None:
        """The hooks for an entry in flight: if one fails, what it keeps is out of step."""
        try:
            if self._accepted is not None and item is not None:
                chunks = item if isinstance(item, tuple) else chunks_of(item)
                self._accepted(ticket.entry_id, ticket.segment_id, chunks)
            if on_accept is not None:
                on_accept()
        except BaseException as error:
            self.buffer.latch_locked(copy_of_interrupt(error))
            raise

    def _run_hooks_inline(
        self, entry_id: int, on_commit: OnCommit | None, item: Appended | None
    ) -> CallbackError | None:
        """Hooks of a buffered entry with nothing before it: in order, by the append lock."""
        buffer = self.buffer
        buffer.hook_thread = get_ident()
        try:
            hook = self._committed if item is not None else None
            return run_hooks(EntryId(entry_id), buffer.writer.segment_id, item, hook, on_commit)
        finally:
            buffer.hook_thread = 0

    def check_barred(self) -> None:
        """Raise where the calling thread would wait for itself."""
        reason = self._why_barred()
        if reason is not None:
            raise EntryStateError(f"the log cannot be used so {reason}: it would wait for itself")

    def _why_barred(self) -> str | None:
        me = get_ident()
        return IN_CALLBACK if self.buffer.hook_thread == me else self.barred.get(me)

    # -- waiting and leading -----------------------------------------------------------------------

    def wait(self, ticket: Ticket) -> EntryId:
        """Wait for the ticket of one's own commit, leading whenever its turn comes.

        Returns the entry's id, or raises the commit's error.
        """
        leadership = self.leadership
        try:
            while not ticket.finished:
                if leadership.enlist(ticket):
                    self._rounds.lead(ticket)
                elif ticket.lock is not None and not ticket.finished:
                    ticket.lock.acquire()
        except BaseException:
            leadership.delist(ticket)
            raise
        finally:
            try:
                if ticket.successor is not None:
                    pass_on(ticket)
            except BaseException:  # an interrupt must not end the chain of wake-ups
                pass_on(ticket)
                raise
        return ticket.entry_id if ticket.error is None else ticket.result()

    def wait_aside(self, ticket: Ticket, timeout: float | None) -> EntryId:
        """Wait for a ticket that was submitted: many threads may, and none of them leads."""
        if ticket.finished:
            return ticket.result()
        if self._why_barred() is IN_CALLBACK:
            self.check_barred()
        done = threading.Event()
        ticket.add_done_callback(lambda _: done.set())
        if timeout is not None:
            timeout = min(timeout, threading.TIMEOUT_MAX)
        if not done.wait(timeout):
            raise TimeoutError(f"entry {ticket.entry_id} is not done after {timeout} seconds")
        return ticket.result()

    def sync(self) -> None:
        """Make all that was committed before this call durable, whatever its durability."""
        self.check_barred()
        self._lead_out_of_turn(force=True)

    def write_out(self) -> None:
        """Write what has gathered, because the buffer is full."""
        self._lead_out_of_turn(force=False)

    def _lead_out_of_turn(self, force: bool) -> None:
        turn = threading.Lock()
        try:
            self.leadership.claim(turn)
            self._rounds.lead(turn, force)
        except BaseException:
            self.leadership.hand_on(turn)
            raise
        if self.buffer.failure is not None:
            raise self.buffer.failed()

    def seal_active(self) -> int:
        """Seal the active segment if it has entries; the id of the newest sealed segment."""
        buffer = self.buffer
        while True:
            with buffer.lock, buffer.whole:
                sealed = buffer.seal_locked()
            if not callable(sealed):
                break
            sealed()
        self._lead_out_of_turn(force=False)
        return sealed

    def lead_as_flusher(self) -> None:
        """One round for tickets that nobody waits for."""
        if self.leadership.enlist_flusher():
            self._rounds.lead(FLUSHER)

    def witness(self) -> None:
        """Bear witness, unsynced, of what is durable: for a log that has fallen idle."""
        turn = threading.Lock()
        try:
            self.leadership.claim(turn)
            with self.buffer.lock:
                framed = self.buffer.witness_locked()
            if framed:
                self._rounds.lead(turn)
        finally:
            self.leadership.hand_on(turn)

    def failed(self) -> WalError:
        """The latch as an error to raise."""
        return self.buffer.failed()


def rank_of(durability: Durability) -> int:
    """The rank of a durability; TypeError for anything else."""
    if type(durability) is Durability:
        return durability.rank
    raise TypeError(f"durability must be a wal.Durability, not {type(durability).__name__}")


def as_bytes(chunk: object) -> bytes:
    """A chunk as bytes: itself, or a copy of any other buffer; TypeError for the rest."""
    if type(chunk) is bytes:
        return chunk
    if isinstance(chunk, str):
        raise TypeError("a chunk must be bytes, not str; encode it first")
    try:
        return bytes(memoryview(chunk))  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(f"a chunk must be bytes, not {type(chunk).__name__}") from None


def prepare(chunks: Iterable[bytes]) -> tuple[Appended, int, int]:
    """An appended entry for a group: the item, a bound of its bytes, its number of chunks."""
    items: list[bytes] | tuple[bytes, ...]
    if isinstance(chunks, tuple) and set(map(type, chunks)) == {bytes}:
        items = chunks  # it cannot change
    elif type(chunks) is list and set(map(type, chunks)) == {bytes}:
        items = chunks.copy()  # a third of what it takes to look at each in Python
    else:
        if isinstance(chunks, (bytes, bytearray, memoryview, str)) or not isinstance(
            chunks, Iterable
        ):
            raise TypeError(f"chunks must be a list of bytes, not {type(chunks).__name__}")
        items = [as_bytes(chunk) for chunk in chunks]
    if len(items) == 1:
        return items[0], len(items[0]) + fmt.ITEM_OVERHEAD, 1
    size = sum(map(len, items)) + fmt.ITEM_OVERHEAD * (len(items) + 1)
    return items, size, len(items)
