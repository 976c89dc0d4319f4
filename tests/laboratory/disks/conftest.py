"""Fixtures: a mounted file system, or a skip that says what is missing."""

from __future__ import annotations

import contextlib

import pytest

from tests.laboratory.disks.images import Image, UnmountableError, missing
from tests.laboratory.kills.nursery import Nursery


@pytest.fixture(scope="session")
def nursery():
    with Nursery() as nursery:
        yield nursery


@pytest.fixture
def mounted(tmp_path):
    """``mounted("ext4")``: a new file system; unmounted at the end."""
    with contextlib.ExitStack() as stack:

        def mounted(kind, megabytes=None):
            reason = missing(kind)
            if reason:
                pytest.skip(f"{kind}: {reason}")
            try:
                return stack.enter_context(Image(kind, str(tmp_path), megabytes))
            except UnmountableError as error:
                pytest.skip(str(error))

        yield mounted
