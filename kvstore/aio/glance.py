"""What can be told of a key at once: from memory, without looking into a file.

MISSING stands for "not known here", and sends the caller to a thread.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvstore.values import MISSING, Found

if TYPE_CHECKING:
    from kvstore.engine import Engine
    from kvstore.memory.pinned import Pinned
    from kvstore.memory.state import State


def at_present(engine: Engine, key: bytes) -> Found:
    """What a stored key stands for at this moment."""
    if engine.ended is not None:
        raise engine.refusal()
    state = engine.memtable.state
    for values in state.maps:
        value: Found = values.get(key, MISSING)
        if value is not MISSING:
            return value
    return in_tables(engine, state, key)


def in_tables(engine: Engine, state: State, key: bytes) -> Found:
    """What the tables of a state have, if a row is cached; None where there are no tables."""
    if not state.runs:
        return None
    value = engine.cache.row(key)
    return value if engine.memtable.state.runs is state.runs else MISSING


def in_pinned(engine: Engine, pinned: Pinned, key: bytes) -> Found:
    """What a stored key stands for in a state that is held."""
    value = pinned.layer.find(key, pinned.epoch)
    if value is not MISSING:
        return value
    for layer in pinned.state.layers[1:]:
        value = layer.values.get(key, MISSING)
        if value is not MISSING:
            return value
    pinned.check()
    return in_tables(engine, pinned.state, key)
