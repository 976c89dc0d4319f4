"""The benchmarks of the log and the store run to their end and tell every figure.

How fast anything is, no test asserts. Those beside other engines: test_peers.py.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benches.goals import GOALS, Figure, Goal
from benches.measuring import Pair, Sample, sample, summary
from benches.reporting import row
from benches.settings import FULL, MIB, label, with_sizes
from benches.store.items import absent, items, keys, picked
from benches.store.random_puts import amplification

ROOT = Path(__file__).resolve().parent.parent

COMMITS = [f"fsync commits/{label(s)}/{n} threads" for s in FULL.sizes for n in FULL.threads]
RECOVERED = ["128 B", "256 B", "1 MiB", "streamed 128 B"]
WAYS = ["count", "read_all", "after a crash, in all", "after a crash, to the last entry"]
LOG_FIGURES = [
    *(f"floor/{label(size)}" for size in FULL.sizes),
    *COMMITS,
    "fsync commits/long tails",
    "event loop/256 B/1000 tasks",
    *(f"buffered appends/128 B{hook}" for hook in ("", "/on_commit", "/committed")),
    *(f"recovery/{what}/{way}" for what in RECOVERED for way in WAYS),
    *(f"random reads/256 B/{what}" for what in ("streamed", "appended", "appended, in order")),
    "streaming memory",
]
RATIOS = ["last to early", "write amplification", "to the best peer"]
STORE_FIGURES = [
    *(f"opening/kvstore/{w}" for w in ("few keys", "many keys", "many to few", "memory")),
    *(f"larger than cache/kvstore/{what}" for what in ("gets", "memory")),
    *(f"random puts/kvstore/{what}" for what in ("last tenth", *RATIOS, "most runs")),
    *(f"put latency/{w} checkpoints" for w in ("without", "with")),
    *(f"put latency/{what}" for what in ("p99.9", "throughput")),
    *(f"transactions/{what}" for what in ("snapshot", "empty", "read-modify-write")),
    *(f"transactions/fsync, {what}" for what in ("1 thread", "threads", "threads to one")),
    *(f"event loop/{what}/{FULL.tasks} tasks" for what in ("puts", "adds", "transactions")),
]
FIGURES = [*LOG_FIGURES, *(f"store {name}" for name in STORE_FIGURES)]
WITHOUT_PEERS = "store random puts/kvstore/to the best peer"


def run(*arguments: object, module: str = "benches") -> str:
    command = [sys.executable, "-m", module, *map(str, arguments)]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    directory = tmp_path_factory.mktemp("benches")
    out = directory / "figures.json"
    run("--quick", "--engines", "kvstore", "--dir", directory, "--out", out)
    assert [path.name for path in directory.iterdir()] == [out.name]  # nothing is left behind
    document: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
    return document


def test_every_figure_is_told(saved: dict[str, Any]) -> None:
    assert [figure["name"] for figure in saved["figures"]] == FIGURES
    for figure in saved["figures"]:
        if sys.platform == "linux":
            assert (figure["value"] is None) == (figure["name"] == WITHOUT_PEERS), figure["name"]


def test_a_run_tells_what_it_was_made_on(saved: dict[str, Any]) -> None:
    assert saved["machine"]["cpus"] >= 1
    assert saved["python"]["version"].startswith("3.")
    assert saved["settings"]["rounds"] == 1


def test_goals_are_for_figures_that_exist(saved: dict[str, Any]) -> None:
    assert set(GOALS) <= set(FIGURES)
    judged = {figure["name"] for figure in saved["figures"] if figure["goal"] is not None}
    assert judged == set(GOALS)


def test_only_runs_what_is_named() -> None:
    lines = run("--quick", "--only", "floor", "store-transactions").splitlines()
    transactions = [name for name in FIGURES if name.startswith("store transactions")]
    named = FIGURES[: len(FULL.sizes)] + transactions
    assert [line.partition("  ")[0] for line in lines] == named


def test_sizes_can_be_set() -> None:
    assert with_sizes(FULL, {"random_puts": 5e6, "cell_seconds": 2}) == replace(
        FULL, random_puts=5_000_000, cell_seconds=2.0
    )
    with pytest.raises(ValueError, match="engines"):
        with_sizes(FULL, {"engines": 1})


def test_the_worse_witness_is_believed() -> None:
    assert amplification(0.0, 5.0) == (5.0, {"told": 0.0, "by_the_process": 5.0})
    assert amplification(None, 5.0)[0] == 5.0
    assert amplification(None, None) == (None, {})


def test_keys_are_the_same_again() -> None:
    assert items(3) == items(3)
    assert len({key for block in range(5) for key in keys(block)}) == 5000
    assert set(picked(50, 2000, 1)) <= set(keys(0) + keys(1))
    assert set(absent(50, 1)).isdisjoint(keys(0))


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
