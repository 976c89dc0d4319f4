"""For the crash laboratory: a watchdog."""

from __future__ import annotations

import faulthandler
import sys

import pytest


@pytest.fixture(autouse=True)
def _watchdog(request):
    """A test that hangs ends the run with the stacks of all threads; a campaign has its time."""
    patience = 3600 if request.node.get_closest_marker("long") else 120
    faulthandler.dump_traceback_later(patience, exit=True, file=sys.__stderr__)
    yield
    faulthandler.cancel_dump_traceback_later()
