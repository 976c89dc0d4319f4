"""What a store has to show: every version of it since its creation, and which must survive what.

A *version* is what one log entry made of the one before. The newest is what readers see; one whose
write raised is *in doubt*: nobody sees it before the store was opened anew, and then it is there
or not. Two bounds only grow: what a power loss may not undo (``durable``) and what the end of the
process may not (``handed``, over to the operating system). What an opening shows is held against
them; from then on it is all there is, and durable.

Contents are a mapping of *places* (the way to a namespace) to mappings of keys to values, and are
never changed once made.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass

import kvstore

ROOT = ()
USERS = (b"users",)
INNER = (b"users", b"\xff")
PLACES = (ROOT, USERS, INNER)
CODECS = {ROOT: kvstore.BYTES, USERS: kvstore.JSON, INNER: kvstore.MSGPACK}


class Deleted:
    """Stands for no value, where None may be one."""

    def __repr__(self):
        return "DELETED"


DELETED = Deleted()


def space(reader, place):
    """The namespace at a place of a store, a snapshot, a transaction or a batch."""
    for depth in range(len(place)):
        reader = reader.namespace(place[depth], CODECS[place[: depth + 1]])
    return reader


def applied(contents, mutations):
    """The contents after some ``(place, key, value)``; the first write in a place makes it."""
    result = dict(contents)
    for place, key, value in mutations:
        for depth in range(1, len(place)):
            result.setdefault(place[:depth], {})
        result[place] = items = dict(result.get(place, {}))
        if value is DELETED:
            items.pop(key, None)
        else:
            items[key] = value
    return result


def read_all(reader):
    """All that a store or a snapshot shows."""
    found = {ROOT: dict(reader.scan())}
    for place in (USERS, INNER):
        if place[-1] in space(reader, place[:-1]).namespaces():
            found[place] = dict(space(reader, place).scan())
    return found


def difference(found, expected):
    """Where two contents differ, in a line."""
    places = sorted(found.keys() | expected.keys())
    told = []
    for place in places:
        if (place in found) != (place in expected):
            told.append(f"{place} is {'there' if place in found else 'missing'}")
        have, want = found.get(place, {}), expected.get(place, {})
        told += [
            f"{place} {key!r}: {brief(have, key)}, not {brief(want, key)}"
            for key in sorted(have.keys() | want.keys())
            if key not in have or key not in want or have[key] != want[key]
        ]
    return "; ".join(told) or "nothing"


def brief(items, key):
    return repr(items[key])[:40] if key in items else "absent"


def in_range(items, bounds):
    """The items of a mapping that a scan with these arguments yields."""
    start, stop = bounds.get("start"), bounds.get("stop")
    prefix = bounds.get("prefix")
    first, last = bounds.get("include_start", True), bounds.get("include_stop", False)
    keys = sorted(
        key
        for key in items
        if (prefix is None or key.startswith(prefix))
        and (start is None or key > start or (first and key == start))
        and (stop is None or key < stop or (last and key == stop))
    )
    if bounds.get("reverse"):
        keys.reverse()
    limit = bounds.get("limit")
    return [(key, items[key]) for key in (keys if limit is None else keys[:limit])]


class Moves:
    """What a cursor does: it is at an item, or in a gap before the first key not below ``gap``."""

    def __init__(self, items, bounds):
        self._items = in_range(items, bounds)
        self._keys = [key for key, _ in self._items]
        self._at = None
        self._gap = None  # None: nowhere yet

    def move(self, how, key):
        if how == "first":
            return self._come(0, b"")
        if how == "last":
            return self._come(len(self._keys) - 1, None)
        if how == "seek":
            return self._come(bisect_left(self._keys, key), key)
        if how == "seek_last":
            return self._come(bisect_left(self._keys, key + b"\0") - 1, key + b"\0")
        if self._at is not None:
            return self._come(self._at + (1 if how == "next" else -1), self._beyond(how))
        if self._gap is None:
            return self.move("first" if how == "next" else "last", None)
        behind = len(self._keys) if self._gap == "end" else bisect_left(self._keys, self._gap)
        return self._come(behind if how == "next" else behind - 1, self._gap)

    def _beyond(self, how):
        return "end" if how == "next" else b""

    def _come(self, at, gap):
        if 0 <= at < len(self._keys):
            self._at = at
            return self._items[at]
        self._at, self._gap = None, "end" if at >= len(self._keys) > 0 else gap
        if at < 0:
            self._gap = b""
        return None


@dataclass
class Version:
    """``id`` is None until somebody tells it; ``mutations`` are those of its log entry."""

    id: int | None
    contents: dict
    mutations: tuple = ()

    def changes(self):
        """What the change feed says of it: of each place the keys with their values as stored."""
        told = {}
        for place, key, value in self.mutations:
            stored = None if value is DELETED else CODECS[place].encode(value)
            told.setdefault(place, {})[key] = stored
        return told


class Model:
    """The versions, the doubtful one, and the bounds: indices into ``versions``."""

    def __init__(self):
        self.versions = [Version(0, {ROOT: {}})]
        self.doubtful = None
        self.durable = 0
        self.handed = 0
        self.highest_id = 0
        self.created = False  # whether an opening has returned: from then on there is a store

    @property
    def newest(self):
        return self.versions[-1]

    @property
    def contents(self):
        return self.newest.contents

    def wrote(self, mutations, entry_id):
        """A write was acknowledged, with the id of its entry."""
        assert entry_id > self.highest_id, f"id {entry_id} was given out after {self.highest_id}"
        self.highest_id = entry_id
        contents = applied(self.contents, mutations)
        self.versions.append(Version(entry_id, contents, tuple(mutations)))

    def doubt(self, mutations):
        """A write has failed in such a way that it may have happened."""
        assert self.doubtful is None
        self.doubtful = Version(None, applied(self.contents, mutations), tuple(mutations))

    def survives_power_loss(self, index=None):
        """Everything up to a version, or to the newest, is durable."""
        index = len(self.versions) - 1 if index is None else index
        self.durable = max(self.durable, index)
        self.survives_kill(index)

    def survives_kill(self, index=None):
        index = len(self.versions) - 1 if index is None else index
        self.handed = max(self.handed, index)

    def durable_up_to(self, entry_id):
        """The store says that this entry is durable."""
        for index, version in enumerate(self.versions):
            if version.id is not None and version.id <= entry_id:
                self.survives_power_loss(index)

    def find(self, contents, entry_id, lower, where):
        """Which version it is that somebody shows: an index, of the doubtful one the last."""
        known = [*self.versions, *([] if self.doubtful is None else [self.doubtful])]
        nearest = None
        for index, version in enumerate(known):
            if version.id in (None, entry_id):
                nearest = version
                if version.contents == contents:
                    assert index >= lower, (
                        f"{where}: shows version {index} (entry {entry_id}) of {len(known)}, "
                        f"but {lower} must be there"
                    )
                    return index
        ids = [version.id for version in known]
        assert nearest is not None, f"{where}: shows entry {entry_id}, known are {ids}"
        wrong = difference(contents, nearest.contents)
        raise AssertionError(f"{where}: at entry {entry_id} of {ids} it differs: {wrong}")

    def opened(self, index, entry_id):
        """A writer has shown this version: it is the newest there is, and durable."""
        if index == len(self.versions):
            self.versions.append(self.doubtful)
        del self.versions[index + 1 :]
        self.doubtful = None
        self.newest.id = entry_id
        self.highest_id = max(self.highest_id, entry_id)
        self.durable = self.handed = index
        self.created = True

    def lost_power(self):
        """What was only handed over is gone, or may be."""
        self.handed = self.durable
