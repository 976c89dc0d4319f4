"""The program that damages other engines' files: what it counts, what it makes of what it meets."""

from __future__ import annotations

import json
import os
import random
import signal
import time

import pytest

from tests.laboratory.bit_rot import peers
from tests.laboratory.bit_rot.peer_engines import ITEMS, Engine

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform has no fork")


class Answering(Engine):
    """Gives one answer, whatever is on the disk."""

    def __init__(self, act):
        self.act = act

    def read(self, path):
        yield self.act()


def ended():
    os.kill(os.getpid(), signal.SIGKILL)


def failed():
    raise OSError("damaged")


@needs_fork
@pytest.mark.parametrize(
    ("act", "outcome"),
    [
        (lambda: (b"k", b"v", b"v"), "right"),
        (lambda: (b"k", None, b"v"), "missing"),
        (lambda: (b"k", b"w", b"v"), "changed"),
        (lambda: (b"k", b"w", None), "changed"),
        (lambda: ("scan", {**ITEMS}, ITEMS), "right"),
        (lambda: ("scan", {}, ITEMS), "missing"),
        (lambda: ("scan", {**ITEMS, b"more": b""}, ITEMS), "changed"),
        (failed, "error"),
        (ended, "crash"),
        (lambda: time.sleep(60), "hang"),
    ],
)
def test_what_comes_of_a_case(act, outcome, tmp_path, monkeypatch):
    monkeypatch.setattr(peers, "TIMEOUT", 0.3 if outcome == "hang" else 30)
    assert peers.attempt(Answering(act), str(tmp_path), {"file": b"x"}) == outcome


@pytest.mark.parametrize("kind", peers.KINDS)
def test_one_flaw(kind):
    rng = random.Random(3)
    files = {"a": rng.randbytes(20_000), "b": rng.randbytes(9_000), "LOCK": b"1", "zeros": b"\0"}
    for _ in range(50):
        changed = peers.damaged(files, kind, rng)
        assert changed["LOCK"] == b"1"
        differing = [name for name in files if changed.get(name) != files[name]]
        assert len(differing) <= 1
        assert differing or kind in ("misdirected", "swapped")  # onto itself
        if kind in ("bit", "sector", "swapped"):
            assert {*map(len, changed.values())} == {*map(len, files.values())}


@needs_fork
def test_the_program(capsys, tally):
    arguments = ["--cases", "6", "--engines", "sqlite3 (checkpointed)", "--seed", "5", "--json"]
    assert peers.main(arguments) == 0
    told = json.loads(capsys.readouterr().out)
    assert [*told["engines"]] == [
        "sqlite3 (checkpointed)",
        "sqlite3 (checkpointed) + integrity_check",
    ]
    for row in told["engines"].values():
        assert sum(row[name] for name in peers.OUTCOMES) == row["cases"] == 6
        tally("damage to other engines' files", cases=6)


@needs_fork
def test_an_engine_that_is_not_there(capsys, monkeypatch):
    monkeypatch.setattr(peers.ENGINES[7], "package", "no_such_package")
    assert peers.main(["--cases", "1", "--engines", "lmdb"]) == 0
    captured = capsys.readouterr()
    assert "without lmdb" in captured.err
    assert captured.out.startswith("| Engine |")
