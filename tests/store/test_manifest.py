"""The manifest: what goes in comes out, and damage is never taken for something else."""

from __future__ import annotations

import contextlib
import errno
import os
import random
from dataclasses import replace

import msgpack
import pytest
from crc32c import crc32c

from kvstore.errors import CorruptStoreError, FormatVersionError
from kvstore.tables import manifest as manifests
from kvstore.tables.format import DamageError
from kvstore.tables.manifest import Manifest, read_manifest, write_manifest
from kvstore.tables.records import TableRecord
from wal.files import FaultyFileSystem, MemoryFileSystem, PowerLoss


def record(number, low=b"a", high=b"z"):
    return TableRecord(number, bytes([number]) * 16, 1000, 7, 1, 9, 10, 2, low, high, None, 100)


FULL = Manifest(
    bytes(range(16)), 12345678901, ((record(3), record(4)), (record(1, high=None),)), 5, True
)


def reframed(payload, version=manifests.VERSION):
    """A manifest file with another payload, and a right checksum."""
    packed = msgpack.packb(payload)
    frame = b"KVSM" + bytes([version, 0, 0, 0]) + len(packed).to_bytes(4, "little") + packed
    return frame + crc32c(frame).to_bytes(4, "little")


def payload_of(manifest):
    return msgpack.unpackb(manifest.encode()[12:-4])


@pytest.mark.parametrize("manifest", [Manifest(), FULL], ids=["fresh", "full"])
def test_there_and_back(manifest):
    assert Manifest.decode(manifest.encode()) == manifest


def test_each_store_has_an_id_of_its_own():
    assert Manifest().store_id != Manifest().store_id
    assert len(Manifest().store_id) == 16


def test_fresh_or_not():
    assert Manifest().is_fresh
    for other in (
        Manifest(last_entry_id=1),
        Manifest(next_number=2),
        Manifest(clearing=True),
        Manifest(runs=((record(1),),), next_number=2),
    ):
        assert not other.is_fresh


def test_the_next_number_never_falls():
    assert FULL.with_runs(((record(9),),), 20).next_number == 10
    assert FULL.with_runs((), 20).next_number == 5
    assert FULL.with_runs((), 20).last_entry_id == 20


def test_any_damaged_byte_is_damage():
    data = FULL.encode()
    rng = random.Random(1)
    for at in range(len(data)):
        damaged = bytearray(data)
        damaged[at] ^= 1 << rng.randrange(8)
        with pytest.raises(DamageError):
            Manifest.decode(bytes(damaged))
    for length in range(len(data)):
        with pytest.raises(DamageError):
            Manifest.decode(data[:length])


def test_another_version_is_no_damage():
    for version in (1, 2, 4, 200):
        with pytest.raises(FormatVersionError, match=f"version {version}; known is 3"):
            Manifest.decode(reframed({}, version))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("store_id", b"short"),
        ("store_id", None),
        ("last_entry_id", -1),
        ("last_entry_id", True),
        ("next_number", "1"),
        ("clearing", 0),
        ("runs", None),
        ("runs", [[]]),
        ("runs", [7]),
        ("runs", [[[1, 2, 3]]]),
        ("runs", [[record(1).pack()], [record(1).pack()]]),
        ("runs", [[record(5).pack()]]),  # not below next_number
        ("runs", [[replace(record(1), low="a").pack()]]),
    ],
)
def test_nonsense_with_a_right_checksum_is_damage(name, value):
    with pytest.raises(DamageError):
        Manifest.decode(reframed({**payload_of(FULL), name: value}))


@pytest.mark.parametrize("payload", [[], 7, {1: 2}, {}], ids=repr)
def test_another_payload_is_damage(payload):
    with pytest.raises(DamageError):
        Manifest.decode(reframed(payload))


def test_names_of_a_later_time_are_passed_over():
    assert Manifest.decode(reframed({**payload_of(FULL), "colour": "green"})) == FULL


def test_a_payload_that_asks_for_much_memory():
    packed = b"\x91" * 100_000
    frame = b"KVSM\x03\0\0\0" + len(packed).to_bytes(4, "little") + packed
    with pytest.raises(DamageError):
        Manifest.decode(frame + crc32c(frame).to_bytes(4, "little"))


# ------------------------------------------------------------------ the file


def test_there_may_be_none():
    files = MemoryFileSystem()
    files.make_directory("d")
    assert read_manifest(files, "d") is None


def test_damage_names_the_file():
    files = MemoryFileSystem()
    files.make_directory("d")
    file = files.create(os.path.join("d", "MANIFEST"))
    file.write_at(0, [FULL.encode()[:-1]])
    with pytest.raises(CorruptStoreError) as caught:
        read_manifest(files, "d")
    assert caught.value.path == os.path.join("d", "MANIFEST")


def test_a_crash_at_any_step_leaves_the_old_or_the_new():
    """Also after an attempt that failed, whose file is still there."""
    new = replace(FULL, last_entry_id=FULL.last_entry_id + 1)
    found = set()
    for step in range(1, 8):
        files = FaultyFileSystem()
        files.make_directory("d")
        write_manifest(files, "d", FULL)
        files.fail(errno.EIO, kinds="rename")
        with pytest.raises(OSError, match="Input/output"):
            write_manifest(files, "d", new)
        files.heal()
        files.stop_at(len(files.calls) + step)
        with contextlib.suppress(PowerLoss):
            write_manifest(files, "d", new)
        for state in files.crash_states():
            manifest = read_manifest(state, "d")
            assert manifest in (FULL, new)
            found.add((step == 7, manifest == new))
    assert (True, True) in found
    assert (True, False) not in found
    assert (False, False) in found
