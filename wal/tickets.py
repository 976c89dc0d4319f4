"""A commit on its way: what ``submit`` returns, and what the leader completes."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from wal.errors import CallbackError, EntryStateError
from wal.positions import EntryId
from wal.telling import tell

if TYPE_CHECKING:
    from wal.group_commit import GroupCommit
    from wal.segments.format import Appended

logger = logging.getLogger("wal.commit")

OnCommit = Callable[[EntryId, int], object]

Committed = Callable[[EntryId, int, Sequence[bytes]], object]


def run_hooks(
    entry_id: EntryId,
    segment_id: int,
    item: Appended | None,
    committed: Committed | None,
    on_commit: OnCommit | None,
) -> CallbackError | None:
    """Run the hooks of a commit; an Exception in one becomes the error that is returned."""
    raised: Exception | None = None
    if committed is not None:
        try:
            committed(entry_id, segment_id, chunks_of(item))
        except Exception as error:  # noqa: BLE001 - it is handed to whoever committed
            raised = error
    if on_commit is not None:
        try:
            on_commit(entry_id, segment_id)
        except Exception as error:  # noqa: BLE001
            raised = error
    return None if raised is None else callback_error(entry_id, raised)


def callback_error(entry_id: EntryId, raised: Exception) -> CallbackError:
    """What a commit raises whose hook has raised."""
    failure = CallbackError(entry_id)
    failure.__cause__ = raised
    return failure


def chunks_of(item: Appended | None) -> Sequence[bytes]:
    """An appended entry's chunks: a tuple itself, a list's copy."""
    if isinstance(item, bytes):
        return [item]
    return item.copy() if isinstance(item, list) else item or ()


class Entries(tuple[Any, ...]):  # noqa: SLOT001 - for subclasses: a tuple's can have none
    """Entries that are accepted in one step, each a tuple of its chunks.

    See :meth:`wal.WriteAheadLog.submit_ready`. In the log each is an entry of its own; what the
    writer keeps until their durability, it keeps once for all of them.
    """


class Ticket:
    """One commit whose entry is accepted but may not have reached its durability yet.

    >>> import wal
    >>> log = wal.Configuration("d", file_system=wal.files.MemoryFileSystem()).open(wal.LogVoid())
    >>> ticket = log.submit([b"x"])
    >>> ticket.wait(timeout=10), ticket.done()
    (1, True)
    >>> log.shutdown()

    That of several entries, accepted in one step, has the id of the last.
    """

    # Set where they change; guarded by the leadership's lock (no slots: a class's defaults cost a
    # commit nothing).
    finished = False
    error: BaseException | None = None
    waited = False  # a thread waits in ``lock`` and can be handed the leadership
    lock: threading.Lock | None = None
    successor: Ticket | None = None  # finished together: its owner wakes the next
    callbacks: list[Callable[[Ticket], object]] | None = None

    def __init__(
        self,
        commits: GroupCommit,
        entry_id: EntryId,
        segment_id: int,
        rank: int,
        on_commit: OnCommit | None,
        item: Appended | None,
    ) -> None:
        self._commits = commits
        self.entry_id = entry_id
        self.segment_id = segment_id
        self.rank = rank
        self.on_commit = on_commit
        self.item = item  # kept for the manager's ``committed`` only

    def done(self) -> bool:
        """Whether the commit has reached its durability, or failed."""
        return self.finished

    def wait(self, timeout: float | None = None) -> EntryId:
        """Wait for the commit and return its entry's id.

        Raises what the commit raised (LogFailedError, CallbackError), and TimeoutError after
        ``timeout`` seconds; that cancels nothing.
        """
        return self._commits.wait_aside(self, timeout)

    def result(self) -> EntryId:
        """The entry's id, or the commit's error raised; EntryStateError before it is done."""
        if not self.finished:
            raise EntryStateError(f"entry {self.entry_id} is not done yet; wait() waits for it")
        if self.error is None:
            return self.entry_id
        if isinstance(self.error, CallbackError):
            raise self.error
        raise self._commits.failed() from self.error

    def add_done_callback(self, fn: Callable[[Ticket], object]) -> None:
        """Call ``fn(ticket)`` once the commit is done, on the leader's thread; at once if it is.

        It runs after ``on_commit``. What it raises is logged and goes no further.
        It may not commit, sync or shut down, since nobody leads meanwhile: EntryStateError.
        """
        with self._commits.leadership.lock:
            if not self.finished:
                self.callbacks = [*(self.callbacks or ()), fn]
                return
        self._call(fn)

    def call_back(self) -> None:
        """Call the done callbacks, each once."""
        callbacks = self.callbacks
        while callbacks:  # those that an interrupt in one of them leaves come when it is repeated
            self._call(callbacks.pop(0))

    def _call(self, fn: Callable[[Ticket], object]) -> None:
        try:
            fn(self)
        except Exception:  # noqa: BLE001 - it is the callback's own affair
            tell(logger.exception, "a done callback of entry %d raised", self.entry_id)

    def run_hooks(self, committed: Committed | None) -> None:
        """Run the manager's hook and the commit's own, once."""
        item, self.item = self.item, None
        on_commit, self.on_commit = self.on_commit, None
        if on_commit is None and committed is not None and isinstance(item, tuple):
            try:  # the usual case, in one frame instead of three
                committed(self.entry_id, self.segment_id, item)
            except Exception as error:  # noqa: BLE001 - it is handed to whoever committed
                self.error = callback_error(self.entry_id, error)
        elif item is not None or on_commit is not None:
            hook = committed if item is not None else None
            self.error = run_hooks(self.entry_id, self.segment_id, item, hook, on_commit)

    def __repr__(self) -> str:
        state = "pending" if not self.finished else "failed" if self.error else "done"
        return f"<Ticket of entry {self.entry_id}: {state}>"
