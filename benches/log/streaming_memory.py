"""The memory that a chunk of 1 GiB takes while it streams into the log and out again.

Measured in a process of its own, ``python -m benches.log.streaming_memory DIRECTORY BYTES``, which
prints what it saw.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator

import wal
from benches.goals import Figure
from benches.measuring import timed
from benches.memory import memory_mib
from benches.settings import MIB, ROOT, Settings


def run(settings: Settings, directory: str) -> Iterator[Figure]:
    path = os.path.abspath(os.path.join(directory, "streaming"))
    command = [sys.executable, "-m", __name__, path, str(settings.streamed_bytes)]
    output = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout
    seen = json.loads(output)
    yield Figure("streaming memory", seen.pop("above_start"), "MiB", seen)


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
