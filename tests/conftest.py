"""For all tests: the ledger of the campaigns, Hypothesis as a deterministic tool, and quiet."""

from __future__ import annotations

import logging
import os
import threading

import hypothesis
import pytest

from tests.campaigns import Ledger, seed
from wal.files.faulty import PowerLoss

# In the default run the same examples every time; the long one draws them from its seed, which
# `make test-long` hands over as --hypothesis-seed.
hypothesis.settings.register_profile(
    "short", derandomize=True, deadline=None, database=None, print_blob=True
)
hypothesis.settings.load_profile("short")

LEDGER = pytest.StashKey[Ledger]()


def pytest_configure(config):
    config.stash[LEDGER] = Ledger()


@pytest.fixture
def tally(request):
    """``tally("what is tried where", states=12, kills=3)``: counts that add up over a run."""
    ledger = request.config.stash[LEDGER]

    def tally(campaign, **counts):
        ledger.add(campaign, counts)

    return tally


@pytest.fixture
def quiet(monkeypatch):
    """A background thread may meet the power loss; what the log tells of it is expected."""
    usual = threading.excepthook

    def hook(args):
        if not isinstance(args.exc_value, PowerLoss):
            usual(args)

    monkeypatch.setattr(threading, "excepthook", hook)
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def pytest_terminal_summary(terminalreporter, config):
    lines = config.stash[LEDGER].lines()
    if lines:
        terminalreporter.section(f"campaigns, seed {seed()}")
        for line in lines:
            terminalreporter.write_line(line)
    path = os.environ.get("LEDGER")
    if path:
        config.stash[LEDGER].save(path)
