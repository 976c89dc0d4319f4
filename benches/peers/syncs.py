"""Whether a durable put is synced: counted by strace, for every engine. Linux only.

A process makes some durable puts, another one many more; the syncs of the second beyond those of
the first belong to the puts it made beyond the first. (LMDB also writes its root through a
descriptor that was opened with O_DSYNC: that sync is no call of its own and is not counted.)
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from typing import Final

from benches.peers.data import items
from benches.peers.engines import Tuning, engine
from benches.settings import ROOT

CALLS: Final = "fsync,fdatasync,msync,sync_file_range"
FEW, MANY = 50, 250


def available() -> bool:
    return sys.platform == "linux" and shutil.which("strace") is not None


def per_put(name: str) -> float:
    """How many syncs a durable put of this engine makes, on average."""
    with tempfile.TemporaryDirectory() as directory:
        few, many = (_syncs(name, directory, count) for count in (FEW, MANY))
    return (many - few) / (MANY - FEW)


def _syncs(name: str, directory: str, count: int) -> int:
    """What a process calls that makes so many puts."""
    trace, path = os.path.join(directory, f"trace-{count}"), os.path.join(directory, f"{count}")
    strace = ["strace", "-f", "-qq", "-e", f"trace={CALLS}", "-o", trace]
    python = [sys.executable, "-m", __name__, name, path, str(count)]
    subprocess.run([*strace, *python], cwd=ROOT, check=True)
    with open(trace, encoding="utf-8") as lines:
        return sum(any(f" {call}(" in line for call in CALLS.split(",")) for line in lines)


def put(name: str, path: str, count: int) -> None:
    opened = engine(name)(path, Tuning(durable=True))
    call = opened.putter()
    for key, value in items(range(count)):
        call(key, value)
    opened.close()


def report(names: Sequence[str]) -> None:
    if not available():
        sys.exit("needs Linux and strace")
    for name in names:
        found = per_put(name)
        verdict = "durable" if found >= 1 else "NOT DURABLE"
        print(f"{name:16} {found:6.2f} syncs per durable put: {verdict}", flush=True)


if __name__ == "__main__":
    put(sys.argv[1], sys.argv[2], int(sys.argv[3]))
