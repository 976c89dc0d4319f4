"""Snapshots: consistent views of a store for as long as they are held."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from kvstore.codecs import Codec, check_codec
from kvstore.keyspaces import ROOT, Keyspace
from kvstore.memory.pinned import Pinned
from kvstore.mutations import Buffer
from kvstore.names import Names
from kvstore.namespaces import HasNamespaces, ReadableNamespace
from kvstore.reading import Reads
from kvstore.sources import Source

if TYPE_CHECKING:
    from types import TracebackType

W = TypeVar("W")


class Snapshot(Reads[bytes], HasNamespaces):
    """The store as it was when the snapshot was taken, with every read of the store.

    Taking and releasing one is O(1), and neither waits for writers nor makes them wait. While it is
    held, the values that are overwritten are kept for it, and so are the files that it reads:
    release it with :meth:`close`, or use it as a context manager. One that is dropped is released
    by its finalizer. May be used by many threads.

    >>> import kvstore, wal
    >>> with kvstore.open("db", file_system=wal.files.MemoryFileSystem()) as db:
    ...     db[b"k"] = b"old"
    ...     with db.snapshot() as snap:
    ...         db[b"k"] = b"new"
    ...         snap[b"k"], db[b"k"], snap.entry_id < db.last_entry_id
    (b'old', b'new', True)
    """

    def __init__(self, pinned: Pinned, names: Names) -> None:
        """Use :meth:`kvstore.Store.snapshot`."""
        self._pinned = pinned
        self._names = names

    @property
    def entry_id(self) -> int:
        """The last log entry that it contains."""
        return self._pinned.entry_id

    @property
    def closed(self) -> bool:
        """Whether it was released."""
        return self._pinned.released

    def namespace(self, name: Buffer, codec: Codec[W] | None = None) -> ReadableNamespace[W]:
        """A namespace, as it was when the snapshot was taken."""
        return ReadableNamespace(self, self._names.child((), name, check_codec(codec)))

    @property
    def _root(self) -> Snapshot:
        return self

    def _reader(self) -> tuple[Source, Keyspace]:
        self._pinned.check()
        return self._pinned, ROOT

    def _source(self) -> Source:
        self._pinned.check()
        return self._pinned

    def close(self) -> None:
        """Let go of everything that is kept for it. Idempotent."""
        self._pinned.release()

    release = close

    def __enter__(self) -> Snapshot:
        self._pinned.check()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __bool__(self) -> bool:
        """Always true."""
        return True

    def __repr__(self) -> str:
        return f"<kvstore.Snapshot of entry {self.entry_id}{', closed' if self.closed else ''}>"
