"""That no loss of a single write is missing from the states that a power loss may leave.

The campaigns rest on :meth:`wal.files.faulty.FaultyFileSystem.crash_states`. It is held against
states made by hand here, from what was written and what of it is to be lost.
"""

from __future__ import annotations

from collections import Counter

import pytest

from wal.files.faulty import FaultyFileSystem
from wal.files.memory import MemoryFileSystem
from wal.files.unsynced import SECTOR

OLD = bytes(8 * SECTOR)
#: Offset and length in sectors of the writes to one file, apart from each other; the last grows it.
WRITES = [(0, 2), (3, 1), (5, 2), (8, 3)]


def piece(number, length):
    return bytes([number + 1]) * length * SECTOR


def written(lost=lambda number, sector: False, length=11):
    """The file after the writes, but for the sectors that are lost."""
    data = bytearray(OLD.ljust(length * SECTOR, b"\0"))
    for number, (start, count) in enumerate(WRITES):
        for sector in range(start, min(start + count, length)):
            if not lost(number, sector):
                data[sector * SECTOR : (sector + 1) * SECTOR] = piece(number, 1)
    return bytes(data)


@pytest.fixture
def system():
    """A file that was written to, one that is new, and one that has a new name."""
    system = FaultyFileSystem(MemoryFileSystem({"/d/file": OLD, "/e/old": b"there"}))
    file = system.open("/d/file")
    for number, (start, count) in enumerate(WRITES):
        file.write_at(start * SECTOR, [piece(number, count)])
    fresh = system.create("/d/new")
    fresh.write_at(0, [b"fresh"])
    system.rename("/e/old", "/e/newer")
    return system


def expected():
    """Every state with one loss, by what was lost."""
    rest = {"/d/file": written(), "/d/new": b"fresh", "/e/newer": b"there"}
    states = {"nothing": rest, "the name": {**rest, "/e/old": b"there"}}
    del states["the name"]["/e/newer"]
    states["the new file"] = {path: rest[path] for path in ("/d/file", "/e/newer")}
    states["its bytes"] = {**rest, "/d/new": b""}
    states["its data"] = {**rest, "/d/new": bytes(5)}
    for number, (start, count) in enumerate(WRITES[:3]):
        lost = written(lambda n, sector, number=number: n == number)
        states[f"write {number}"] = {**rest, "/d/file": lost}
        for at in range(start, start + count):
            torn = written(lambda n, sector, at=at: sector == at)
            states[f"sector {at}"] = {**rest, "/d/file": torn}
    states["the last write"] = {**rest, "/d/file": written(length=8)}
    states["its growth's data"] = {**rest, "/d/file": written(lambda n, sector: n == 3)}
    for at in (8, 9, 10):
        torn = written(lambda n, sector, at=at: sector == at)
        states[f"sector {at}"] = {**rest, "/d/file": torn}
    return states


@pytest.mark.parametrize("mixtures", [0, 7])
def test_every_single_loss_is_among_the_states(system, mixtures):
    states = list(system.crash_states(limit=None, mixtures=mixtures))
    found = [state.contents() for state in states]
    for lost, contents in expected().items():
        assert contents in found, lost
    kinds = Counter(state.kind for state in states)
    assert kinds["mixture"] == mixtures
    assert kinds["nothing"] == kinds["everything"] == 1
    assert [state.kind for state in states[len(states) - mixtures :]] == ["mixture"] * mixtures
    assert all(contents not in found[:at] for at, contents in enumerate(found))


def test_the_usual_order_comes_to_all_of_them_too(system):
    found = [state.contents() for state in system.crash_states(limit=1000)]
    assert all(contents in found for contents in expected().values())
    assert len(found) > 30


def test_the_same_seed_gives_the_same_states(system):
    first, second = (
        [(state.label, state.contents()) for state in system.crash_states(seed=5, mixtures=9)]
        for _ in range(2)
    )
    assert first == second


def test_a_photograph_keeps_its_past(system):
    """What is written and synced later changes nothing in a copy that was made before."""
    before = system.killed()
    states = [state.contents() for state in before.crash_states(limit=None, mixtures=3)]
    file = system.open("/d/file")
    file.write_at(0, [b"later"])
    file.sync()
    assert [state.contents() for state in before.crash_states(limit=None, mixtures=3)] == states
    assert len(list(system.crash_states(limit=None, mixtures=0))) < len(states)
