"""Compaction: a background thread that keeps the runs few.

The thread has one queue, in which everything that it does is asked for: to look whether runs are to
be merged, to merge all, to remove the file of a table that nobody reads any more, to stop. Merging
itself is a job (:mod:`kvstore.background.building`) that a worker does, in a process where that
pays. Writers never wait for it, but through checkpoints: before a checkpoint would make
more than :data:`~kvstore.tables.merging.MOST_RUNS` runs its thread merges young ones itself (which
ones the compaction does not have in hand), or waits for the compaction. So a look-up never asks
more runs than that, however much is written.

What fails is put off, with growing pauses: for want of room, for damage. Checkpoints go on then,
and do not wait.
"""

from __future__ import annotations

import errno
import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Final

from kvstore.background.building import Built, MergeJob, Shape, StoppedError
from kvstore.background.catalog import Catalog, Runs
from kvstore.background.worker import Worker
from kvstore.errors import CorruptStoreError, StoreClosedError, StoreError, StoreFailedError
from kvstore.tables.merging import MOST_RUNS, RunSize, cheapest, choose, stretches
from kvstore.tables.table import Table

logger = logging.getLogger("kvstore.compaction")

HELPED_FROM: Final = 8
"""So many runs, and a checkpoint's thread merges what it may while a compaction is under way."""
FIRST_PAUSE: Final = 1.0
LONGEST_PAUSE: Final = 300.0
_NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT)


class Compaction:
    """One wish that all runs become one, and what came of it."""

    def __init__(self) -> None:
        self._done = threading.Event()
        self._error: BaseException | None = None

    def finish(self, error: BaseException | None) -> None:
        """It was done, or has failed."""
        self._error = error
        self._done.set()

    def wait(self, timeout: float | None = None) -> None:
        """Until it is done; raises what it failed with, TimeoutError if it takes longer."""
        if not self._done.wait(timeout):
            raise TimeoutError("the compaction takes longer than the timeout")
        error = self._error
        if isinstance(error, CorruptStoreError):
            raise CorruptStoreError(error.path, error.offset, error.reason) from error
        if isinstance(error, OSError):
            message = f"the compaction failed: {error}"
            raise StoreFailedError(message, error.errno, latched=False) from error
        if isinstance(error, StoppedError):
            raise StoreClosedError("the store was closed before the compaction was done")
        if error is not None:
            raise StoreError(f"the compaction failed: {error!r}") from error


_Queue = queue.SimpleQueue[Callable[[], object] | None]


class _Graves:
    """Files to be removed. Finalizers hold this, so it holds nothing that holds tables."""

    def __init__(self, asked: _Queue) -> None:
        self._asked = asked
        self._paths: deque[str] = deque()

    def bury(self, path: str) -> None:
        """Have a file removed. Never waits."""
        self._paths.append(path)
        self._asked.put(None)

    def __iter__(self) -> Iterator[str]:
        """Each path once, whoever asks."""
        with suppress(IndexError):
            while True:
                yield self._paths.popleft()


class Compactor:
    """The thread, its queue, and which runs are being merged.

    ``_mutex`` guards ``_busy`` and ``_stopping``; it is never held during I/O. A thread that has
    claimed runs is the only one to merge them until it has let go of them.
    """

    def __init__(self, catalog: Catalog, shape: Shape, unit: int, worker: Worker) -> None:
        """``unit`` is the usual size of a checkpoint; the worker is the thread's alone."""
        self._catalog = catalog
        self._shape = shape
        self._unit = unit
        self._worker = worker
        self._queue: _Queue = queue.SimpleQueue()
        self._graves = _Graves(self._queue)
        self._mutex = threading.RLock()  # taken as such: a Condition is entered by Python code
        self._changed = threading.Condition(self._mutex)
        self._busy: Runs = ()
        self._stopping = False
        self._attempts = 0  # that failed, in a row
        self._rest_until = 0.0
        self.merges = 0
        self.error: BaseException | None = None
        """Of the last attempt, if it failed."""
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="kvstore-compactor", daemon=True)

    @property
    def bury(self) -> Callable[[str], object]:
        """Has a file removed, some time: for finalizers."""
        return self._graves.bury

    def start(self) -> None:
        """Begin to work. Only :meth:`look` has it see what was left to do at the opening."""
        self._thread.start()

    def look(self) -> None:
        """See whether there is something to merge. Does not wait."""
        self._queue.put(self._compact)

    def compact(self) -> Compaction:
        """Have all present runs made into one without tombstones, whatever it costs."""
        wish = Compaction()
        self._queue.put(lambda: self._compact_all(wish))
        with self._mutex:
            stopped = self._stopping
        if stopped:
            wish.finish(StoppedError())
        return wish

    def stop(self) -> None:
        """End what is under way, remove what waits to be removed, end the thread. Idempotent."""
        with self._mutex:
            self._stopping = True
            self._changed.notify_all()
        self._worker.stop()
        self._queue.put(lambda: None)
        if self._thread.ident is not None:
            # Before 3.13 a join that is interrupted takes the thread for ended from then on.
            self._ended.wait()
            self._thread.join()
        self._empty_queue()

    def resting(self) -> bool:
        """Whether compaction is put off for a while, for it has failed."""
        return self.error is not None and time.monotonic() < self._rest_until

    # -- the thread --------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._stopping:
            try:
                self._do(self._next())
            except BaseException:
                # SystemExit too: others would wait for ever for a thread that is gone.
                logger.exception("compaction: a task failed")
        self._ended.set()

    def _next(self) -> Callable[[], object] | None:
        """The next thing to do: after a pause that is over, to try again."""
        if self.error is None:
            return self._queue.get()
        try:
            return self._queue.get(timeout=max(0.0, self._rest_until - time.monotonic()))
        except queue.Empty:
            return self._compact

    def _do(self, task: Callable[[], object] | None) -> None:
        if task is None:
            self._remove_buried()
        else:
            task()

    def _remove_buried(self) -> None:
        for path in self._graves:
            with suppress(OSError):  # open somewhere, perhaps: the next opening removes it
                self._catalog.directory.files.remove(path)

    def _empty_queue(self) -> None:
        """Removals are done even now; other tasks see that it is too late."""
        with suppress(queue.Empty):
            while True:
                self._do(self._queue.get_nowait())

    def _compact(self) -> None:
        """Merge until nothing is to be merged, or something fails."""
        while not self.resting() and (runs := self._claim_chosen()):
            if self._merge(runs, self._worker) is not None:
                return
        if not self.resting():  # what had failed is not to be done any more
            self.error = None
            self._attempts = 0

    def _compact_all(self, wish: Compaction) -> None:
        error = self._merge_all()
        # Behind the removals of the tables that nobody has any more.
        self._queue.put(lambda: wish.finish(error))

    def _merge_all(self) -> BaseException | None:
        with self._mutex:
            self._changed.wait_for(lambda: self._stopping or not self._busy)
            if self._stopping:
                return StoppedError()
            runs = self._catalog.runs
            if not runs or (len(runs) == 1 and not runs[0].tombstones):
                return None
            self._claim_locked(runs)
        return self._merge(runs, self._worker)

    # -- a checkpoint's thread ---------------------------------------------------------------------

    def make_room(self, worker: Worker) -> None:
        """Before a checkpoint adds a run: merge young ones, or wait, where there are too many.

        Not while the store closes, nor while compaction is put off.
        """
        while runs := self._claim_young():
            self._merge(runs, worker)

    def _claim_young(self) -> Runs:
        with self._mutex:
            while not (self._stopping or self.resting()):
                count = len(self._catalog.runs)
                young = next(self._free_locked(), ((), False))[0] if self._busy else ()
                sizes = _sizes(young) if count >= HELPED_FROM else []
                chosen = choose(sizes, self._unit, whole=False)
                if chosen is None and count >= MOST_RUNS:
                    chosen = cheapest(sizes)
                if chosen is not None:
                    return self._claim_locked(young[chosen.start : chosen.stop])
                if count < MOST_RUNS:
                    break
                self.look()
                self._changed.wait()
        return ()

    # -- who merges what ---------------------------------------------------------------------------

    def _claim_chosen(self) -> Runs:
        with self._mutex:
            if not self._stopping:
                for runs, whole in self._free_locked():
                    chosen = choose(_sizes(runs), self._unit, whole=whole)
                    if chosen is not None:
                        return self._claim_locked(runs[chosen.start : chosen.stop])
        return ()

    def _free_locked(self) -> Iterator[tuple[Runs, bool]]:
        """Neighbours that nobody merges, newest first, and whether nothing is older than them."""
        runs = self._catalog.runs
        start = 0
        for number, run in enumerate(runs):
            if run in self._busy:
                yield runs[start:number], False
                start = number + 1
        yield runs[start:], True

    def _claim_locked(self, runs: Runs) -> Runs:
        self._busy += runs
        self._changed.notify_all()
        return runs

    def _let_go(self, runs: Runs) -> None:
        with self._mutex:
            self._busy = tuple(run for run in self._busy if run not in runs)
            self._changed.notify_all()

    # -- one merge ---------------------------------------------------------------------------------

    def _merge(self, runs: Runs, worker: Worker) -> BaseException | None:
        """Merge claimed runs, let go of them, and return what failed."""
        try:
            self._replace(runs, worker)
        except StoppedError as error:
            return error
        except BaseException as error:  # noqa: BLE001 - it is kept, and told to whoever asks
            self._put_off(error)
            return error
        else:
            self.error = None
            self._attempts = 0
            self.merges += 1
            return None
        finally:
            self._let_go(runs)

    def _replace(self, runs: Runs, worker: Worker) -> None:
        """Write what has to be rewritten, then change the catalog."""
        self._remove_buried()  # else a merge would need room beside what the one before replaced
        catalog, drop = self._catalog, runs[-1] is self._catalog.runs[-1]
        tables = {table.record: table for run in runs for table in run.tables}
        parts: list[Table | Built] = []
        try:
            records = [[table.record for table in run.tables] for run in runs]
            for stretch, kept in stretches(records, drop_tombstones=drop):
                if kept:
                    parts.append(tables[stretch.tables[0]])
                else:
                    job = MergeJob(catalog.directory.tables, stretch.runs, drop, self._shape)
                    parts += worker.run(job)
        except BaseException:
            catalog.discard([part for part in parts if isinstance(part, Built)])
            raise
        catalog.replace(runs, parts)
        logger.debug("%d runs merged into %d tables", len(runs), len(parts))

    def _put_off(self, error: BaseException) -> None:
        pause = min(FIRST_PAUSE * 2**self._attempts, LONGEST_PAUSE)
        self._attempts += 1
        self._rest_until = time.monotonic() + pause
        self.error = error
        directory = self._catalog.directory.tables
        if isinstance(error, OSError) and error.errno in _NO_ROOM:
            logger.warning("%s: no room to compact, next try in %.0f s", directory, pause)
        else:
            message = "%s: compaction failed, next try in %.0f s"
            logger.error(message, directory, pause, exc_info=error)
        error.__traceback__ = None  # it would keep the tables


def _sizes(runs: Runs) -> list[RunSize]:
    return [RunSize(run.size, run.items, run.tombstones) for run in runs]
