"""Fixtures for the tests of the store."""

from __future__ import annotations

import faulthandler
import os
import sys

import pytest

import kvstore
from tests.store.support import SMALL
from wal.files import MemoryFileSystem, StandardFileSystem


@pytest.fixture(autouse=True)
def _watchdog():
    """A test that hangs ends the run with the stacks of all threads."""
    faulthandler.dump_traceback_later(60, exit=True, file=sys.__stderr__)
    yield
    faulthandler.cancel_dump_traceback_later()


@pytest.fixture(params=["standard", "memory"])
def files(request):
    return StandardFileSystem() if request.param == "standard" else MemoryFileSystem()


@pytest.fixture
def path(tmp_path):
    return os.path.join(tmp_path, "my.db")


@pytest.fixture
def opened(files, path):
    """Opens the store, over and over; what a test leaves open is closed."""
    stores = []

    def opened(flag="c", **options):
        options = {"file_system": files, "memtable_bytes": SMALL, **options}
        stores.append(kvstore.open(path, flag, **options))
        return stores[-1]

    yield opened
    for store in stores:
        store.close()


@pytest.fixture
def db(opened):
    return opened()
