"""A store as a mapping: for code that expects a dict, or comes from :mod:`shelve`."""

from __future__ import annotations

from collections.abc import ItemsView, Iterator, MutableMapping, ValuesView
from contextlib import closing
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast, overload

from kvstore.codecs import Codec, check_codec
from kvstore.mutations import Buffer, as_bytes

if TYPE_CHECKING:
    from kvstore.writing import Writes

V = TypeVar("V")
T = TypeVar("T")

_ABSENT: Final = object()
_CLEARED_AT_ONCE: Final = 1000


class StoreMapping(MutableMapping[bytes, V]):
    """A :class:`collections.abc.MutableMapping` over the keys of a store or namespace.

    Keys are bytes. Values are what the store or namespace has; a ``codec`` makes them something
    else on top of that, and is recorded nowhere: use a namespace's own codec for what is to last.
    Iteration is ordered, and over one state, that of its beginning; ``len`` walks all keys. Every
    write is one commit: ``update`` is one for each item, ``clear`` for some at a time. Of several
    threads one gets what ``pop``, ``popitem`` and ``setdefault`` are about.

    >>> import kvstore, wal
    >>> with kvstore.open("db", file_system=wal.files.MemoryFileSystem()) as db:
    ...     settings = db.mapping(codec=kvstore.JSON)
    ...     settings.update({b"size": 3, b"tags": ["a"]})
    ...     dict(settings), settings.pop(b"size"), len(settings)
    ({b'size': 3, b'tags': ['a']}, 3, 1)
    """

    def __init__(self, store: Writes[Any, Any], codec: Codec[V] | None) -> None:
        """Use ``mapping()``."""
        self._store = store
        chosen = check_codec(codec)
        self._encode = chosen.encoder
        self._decode = chosen.decoder

    def _decoded(self, value: Any) -> V:
        return cast("V", value if self._decode is None else self._decode(value))

    def _encoded(self, value: V) -> Any:
        return value if self._encode is None else self._encode(value)

    def __getitem__(self, key: Buffer) -> V:
        return self._decoded(self._store[key])

    def __setitem__(self, key: Buffer, value: V) -> None:
        self._store.put(key, self._encoded(value))

    def __delitem__(self, key: Buffer) -> None:
        del self._store[key]

    def __contains__(self, key: object) -> bool:
        return as_bytes(key, "key") in self._store

    def __iter__(self) -> Iterator[bytes]:
        return self._store.keys()

    def __reversed__(self) -> Iterator[bytes]:
        return self._store.keys(reverse=True)

    def __len__(self) -> int:
        return self._store.count()

    def __bool__(self) -> bool:
        """Whether there is anything; looks at one key."""
        return self._store.count(limit=1) > 0

    def items(self) -> ItemsView[bytes, V]:
        """The items, a view as that of a dict."""
        return _Items(self)

    def values(self) -> ValuesView[V]:
        """The values, a view as that of a dict."""
        return _Values(self)

    def _walk(self, *, reverse: bool = False) -> Iterator[tuple[bytes, V]]:
        items = self._store.scan(reverse=reverse)  # begins here, not with the first item
        if self._decode is None:
            return items
        return ((key, self._decoded(value)) for key, value in items)

    def update(self, other: Any = (), /, **more: V) -> None:
        """Set all of a mapping's, or an iterable's, items: one commit, all or nothing.

        >>> import kvstore, wal
        >>> with kvstore.open("db", file_system=wal.files.MemoryFileSystem()) as db:
        ...     db.mapping().update([(b"a", b"1"), (b"b", b"2")])
        ...     db.last_entry_id
        1
        """
        with self._store.batch() as batch:
            for key, value in dict(other, **more).items():
                batch.put(key, self._encoded(value))

    # -- what others have as two steps -------------------------------------------------------------

    @overload
    def pop(self, key: Buffer) -> V: ...
    @overload
    def pop(self, key: Buffer, default: T) -> V | T: ...
    def pop(self, key: Buffer, default: object = _ABSENT) -> object:
        """Delete a key and return its value; without a ``default`` an absent one is a KeyError."""
        value = self._store.pop(key, _ABSENT)
        if value is not _ABSENT:
            return self._decoded(value)
        if default is _ABSENT:
            raise KeyError(key)
        return default

    def popitem(self) -> tuple[bytes, V]:
        """Delete the first item and return it; KeyError if there is none."""
        with closing(self._store.keys()) as keys:
            for key in keys:
                value = self._store.pop(key, _ABSENT)
                if value is not _ABSENT:  # nobody else got it
                    return key, self._decoded(value)
        raise KeyError("popitem(): there is nothing")

    def setdefault(self, key: Buffer, default: V) -> V:
        """The value of a key, which is set to the default if it is absent."""
        while (value := self._store.get(key, _ABSENT)) is _ABSENT:
            if self._store.add(key, self._encoded(default)):
                return default
        return self._decoded(value)

    def clear(self) -> None:
        """Delete all that is here now, some at a time."""
        with closing(self._store.keys()) as keys:
            while some := list(islice(keys, _CLEARED_AT_ONCE)):
                with self._store.batch() as batch:
                    for key in some:
                        batch.delete(key)

    def __repr__(self) -> str:
        return f"<kvstore.StoreMapping over {self._store!r}>"


class _Items(ItemsView[bytes, V]):
    """The items, read with one walk instead of a look-up for each."""

    _mapping: StoreMapping[V]

    def __iter__(self) -> Iterator[tuple[bytes, V]]:
        return self._mapping._walk()

    def __reversed__(self) -> Iterator[tuple[bytes, V]]:
        return self._mapping._walk(reverse=True)


class _Values(ValuesView[V]):
    """The values, in the order of their keys."""

    _mapping: StoreMapping[V]

    def __iter__(self) -> Iterator[V]:
        return (value for _, value in self._mapping._walk())

    def __reversed__(self) -> Iterator[V]:
        return (value for _, value in self._mapping._walk(reverse=True))
