"""The annotations allow what the store takes, and no more."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

PROGRAM = """\
import array
import kvstore

key, value, view = bytearray(b"k"), array.array("B", b"v"), memoryview(b"k")
with kvstore.open("db") as db:
    db.put(key, value)
    db.put(view, view)
    db[key] = view
    read: bytes = db[view]
    maybe: bytes | None = db.get(view)
    other: bytes | int = db.get(key, 7)
    several: list[bytes | None] = db.get_many([key, view, b"k"])
    plain: dict[bytes, bytes] = {b"k": b"v"}
    db.write(plain)
    some: dict[bytes, bytearray | None] = {b"k": bytearray(b"v"), b"m": None}
    db.write(some)
    db.write({view: value})
    with db.batch() as batch:
        batch.put(key, value)
        batch.delete(view)
    items: list[tuple[bytes, bytes]] = list(db.scan(key, stop=view))
    keys: list[bytes] = [*db.keys(prefix=key), *reversed(db), *db]
    number: int = db.count(view)
    assert (key in db, items, keys, number) == (False, [], [], 0)
    db.put(key, value)
    del db[view]
    db.delete(key)
    added: bool = db.add(key, value)
    replaced: bool = db.replace(view, value, None)
    popped: bytes | None = db.pop(key)
    instead: bytes | int = db.pop(key, 7)
    assert (added, replaced, popped, instead) == (True, True, None, 7)
    with db.snapshot() as snap:
        past: bytes | None = snap.get(key)
        entry_id: int = snap.entry_id
    with db.cursor(key, stop=view) as cursor:
        item: tuple[bytes, bytes] | None = cursor.seek(view)
        where: bytes | None = cursor.key
        what: bytes | None = cursor.value
    with db.transaction() as tx:
        tx.put(key, value)
        tx[view] = view
        tx.write({view: value})
        got: bytes = tx[key]
    length: int = db.transact(lambda tx: len(tx[key]), attempts=3)
    assert (past, item, where, what, got, length) == (None, None, None, None, b"v", 1)
"""

WRONG = """\
import kvstore

with kvstore.open("db") as db:
    db.put("k", b"v")  # type: ignore[arg-type]
    db.write({"k": b"v"})  # type: ignore[type-var]
    db.get(1)  # type: ignore[call-overload]
"""


def test_any_buffer_may_be_passed(tmp_path):
    """A strict type checker refused bytearrays and memoryviews, which the store takes."""
    pytest.importorskip("mypy")
    for name, text in (("program.py", PROGRAM), ("wrong.py", WRONG)):
        (tmp_path / name).write_text(text, encoding="utf-8")
    command = [sys.executable, "-m", "mypy", "--strict", "--python-version", "3.10"]
    command += ["--config-file=", "program.py", "wrong.py"]
    environment = {**os.environ, "MYPYPATH": str(ROOT)}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
    )
    assert "2 source files" in done.stdout, done.stdout + done.stderr
    complaints = [
        line for line in done.stdout.splitlines() if line.startswith(("program", "wrong"))
    ]
    assert not complaints, done.stdout
    command = [sys.executable, "program.py"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run(command, cwd=tmp_path, env=environment, timeout=60, check=True)
