"""The benchmarks run to their end and tell every figure. How fast anything is, no test asserts."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benches.goals import GOALS, Figure, Goal
from benches.measuring import Pair, Sample, sample, summary
from benches.reporting import row
from benches.settings import FULL, MIB, label

ROOT = Path(__file__).resolve().parent.parent

COMMITS = [f"fsync commits/{label(s)}/{n} threads" for s in FULL.sizes for n in FULL.threads]
RECOVERED = ["128 B", "256 B", "1 MiB", "streamed 128 B"]
WAYS = ["count", "read_all", "after a crash, in all", "after a crash, to the last entry"]
FIGURES = [
    *(f"floor/{label(size)}" for size in FULL.sizes),
    *COMMITS,
    "fsync commits/long tails",
    "event loop/256 B/1000 tasks",
    *(f"buffered appends/128 B{hook}" for hook in ("", "/on_commit", "/committed")),
    *(f"recovery/{what}/{way}" for what in RECOVERED for way in WAYS),
    *(f"random reads/256 B/{what}" for what in ("streamed", "appended", "appended, in order")),
    "streaming memory",
]


def run(*arguments: object) -> str:
    command = [sys.executable, "-m", "benches", "--quick", *map(str, arguments)]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    directory = tmp_path_factory.mktemp("benches")
    out = directory / "figures.json"
    run("--dir", directory, "--out", out)
    assert [path.name for path in directory.iterdir()] == [out.name]  # nothing is left behind
    document: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
    return document


def test_every_figure_is_told(saved: dict[str, Any]) -> None:
    assert [figure["name"] for figure in saved["figures"]] == FIGURES
    for figure in saved["figures"]:
        known = figure["value"] is not None or sys.platform == "win32"
        assert known, figure["name"]


def test_a_run_tells_what_it_was_made_on(saved: dict[str, Any]) -> None:
    assert saved["machine"]["cpus"] >= 1
    assert saved["python"]["version"].startswith("3.")
    assert saved["settings"]["rounds"] == 1


def test_goals_are_for_figures_that_exist(saved: dict[str, Any]) -> None:
    assert set(GOALS) <= set(FIGURES)
    judged = {figure["name"] for figure in saved["figures"] if figure["goal"] is not None}
    assert judged == set(GOALS)


def test_only_runs_what_is_named() -> None:
    lines = run("--only", "floor").splitlines()
    assert [line.partition("  ")[0] for line in lines] == FIGURES[: len(FULL.sizes)]


def test_percentiles_and_ratios() -> None:
    cell = Sample(2.0, [n / 100 for n in range(1, 101)])
    assert (cell.rate, cell.percentile(50), cell.percentile(99)) == (50, 0.51, 0.99)
    pair = Pair(Sample(1.0, [0.5] * 10), cell)
    assert pair.ratio == 5
    assert summary([pair])["p99_ms"] == 990


def test_a_failure_in_a_thread_ends_the_run() -> None:
    with pytest.raises(ZeroDivisionError):
        sample(lambda: 1 // 0, 0.001, threads=2)


def test_a_row_judges() -> None:
    assert "reached" in row(Figure("streaming memory", 31.9, "MiB"))
    assert "MISSED" in row(Figure("streaming memory", 32.1, "MiB"))
    assert "unknown" in row(Figure("streaming memory", None, "MiB"))
    assert str(Goal(32, at_most=True)) == "<= 32"


def test_a_floor_that_stalls_is_told() -> None:
    calm = {"floor_p50_ms": 0.1, "floor_p99_ms": 0.5}
    assert not Figure("x", 1.0, "x", calm).noisy
    assert "noisy" in row(Figure("x", 1.0, "x", {**calm, "floor_p99_ms": 0.7}))


def test_labels() -> None:
    assert [label(size) for size in (256, 1024, 4096, MIB)] == ["256 B", "1 KiB", "4 KiB", "1 MiB"]
