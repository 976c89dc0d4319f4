"""What a soak measures each second, and what must stay bounded.

Bounded means: the median of the last fifth of the run is at most 1.3 times that of the second fifth
(by when caches are full and tables have found their number), plus some room for what comes and
goes. What is left when the store is closed has to be the same after each sitting, exactly.
"""

from __future__ import annotations

import gc
import os
import statistics
import sys
import threading
from contextlib import suppress

#: What is bounded, and how much it may vary beside the factor.
BOUNDED = {
    "rss": 24 << 20,
    "reader rss": 16 << 20,
    "threads": 3,
    "descriptors": 20,
    "reader descriptors": 10,
    "children": 1,
    "store bytes": 24 << 20,
    "backup bytes": 24 << 20,
    "log bytes": 4 << 20,
    "memtable bytes": 8 << 20,
    "layers": 4,
    "epochs": 10,
    "tables": 10,
    "segments pinned": 4,
    "segments kept": 6,
}
FACTOR = 1.3
LEAST_SECONDS = 60
"""A shorter run has no early part that its end could be compared with."""


def own_resources():
    """Memory, descriptors, threads and children of this process, as far as the system tells."""
    found = {"threads": threading.active_count()}
    with suppress(OSError, ValueError):
        with open("/proc/self/statm", "rb") as file:
            found["rss"] = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        found["descriptors"] = len(os.listdir("/proc/self/fd")) - 1  # that of the listing
        found["children"] = len(children())
    return found


def children():
    """The pids of this process's children."""
    found = []
    for thread in os.listdir("/proc/self/task"):
        with suppress(OSError), open(f"/proc/self/task/{thread}/children", "rb") as file:
            found += map(int, file.read().split())
    return found


def bytes_under(directory):
    """The room that a directory's files take. One that goes meanwhile takes none."""
    found = 0
    for place, _, names in os.walk(directory):
        for name in names:
            with suppress(OSError):
                found += os.stat(os.path.join(place, name)).st_blocks * 512
    return found


def store_resources(db):
    """Where the store stands."""
    stats, log = db.stats(), db._engine.log.stats()
    layers = db._engine.memtable.state.layers
    return {
        "log bytes": stats.log_bytes,
        "memtable bytes": stats.memtable_bytes,
        "tables": stats.tables,
        "runs": stats.runs,
        "table bytes": stats.table_bytes,
        "cache bytes": stats.cache_bytes,
        "stall seconds": stats.stall_seconds,
        "layers": len(layers),
        "epochs": sum(map(_epochs, layers)),
        "segments pinned": log.segments_pinned,
        "segments kept": log.segments_kept,
    }


def _epochs(layer):
    """How many states of a layer are still held; the chain may change meanwhile."""
    count, epoch = 0, layer.newest
    while epoch is not None and count < 1000:
        count, epoch = count + 1, epoch.older
    return count


def at_rest():
    """What this process has when the store is closed, and everything that is rubbish is gone."""
    gc.collect()
    found = own_resources()
    found["objects"] = len(gc.get_objects())
    # Also what the collector does not track: bytes, and dicts of nothing else.
    found["blocks"] = getattr(sys, "getallocatedblocks", int)()
    return found


def complaints(samples, rests):
    """What was not bounded; nothing if all is well."""
    return _unbounded(samples) + _left_over(rests)


def medians(samples, name):
    """The median of a series in the second fifth of a run, and in the last."""
    series = [sample[name] for sample in samples if name in sample]
    fifth = len(series) // 5
    return statistics.median(series[fifth : 2 * fifth]), statistics.median(series[-fifth:])


def _unbounded(samples):
    if not samples or samples[-1]["time"] - samples[0]["time"] < LEAST_SECONDS:
        return []
    found = []
    for name, room in BOUNDED.items():
        if sum(name in sample for sample in samples) < LEAST_SECONDS // 2:
            continue  # this system does not tell
        early, late = medians(samples, name)
        if late > FACTOR * early + room:
            found.append(f"{name}: {early:,.0f} in the second fifth, {late:,.0f} in the last")
    return found


def _left_over(rests):
    """After the first sittings everything that is made once has been made."""
    found = []
    for name in ("threads", "descriptors", "children"):
        series = [rest[name] for rest in rests if name in rest]
        if series and max(series) > series[0]:
            found.append(f"{name} after each closing: {series}")
    for name in ("objects", "blocks"):
        series = [rest[name] for rest in rests[max(2, len(rests) // 3) :]]
        if series and series[-1] > 1.05 * series[0] + 2000:
            found.append(f"{name} after each closing: {series}")
    return found
