"""Stores that are only read. Each is loaded once in a run, in random order, and closed cleanly."""

from __future__ import annotations

import os

from benches.measuring import settle
from benches.peers.processes import Session, processes
from benches.store.items import BLOCK, items


def path(directory: str, name: str, keys: int) -> str:
    """The path of an engine's store with so many keys, which is loaded if it is not there yet."""
    store = os.path.join(directory, f"stock-{name}-{keys}")
    if not os.path.exists(store):
        with processes([name]) as (process,):
            process.call(_load, store, keys)
        settle()
    return store


def _load(session: Session, store: str, keys: int) -> None:
    session.open(store)
    for block in range(keys // BLOCK):
        session.opened.write(items(block))
    session.close()
