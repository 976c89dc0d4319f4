"""Recent mutations, and the one place where what readers see is swapped.

Mutations go into a *live* dict, the only part of a :class:`State` that ever changes. Behind it are
*layers*, frozen runs of mutations, each of one log segment; behind those the tables. All newest
first.

- A look-up of one key reads ``state`` once and takes no lock.
- A walk needs something that stands still: :meth:`Memtable.pin` freezes the live dict into a layer
  (O(1)) and writers go on in a new one. Layers of one segment are merged as they become many,
  always neighbours of similar size, so that n keys are in O(log n) layers and each key is copied
  O(log n) times, however walks and writes alternate.
- A checkpoint has the mutations of one segment and of all before it in tables: then exactly the
  layers of those segments go. Newer mutations, deletions among them, are in other layers.

``_lock``, the visibility lock, guards the live dict's changes and every swap of ``state``. It is
held for moments, never during I/O, and nothing else is taken inside it. The log may hold its append
lock around :meth:`Memtable.apply`.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Final

from kvstore.mutations import HEAD_BYTES, PUT, decode
from kvstore.runs import Run, Values, merge
from kvstore.state import MISSING, Layer, State, first
from kvstore.tables.table import Table

_MERGE_RATIO: Final = 4
_SINGLE: Final = HEAD_BYTES + 1


class Memtable:
    """The present state, and how mutations and checkpoints change it.

    >>> from kvstore.mutations import encode
    >>> memtable = Memtable((), last_id=0)
    >>> memtable.apply(1, 1, encode({b"a": b"1", b"b": b"2"}))
    >>> memtable.state.get(b"a"), memtable.state.get(b"c"), memtable.last_id
    (b'1', None, 1)
    """

    def __init__(self, tables: tuple[Table, ...], last_id: int) -> None:
        self._lock = threading.Lock()
        self._live: Values = {}
        self.segment_id = 0
        self.count = 0
        """Mutations of the newest segment."""
        self.last_id = last_id
        """The entry that was applied last."""
        self.state = State(self._live, (), tables)

    # -- writing -----------------------------------------------------------------------------------

    def apply(self, entry_id: int, segment_id: int, chunks: Sequence[bytes]) -> None:
        """Make a log entry visible. Called in the order of the entries, whatever the thread."""
        with self._lock:
            if segment_id != self.segment_id:
                self._begin_segment_locked(segment_id)
            head = chunks[0]
            if len(head) == _SINGLE and head[-1] == PUT:
                self._live[chunks[1]] = chunks[2]
                self.count += 1
            else:
                self._apply_batch_locked(decode(chunks))
            self.last_id = entry_id

    def replay(self, entry_id: int, segment_id: int, batch: Values) -> None:
        """Apply a log entry while nobody reads yet."""
        with self._lock:
            if segment_id != self.segment_id:
                self._begin_segment_locked(segment_id)
            self._live.update(batch)
            self.count += len(batch)
            self.last_id = entry_id

    def _begin_segment_locked(self, segment_id: int) -> None:
        self._freeze_locked()
        self.segment_id = segment_id
        self.count = 0

    def _apply_batch_locked(self, batch: Values) -> None:
        """Show a batch at once, also to readers that take no lock.

        First it stands before the live dict as a whole, then it is copied in: who has seen one of
        its keys sees them all from then on.
        """
        state = self.state
        self.state = State(state.live, state.layers, state.tables, arriving=batch)
        self._live.update(batch)
        self.count += len(batch)
        self.state = state

    def _freeze_locked(self) -> None:
        if self._live:
            layer = Layer(self.segment_id, Run(self._live))
            self._live = {}
            self.state = State(self._live, (layer, *self.state.layers), self.state.tables)

    # -- reading -----------------------------------------------------------------------------------

    def pin(self) -> tuple[Run, ...]:
        """The present state as runs, newest first, that no writer changes any more."""
        with self._lock:
            self._freeze_locked()
            state = self.state
        layers = _merged(state.layers)
        if layers is not state.layers:
            with self._lock:
                present = self.state
                if present.layers is state.layers:
                    self.state = State(self._live, layers, present.tables)
        return (*(layer.run for layer in layers), *(table.run for table in state.tables))

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The values of keys, all of one state."""
        with self._lock:
            state = self.state
            found = [state.live.get(key, MISSING) for key in keys]
        rest = state.maps[1:]  # what no writer changes any more
        return [
            first(rest, key) if value is MISSING else value  # type: ignore[misc]
            for key, value in zip(keys, found, strict=False)
        ]

    # -- checkpoints -------------------------------------------------------------------------------

    def publish(self, tables: tuple[Table, ...], segment_id: int) -> None:
        """Swap in new tables, and drop the layers that they hold: all up to a segment's."""
        with self._lock:
            if self.segment_id <= segment_id:
                self._live = {}
                self.count = 0
            layers = tuple(each for each in self.state.layers if each.segment_id > segment_id)
            self.state = State(self._live, layers, tables)

    # -- estimates ---------------------------------------------------------------------------------

    def recent_items(self) -> int:
        """How many mutations are in no table yet."""
        state = self.state
        return len(state.live) + sum(len(layer.run) for layer in state.layers)

    def recent_bytes(self, enough: int) -> int:
        """The bytes of keys and values in no table yet; counts no further than ``enough``."""
        with self._lock:
            self._freeze_locked()
            layers = self.state.layers
        total = 0
        for layer in layers:
            for key, value in layer.run.values.items():
                if total >= enough:
                    return total
                total += len(key) + len(value or b"")
        return total


def _merged(layers: tuple[Layer, ...]) -> tuple[Layer, ...]:
    """The layers with the newest ones of a segment merged, where the next is not much larger."""
    if len(layers) < 2:
        return layers
    segment_id = layers[0].segment_id
    total, count = len(layers[0].run), 1
    for layer in layers[1:]:
        if layer.segment_id != segment_id or len(layer.run) > total * _MERGE_RATIO:
            break
        total, count = total + len(layer.run), count + 1
    if count == 1:
        return layers
    run = merge([layer.run for layer in layers[:count]], drop_tombstones=False)
    return (Layer(segment_id, run), *layers[count:])
