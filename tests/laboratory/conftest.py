"""Fixtures for the crash laboratory: a watchdog, and quiet where the power is cut on purpose."""

from __future__ import annotations

import faulthandler
import logging
import sys
import threading

import pytest

from wal.files.faulty import PowerLoss


@pytest.fixture(autouse=True)
def _watchdog(request):
    """A test that hangs ends the run with the stacks of all threads; a campaign has its time."""
    patience = 3600 if request.node.get_closest_marker("long") else 120
    faulthandler.dump_traceback_later(patience, exit=True, file=sys.__stderr__)
    yield
    faulthandler.cancel_dump_traceback_later()


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
