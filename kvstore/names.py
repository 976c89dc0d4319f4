"""The directory of namespaces: names, ids and codecs.

It is part of the store itself, under keys of its own, so a snapshot, a backup, a crash has it in
step with everything else. An entry is written together with the first mutation in its namespace.
Ids are given out in memory and stay with their name from then on; that of a namespace that was
never written may be given out again by the next opening. Entries are never removed.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any, NamedTuple

import msgpack

from kvstore.codecs import Codec
from kvstore.errors import CodecMismatchError, CorruptStoreError
from kvstore.keyspaces import ROOT, Keyspace, decode_id, directory_bounds, directory_key
from kvstore.mutations import MAX_KEY, Buffer, as_bytes
from kvstore.sources import Source
from kvstore.values import Value

_LONGEST_NAME = MAX_KEY
_PREFIX = len(directory_bounds().low)


class Step(NamedTuple):
    """One step from a namespace to a child: its name, and how its values are encoded."""

    name: bytes
    codec: Codec[Any]


Place = tuple[Step, ...]
"""The way to a namespace from the root, which is ``()``."""


class Entry(NamedTuple):
    """What the directory has of a namespace. ``codec`` is None before it has values of its own."""

    number: int
    codec: str | None

    def pack(self) -> bytes:
        """The entry's value in the store."""
        packed: bytes = msgpack.packb([self.number, self.codec])
        return packed


class Names:
    """The directory, over the present state of a store. Its lock is held while it reads."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._lock = threading.Lock()
        self._known: dict[tuple[int, bytes], Entry] = {}  # in the store, or to be written
        self._spaces: dict[int, Keyspace] = {0: ROOT}
        self._next = 0  # unknown

    # -- places ------------------------------------------------------------------------------------

    def child(self, place: Place, name: Buffer, codec: Codec[Any]) -> Place:
        """The place of a child namespace; CodecMismatchError if it was made with another codec."""
        name = as_bytes(name, "name")
        if len(name) > _LONGEST_NAME:
            raise ValueError(f"a name may have at most {_LONGEST_NAME:,} bytes, not {len(name):,}")
        parent = self._number(place)
        if parent is not None:
            _check_codec(self._entry(parent, name), Step(name, codec))
        return (*place, Step(name, codec))

    def for_reading(self, place: Place) -> Keyspace | None:
        """Where the keys of a namespace are; None while nothing was written there."""
        number = self._number(place)
        return None if number is None else self._space(number)

    def _number(self, place: Place) -> int | None:
        number = 0
        for step in place:
            entry = self._entry(number, step.name)
            if entry is None:
                return None
            number = entry.number
        return number

    def for_writing(self, place: Place) -> tuple[Keyspace, dict[bytes, bytes | None]]:
        """Where keys are to be written, and the directory's entries to be written with them."""
        number = 0
        extra: dict[bytes, bytes | None] = {}
        for depth, step in enumerate(place):
            codec = step.codec.name if depth == len(place) - 1 else None
            stored = directory_key(number, step.name)
            entry = self._claim(number, step, codec)
            if self._read(stored) != entry:
                extra[stored] = entry.pack()
            number = entry.number
        return self._space(number), extra

    def _claim(self, parent: int, step: Step, codec: str | None) -> Entry:
        """The entry of a name, made if there is none; ``codec`` is recorded if none is yet."""
        with self._lock:
            entry = self._entry(parent, step.name)
            if entry is None:
                entry = Entry(self._next_number(), codec)
            elif codec is not None:
                _check_codec(entry, step)
                entry = entry._replace(codec=codec)
            self._known[parent, step.name] = entry
            return entry

    def _entry(self, parent: int, name: bytes) -> Entry | None:
        known = self._known.get((parent, name))
        if known is None or known.codec is None:
            found = self._read(directory_key(parent, name))
            if found is not None:
                if found.codec is not None:  # it does not change any more
                    self._known[parent, name] = found
                return found
        return known

    def _read(self, stored: bytes) -> Entry | None:
        source = self._source
        return _unpack(stored, source.load(stored, source.find(stored)))

    def _next_number(self) -> int:
        if not self._next:
            self._next = 1 + max((entry.number for _, _, entry in self._all()), default=0)
        self._next += 1
        return self._next - 1

    def _space(self, number: int) -> Keyspace:
        space = self._spaces.get(number)
        if space is None:
            space = self._spaces[number] = Keyspace(number)
        return space

    # -- listing -----------------------------------------------------------------------------------

    def children(self, place: Place, source: Source) -> list[bytes]:
        """The names of the namespaces in one, in order, as a source has them."""
        number = self._number(place)
        return [] if number is None else [name for _, name, _ in entries(source, number)]

    def names_of(self, number: int) -> tuple[bytes, ...] | None:
        """The names on the way to a namespace with this id; None if the directory has none."""
        if not number:
            return ()
        for parent, name, entry in self._all():
            if entry.number == number:
                way = self.names_of(parent)
                return None if way is None else (*way, name)
        return None

    def _all(self) -> Iterator[tuple[int, bytes, Entry]]:
        return entries(self._source)


def entries(source: Source, parent: int | None = None) -> Iterator[tuple[int, bytes, Entry]]:
    """The directory as a source has it: the parent's id, the name and the entry of each."""
    walk = source.walk(directory_bounds(parent), None, reverse=False)
    try:
        for keys, values in walk:
            for stored, value in zip(keys, values, strict=True):
                number, at = decode_id(stored, _PREFIX)
                entry = _unpack(stored, source.load(stored, value))
                assert entry is not None
                yield number, stored[at:], entry
    finally:
        walk.close()


def _unpack(stored: bytes, data: Value) -> Entry | None:
    if data is None:
        return None
    try:
        number, codec = msgpack.unpackb(data, raw=False, max_array_len=2, max_map_len=0)
        if type(number) is int and number > 0 and (codec is None or type(codec) is str):
            return Entry(number, codec)
    except (ValueError, TypeError, msgpack.exceptions.StackError):
        pass
    raise CorruptStoreError(repr(stored), 0, "the directory's entry of a namespace is not one")


def _check_codec(entry: Entry | None, step: Step) -> None:
    if entry is not None and entry.codec not in (None, step.codec.name):
        raise CodecMismatchError(
            f"the namespace {step.name!r} was made with the codec {entry.codec!r}, "
            f"not {step.codec.name!r}"
        )
