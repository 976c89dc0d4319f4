"""``read_at`` of chunks of 256 bytes: streamed ones at random, appended ones also in order."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Sequence
from statistics import median

import wal
from benches.goals import Figure
from benches.measuring import spread, timed
from benches.settings import Settings

SIZE = 256
CHUNKS_PER_ENTRY = 100

Positions = Sequence[wal.LogPosition]


def _streamed_positions(log: wal.WriteAheadLog, count: int) -> Positions:
    data = os.urandom(SIZE)
    positions = []
    for _ in range(count // CHUNKS_PER_ENTRY):
        with log.begin_entry() as entry:
            positions += [entry.write_chunk(data).position for _ in range(CHUNKS_PER_ENTRY)]
    return positions


def _appended_positions(log: wal.WriteAheadLog, count: int) -> Positions:
    data = os.urandom(SIZE)
    after = log.last_entry_id
    for _ in range(count):
        log.append([data])
    log.sync()
    return [entry.chunks()[0].position for entry in log.entries(after)]


def _read(log: wal.WriteAheadLog, positions: Positions) -> None:
    for position in positions:
        with log.read_at(position) as chunk:
            chunk.read()


def run(settings: Settings, directory: str) -> Iterator[Figure]:
    configuration = wal.Configuration(
        os.path.join(directory, "reads"),
        preallocate_bytes=settings.recovery_segment_bytes,
        durability=wal.Durability.BUFFER,
    )
    pick = random.Random(1)
    with configuration.open(wal.LogVoid()) as log:
        streamed = _streamed_positions(log, settings.chunks_to_read)
        appended = _appended_positions(log, settings.chunks_to_read)
        cells = {
            "streamed": pick.choices(streamed, k=settings.reads),
            "appended": pick.choices(appended, k=settings.reads // 10),
            "appended, in order": appended[: settings.reads],
        }
        rates: dict[str, list[float]] = {name: [] for name in cells}
        for _ in range(settings.repeats):
            for name, positions in cells.items():
                seconds = timed(lambda positions=positions: _read(log, positions))  # type: ignore[misc]
                rates[name].append(len(positions) / seconds)
    for name, found in rates.items():
        yield Figure(f"random reads/{SIZE} B/{name}", median(found), "/s", spread(found))
