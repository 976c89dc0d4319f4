"""The directory of namespaces: names, ids and codecs.

It is part of the store itself, under keys of its own, so a snapshot, a backup, a crash has it in
step with everything else. An entry is written together with the first mutation in its namespace, or
in one below it. It never changes and is never removed: what was once seen in the store is known for
good, and two who write the same entry at once do no harm.

What is not in the store yet is *claimed*, in memory. An id stays with its name from then on, so
what a transaction has read of a namespace is found again, whoever makes it; that of a namespace
that was never written may be given out again by the next opening. A claim's codec is kept for those
who are about to write it; when all of them have dropped that, the next one chooses anew.
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
    """What the directory has of a namespace."""

    number: int
    codec: str

    def pack(self) -> bytes:
        """The entry's value in the store."""
        packed: bytes = msgpack.packb([self.number, self.codec])
        return packed


Key = tuple[int, bytes]
"""An entry's parent and name."""


class _Claim:
    """An entry that is not in the store yet, and how many may still write it."""

    __slots__ = ("entry", "holders")

    def __init__(self, entry: Entry) -> None:
        self.entry = entry
        self.holders = 0


class Names:
    """The directory, over the present state of a store.

    Its lock is held while it reads for a claim. What is in the store already is found without it.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._lock = threading.Lock()
        self._recorded: dict[Key, Entry] = {}  # that were seen in the store
        self._claims: dict[Key, _Claim] = {}
        self._spaces: dict[int, Keyspace] = {0: ROOT}
        self._ways: dict[int, Key] = {}  # the way back from an id
        self._next = 0  # unknown

    # -- what is in the store ----------------------------------------------------------------------

    @property
    def era(self) -> object:
        """Another object after :meth:`forget`: until then what :meth:`recorded` gave is right."""
        return self._recorded

    def forget(self) -> None:
        """Another store may be here now: what was seen counts no more."""
        self._recorded = {}
        self._ways = {}

    def child(self, place: Place, name: Buffer, codec: Codec[Any]) -> Place:
        """The place of a child namespace; CodecMismatchError if it was made with another codec."""
        name = as_bytes(name, "name")
        if len(name) > _LONGEST_NAME:
            raise ValueError(f"a name may have at most {_LONGEST_NAME:,} bytes, not {len(name):,}")
        child = (*place, Step(name, codec))
        self.recorded(child)
        return child

    def recorded(self, place: Place) -> Keyspace | None:
        """Where the keys of a namespace are that is in the store, None for any other one.

        CodecMismatchError if one on the way was made with another codec.
        """
        number = 0
        for step in place:
            entry = self._find(number, step.name)
            if entry is None:
                return None
            _check_codec(entry, step)
            number = entry.number
        return self._space(number)

    def _find(self, parent: int, name: bytes) -> Entry | None:
        key = (parent, name)
        entry = self._recorded.get(key)
        if entry is None:
            entry = self._read(key)
            if entry is not None and key in self._claims:
                with self._lock:  # whoever claims looks into the store first
                    self._claims.pop(key, None)
        return entry

    def _read(self, key: Key) -> Entry | None:
        recorded = self._recorded  # that of now: a refresh may come between
        stored = directory_key(*key)
        source = self._source
        entry = _unpack(stored, source.load(stored, source.find(stored)))
        if entry is not None:
            recorded[key] = entry
        return entry

    def _space(self, number: int) -> Keyspace:
        space = self._spaces.get(number)
        if space is None:
            space = self._spaces[number] = Keyspace(number)
        return space

    # -- what is there or to come ------------------------------------------------------------------

    def for_reading(self, place: Place, source: Source | None = None) -> Keyspace | None:
        """Where to look for keys; None while nothing was written there.

        With a ``source``, which may have the first write itself, it is also found where that is
        still to come; one that notes what is read notes what was missing.
        """
        if source is None:
            return self.recorded(place)
        number = 0
        for step in place:
            entry = self._find(number, step.name) or self._claimed(number, step.name)
            if entry is None:
                source.find(directory_key(number, step.name))
                return None
            _check_codec(entry, step)
            number = entry.number
        return self._space(number)

    def _claimed(self, parent: int, name: bytes) -> Entry | None:
        claim = self._claims.get((parent, name))
        return claim.entry if claim is not None and claim.holders else None

    def for_writing(
        self, place: Place, claimed: set[Key] | None = None
    ) -> tuple[Keyspace, dict[bytes, bytes | None]]:
        """Where keys are to be written, and the directory's entries to be written with them.

        Who may drop them adds to ``claimed`` what :meth:`release` is to be told then.
        """
        number = 0
        extra: dict[bytes, bytes | None] = {}
        for step in place:
            entry = self._find(number, step.name)
            if entry is None:
                entry = self._claim(number, step, claimed)
                extra[directory_key(number, step.name)] = entry.pack()
            _check_codec(entry, step)
            number = entry.number
        return self._space(number), extra

    def _claim(self, parent: int, step: Step, claimed: set[Key] | None) -> Entry:
        key = (parent, step.name)
        with self._lock:
            found = self._read(key)
            if found is not None:  # by now
                return found
            claim = self._claims.get(key)
            if claim is None:
                claim = self._claims[key] = _Claim(Entry(self._next_number(), step.codec.name))
                self._ways[claim.entry.number] = key
            elif not claim.holders:
                claim.entry = claim.entry._replace(codec=step.codec.name)
            _check_codec(claim.entry, step)
            if claimed is None or key not in claimed:
                claim.holders += 1
            if claimed is not None:
                claimed.add(key)
            return claim.entry

    def release(self, claimed: set[Key]) -> None:
        """Nobody will write these entries any more, of those who claimed them together."""
        with self._lock:
            while claimed:
                claim = self._claims.get(claimed.pop())
                if claim is not None:
                    claim.holders -= 1

    def _next_number(self) -> int:
        if not self._next:
            found = entries(self._source)
            self._next = 1 + max((entry.number for _, _, entry in found), default=0)
        self._next += 1
        return self._next - 1

    # -- listing -----------------------------------------------------------------------------------

    def children(self, place: Place, source: Source) -> list[bytes]:
        """The names of the namespaces in one, in order, as a source has them."""
        space = self.for_reading(place, source)
        return [] if space is None else [name for _, name, _ in entries(source, space.number)]

    def names_of(self, number: int) -> tuple[bytes, ...] | None:
        """The names on the way to a namespace with this id; None if the directory has none.

        O(depth); the first time it walks the directory.
        """
        names: list[bytes] = []
        while number:
            way = self._way(number)
            if way is None or way[0] >= number:  # a parent has its id before its children
                return None
            names.append(way[1])
            number = way[0]
        return tuple(reversed(names))

    def _way(self, number: int) -> Key | None:
        ways = self._ways
        if number not in ways:  # it was there before the store was opened
            for parent, name, entry in entries(self._source):
                ways[entry.number] = (parent, name)
        return ways.get(number)


def entries(source: Source, parent: int | None = None) -> Iterator[tuple[int, bytes, Entry]]:
    """The directory as a source has it: the parent's id, the name and the entry of each."""
    walk = source.walk(directory_bounds(parent), None, reverse=False)
    try:
        for keys, values in walk:
            for stored, value in zip(keys, values, strict=True):
                number, at = _split(stored)
                entry = _unpack(stored, source.load(stored, value))
                assert entry is not None
                yield number, stored[at:], entry
    finally:
        walk.close()


def _split(stored: bytes) -> tuple[int, int]:
    """The parent's id in an entry's key, and where the name begins."""
    try:
        return decode_id(stored, _PREFIX)
    except ValueError as error:
        raise CorruptStoreError(repr(stored), 0, str(error)) from None


def _unpack(stored: bytes, data: Value) -> Entry | None:
    if data is None:
        return None
    try:
        number, codec = msgpack.unpackb(data, raw=False, max_array_len=2, max_map_len=0)
        if type(number) is int and number > 0 and type(codec) is str:
            return Entry(number, codec)
    except (ValueError, TypeError, msgpack.exceptions.StackError):
        pass
    raise CorruptStoreError(repr(stored), 0, "the directory's entry of a namespace is not one")


def _check_codec(entry: Entry, step: Step) -> None:
    if entry.codec != step.codec.name:
        raise CodecMismatchError(
            f"the namespace {step.name!r} was made with the codec {entry.codec!r}, "
            f"not {step.codec.name!r}"
        )
