"""Everything that can be written to a store, a transaction, a namespace of either."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar, overload

from kvstore.batch import Batch, Mutations
from kvstore.keyspaces import Keyspace
from kvstore.mapping import StoreMapping
from kvstore.mutations import Buffer, as_batch, as_key, as_value
from kvstore.names import Names, Place
from kvstore.reading import Reads
from kvstore.values import MISSING, Found

if TYPE_CHECKING:
    from kvstore.codecs import Codec
    from wal import Durability

V = TypeVar("V")
A = TypeVar("A")
"""What is taken for a value: for bytes any buffer."""
T = TypeVar("T")
K = TypeVar("K", bound=Buffer)

Encode = Callable[[Any], bytes]


class Sink(Protocol):
    """Where mutations of stored keys go: into the log, or into what will go there as a whole."""

    def commit(self, mutations: Mutations, durability: Durability | None) -> int | None:
        """Commit some mutations; their entry's id, if there is one already."""

    def change(
        self,
        key: bytes,
        choose: Callable[[bytes | None], Found],
        durability: Durability | None,
        extra: Mutations,
    ) -> tuple[bytes | None, bool]:
        """Read a key and write what ``choose`` makes of it: the old value, and if it wrote.

        What is written comes with the ``extra`` mutations.
        """


class Writes(Reads[V], Generic[V, A]):
    """Reads and writes of keys in one space."""

    _encode: Encode | None = None

    def _writer(self) -> tuple[Sink, Keyspace, Mutations]:
        """Where mutations go, the space of the keys, and what has to be written with them."""
        raise NotImplementedError

    def _place(self) -> tuple[Sink, Names, Place]:
        """Where mutations go, and where among the namespaces this is. An error if none can go."""
        raise NotImplementedError

    def _value(self, value: object) -> bytes:
        return as_value(value if self._encode is None else self._encode(value))

    # -- one key -----------------------------------------------------------------------------------

    def put(self, key: Buffer, value: A, *, durability: Durability | None = None) -> None:
        """Set a key.

        Raises KeyTooLongError and ValueTooLongError, StoreFailedError (``latched``: in doubt, and
        no later write succeeds; else nothing was written), ReadOnlyError, StoreClosedError.
        """
        key, data = as_key(key), self._value(value)
        sink, space, extra = self._writer()
        sink.commit({**extra, space.stored(key): data}, durability)

    def __setitem__(self, key: Buffer, value: A) -> None:
        self.put(key, value)

    def delete(self, key: Buffer, *, durability: Durability | None = None) -> None:
        """Delete a key, there or not. Raises what :meth:`put` does."""
        key = as_key(key)
        sink, space, extra = self._writer()
        sink.commit({**extra, space.stored(key): None}, durability)

    def __delitem__(self, key: Buffer) -> None:
        """Delete a key that is there; of several threads at once one succeeds. Else KeyError."""
        old, _ = self._change(key, lambda old: MISSING if old is None else None, None)
        if old is None:
            raise KeyError(key)

    # -- what rests on what is there ---------------------------------------------------------------

    def add(self, key: Buffer, value: A, *, durability: Durability | None = None) -> bool:
        """Set a key only if it is absent; whether it was. Of several threads one succeeds.

        >>> import kvstore, wal
        >>> with kvstore.open("db", file_system=wal.files.MemoryFileSystem()) as db:
        ...     db.add(b"owner", b"me"), db.add(b"owner", b"you"), db[b"owner"]
        (True, False, b'me')
        """
        data = self._value(value)
        return self._change(key, lambda old: data if old is None else MISSING, durability)[1]

    def replace(
        self,
        key: Buffer,
        expected: A | None,
        new: A | None,
        *,
        durability: Durability | None = None,
    ) -> bool:
        """Set a key only if its value is the expected one; whether it was.

        ``expected`` None: only if the key is absent. ``new`` None: delete it.

        >>> import kvstore, wal
        >>> with kvstore.open("db", file_system=wal.files.MemoryFileSystem()) as db:
        ...     db.put(b"n", b"1")
        ...     db.replace(b"n", b"1", b"2"), db.replace(b"n", b"1", b"3"), db[b"n"]
        (True, False, b'2')
        """
        wanted = None if expected is None else self._value(expected)
        data = None if new is None else self._value(new)
        decode = self._decode
        matched = False

        def choose(old: bytes | None) -> Found:
            nonlocal matched
            matched = old == wanted
            if not matched and decode is not None and old is not None and wanted is not None:
                matched = decode(old) == expected  # equal values may have different bytes
            return MISSING if not matched or old is data is None else data

        self._change(key, choose, durability)
        return matched

    @overload
    def pop(self, key: Buffer, *, durability: Durability | None = None) -> V | None: ...
    @overload
    def pop(self, key: Buffer, default: T, *, durability: Durability | None = None) -> V | T: ...
    def pop(
        self, key: Buffer, default: object = None, *, durability: Durability | None = None
    ) -> object:
        """Delete a key and return its value, or ``default``. Of several threads one gets it."""
        old, _ = self._change(key, lambda old: MISSING if old is None else None, durability)
        if old is None:
            return default
        return old if self._decode is None else self._decode(old)

    def _change(
        self,
        key: Buffer,
        choose: Callable[[bytes | None], Found],
        durability: Durability | None,
    ) -> tuple[bytes | None, bool]:
        key = as_key(key)
        sink, space, extra = self._writer()
        return sink.change(space.stored(key), choose, durability, extra)

    # -- several keys ------------------------------------------------------------------------------

    def batch(self, *, durability: Durability | None = None) -> Batch[A]:
        """Several mutations at once, all or nothing; see :class:`kvstore.Batch`."""
        sink, names, place = self._place()
        return Batch(sink.commit, names, place, self._encode, durability)

    def write(self, items: Mapping[K, A | None], *, durability: Durability | None = None) -> None:
        """Put every item of a mapping, and delete the keys whose value is None: all or nothing.

        In a namespace with a codec, where None may be a value, None is a TypeError.

        >>> import kvstore, wal
        >>> with kvstore.open("db", file_system=wal.files.MemoryFileSystem()) as db:
        ...     db.write({b"a": b"1", b"b": b"2"})
        ...     db.write({b"a": None, b"c": b"3"})
        ...     list(db)
        [b'b', b'c']
        """
        batch = as_batch(items, self._encode)
        sink, space, extra = self._writer()
        if batch:
            stored = space.stored_batch(batch)
            sink.commit({**extra, **stored} if extra else stored, durability)

    def mapping(self, *, codec: Codec[T] | None = None) -> StoreMapping[Any]:
        """A :class:`collections.abc.MutableMapping` over the keys here; see there for ``codec``."""
        return StoreMapping(self, codec)
