"""One immutable value that holds everything a reader sees: layers and sorted runs, newest first."""

from __future__ import annotations

from kvstore.memory.layers import Layer
from kvstore.tables.runs import SortedRun
from kvstore.values import Value


class State:
    """One state of the store; only the dict of its first layer, the active one, ever changes.

    ``maps`` are the dicts of the layers, newest first; in front of them, for the moment of its
    publication, a batch as a whole.
    """

    __slots__ = ("layers", "look_ups", "maps", "runs")

    def __init__(
        self,
        layers: tuple[Layer, ...],
        runs: tuple[SortedRun, ...],
        arriving: dict[bytes, Value] | None = None,
    ) -> None:
        self.layers = layers
        self.runs = runs
        self.look_ups = tuple([run.look_up for run in runs])
        maps = tuple(layer.values for layer in layers)
        self.maps = maps if arriving is None else (arriving, *maps)

    @property
    def settled(self) -> bool:
        """Whether all that is in it stays as it is, without being pinned.

        So it is while the active layer is empty: what came into that since is not of this state.
        A batch that is arriving is not shown yet to who walks; large values need their segments.
        """
        layers = self.layers
        if layers[0].values or len(self.maps) != len(layers):
            return False
        return len(layers) == 1 or not any(layer.has_large for layer in layers)
