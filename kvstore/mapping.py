"""A store as a mapping: for code that expects a dict, or comes from :mod:`shelve`."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from typing import TYPE_CHECKING, Any, TypeVar, cast

from kvstore.codecs import Codec, check_codec
from kvstore.mutations import Buffer, as_bytes

if TYPE_CHECKING:
    from kvstore.writing import Writes

V = TypeVar("V")


class StoreMapping(MutableMapping[bytes, V]):
    """A :class:`collections.abc.MutableMapping` over the keys of a store or namespace.

    Keys are bytes. Values are what the store or namespace has; a ``codec`` makes them something
    else on top of that, and is recorded nowhere: use a namespace's own codec for what is to last.
    Iteration is ordered, and over one state; ``len`` walks all keys. Every write is one commit.

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

    def __getitem__(self, key: Buffer) -> V:
        value = self._store[key]
        return cast("V", value if self._decode is None else self._decode(value))

    def __setitem__(self, key: Buffer, value: V) -> None:
        self._store.put(key, value if self._encode is None else self._encode(value))

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

    def __repr__(self) -> str:
        return f"<kvstore.StoreMapping over {self._store!r}>"
