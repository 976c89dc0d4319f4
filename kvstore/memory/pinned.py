"""A state of the store that is held: what snapshots, scans and cursors read.

Pinning is O(1): the state is one immutable value, and of the layer in it that still changes an undo
epoch is opened. Of the log only segments are held in which values of its layers are positions.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Final

from kvstore.errors import StoreClosedError
from kvstore.memory.layers import Epoch, Layer
from kvstore.memory.state import State
from kvstore.pages import LARGEST, Some, first_pages, merge_pages
from kvstore.ranges import Range
from kvstore.values import MISSING, Page, Value
from wal import PositionNotFoundError, WalError

if TYPE_CHECKING:
    from kvstore.engine import Engine

_FIRST_PAGE: Final = 32
_LEAST_SHARE: Final = 8
"""Of some items that are wanted a source is asked for five quarters of its share, and so many."""
_NOTHING: Final = State((Layer(0, threading.Lock()),), ())
_NEVER: Final = Epoch(None)


class PageWalk:
    """The pages of a range; a :class:`~kvstore.sources.Walk`."""

    __slots__ = ("_owned", "_pages")

    observed = False

    def __init__(self, pages: Iterator[Page], owned: Pinned | None) -> None:
        self._pages = pages
        self._owned = owned

    def __iter__(self) -> Iterator[Page]:
        return self._pages

    def __next__(self) -> Page:
        return next(self._pages)

    def reached(self, key: bytes) -> None:
        """Nobody wants to know."""

    def close(self) -> None:
        """Let go of the state, if it was pinned for this walk."""
        owned, self._owned = self._owned, None
        self._pages = iter(())
        if owned is not None:
            owned.release()


def walk(engine: Engine, wanted: Range, most: int | None, *, reverse: bool) -> PageWalk:
    """Walk a range as it is at this moment; pins the state only where it may change."""
    engine.check()
    state = engine.memtable.state
    if not state.settled:
        return Pinned(engine).walk(wanted, most, reverse=reverse, release=True)
    return PageWalk(_settled_pages(engine, state, wanted, most, reverse), None)


def _settled_pages(
    engine: Engine, state: State, wanted: Range, most: int | None, reverse: bool
) -> Iterator[Page]:
    for page in _pages_of(state, None, wanted, most, reverse):
        engine.check()
        yield page
    engine.check()


def _pages_of(
    state: State, epoch: Epoch | None, wanted: Range, most: int | None, reverse: bool
) -> Iterator[Page]:
    """What a state has of a range. ``epoch``: see :func:`_sources`."""
    if most is None or most > LARGEST:
        return merge_pages(_sources(state, epoch, wanted, most, reverse), reverse=reverse)
    asked: list[Some] = [run.some for run in state.runs]
    layers = _layers_of(state, epoch)
    if not layers and len(asked) == 1:  # measured: 1.4 us, 3.3 by shares
        return first_pages(asked, [most], *wanted, reverse=reverse)
    active = state.layers[0]
    shares = _shares(most, [*map(len, layers), *[run.items for run in state.runs]])
    asked[:0] = [
        partial(each.some, epoch=epoch) if each is active else each.some for each in layers
    ]
    return first_pages(asked, shares, *wanted, reverse=reverse)


def _layers_of(state: State, epoch: Epoch | None) -> list[Layer]:
    """The layers that have something, newest first; the active one if there is an epoch of it."""
    active = state.layers[0]
    return [each for each in state.layers if each.values and (each is not active or epoch)]


def _sources(
    state: State, epoch: Epoch | None, wanted: Range, most: int | None, reverse: bool
) -> list[Iterator[Page]]:
    """What a state has of a range, newest first. ``epoch``: of its active layer; None: without it.

    Where ``most`` items are wanted a source is asked for as many as it will have among them, and
    not for more before these are used up.
    """
    low, high = wanted
    active, keep = state.layers[0], most is not None
    layers = _layers_of(state, epoch)
    items = [*map(len, layers), *[run.items for run in state.runs]]
    shares = [None] * len(items) if most is None else _shares(most, items)
    sources = [
        layer.pages(
            low, high, epoch if layer is active else None, share or _FIRST_PAGE, reverse=reverse
        )
        for layer, share in zip(layers, shares, strict=False)
    ]
    return sources + [
        run.pages(low, high, reverse=reverse, fill_cache=keep, most=share)
        for run, share in zip(state.runs, shares[len(layers) :], strict=True)
    ]


def _shares(most: int, items: list[int]) -> list[int]:
    """How many of some items that are wanted sources of so many items are likely to have.

    >>> _shares(100, [1_000_000, 5_000]), _shares(100, [5_000])
    ([100, 8], [100])
    """
    if len(items) < 2:
        return [most] * len(items)
    total = sum(items) or 1
    return [min(most, 5 * most * each // (4 * total) + _LEAST_SHARE) for each in items]


class Pinned:
    """A state that is held; a :class:`~kvstore.sources.PinnedSource`."""

    _released = True  # until something is held

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        while True:
            engine.check()
            self._memtable, self._log = engine.present
            self.state, self.epoch, self.entry_id = self._memtable.pin()
            self.layer = self.state.layers[0]
            self._released = False
            if not any(layer.has_large for layer in self.state.layers) or self._pin_segments():
                break
            self.release()  # a checkpoint came between: what it held is in a table by now
        self._older = self.state.maps[1:]

    def _pin_segments(self) -> bool:
        self._pins = ExitStack()
        try:
            for layer in self.state.layers:
                if layer.has_large:
                    self._pins.enter_context(self._log.pin(layer.segment_id))
        except PositionNotFoundError:
            return False
        except WalError as error:  # the store is being closed
            raise self._engine.failure(error) from error
        return True

    # -- reading -----------------------------------------------------------------------------------

    def find(self, key: bytes) -> Value:
        """The value of a stored key, None where it is absent."""
        value = self.layer.find(key, self.epoch)
        if value is MISSING:
            for values in self._older:
                if key in values:
                    value = values[key]
                    break
            else:
                value = self._engine.find_in_tables(self.state, key)
                self.check()
        if self._released:  # perhaps while it was looked for: what was found may be anything
            self.check()
        return None if value is MISSING else value  # type: ignore[return-value]

    def find_many(self, keys: list[bytes]) -> list[Value]:
        """The values of stored keys."""
        return list(map(self.find, keys))

    def walk(
        self, wanted: Range, most: int | None, *, reverse: bool, release: bool = False
    ) -> PageWalk:
        """Walk a range; ``release`` lets go of this state when the walk is closed."""
        self.check()
        return PageWalk(self._pages(wanted, most, reverse), self if release else None)

    def _pages(self, wanted: Range, most: int | None, reverse: bool) -> Iterator[Page]:
        for page in _pages_of(self.state, self.epoch, wanted, most, reverse):
            self.check()
            yield page
        self.check()  # that there is no more was found out of a state that is still held

    def sources(self, wanted: Range, most: int | None, reverse: bool) -> list[Iterator[Page]]:
        """What the state has of a range, newest first."""
        return _sources(self.state, self.epoch, wanted, most, reverse)

    def load(self, key: bytes, value: Value) -> bytes | None:
        """A value that was found here, as bytes."""
        self.check()
        return None if value is None else self._engine.read(value, self._log)

    @property
    def released(self) -> bool:
        """Whether it was let go of."""
        return self._released

    def pinned(self) -> Pinned:
        """Itself: it does not change."""
        return self

    def check(self) -> None:
        """Raise StoreClosedError if it was let go of, or the store was closed."""
        if self._released:
            raise StoreClosedError("the snapshot was closed")
        self._engine.check()

    # -- the end -----------------------------------------------------------------------------------

    def release(self) -> None:
        """Let go. Idempotent, and safe in a finalizer."""
        if not self._released:
            self._released = True
            self._let_go()

    def _let_go(self) -> None:
        pins = self.__dict__.pop("_pins", None)
        if pins is not None:
            pins.close()
        self._memtable.unpin(self.layer, self.epoch)
        # Whoever keeps an ended transaction, or a closed snapshot, keeps no tables by it. A reader
        # that is under way finds nothing here, and then that it was let go of.
        self.state, self.layer, self.epoch, self._older = (
            _NOTHING,
            _NOTHING.layers[0],
            _NEVER,
            (),
        )

    def __del__(self) -> None:
        self.release()
