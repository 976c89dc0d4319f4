from __future__ import annotations

import pytest

from wal.files import MemoryFileSystem, StandardFileSystem


@pytest.fixture(params=["memory", "standard"])
def files(request):
    return MemoryFileSystem() if request.param == "memory" else StandardFileSystem()


@pytest.fixture
def directory(files, tmp_path):
    path = str(tmp_path / "tables")
    files.make_directory(path)
    return path
