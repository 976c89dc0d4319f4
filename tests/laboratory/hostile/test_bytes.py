"""No bytes, however hostile, make a decoder do anything but decode, or say what is wrong.

Proved for: segment files, group payloads, streamed entries read in pieces, the checkpoint marker,
the tools of ``python -m wal``, tables in every compression, manifests, backup marks, log entries,
namespaces' records, the values of codecs, and what comes out of a worker's process. Each is tried
as it is and with its checksums put right, since only then is what lies behind them reached.

An input passes if nothing is raised but what the API documents, no thread fails, no path outside
the store is touched, the memory stays below ``constant + factor * len(input)`` and the processor's
time below two seconds and 0.1 ms a byte (see :mod:`tests.laboratory.hostile.targets`).

Method: all of a kept corpus (seeds from real files; what coverage-guided runs found; every input
that was a bug), then changes of it from a fixed seed; in the long run from a seed of its own, for
longer. ``python -m tests.laboratory.hostile.fuzz`` is the same guided by coverage.
"""

from __future__ import annotations

import msgpack
import pytest

from kvstore.codecs import JSON, MSGPACK
from kvstore.tables import format as tables
from kvstore.tables.format import DamageError
from kvstore.tables.manifest import Manifest
from tests.campaigns import SCALE, seed
from tests.laboratory.hostile import fuzz, make_corpus
from tests.laboratory.hostile.changes import mutated
from tests.laboratory.hostile.sealing import seal_manifest
from tests.laboratory.hostile.targets import TARGETS, Silence
from wal.segments import format as wal_format
from wal.untrusted import FACTOR, FREE, _announced, is_affordable

CAMPAIGN = "hostile bytes for decoders"
SHORT_RUN = 50
LONG_RUN_SECONDS = 24


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_the_corpus(target, tally):
    inputs = fuzz.corpus_of(target.name)
    with Silence() as silence:
        for name, data in inputs.items():
            try:
                target.check(data, memory=True)
                silence.check()
            except Exception as error:
                raise AssertionError(f"corpus/{target.name}/{name}: {error!r}") from error
    tally(CAMPAIGN, kept=len(inputs))


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_changes_of_the_corpus(target, tally):
    inputs = fuzz.corpus_of(target.name).values()
    tally(CAMPAIGN, changed=fuzz.fuzz_plainly(target, inputs, seed=1, count=SHORT_RUN))


@pytest.mark.long
@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_many_changes_of_the_corpus(target, tally):
    inputs = fuzz.corpus_of(target.name).values()
    seconds = LONG_RUN_SECONDS * SCALE
    tally(CAMPAIGN, changed=fuzz.fuzz_plainly(target, inputs, seed=seed(), seconds=seconds))


@pytest.mark.parametrize("target", TARGETS)
def test_the_seeds_are_of_the_present_formats(target):
    """A change of a format must not leave the corpus behind, all of it refused at once."""
    kept = {name for name in fuzz.corpus_of(target) if name.startswith("seed-")}
    fresh = {f"seed-{name}": data for name, data in make_corpus.SEEDS[target]()}
    assert kept == fresh.keys(), "run python -m tests.laboratory.hostile.make_corpus"
    for name, data in fresh.items():
        assert _version(target, fuzz.corpus_of(target)[name]) == _version(target, data)


def _version(target, data):
    """The bytes that say of which format a file is."""
    places = {"segment": 5, "streamed": 5, "tools": 5, "marker": 5, "table": 5, "manifest": 5}
    return data[: places.get(target, 0)] if target != "entry" else data[2:3]


def test_the_corpus_is_small():
    sizes = [len(data) for target in TARGETS for data in fuzz.corpus_of(target).values()]
    assert sum(sizes) < 300 << 10


# ------------------------------------------------------------------ arrays in arrays


NESTED = [b"\xdd\x00\x00\x2f\xff", b"\xdc\x20\x00"]


def nested(head, size):
    return head * (size // len(head))


@pytest.mark.parametrize("head", NESTED, ids=bytes.hex)
@pytest.mark.parametrize("decoder", ["group", "footer", "index", "block", "manifest", "value"])
def test_arrays_in_arrays(decoder, head):
    """A thousand nested heads of arrays, 5 KB, took 80 MB: in a newer msgpack, or 2 GB before."""
    data = nested(head, 20_000)
    peak = peak_of(lambda: HOSTILE[decoder](data))
    assert peak <= FREE + FACTOR * len(data)


def peak_of(work):
    import tracemalloc

    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def _group(data):
    assert wal_format.decode_payload(data, len(data), len(data)) is None


def _refused(error, decode):
    with pytest.raises(error):
        decode()


HOSTILE = {
    "group": _group,
    "footer": lambda data: _refused(DamageError, lambda: _footer(data)),
    "index": lambda data: _refused(
        DamageError, lambda: tables.decode_index(data + bytes(12 * 15_000), 15_000, 0)
    ),
    "block": lambda data: _refused(DamageError, lambda: _block(data)),
    "manifest": lambda data: _refused(
        DamageError, lambda: Manifest.decode(seal_manifest(bytes(12) + data + bytes(4)))
    ),
    "value": lambda data: _refused(ValueError, lambda: MSGPACK.decode(data)),
}


def _footer(data):
    body = data + len(data).to_bytes(4, "little") + b"KVSF"
    crc = tables.crc_at(bytes(16), 0, body)
    tables.decode_footer(body + crc.to_bytes(4, "little"), bytes(16), 0, crc)


def _block(data):
    count = len(data) // 3
    raw = len(data) + 4 * (count + 1)
    tail = raw.to_bytes(4, "little") + count.to_bytes(4, "little") + bytes(4)
    tables.decode_block(data + bytes(4 * (count + 1)) + tail, None, lambda code, ext: None, 0)


@pytest.mark.parametrize("case", ["group", "segment", "streamed", "value", "manifest", "entry"])
def test_the_factor_holds_for_what_is_valid(case):
    """The most objects a byte can stand for: empty lists, maps, chunks. Without the constant."""
    target, data = TARGETS[case], DENSE[case]()
    with Silence() as silence:
        target.run(target.seal(data))  # what is made once is made now
        peak = peak_of(lambda: target.run(target.seal(data)))
        silence.check()
    assert len(data) >= 5_000
    assert peak <= target.factor * len(data) + (600 << 10)


def _dense_segment():
    header = wal_format.SegmentHeader(1, 0, 1 + (1 << 20), 0)
    frames = wal_format.encode_group(header, header.seed, header.size, 1, 0, [[]] * 5_001, 0)
    return header.encode() + b"".join(frames)


def _dense_streamed():
    chunk = wal_format.CHUNK.pack(wal_format.CHUNK_TAG, 0) + bytes(4)
    header = wal_format.SegmentHeader(1, 0, 1 + (1 << 20), 0)
    frame = wal_format.encode_entry_header(header, header.seed, header.size, 1, 0) + chunk * 2500
    return header.encode() + frame + wal_format.END.pack(wal_format.END_TAG, 2500) + bytes(4)


def _dense_manifest():
    record = [0, bytes(16), 0, 0, 0, 0, 0, 0, b"", None, None, 0]
    runs = [[[number, *record[1:]]] for number in range(1, 700)]
    fields = {"store_id": bytes(16), "last_entry_id": 0, "next_number": 700, "clearing": False}
    return bytes(12) + msgpack.packb(fields | {"runs": runs}) + bytes(4)


DENSE = {
    "group": lambda: (20_001).to_bytes(4, "little") + bytes(4) + msgpack.packb([[]] * 20_001),
    "segment": _dense_segment,
    "streamed": _dense_streamed,
    "value": lambda: msgpack.packb([{}] * 50_001),
    "manifest": _dense_manifest,
    "entry": lambda: b"\x09\0\x01" + bytes(8) + bytes(2) * 10_001,
}


def test_what_was_written_is_never_refused():
    """Data full of what looks like heads of arrays, with long arrays that are really there."""
    items = [b"\xdc\xff\xfe" * 30, b"\xdd\x00\x00\xff\xff" * 20] * 900
    items += [[b"\xdc\x0f\xff"] * 3000, [], b"\xdc"]
    chunks = sum(1 if type(item) is bytes else len(item) for item in items)
    for some, found in ((items, chunks), ([b"\xdc\xdc"] * 60_000, 60_000)):
        payload = msgpack.packb(some)
        assert wal_format.decode_payload(payload, len(some), found) == some
        assert MSGPACK.decode(payload) == some


def test_a_group_is_decoded_alike_in_both_ways(monkeypatch):
    """A large group is decoded item by item; that must come to the same."""
    import random

    rng = random.Random(1)
    agreed = 0
    for _ in range(300):
        items = [
            rng.choice((rng.randbytes(3), [rng.randbytes(2)] * rng.randrange(5)))
            for _ in range(rng.randrange(9))
        ]
        chunks = sum(1 if type(item) is bytes else len(item) for item in items)
        payload = msgpack.packb(items)
        for data in (payload, payload + b"\xc4", payload[:-1], mutated(rng, payload, [payload])):
            found = []
            for short in (1 << 20, 4, 0):
                monkeypatch.setattr(wal_format, "SHORT", short)
                found.append(wal_format.decode_payload(data, len(items), chunks))
            assert found[0] == found[1] == found[2]
            agreed += found[0] is not None
    assert agreed > 300


@pytest.mark.parametrize(
    "between",
    [
        b"",
        b"\xc4\x04\xdd\xdd\xdd\xdd",
        b"\xa4\xdd\xdd\xdd\xdd",
        b"\xcb" + b"\xdd" * 8,
        b"\xc7\x04\x01\xdd\xdd\xdd\xdd",
        b"\xd6\x01\xdd\xdd\xdd\xdd",
        b"\x82\xa1\xdd\x00\xa1\xdc",
    ],
    ids=bytes.hex,
)
def test_the_walk_counts_what_is_announced(between):
    """Heads inside of data do not count, and whatever stands before a real one is stepped over."""
    third = FREE // 8 // 3
    head = b"\xdd" + third.to_bytes(4, "big") + between
    limit = third + 1  # the heads that data seems to have announce more
    assert _announced(head * 2, limit, 3 * third) == 2 * third
    assert is_affordable(head * 2, limit)
    assert not is_affordable(head * 4, limit)
    closed = b"\xdc\x00\x02" + between + b"\x01" if not between else b"\x91\x01"
    assert is_affordable(closed * 500 + head * 2, limit)


def test_values_nested_too_deep_are_value_errors():
    for decode, data in ((JSON.decode, b"[" * 100_000), (MSGPACK.decode, b"\x81\x80\x00")):
        with pytest.raises(ValueError, match="not a value of the codec"):
            decode(data)
