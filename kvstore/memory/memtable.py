"""Recent mutations, and the one place where what readers see is swapped.

Mutations go into the active layer (:mod:`kvstore.memory.layers`); there is one for each segment of
the log.
Behind the layers are the tables' runs. All newest first.

- A look-up of one key reads ``state`` once and takes no lock.
- A walk, a snapshot, a transaction *pins* the present (:meth:`Memtable.pin`, O(1)).
- A checkpoint has the mutations of one segment and of all before it in tables: then exactly the
  layers of those segments go.

``visibility`` is the lock that makes all this one order: whoever changes the active layer, swaps
the state, opens or closes an epoch, or looks at more than one key of what changes holds it, for
moments and never during I/O. The log may hold its append lock around :meth:`apply` and
:meth:`accepted`. Inside it no lock is taken: so whoever waits for it waits for a moment only, a
finalizer too.

Layers link to the next newer one, so that a transaction can see all that was written since it
began, whatever was checkpointed meanwhile. A dropped layer's link is cut once
:data:`DROPPED_KEPT` younger layers were dropped too.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Final, cast

from kvstore.memory.in_flight import InFlight
from kvstore.memory.layers import Epoch, Layer
from kvstore.memory.state import State
from kvstore.mutations import Encoded, Singles, decode
from kvstore.pulse import Pulse
from kvstore.tables.cache import Cache
from kvstore.tables.runs import SortedRun
from kvstore.values import MISSING, Found, Value

DROPPED_KEPT: Final = 8
_NOTHING: Final[Mapping[bytes, Value]] = {}


class Memtable:
    """The present state, and how mutations and checkpoints change it."""

    def __init__(
        self, runs: tuple[SortedRun, ...], last_id: int, cache: Cache, pulse: Pulse
    ) -> None:
        self.visibility = threading.Lock()
        self.in_flight = InFlight()
        self.last_id = last_id
        """The entry that was applied last."""
        self._cache = cache
        self._pulse = pulse
        self._active = Layer(0, self.visibility)
        self._dropped: deque[Layer] = deque()
        self._unpinned: deque[tuple[Layer, Epoch]] = deque()  # to be closed
        self._pins = 0  # that are open
        self.state = State((self._active,), runs)
        self.recent: Mapping[bytes, Value] = self._active.values
        """Where a look-up of one key may look first, and return what it finds if it is bytes: the
        dict of the active layer. An empty one while a batch is being copied into that, and once
        the store has ended."""

    @property
    def segment_id(self) -> int:
        """The newest segment that something was applied from; 0 before the first."""
        return self._active.segment_id

    @property
    def count(self) -> int:
        """Keys in the newest layer."""
        return len(self._active.values)

    # -- writing -----------------------------------------------------------------------------------

    def apply(self, entry_id: int, segment_id: int, chunks: Sequence[bytes]) -> None:
        """Make a log entry visible. Called in the order of the entries, whatever the thread.

        A plain tuple of three chunks is a single put; any other entry comes as :class:`Encoded`,
        entries that were submitted in one step as :class:`Singles` with the id of the last, and the
        rest as a list that has to be decoded.
        """
        with self.visibility:
            layer = self._active
            if segment_id != layer.segment_id:
                layer = self._begin_layer_locked(segment_id)
            if type(chunks) is tuple:  # a single put
                _, key, value = chunks
                epoch = layer.newest
                if epoch is not None and key not in epoch.saved:
                    epoch.saved[key] = layer.values.get(key, MISSING)
                layer.values[key] = value
                if self.in_flight.singles:
                    self.in_flight.remove(entry_id, key)
            else:
                self.in_flight.remove(entry_id, None)
                self._show_locked(layer, _mutations_in(chunks))
            self.last_id = entry_id
        if self._pulse.waiting:
            self._pulse.beat()

    def apply_values(self, entry_id: int, segment_id: int, values: dict[bytes, Value]) -> None:
        """Make an entry visible of which some values stay in the log: they are positions."""
        with self.visibility:
            layer = self._active
            if segment_id != layer.segment_id:
                layer = self._begin_layer_locked(segment_id)
            layer.has_large = True
            self.in_flight.remove(entry_id, None)
            self._show_locked(layer, values)
            self.last_id = entry_id
        if self._pulse.waiting:
            self._pulse.beat()

    def replay(
        self,
        entry_id: int,
        segment_id: int,
        values: Mapping[bytes, Value] | Iterable[tuple[bytes, Value]],
        *,
        has_large: bool = False,
    ) -> None:
        """Apply log entries up to one, while nobody reads. ``has_large``: some are positions."""
        layer = self._active
        if segment_id != layer.segment_id:
            with self.visibility:
                layer = self._begin_layer_locked(segment_id)
        layer.values.update(values)
        layer.has_large = layer.has_large or has_large
        self.last_id = entry_id

    def _begin_layer_locked(self, segment_id: int) -> Layer:
        self._close_epochs_locked()
        old = self._active
        layer = Layer(segment_id, self.visibility)
        layers = self.state.layers if old.values else self.state.layers[1:]
        self.recent = _NOTHING  # an interrupt between these leaves the old layer active
        self.state = State((layer, *layers), self.state.runs)
        old.newer = layer
        self._active = layer
        self.recent = layer.values
        return layer

    def _show_locked(self, layer: Layer, batch: dict[bytes, Value]) -> None:
        """Show a batch at once, also to readers that take no lock.

        First it stands before the active layer as a whole, then it is copied in: who has seen one
        of its keys sees them all from then on.
        """
        layer.save_locked(batch)
        if len(batch) == 1:
            # Not update(): without a GIL a reader could find the key in a dict whose length is
            # still 0, and then take the layer for an empty one.
            for key, value in batch.items():
                layer.values[key] = value
            return
        state = self.state
        self.recent = _NOTHING
        self.state = State(state.layers, state.runs, arriving=batch)
        layer.values.update(batch)
        self.state = State(state.layers, state.runs)  # an interrupted try may have left its batch
        self.recent = layer.values

    def end(self) -> None:
        """Have every look-up of one key look further: the store has ended. Takes no lock."""
        self.recent = _NOTHING

    # -- in flight ---------------------------------------------------------------------------------

    def accepted(self, entry_id: int, segment_id: int, chunks: Sequence[bytes]) -> None:
        """An entry has its place in the log, and is not visible yet."""
        if type(chunks) is tuple:  # a single put
            with self.visibility:
                self.in_flight.add_single(entry_id, chunks[1], chunks[2])
        else:
            self.accepted_values(entry_id, _mutations_in(chunks))

    def accepted_values(self, entry_id: int, values: dict[bytes, Value]) -> None:
        """As :meth:`accepted`, of an entry that the caller has decoded already."""
        with self.visibility:
            self.in_flight.add_batch(entry_id, values)

    def present_locked(self, key: bytes) -> Found:
        """What a key will stand for once all in flight is visible. MISSING: as the tables say."""
        value = self.in_flight.find(key)
        if value is not MISSING:
            return value
        for values in self.state.maps:
            if key in values:
                return values[key]
        return MISSING

    # -- the past ----------------------------------------------------------------------------------

    def pin(self) -> tuple[State, Epoch, int]:
        """The present state, an epoch that keeps it readable, and its last entry. O(1)."""
        with self.visibility:
            if self._unpinned:
                self._close_epochs_locked()
            self._pins += 1
            return self.state, self._active.open_epoch_locked(), self.last_id

    def unpin(self, layer: Layer, epoch: Epoch) -> None:
        """Let go of an epoch of a layer.

        It may be a finalizer that calls this, in the middle of anything. So where the lock is held,
        perhaps by this very thread, who pins next closes the epoch.
        """
        self._unpinned.append((layer, epoch))
        if not self.visibility.locked():
            # Not acquire(blocking=False): an interrupt behind that would leave the lock held. If
            # another thread has taken it by now, it lets go of it without waiting for anything.
            with self.visibility:
                self._close_epochs_locked()

    def changed_since_locked(
        self, layer: Layer, epoch: Epoch
    ) -> Iterator[Collection[bytes] | None]:
        """All keys written since an epoch of a layer, in parts; None where some are forgotten."""
        yield from self.in_flight.keys()
        for saved in layer.changed_since(epoch):
            yield saved.keys()
        following: Layer | None = layer
        while following is not None:
            if following.cut:
                yield None
            following = following.newer
            if following is not None:
                yield following.values.keys()

    def _close_epochs_locked(self) -> None:
        while self._unpinned:
            layer, epoch = self._unpinned.popleft()
            layer.close_epoch_locked(epoch)
            self._pins -= 1

    # -- checkpoints -------------------------------------------------------------------------------

    def publish(self, runs: tuple[SortedRun, ...], segment_id: int | None) -> None:
        """Swap in new runs, and drop the layers that they hold: all up to a segment's (None: none).

        The rows of dropped layers leave the cache in the same step: older ones are wrong now.
        """
        upto = -1 if segment_id is None else segment_id
        # Nothing is applied to these any more, so they may be looked at without the lock.
        gone = [each for each in self.state.layers if each.segment_id <= upto and each.values]

        def swap() -> None:
            with self.visibility:
                self._swap_locked(runs, upto, gone)

        self._cache.forget_rows(_keys_of(gone), swap)

    def _swap_locked(self, runs: tuple[SortedRun, ...], upto: int, gone: list[Layer]) -> None:
        kept = tuple(layer for layer in self.state.layers if layer.segment_id > upto)
        if not kept:
            fresh = Layer(self._active.segment_id, self.visibility)
            self._active.newer = fresh
            self._active = fresh
            kept = (fresh,)
        for layer in reversed(gone):
            self._drop_locked(layer)
        self.recent = _NOTHING
        self.state = State(kept, runs)
        self.recent = self._active.values

    def _drop_locked(self, layer: Layer) -> None:
        if not self._pins:  # nobody will ask what was written since
            self._dropped.clear()
            return
        self._dropped.append(layer)
        if len(self._dropped) > DROPPED_KEPT:
            oldest = self._dropped.popleft()
            oldest.newer, oldest.cut = None, True

    # -- estimates ---------------------------------------------------------------------------------

    def items(self) -> int:
        """How many keys are in the layers."""
        return sum(map(len, self.state.layers))

    def bytes(self, enough: int | None = None) -> int:
        """The bytes of keys and values in the layers; counts no further than ``enough``."""
        total = 0
        for layer in self.state.layers:
            with self.visibility:
                items = list(layer.values.items())
            for key, value in items:
                total += len(key) + (len(value) if type(value) is bytes else 0)
                if enough is not None and total >= enough:
                    return total
        return total


def _mutations_in(chunks: Sequence[bytes]) -> dict[bytes, Value]:
    # A layer holds positions, too; but no one changes what is given out here.
    known = isinstance(chunks, (Encoded, Singles))
    return cast("dict[bytes, Value]", chunks.mutations if known else decode(chunks))  # type: ignore[attr-defined]


def _keys_of(layers: list[Layer]) -> Collection[bytes]:
    if len(layers) == 1:
        return layers[0].values.keys()
    return set().union(*(layer.values.keys() for layer in layers))
