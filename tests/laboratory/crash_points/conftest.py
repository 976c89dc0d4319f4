"""Fixtures for the crash points: turns for the threads, small files, nothing left at the end."""

from __future__ import annotations

import functools
import threading

import pytest

import kvstore.opening
import wal
import wal.entry_writer
from tests.laboratory.crash_points.turns import Chance, take_turns

SMALL_LOG = {
    "preallocate_bytes": 4096,
    "buffer_bytes": 4096,
    "flush_interval": 3600.0,  # the flusher does nothing of its own accord
    "keep_free_segments": 1,
}
"""Segments of a few entries, so that a short life of a store rotates, recycles and rolls back."""


@pytest.fixture(autouse=True)
def _nothing_left(quiet):
    """Every log and store is shut down by the test that opened it."""
    before = set(threading.enumerate())
    yield
    left = {thread.name for thread in set(threading.enumerate()) - before}
    assert not {name for name in left if name.startswith(("wal-", "kvstore-"))}


@pytest.fixture
def small_files(monkeypatch):
    """A store on a log of small segments, of which a long entry grows by little."""

    def configuration(*args, **options):
        return wal.Configuration(*args, **{**options, **SMALL_LOG})

    monkeypatch.setattr(
        kvstore.opening, "Configuration", functools.wraps(wal.Configuration)(configuration)
    )
    monkeypatch.setattr(wal.entry_writer, "_GROWTH", 4096)


@pytest.fixture
def turns(monkeypatch):
    """Threads take turns, so that a run can be repeated."""
    return take_turns(monkeypatch)


@pytest.fixture
def chance(monkeypatch):
    """What is random is the same in each run."""
    return Chance(monkeypatch)
