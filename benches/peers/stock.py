"""Stores that are read by several rows, or for several runs: each is loaded once, and kept.

A stamp beside each says what it was made by and from; one with another stamp is made anew.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from benches.measuring import settle
from benches.peers.data import batches, items, shuffled
from benches.peers.engines import engine
from benches.peers.processes import Session, processes
from benches.peers.rows import recovery, ycsb
from benches.peers.sizes import FULL, Sizes
from benches.settings import ROOT

FORMAT: Final = 4
"""To be raised when a stock's contents change."""
PAGES_PART: Final = 10
"""One in so many puts goes to an engine that logs whole pages: its log would be 40 times longer."""


@dataclass(frozen=True)
class Stock:
    path: str
    keys: int


def ready(directory: str, kind: str, name: str, keys: int, sizes: Sizes) -> Stock:
    """The stock of this kind for an engine, loaded if it is not there as it would be now."""
    owner = engine(name).stock or name
    path = os.path.join(directory, f"{kind}-{owner.replace('/', '_')}")
    asked = {"keys": keys, "by": _maker(owner), "format": FORMAT, "bytes": sizes.record_bytes}
    found = _stamp(path)
    if found.get("asked") != asked:
        shutil.rmtree(path, ignore_errors=True)
        found = {"asked": asked, "holds": _make(KINDS[kind], path, owner, keys, sizes)}
        with open(f"{path}.json", "w", encoding="utf-8") as file:
            json.dump(found, file)
    return Stock(path, found["holds"])


def forget(directory: str) -> None:
    """Have everything made anew that is kept there."""
    for kind in KINDS:
        for stamp in Path(directory).glob(f"{kind}-*.json"):
            stamp.unlink()


def _stamp(path: str) -> dict[str, Any]:
    with suppress(OSError, ValueError), open(f"{path}.json", encoding="utf-8") as file:
        if os.path.isdir(path):
            found: dict[str, Any] = json.load(file)
            return found
    return {}


def _maker(name: str) -> str:
    """The version of what makes an engine's files; for kvstore a digest of its sources."""
    kind, _, elsewhere = name.partition("@")
    if kind == "sqlite3":
        return sqlite3.sqlite_version
    if kind != "kvstore":
        return version(engine(name).package) if engine(name).package else kind
    found = hashlib.sha256()
    for package in ("wal", "kvstore"):
        for path in sorted(Path(elsewhere or ROOT, package).rglob("*.py")):
            found.update(path.read_bytes())
    return found.hexdigest()


def _make(make: Make, path: str, name: str, keys: int, sizes: Sizes) -> int:
    """Have a process make it; how many keys it holds."""
    killed = make is _log
    with processes([name]) as (process,):
        holds = process.call(make, path, keys, asdict(sizes))
        if killed:
            process.kill()
    settle()
    return holds


def _compacted(session: Session, path: str, keys: int, sizes: dict[str, Any]) -> int:
    _fill(session, path, keys, sizes)
    session.open(path)
    session.opened.compact()
    session.close()
    return keys


def _fill(session: Session, path: str, keys: int, sizes: dict[str, Any]) -> int:
    session.open(path, cache_bytes=FULL.cache_bytes)
    session.opened.fill(batches(items(shuffled(keys, 0))))
    session.close()
    return keys


def _record(session: Session, path: str, keys: int, sizes: dict[str, Any]) -> int:
    session.open(path, cache_bytes=FULL.cache_bytes)
    session.opened.fill(batches(ycsb.records(keys, sizes["record_bytes"])))
    session.close()
    return keys


def _log(session: Session, path: str, keys: int, sizes: dict[str, Any]) -> int:
    """Leave everything in the log, and the store open."""
    session.open(path, **recovery.tuning(keys))
    part = PAGES_PART if session.engine.logs_pages else 1
    everything = items(shuffled(max(keys // part, 1), 0))
    session.opened.put_each(everything)
    session.opened.hand_over()
    return len(everything)


Make = Callable[[Session, str, int, dict[str, Any]], int]

KINDS: Final[dict[str, Make]] = {
    "keys": _compacted,
    "loaded": _fill,
    "records": _record,
    "unclean": _log,
}
