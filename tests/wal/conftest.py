"""Fixtures for the tests of the log: every one of them runs over real files and over memory."""

from __future__ import annotations

import faulthandler
import os
import sys
import threading

import pytest

from tests.wal.support import Place, make_files
from wal.files.faulty import FaultyFileSystem


@pytest.fixture(autouse=True)
def _watchdog(request):
    """A test that hangs ends the run with the stacks of all threads."""
    patience = 3600 if request.node.get_closest_marker("long") else 120
    faulthandler.dump_traceback_later(patience, exit=True, file=sys.__stderr__)
    yield
    faulthandler.cancel_dump_traceback_later()


@pytest.fixture
def no_power_no_noise(quiet):
    """What a power loss makes background threads say is expected; that they stay is not."""
    before = set(threading.enumerate())
    yield
    left = {thread for thread in set(threading.enumerate()) - before if thread.name[:4] == "wal-"}
    assert not left, "a log was not shut down"


@pytest.fixture(params=["standard", "memory"])
def files(request):
    return make_files(request.param)


@pytest.fixture
def place(files, tmp_path):
    """Where a test keeps its log."""
    place = Place(files, os.path.join(tmp_path, "log"))
    yield place
    place.close()


@pytest.fixture
def faulty(files):
    """The same file systems, failing on demand and telling every call."""
    return FaultyFileSystem(files)


@pytest.fixture
def faulty_place(faulty, tmp_path):
    place = Place(faulty, os.path.join(tmp_path, "log"))
    yield place
    faulty.heal()
    faulty.on_call = None
    place.close()
