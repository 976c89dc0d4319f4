"""What the machine over the store draws: keys that meet again, values by their size, ranges."""

from __future__ import annotations

import errno
import importlib.util

from hypothesis import strategies as st

import wal
from tests.laboratory.machines.store_model import DELETED, PLACES, ROOT, USERS
from tests.laboratory.machines.store_player import READING, Ending

#: Few, so that they meet again; at the edges of prefixes and of the escape of stored keys.
KEYS = (
    b"", b"\x00", b"a", b"a\x00", b"a\x01", b"aa", b"a\xff", b"a\xff\xff", b"b", b"ba", b"c",
    b"k1", b"k2", b"k3", b"k4", b"k5", b"k6", b"k7", b"\xfe", b"\xff", b"\xff\x00", b"\xff\x01",
    b"\xff\x02x", b"\xff\xff",
)  # fmt: skip
#: Bytes of a value. 2 KiB and more is large (see OPTIONS); 40 KB is more than a segment holds.
SIZES = (0, 1, 30, 30, 200, 200, 1100, 1100, 3000, 3000, 9000, 15000, 40000)

PACKAGES = {"zstd": "zstandard", "lz4": "lz4"}
COMPRESSIONS = [None, None, "zlib"]
COMPRESSIONS += [name for name, package in PACKAGES.items() if importlib.util.find_spec(package)]

keys = st.sampled_from(KEYS)
sizes = st.sampled_from(SIZES)
places = st.sampled_from([ROOT, ROOT, *PLACES])
durabilities = st.sampled_from([None, None, *wal.Durability])
seeds = st.integers(0, 1 << 30)
numbers = st.integers(0, 9)

options = st.fixed_dictionaries(
    {
        "durability": st.sampled_from([wal.Durability.FSYNC, *wal.Durability]),
        "compression": st.sampled_from(COMPRESSIONS),
        "large_value_bytes": st.sampled_from([1024, 2048, 1 << 20]),
        "cache_bytes": st.sampled_from([0, 1 << 14, 64 << 20]),
        "retain_bytes": st.sampled_from([0, 0, 100_000]),
        "log_segment_bytes": st.sampled_from([None, 32 << 10]),
    }
)

#: ``(place, key, size)``; no size deletes.
mutations = st.lists(st.tuples(places, keys, st.none() | sizes), min_size=1, max_size=5)

between = st.fixed_dictionaries(
    {},
    optional={
        "start": keys,
        "stop": keys,
        "include_start": st.booleans(),
        "include_stop": st.booleans(),
    },
)
ranges = st.one_of(between, st.fixed_dictionaries({"prefix": st.sampled_from(KEYS[1:])}))
scans = st.tuples(
    ranges,
    st.fixed_dictionaries({}, optional={"reverse": st.booleans(), "limit": st.integers(0, 6)}),
).map(lambda both: {**both[0], **both[1]})
cursor_ranges = st.one_of(
    st.fixed_dictionaries({}, optional={"start": keys, "stop": keys}),
    st.fixed_dictionaries({"prefix": st.sampled_from(KEYS[1:])}),
)
moves = st.lists(
    st.tuples(st.sampled_from(["first", "last", "seek", "seek_last", *["next", "prev"] * 3]), keys),
    min_size=1,
    max_size=8,
)

endings = st.builds(
    Ending,
    seed=seeds,
    pick=st.integers(-3, 12),
    again=st.lists(st.integers(1, 25), max_size=2),
)
#: Power goes after so many calls from now: often in the next write, at times in a checkpoint.
calls = st.one_of(st.integers(1, 8), st.integers(1, 60))

WRITING = ("write_at", "allocate", "create")
faults = st.one_of(
    st.fixed_dictionaries(
        {
            "error": st.just(errno.EIO),
            "nth": calls,
            "kinds": st.sampled_from([None, None, ("write_at", "sync"), ("sync",), ("rename",)]),
            "written": st.sampled_from([None, 0, 7, 600]),
            "after": st.booleans(),
        }
    ),
    st.fixed_dictionaries(
        {
            "error": st.just(errno.ENOSPC),
            "nth": calls,
            "kinds": st.sampled_from([WRITING, ("allocate",), ("create",), None]),
            "forever": st.booleans(),
            "written": st.sampled_from([None, 0, 7, 600]),
        }
    ),
    st.fixed_dictionaries(
        {
            "error": st.just(errno.EIO),
            "nth": st.integers(1, 20),
            "kinds": st.sampled_from([("read_at",), ("open",), tuple(sorted(READING))]),
        }
    ),
)

reads = st.one_of(
    st.tuples(st.just("get"), places, keys),
    st.tuples(st.just("scan"), st.sampled_from([ROOT, USERS]), scans),
)


def value_of(place, data):
    """Bytes as a value of a place's codec: now and then the one that stands for none elsewhere."""
    if place == ROOT:
        return data
    if place == USERS:
        return None if len(data) == 1 else {"n": data.decode()}
    return None if len(data) == 1 else [data, len(data)]


def made(player, drawn):
    """Drawn mutations with values that no other has."""
    return [
        (place, key, DELETED if size is None else value_of(place, player.fresh(size)))
        for place, key, size in drawn
    ]
