"""Namespaces: parts of a store with keys, and perhaps a codec, of their own."""

from __future__ import annotations

from contextlib import closing
from itertools import islice
from typing import Final, Protocol, TypeVar

from kvstore.batch import Mutations
from kvstore.codecs import Codec, check_codec
from kvstore.keyspaces import Keyspace
from kvstore.mutations import Buffer
from kvstore.names import Key, Names, Place
from kvstore.reading import Reads
from kvstore.sources import Source
from kvstore.writing import Sink, Writes

V = TypeVar("V")
W = TypeVar("W")

_CLEARED_AT_ONCE: Final = 1000


class ReadRoot(Protocol):
    """What a namespace is read through: a store, a snapshot, a transaction."""

    _names: Names

    def _source(self) -> Source:
        """The source of its reads, or an error if it can be read no more."""


class WriteRoot(ReadRoot, Protocol):
    """What a namespace is written through: a store, a transaction."""

    _claimed: set[Key] | None
    """What it has claimed in the directory, if it may drop that."""

    def _sink(self) -> Sink:
        """Where its mutations go, or an error if none can go there."""


class HasNamespaces:
    """The listing of child namespaces; for whatever has a root and a place."""

    _path: Place = ()

    @property
    def _root(self) -> ReadRoot:
        """What it is read through. Not kept where it is the object itself: no circles."""
        raise NotImplementedError

    def namespaces(self) -> list[bytes]:
        """The names of the namespaces right below, in order: those that were ever written to."""
        source = self._root._source()
        return self._root._names.children(self._path, source)


class ReadableNamespace(Reads[V], HasNamespaces):
    """A namespace of a snapshot."""

    def __init__(self, root: ReadRoot, path: Place) -> None:
        """Use ``namespace()``."""
        self._through = root
        self._path = path
        self._known: tuple[object, Keyspace] | None = None  # of an era of the directory
        self._decode = path[-1].codec.decoder

    @property
    def _root(self) -> ReadRoot:
        return self._through

    @property
    def name(self) -> bytes:
        """The namespace's own name."""
        return self._path[-1].name

    def _reader(self) -> tuple[Source, Keyspace | None]:
        root = self._through
        source, names = root._source(), root._names
        known = self._known
        if known is not None and known[0] is names.era:
            return source, known[1]
        return source, self._recorded(names) or names.for_reading(self._path, source)

    def _recorded(self, names: Names) -> Keyspace | None:
        """Its keys' space, if it is in the store; remembered."""
        era, space = names.era, names.recorded(self._path)
        if space is not None:
            self._known = (era, space)
        return space

    def namespace(self, name: Buffer, codec: Codec[W] | None = None) -> ReadableNamespace[W]:
        """A namespace inside this one."""
        path = self._root._names.child(self._path, name, check_codec(codec))
        return ReadableNamespace(self._root, path)

    def __len__(self) -> int:
        """How many keys there are; walks them all."""
        return self.count()

    def __bool__(self) -> bool:
        """Always true, also when it is empty."""
        return True

    def __repr__(self) -> str:
        names = " > ".join(repr(step.name) for step in self._path)
        return f"<kvstore.{type(self).__name__} {names} of {self._root!r}>"


class Namespace(ReadableNamespace[V], Writes[V, V]):
    """A part of a store, or of a transaction, with keys of its own.

    It has every read and write of the store; no key of it is seen outside, and none of outside in
    it, whatever bytes are in them. Namespaces nest. A codec makes its values something else than
    bytes: see :class:`kvstore.Codec`.

    >>> import kvstore, wal
    >>> with kvstore.open("db", file_system=wal.files.MemoryFileSystem()) as db:
    ...     users = db.namespace(b"users", codec=kvstore.JSON)
    ...     users.put(b"ann", {"age": 40})
    ...     users[b"ann"], len(users), list(db), db.namespaces()
    ({'age': 40}, 1, [], [b'users'])
    """

    _through: WriteRoot

    def __init__(self, root: WriteRoot, path: Place) -> None:
        """Use ``namespace()``."""
        super().__init__(root, path)
        self._encode = path[-1].codec.encoder

    def _writer(self) -> tuple[Sink, Keyspace, Mutations]:
        root = self._through
        sink, names = root._sink(), root._names
        known = self._known
        if known is not None and known[0] is names.era:
            return sink, known[1], {}
        space = self._recorded(names)
        if space is not None:
            return sink, space, {}
        return sink, *names.for_writing(self._path, root._claimed)

    def _place(self) -> tuple[Sink, Names, Place]:
        return self._through._sink(), self._root._names, self._path

    def namespace(self, name: Buffer, codec: Codec[W] | None = None) -> Namespace[W]:
        """A namespace inside this one."""
        path = self._root._names.child(self._path, name, check_codec(codec))
        return Namespace(self._through, path)

    def clear(self) -> None:
        """Delete every key that is here now, some at a time; those of namespaces inside it stay.

        Keys that are written meanwhile may stay. Not one step: a crash may leave a part.
        """
        self._through._sink()  # refuses where nothing can be written
        with closing(self.keys()) as keys:
            while some := list(islice(keys, _CLEARED_AT_ONCE)):
                sink, space, extra = self._writer()
                sink.commit({**extra, **{space.stored(key): None for key in some}}, None)
