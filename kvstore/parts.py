"""What an open store is made of, beside its engine: for a writer, and for a reader beside one."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from kvstore.background.catalog import Catalog
from kvstore.background.checkpointing import Checkpoint
from kvstore.background.compaction import Compactor
from kvstore.change_feed import ChangeFeed
from kvstore.commit import read_only
from kvstore.engine import Engine
from kvstore.memory.memtable import Memtable
from kvstore.names import Names
from kvstore.pulse import Pulse
from kvstore.statistics import StoreStats, make_stats
from kvstore.upkeep.backup import back_up
from kvstore.upkeep.verification import Report, verify_store
from wal import LogClosedError, WalError, WriteAheadLog


class Parts:
    """What both kinds have."""

    def __init__(self, path: str, engine: Engine, catalog: Catalog, pulse: Pulse) -> None:
        self.path = path
        self.engine = engine
        self.catalog = catalog
        self.pulse = pulse
        self.replayed = 0

    def checkpointed_id(self) -> int:
        """The last entry that is in tables."""
        return self.catalog.manifest.last_entry_id

    def changes(self, names: Names, after: int | None, follow: bool) -> ChangeFeed:
        """See :meth:`kvstore.Store.changes`."""
        engine = self.engine
        return ChangeFeed(
            lambda: engine.log,
            lambda: engine.memtable.last_id,
            names.names_of,
            self.pulse,
            engine.failure,
            after=after,
            follow=follow,
        )

    def stats(self) -> StoreStats:
        """See :meth:`kvstore.Store.stats`."""
        return make_stats(self.engine, self.catalog, self.replayed)

    def verify(self) -> Report:
        """See :meth:`kvstore.Store.verify`."""
        return verify_store(self.catalog.directory)

    def refresh(self) -> None:
        """A writer has nothing to refresh."""

    def compact(self) -> None:
        """See :meth:`kvstore.Store.compact`."""
        raise read_only()

    def backup(self, path: str) -> None:
        """See :meth:`kvstore.Store.backup`."""
        raise read_only()

    def shut_down(self, tail_is_long: Callable[[], bool]) -> None:
        """Let go of everything. What fails is raised at the end."""
        raise NotImplementedError


class WriterParts(Parts):
    """The parts of a store that is written."""

    def __init__(
        self,
        path: str,
        engine: Engine,
        catalog: Catalog,
        pulse: Pulse,
        checkpoint: Checkpoint,
        compactor: Compactor,
    ) -> None:
        super().__init__(path, engine, catalog, pulse)
        self.replayed = checkpoint.replayed
        self._compactor = compactor

    def compact(self) -> None:
        self._compactor.compact().wait()

    def backup(self, path: str) -> None:
        manifest, runs = self.catalog.present()
        back_up(self.catalog.directory, manifest, runs, path)

    def shut_down(self, tail_is_long: Callable[[], bool]) -> None:
        log = self.engine.log
        self.pulse.close()
        try:
            try:
                if tail_is_long():
                    with suppress(LogClosedError):  # by an attempt that was interrupted
                        log.checkpoint_active()  # which shutdown waits for
            finally:
                self._compactor.stop()  # ends a merge that is under way
                try:
                    log.shutdown()
                finally:
                    self.engine.cache.open_tables.close_all()  # not when the collector comes
        except WalError as error:
            raise self.engine.failure(error) from error


@dataclass(frozen=True)
class View:
    """What a reader beside a writer sees at once."""

    catalog: Catalog
    memtable: Memtable
    log: WriteAheadLog
    replayed: int


class ReaderParts(Parts):
    """The parts of a store that is only read; ``look`` gives the present view after another one."""

    def __init__(
        self,
        path: str,
        engine: Engine,
        view: View,
        pulse: Pulse,
        look: Callable[[View | None], View],
    ) -> None:
        super().__init__(path, engine, view.catalog, pulse)
        self.replayed = view.replayed
        self._view = view
        self._look = look
        self._refreshing = threading.Lock()
        # A follower has nobody else to tell it what was written. No circle is made by that.
        refresh = weakref.WeakMethod(self.refresh)
        pulse.look = lambda: (found := refresh()) and found()

    def refresh(self) -> None:
        with self._refreshing:
            if self.pulse.closed:
                return
            before = self._view
            view = self._look(before)
            engine = self.engine
            engine.cache.forget_all_rows(lambda: engine.show(view.memtable, view.log))
            self._view, self.catalog, self.replayed = view, view.catalog, view.replayed
            # The log of before is still that of its snapshots, and goes with the last of them.
        self.pulse.beat()

    def shut_down(self, tail_is_long: Callable[[], bool]) -> None:
        self.pulse.close()
        self.engine.log.shutdown()
        for table in self.catalog.tables().values():
            table.close()
