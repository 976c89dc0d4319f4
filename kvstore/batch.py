"""Batches: several mutations that become one log entry."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from kvstore.errors import StoreError
from kvstore.mutations import Buffer, as_key, as_value
from kvstore.runs import Values

if TYPE_CHECKING:
    from types import TracebackType

    from wal import Durability


class Commit(Protocol):
    """Commits checked mutations and returns their entry's id."""

    def __call__(self, mutations: Values, durability: Durability | None) -> int: ...


class Batch:
    """Mutations that are committed at the end of a ``with`` block; an exception drops them.

    Of several mutations of a key the last one counts. Nothing is visible before the end of the
    block, and outside of one nothing is taken: StoreError. Made by :meth:`kvstore.Store.batch`; for
    one thread at a time.

    >>> import kvstore, wal
    >>> with kvstore.open("db", file_system=wal.files.MemoryFileSystem()) as db:
    ...     with db.batch() as batch:
    ...         batch.put(b"a", b"1")
    ...         batch.delete(b"b")
    ...     list(db), batch.entry_id == db.last_entry_id
    ([b'a'], True)
    """

    def __init__(self, commit: Commit, durability: Durability | None) -> None:
        self._commit = commit
        self._durability = durability
        self._mutations: Values | None = None  # None before and after the block
        self._over = False
        self.entry_id: int | None = None
        """The id of the log entry, once it is committed; None for an empty batch."""

    def put(self, key: Buffer, value: Buffer) -> None:
        """Set a key, once the batch is committed."""
        mutations = self._mutations
        if mutations is None:
            raise self._refusal()
        mutations[as_key(key)] = as_value(value)

    def delete(self, key: Buffer) -> None:
        """Delete a key, there or not, once the batch is committed."""
        mutations = self._mutations
        if mutations is None:
            raise self._refusal()
        mutations[as_key(key)] = None

    def __len__(self) -> int:
        return len(self._mutations or ())

    def __bool__(self) -> bool:
        return True

    def __enter__(self) -> Batch:
        if self._mutations is not None or self._over:
            raise self._refusal()
        self._mutations = {}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        mutations, self._mutations = self._mutations, None
        self._over = True
        if kind is None and mutations:
            self.entry_id = self._commit(mutations, self._durability)

    def _refusal(self) -> StoreError:
        if self._over:
            return StoreError("the batch has ended: begin another one")
        if self._mutations is not None:
            return StoreError("the batch has begun already")
        return StoreError("a batch is committed by its block: use `with db.batch() as batch:`")
