"""The only way of a mutation into the store.

Mutations are encoded outside every lock, appended to the log in the log's order, and become visible
in that order once they have their durability: the log calls the memtable. What a write *rests on*
(that a key was absent; all that a transaction read) is checked in the append lock, by the log's
``decide``: with nobody in between, against what is visible and what is in flight, in memory alone.
So those who decide share one sync with everyone.

A large value goes into a chunk of its own of a streamed entry. The memtable keeps its position.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from kvstore.engine import Engine
from kvstore.errors import ReadOnlyError
from kvstore.memory.state import State
from kvstore.mutations import HEAD_BYTES, Encoded, encode_head
from kvstore.values import MISSING, Found, Value, position_to_int
from wal import (
    Durability,
    EntryId,
    PositionNotFoundError,
    Ticket,
    WalError,
    framed_size,
)

PUT_BYTES: Final = framed_size(HEAD_BYTES + 1, 3)
"""What a single put takes in the log at most, beside its key and its value."""

SEAL_EVERY: Final = 64
"""After so many single puts, about, a look whether the segment is to be sealed."""

Mutations = dict[bytes, "bytes | None"]
Decide = Callable[[], object]
Choose = Callable[["bytes | None"], Found]
"""From the value of a key to what is to be written: bytes, None to delete, MISSING for nothing."""


class StaleError(Exception):
    """What a write rests on has changed before its turn came."""


class Commits:
    """Commits of one open store."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._memtable = engine.memtable
        self._log = engine.log
        self._append = engine.log.append_ready
        self._large = engine.options.large_value_bytes
        self._segment_items = engine.options.segment_items
        self._sealed_segment = 0

    # -- whole entries -----------------------------------------------------------------------------

    def commit(
        self, mutations: Mutations, durability: Durability | None, decide: Decide | None = None
    ) -> int:
        """Commit some mutations of stored keys, at least one, and return their entry's id.

        The dict is kept: it must not change any more.
        """
        lengths = [*map(len, filter(None, mutations.values()))]
        try:
            if max(lengths, default=0) >= self._large:
                entry_id = self._commit_streamed(mutations, durability, decide)
            else:
                chunks = Encoded.of(mutations)
                length = len(chunks[0]) + sum(map(len, mutations)) + sum(lengths)
                size = framed_size(length, len(chunks))
                entry_id = self._append(chunks, size, durability, decide)
        except WalError as error:
            raise self._engine.failure(error) from error
        self.seal_if_due()
        return entry_id

    def seal_if_due(self) -> None:
        """Seal the active segment if it has enough items. Called once for some dozens of them."""
        if self._memtable.count >= self._segment_items:
            self.seal()

    def submit(
        self,
        chunks: tuple[bytes, ...],
        durability: Durability | None,
        decide: Decide | None = None,
        *,
        wait: bool,
    ) -> Ticket | None:
        """Have mutations committed that are encoded already; none of their values is large.

        Does not wait for their durability, and leaves sealing to the caller. Without ``wait`` it
        does not wait for room in the log either: None, and nothing has happened.
        """
        try:
            return self._log.submit(chunks, None, durability, decide, wait=wait)
        except WalError as error:
            raise self._engine.failure(error) from error

    @property
    def seal_is_due(self) -> bool:
        """Whether :meth:`seal` has something to do."""
        memtable = self._memtable
        return memtable.count >= self._segment_items and self._sealed_segment != memtable.segment_id

    def is_large(self, mutations: Mutations) -> bool:
        """Whether some value has to be streamed."""
        return max(map(len, filter(None, mutations.values())), default=0) >= self._large

    def _commit_streamed(
        self, mutations: Mutations, durability: Durability | None, decide: Decide | None
    ) -> EntryId:
        memtable = self._memtable
        with self._log.begin_entry() as entry:
            if decide is not None:
                decide()  # nobody else commits while the entry is open
            values: dict[bytes, Value] = {}
            entry.write_chunk(encode_head(mutations))
            for key, value in mutations.items():
                entry.write_chunk(key)
                values[key] = value
                if value is not None:
                    record = entry.write_chunk(value)
                    if record.length >= self._large:
                        values[key] = position_to_int(record.position)
            entry_id = entry.id
            return entry.commit(
                durability,
                on_commit=lambda _, segment_id: memtable.apply_values(entry_id, segment_id, values),
                on_accept=lambda: memtable.accepted_values(entry_id, values),
            )

    # -- decided by what is there ------------------------------------------------------------------

    def change(
        self,
        key: bytes,
        choose: Choose,
        durability: Durability | None,
        extra: Mutations,
    ) -> tuple[bytes | None, bool]:
        """Read a key and write what follows from it, as one step. The old value, and if it wrote.

        What is written comes with the ``extra`` mutations. ``choose`` may be called again where
        another write came between.
        """
        while True:
            state, present, in_flight = self.look(key)
            try:
                old = self.load(key, state, present)
            except PositionNotFoundError:
                continue
            new = choose(old)
            if new is MISSING:
                if in_flight:
                    self.sync()  # what was decided on must be durable
                return old, False
            try:
                unless_changed = self.unless_changed(key, state, present)
                self.commit({**extra, key: new}, durability, unless_changed)  # type: ignore[dict-item]
            except StaleError:
                continue
            return old, True

    def look(self, key: bytes) -> tuple[State, Found, bool]:
        """What memory knows of a key, in flight or visible; and whether it is in flight."""
        memtable = self._memtable
        with memtable.visibility:
            in_flight = memtable.in_flight.find(key) is not MISSING
            return memtable.state, memtable.present_locked(key), in_flight

    def load(self, key: bytes, state: State, present: Found) -> bytes | None:
        """The value of a key, from what :meth:`look` told. May raise PositionNotFoundError."""
        if present is MISSING:
            present = self._engine.find_in_tables(state, key)
        if present is None or present is MISSING or isinstance(present, bytes):
            return None if present is MISSING else present  # type: ignore[return-value]
        return self._engine.read(present, self._log)  # type: ignore[arg-type]

    def unless_changed(self, key: bytes, state: State, present: Found) -> Decide:
        """What raises StaleError, in the append lock, if a key is not as :meth:`look` told."""
        memtable = self._memtable

        def decide() -> None:
            with memtable.visibility:
                now = memtable.present_locked(key)
                if now is MISSING and memtable.state.runs is not state.runs:
                    raise StaleError
            if now is not present and (now is MISSING or present is MISSING or now != present):
                raise StaleError

        return decide

    # -- the log's affairs -------------------------------------------------------------------------

    def sync(self) -> None:
        """Make all that was accepted before survive a power loss."""
        try:
            self._log.sync()
        except WalError as error:
            raise self._engine.failure(error) from error

    def checkpoint(self) -> None:
        """Move all that was committed before to tables, and wait for it."""
        try:
            self._log.checkpoint_active(wait=True)
        except WalError as error:
            raise self._engine.failure(error) from error

    def seal(self) -> None:
        """The recent mutations are many: have them moved to a table, once for each segment."""
        segment_id = self._memtable.segment_id
        if self._sealed_segment != segment_id:
            self._sealed_segment = segment_id
            try:
                self._log.checkpoint_active()
            except (WalError, OSError):
                # The write that came here is committed; whatever is wrong, the next one is told.
                self._sealed_segment = 0


def read_only() -> ReadOnlyError:
    """The refusal of a write."""
    return ReadOnlyError('the store is open for reading: open it with flag "w"')
