"""Where the keys of namespaces are, remembered on the loop.

Finding a namespace reads the store's directory, which may be on the disk: a thread does it, once.
What it finds never changes: an id stays with its name, and a codec that is recorded stays too.
"""

from __future__ import annotations

import asyncio
from typing import Any

from kvstore.aio.home import Home
from kvstore.batch import Mutations
from kvstore.codecs import Codec, check_codec
from kvstore.keyspaces import ROOT, Keyspace
from kvstore.mutations import Buffer, as_bytes
from kvstore.names import Names, Place, Step

_NOTHING: Mutations = {}


def child_of(place: Place, name: Buffer, codec: Codec[Any] | None) -> Place:
    """The place of a child namespace. Whether its codec is the recorded one is still to be seen."""
    return (*place, Step(as_bytes(name, "name"), check_codec(codec)))


class Places:
    """The keyspaces of a store that are known."""

    def __init__(self, home: Home, names: Names) -> None:
        self._home = home
        self._names = names
        self._spaces: dict[Place, Keyspace] = {(): ROOT}
        self._asked: dict[Place, asyncio.Future[tuple[Keyspace, Mutations]]] = {}
        self._written: dict[Place, Keyspace] = {(): ROOT}  # and in the directory for good

    def known(self, place: Place) -> Keyspace | None:
        """Where to read, None if that must be looked up first."""
        return self._spaces.get(place)

    def look_up(self, place: Place) -> Keyspace | None:
        """In a thread: where to read; None while nothing was written there. Checks no codec."""
        space = self._names.for_reading(place)
        if space is not None:
            self._spaces[place] = space
        return space

    async def for_writing(self, place: Place) -> tuple[Keyspace, Mutations]:
        """Where to write, and the mutations of the directory that have to come with it."""
        space = self._written.get(place)
        if space is not None:
            return space, _NOTHING
        job = self._asked.get(place)
        if job is None:
            job = self._asked[place] = self._home.start(self._look_up_for_writing, place)
            job.add_done_callback(lambda _: self._asked.pop(place))
        return await asyncio.shield(job)

    def _look_up_for_writing(self, place: Place) -> tuple[Keyspace, Mutations]:
        self._check(place)
        space, extra = self._names.for_writing(place)
        if not extra:
            self._spaces[place] = self._written[place] = space
        return space, extra

    def _check(self, place: Place) -> None:
        """CodecMismatchError if a namespace was made with another codec."""
        for depth, step in enumerate(place):
            self._names.child(place[:depth], step.name, step.codec)
