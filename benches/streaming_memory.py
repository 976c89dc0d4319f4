"""The memory that a chunk of 1 GiB takes while it streams into the log and out again.

Measured in a process of its own, ``python -m benches.streaming_memory DIRECTORY BYTES``, which
prints what it saw. Linux tells what a process has at the start and its peak, macOS the peak alone.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import wal
from benches.goals import Figure
from benches.measuring import timed
from benches.settings import MIB, Settings

ROOT = Path(__file__).resolve().parent.parent


def run(settings: Settings, directory: str) -> Iterator[Figure]:
    path = os.path.abspath(os.path.join(directory, "streaming"))
    command = [sys.executable, "-m", __name__, path, str(settings.streamed_bytes)]
    output = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout
    seen = json.loads(output)
    yield Figure("streaming memory", seen.pop("above_start"), "MiB", seen)


def memory_mib(kind: str) -> float | None:
    """This process's memory now (VmRSS) or at its peak (VmHWM); None where nobody tells."""
    if sys.platform == "win32":
        return None
    if sys.platform == "linux":  # ru_maxrss begins with what the parent had
        with open("/proc/self/status", encoding="utf-8", errors="replace") as status:
            return next(int(line.split()[1]) for line in status if line.startswith(kind)) / 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / MIB


def _write(log: wal.WriteAheadLog, length: int) -> wal.LogPosition:
    piece = os.urandom(MIB)
    with log.begin_entry() as entry, entry.begin_chunk(length) as chunk:
        for _ in range(length // MIB):
            chunk.write(piece)
    return chunk.record.position


def _read(log: wal.WriteAheadLog, position: wal.LogPosition) -> None:
    with log.read_at(position) as chunk:
        while chunk.read(MIB):
            pass


def measure(directory: str, length: int) -> dict[str, float | None]:
    positions: list[wal.LogPosition] = []
    with wal.recover(directory, wal.LogVoid()) as log:
        start = memory_mib("VmRSS")
        write = timed(lambda: positions.append(_write(log, length)))
        read = timed(lambda: _read(log, positions[0]))
        peak = memory_mib("VmHWM")
    seen: dict[str, float | None] = {
        "above_start": None if peak is None or start is None else peak - start,
        "written_mb_per_second": length / 1e6 / write,
        "read_mb_per_second": length / 1e6 / read,
    }
    return seen


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], int(sys.argv[2]))))
