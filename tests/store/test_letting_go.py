"""What has ended holds nothing, also while somebody keeps the object."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import kvstore

Hold = Callable[[kvstore.Store], object]


def ended_transaction(db: kvstore.Store) -> object:
    with db.transaction() as tx:
        tx[b"mine"] = b"1"
    return tx


def rolled_back(db: kvstore.Store) -> object:
    with db.transaction() as tx:
        tx.rollback()
    return tx


def closed_snapshot(db: kvstore.Store) -> object:
    snap = db.snapshot()
    snap.close()
    return snap


def closed_cursor(db: kvstore.Store) -> object:
    with db.cursor() as cursor:
        cursor.first()
    return cursor


@pytest.mark.parametrize("hold", [ended_transaction, rolled_back, closed_snapshot, closed_cursor])
def test_its_tables_leave_the_disk(hold: Hold, tmp_path: Path) -> None:
    """A `with` block leaves its variable bound: its tables stayed for as long as that lived."""
    with kvstore.open(tmp_path / "db", processes=False) as db:
        db.write({b"%d" % number: bytes(1000) for number in range(1000)})
        db.checkpoint()
        held = hold(db)
        db.write({b"%d" % number: None for number in range(1000)})
        db.compact()
        size = sum(file.stat().st_size for file in (tmp_path / "db" / "tables").iterdir())
        assert size < 10_000
        assert held is not None
