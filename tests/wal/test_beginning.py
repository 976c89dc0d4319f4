"""A log that is begun behind an entry of another one."""

from __future__ import annotations

import contextlib
import itertools

import pytest

import wal
from tests.wal.support import DEFAULTS, Recorder
from wal.files import FaultyFileSystem, MemoryFileSystem, PowerLoss

begin = wal.WriteAheadLog.begin


def configured(files, **options):
    return wal.Configuration("log", file_system=files, **DEFAULTS, **options)


@pytest.fixture
def files():
    return MemoryFileSystem()


def test_ids_go_on_behind_it(files):
    begin(configured(files), after=41)
    for first in (42, 43):
        with configured(files).open(Recorder()) as log:
            assert log.last_entry_id == log.durable_entry_id == first - 1
            assert log.append([b"next"]) == first


def test_what_follows_is_recovered_and_nothing_else(files):
    begin(configured(files), after=41)
    with configured(files).open(wal.LogVoid()) as log:
        log.append([b"next"])
    with configured(files).open(manager := Recorder()) as log:
        assert manager.recovered == [(42, [b"next"])]
        assert [segment.first_after for segment in manager.offered] == [41]
        assert [entry.id for entry in log.entries(after=41)] == [42]
        with pytest.raises(wal.PositionNotFoundError):
            list(log.entries(after=40))


def test_it_can_be_read_as_it_is(files):
    begin(configured(files), after=41)
    before = files.contents()
    with configured(files, read_only=True).open(manager := Recorder()) as log:
        assert log.last_entry_id == log.durable_entry_id == 41
        assert log.stats().checkpointed_entry_id == 41
        assert log.oldest_entry_id == 42
        assert list(log.entries()) == manager.calls == []
    assert files.contents() == before


def test_behind_nothing(files):
    begin(configured(files))
    with configured(files).open(wal.LogVoid()) as log:
        assert log.append([b"first"]) == 1


def test_its_entries_are_checkpointed(files):
    begin(configured(files), after=41)
    with configured(files).open(manager := Recorder()) as log:
        log.append([b"next"])
        log.checkpoint_active(wait=True)
        assert manager.checkpoints == [(42, [(42, [b"next"])])]
        assert log.stats().checkpointed_entry_id == 42


@pytest.mark.parametrize("opened", [True, False])
def test_a_log_that_is_there_is_left_alone(files, opened):
    begin(configured(files), after=41)
    if opened:
        configured(files).open(wal.LogVoid()).shutdown()
    before = files.contents()
    with pytest.raises(wal.WalError, match="a log already"):
        begin(configured(files), after=100)
    assert files.contents() == before


def test_a_log_without_its_marker_is_left_alone(files):
    configured(files).open(wal.LogVoid()).shutdown()
    files.remove("log/CHECKPOINT")
    with pytest.raises(wal.WalError, match="a log already"):
        begin(configured(files), after=41)


def test_it_is_locked_meanwhile(files):
    with configured(files).open(wal.LogVoid()), pytest.raises(wal.LogLockedError):
        begin(configured(files), after=41)


@pytest.mark.parametrize("after", [-1, (1 << 63) - 1])
def test_an_id_that_cannot_be(files, after):
    with pytest.raises(ValueError, match="entry id"):
        begin(configured(files), after=after)
    with pytest.raises(TypeError, match="entry id"):
        begin(configured(files), after="1")


def test_a_crash_leaves_it_begun_or_not():
    """Where it is not, it can be begun again, behind whatever entry."""
    for number in itertools.count(1):
        system = FaultyFileSystem()
        system.stop_at(number)
        with contextlib.suppress(PowerLoss):
            begin(configured(system), after=41)
        for state in system.crash_states(seed=number):
            with contextlib.suppress(wal.WalError):
                begin(configured(state), after=41)
            with configured(state).open(wal.LogVoid()) as log:
                assert log.append([b"next"]) == 42
        if not system.lost_power:
            break
    for state in system.crash_states():
        with pytest.raises(wal.WalError, match="a log already"):
            begin(configured(state), after=41)
