"""One immutable value that holds everything a reader sees: what is live, the layers, the tables."""

from __future__ import annotations

from typing import Final, NamedTuple

from kvstore.runs import Run, Values
from kvstore.tables.table import Table

MISSING: Final = object()


class Layer(NamedTuple):
    """The mutations of a stretch of one log segment."""

    segment_id: int
    run: Run


class State:
    """One state of the store. ``maps`` is everything that holds a key, newest first."""

    __slots__ = ("layers", "live", "maps", "tables")

    def __init__(
        self,
        live: Values,
        layers: tuple[Layer, ...],
        tables: tuple[Table, ...],
        arriving: Values | None = None,
    ) -> None:
        self.live = live
        self.layers = layers
        self.tables = tables
        recent = (live,) if arriving is None else (arriving, live)
        self.maps: tuple[Values, ...] = (
            *recent,
            *(layer.run.values for layer in layers),
            *(table.run.values for table in tables),
        )

    def get(self, key: bytes) -> bytes | None:
        """The value of a key, None where it is absent or deleted."""
        return first(self.maps, key)


def first(maps: tuple[Values, ...], key: bytes) -> bytes | None:
    """The value of a key in the first map that has it, None where it is absent or deleted."""
    for values in maps:
        value = values.get(key, MISSING)
        if value is not MISSING:
            return value  # type: ignore[return-value]
    return None
