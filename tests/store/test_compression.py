"""A store whose tables need a package that is not there: told when it is opened, not later."""

from __future__ import annotations

import pytest

import kvstore
from kvstore.tables import compression
from wal.files import MemoryFileSystem


@pytest.fixture
def without_lz4(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> object:
        raise ImportError(name)

    monkeypatch.setattr(compression, "import_module", missing)


@pytest.mark.usefixtures("without_lz4")
def test_what_was_chosen_must_be_there() -> None:
    with pytest.raises(kvstore.MissingCodecError, match=r"kvstore\[lz4\]"):
        kvstore.open("db", file_system=MemoryFileSystem(), compression="lz4")


@pytest.mark.parametrize("flag", ["r", "w"])
def test_what_a_table_needs_must_be_there(flag: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("lz4.block")
    files = MemoryFileSystem()
    with kvstore.open("db", file_system=files, compression="lz4") as db:
        db.write({b"%d" % number: bytes(100) for number in range(1000)})
        db.checkpoint()
    with kvstore.open("db", flag, file_system=files) as db:
        assert db.count() == 1000

    def missing(name: str) -> object:
        raise ImportError(name)

    monkeypatch.setattr(compression, "import_module", missing)
    with pytest.raises(kvstore.MissingCodecError):
        kvstore.open("db", flag, file_system=files)
    monkeypatch.undo()
    with kvstore.open("db", "w", file_system=files) as db:  # it was let go of
        assert db.count() == 1000
