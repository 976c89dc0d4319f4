"""The examples run, and say what they should."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def run(name: str, *arguments: str, cwd: Path, **environment: str) -> str:
    command = [sys.executable, "-W", "error", str(ROOT / "examples" / name), *arguments]
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": paths, **environment}
    done = subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    return done.stdout


def test_quickstart(tmp_path: Path) -> None:
    assert "run number 1" in run("quickstart.py", cwd=tmp_path)
    again = run("quickstart.py", cwd=tmp_path)
    assert "run number 2" in again
    assert "apple and cherry: [None, b'dark red']" in again


def test_log_only(tmp_path: Path) -> None:
    assert "0 transfers recovered" in run("log_only.py", cwd=tmp_path)
    again = run("log_only.py", cwd=tmp_path)
    assert "1 transfers recovered" in again
    assert "bank:  -200" in again
    assert "balances add up: True" in again


def test_async_store(tmp_path: Path) -> None:
    for _ in range(2):
        told = run("async_store.py", cwd=tmp_path)
        assert "1000 jobs were made durable by 1000 tasks" in told
        assert "1000 jobs were done by 20 workers, none of them twice" in told
        assert "the watcher has seen 1000 commits" in told
        assert "1000 results are right" in told


def test_transactions(tmp_path: Path) -> None:
    told = run("transactions.py", cwd=tmp_path)
    assert "400 moves asked for" in told
    assert "every sum was {10000}" in told
    assert "which the transaction read, was changed since" in told
    assert "was one written? False" in told


def test_change_feed(tmp_path: Path) -> None:
    first = run("change_feed.py", cwd=tmp_path)
    assert "goes on behind entry 0\n" in first
    again = run("change_feed.py", cwd=tmp_path)
    assert "goes on behind entry 6\n" in again
    for told in (first, again):
        assert "6 commits later it has ['book/2/Woolf']" in told


def test_backup(tmp_path: Path) -> None:
    told = run("backup.py", cwd=tmp_path)
    assert "1 of 2 tables were there already" in told
    assert "it is sound" in told
    assert "10001 items, and the pair agrees: True" in told
    assert "restored, and written to: 10002 items" in told


@pytest.mark.parametrize("seed", [1, 2])
def test_crash_recovery(tmp_path: Path, seed: int) -> None:
    told = run(
        "crash_recovery.py", "--seed", str(seed), "--crashes", "5", "--files", "40", cwd=tmp_path
    )
    assert f"seed {seed}" in told
    crashes = re.search(r"crashes survived +(\d+)", told)
    assert crashes is not None
    assert int(crashes[1]) >= 3
    assert "none lost, none changed, none by halves" in told
    numbers = re.findall(r"^  crash +(\d+):", told, re.MULTILINE)
    assert len(numbers) == len(set(numbers))  # the last life was not killed: it has no number
    assert len(re.findall(r"^  complete: +40 of 40 files", told, re.MULTILINE)) == 1
