"""The benchmarks beside other engines run to their end; what they tell is told right.

How fast anything is, no test asserts.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from benches.peers import stock, syncs
from benches.peers.data import VALUE_BYTES, values
from benches.peers.data import items as numbered
from benches.peers.distributions import THETA, Latest, ScrambledZipfian, Zipfian, fnv64, zeta
from benches.peers.engines import ENGINES, Tuning, UnsupportedError, engine, present
from benches.peers.goals import FLOOR, GOALS
from benches.peers.markdown import filled, pages_of
from benches.peers.processes import Session, processes
from benches.peers.results import Cell, Line, lines_of
from benches.peers.rows import Measured, Row, bounded
from benches.peers.rows.catalogue import GROUPS, PLOTTED, ROWS, named
from benches.peers.rows.course import by_interval
from benches.peers.rows.ycsb import WORKLOADS, Operations, perform, records
from benches.peers.running import Run
from benches.peers.sizes import QUICK
from benches.peers.tables import number, plain, spread
from benches.settings import MIB
from benches.store.items import absent, items

ROOT = Path(__file__).resolve().parent.parent
MEASURED = [name for name in ("kvstore", "lmdb") if present([name])]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("peers")


@pytest.fixture(scope="module")
def saved(place: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "benches.peers", "--quick", "--plots", "--dir", place / "kept"]
    command += ["--out", place / "found.json", "--engines", *MEASURED]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    titles = [ROWS[name].title for name in named([])]
    assert [title for title in titles if title not in done.stdout] == []
    document: dict[str, Any] = json.loads((place / "found.json").read_text(encoding="utf-8"))
    return document


def test_every_row_is_told(saved: dict[str, Any]) -> None:
    found = {line.row.name: line for line in lines_of(saved)}
    assert found.keys() == named([], plots=True)
    for name, line in found.items():
        assert "kvstore" in line.cells, name
        assert all(cell.median > 0 for cell in line.cells.values()), name


def test_goals_are_judged_where_there_is_what_they_speak_of(saved: dict[str, Any]) -> None:
    assert {goal.row for goal in GOALS} <= ROWS.keys()
    judged = sum(len(line["goals"]) for line in saved["lines"])
    alone = sum(goal.beside in ("", FLOOR) for goal in GOALS)
    without_peers = sum(goal.row == "recovery" and goal.beside != "" for goal in GOALS)
    assert judged == (len(GOALS) - without_peers if len(MEASURED) > 1 else alone)


def test_a_run_tells_what_it_was_made_on(saved: dict[str, Any]) -> None:
    assert saved["machine"]["cpus"] >= 1
    assert saved["engines"].keys() == set(MEASURED)
    assert saved["sizes"]["keys"] == QUICK.keys


def test_stocks_are_kept_and_nothing_else(saved: dict[str, Any], place: Path) -> None:
    kinds = {path.name.partition("-")[0] for path in (place / "kept").iterdir()}
    assert kinds == set(stock.KINDS)


def test_a_page_is_filled(saved: dict[str, Any]) -> None:
    contents = pages_of(saved)
    page = "a\n<!-- ycsb -->\nold\n<!-- end -->\nb\n<!-- machine -->\n<!-- end -->\n"
    once = filled(page, contents)
    assert "YCSB A" in once
    assert "old" not in once
    assert filled(once, contents) == once
    text = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    plots = dict.fromkeys(("plot_ratios", "plot_threads", "plot_course", "plot_latency"), "")
    filled(text, contents | plots | {"plot_growth": ""})  # every mark is known


def test_plots_are_drawn(saved: dict[str, Any], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from benches.plots import PLOTS, draw

    assert draw(saved, str(tmp_path)) == [f"benchmarks-{name}.svg" for name in PLOTS]
    first = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    draw(saved, str(tmp_path))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == first


@pytest.mark.skipif(not syncs.available(), reason="needs Linux and strace")
@pytest.mark.parametrize("name", MEASURED)
def test_a_durable_put_is_synced(name: str) -> None:
    assert syncs.per_put(name) >= 1


@pytest.mark.parametrize("name", ENGINES)
def test_every_engine_does_the_same(name: str, tmp_path: Path) -> None:
    if not present([name]):
        pytest.skip(f"{name} is not installed")
    tuning = Tuning(cache_bytes=MIB, memtable_bytes=MIB)
    opened = engine(name)(str(tmp_path / "store"), tuning)
    first, second = items(0), items(1)
    opened.write(first)
    opened.put_each(second[:100])
    opened.delete_each([key for key, _ in second[:5]])
    opened.close()
    opened = engine(name)(str(tmp_path / "store"), tuning)
    there = [key for key, _ in first[:10] + second[10:20]]
    assert (opened.get_each(there), opened.scan()) == (20 * VALUE_BYTES, 1095)
    assert not opened.miss_each(absent(5, 0) + [key for key, _ in second[:5]])
    last = max(key for key, _ in first + second[5:100])
    try:
        assert opened.scan_from([b"", last], 7) == 8
        assert sorted(opened.read_range(b"", 1100)) == sorted([*first, *second[5:100]])
    except UnsupportedError:
        assert name in ("diskcache", "sqlitedict", "dbm.gnu")
    opened.close()


def test_a_process_that_fails_ends_the_run() -> None:
    with pytest.raises(RuntimeError, match="kvstore"), processes(["kvstore"]) as (process,):
        process.call(Session.open, "", cache_bytes="no number")


def test_an_engine_that_fails_is_told_and_the_others_go_on(tmp_path: Path) -> None:
    (tmp_path / "kvstore.py").write_text("raise ImportError('from elsewhere')\n")
    names = [f"kvstore@{tmp_path}", "kvstore"]
    run = Run(names, frozenset({"load"}), QUICK, str(tmp_path / "kept"))
    (tmp_path / "kept").mkdir()
    (line,) = run.lines()
    assert list(line.cells) == ["kvstore"]
    assert len(run.failures) == 1


def test_another_checkout_is_measured_as_an_engine(tmp_path: Path) -> None:
    (tmp_path / "kvstore.py").write_text("raise ImportError('from elsewhere')\n")
    with pytest.raises(RuntimeError, match="kvstore@"), processes([f"kvstore@{tmp_path}"]):
        pass


def test_a_stock_is_made_once(tmp_path: Path) -> None:
    def ready(keys: int) -> tuple[stock.Stock, int]:
        found = stock.ready(str(tmp_path), "loaded", "kvstore", keys, QUICK)
        return found, (tmp_path / "loaded-kvstore.json").stat().st_ino

    first, again, other = ready(1000), ready(1000), ready(2000)
    assert first == again
    assert first[0].keys == 1000
    assert other[0].keys == 2000
    stock.forget(str(tmp_path))
    assert not (tmp_path / "loaded-kvstore.json").exists()


def test_names_of_rows_and_groups() -> None:
    assert named(["scans", "load"]) == {"scan100", "load"}
    assert named(["nonsense"]) == frozenset()
    assert named([]) == ROWS.keys() - PLOTTED
    assert named([], plots=True) == ROWS.keys() - {"growth-10000000"}
    assert len(ROWS) == sum(len(group.rows) for group in GROUPS.values())


def test_work_is_done_in_chunks_until_the_time_is_up() -> None:
    seen: list[int] = []
    done = bounded(seen.extend, range(1000), 60.0, first=3)
    assert (seen, done.count) == (list(range(1000)), 1000)
    assert bounded(lambda some: None, range(1000), 0.0).count == 0
    assert bounded(lambda some: None, range(10), 60.0).measured("x", each=7).details["count"] == 70


def line_of(unit: str = "/s", **values: float) -> Line:
    line = Line(Row("fillseq", "puts", unit))
    for name, value in values.items():
        line.cells[name] = Cell([value, 2 * value, 3 * value], [{}, {}, {}])
    return line


def test_the_best_peer() -> None:
    line = line_of(kvstore=30.0, lmdb=10.0, plyvel=20.0)
    line.cells["kvstore@old"] = Cell([1000.0], [{}])
    assert (line.best_peer(), line.to_best_peer()) == ("plyvel", 1.5)
    (verdict,) = line.verdicts()
    assert (verdict.value, verdict.reached) == (1.5, True)
    times = line_of("ms", kvstore=30.0, lmdb=10.0)
    assert (times.best_peer(), times.to_best_peer()) == ("lmdb", pytest.approx(1 / 3))
    assert line_of(kvstore=1.0).to_best_peer() is None
    assert line_of(lmdb=1.0).verdicts() == []


def test_a_cell_is_the_median_of_its_turns() -> None:
    line = line_of(kvstore=10.0)
    line.cells["kvstore"].add(Measured("fillseq", 1000.0, {"floor": 5.0}))
    assert line.cells["kvstore"].median == 25.0
    assert line.cells["kvstore"].detail("floor") == 5.0
    assert line.cells["kvstore"].detail("nothing") is None
    assert spread(line_of(kvstore=10.0), "kvstore") == "±50%"


def test_numbers_have_three_digits_that_count() -> None:
    given = [0.1234, 12.34, 123.4, 9_999, 12_345, 999_400, 1_234_567]
    told = ["0.123", "12.3", "123", "9,999", "12.3 k", "999 k", "1.23 M"]
    assert [number(value) for value in given] == told


def test_the_table_has_a_star_for_the_best_peer() -> None:
    text = plain([line_of(kvstore=30.0, lmdb=10.0, plyvel=20.0)])
    assert "40*" in text
    assert "1.50 x" in text
    assert "reached" in text


def test_rates_by_interval() -> None:
    done = [(0.1, 10), (0.4, 10), (0.6, 30), (1.6, 5), (2.1, 5)]
    assert by_interval(done, 0.5) == {"0.5": 40.0, "1": 60.0, "1.5": 0.0, "2": 10.0}


def test_values_are_objects_of_their_own_and_compress_to_half() -> None:
    import zlib

    first, second = values(2, 1000)
    assert first is not second
    assert 0.5 < len(zlib.compress(first)) / 1000 < 0.65
    assert numbered([7]) == [(b"0000000000000007", numbered([7])[0][1])]
    assert len(numbered([7])[0][1]) == VALUE_BYTES


def test_the_zipfian_distribution() -> None:
    count, drawn = 1000, 50_000
    source = random.Random(1)
    zipfian = Zipfian(count, source)
    found = Counter(zipfian.next() for _ in range(drawn))
    assert min(found) == 0
    assert max(found) < count
    for rank in (0, 1):  # exact in Gray's method; the rest is an approximation
        expected = drawn / (rank + 1) ** THETA / zeta(count)
        assert found[rank] == pytest.approx(expected, rel=0.05)
    first_tenth = sum(found[rank] for rank in range(100)) / drawn
    assert first_tenth == pytest.approx(zeta(100) / zeta(count), rel=0.03)


def test_a_zipfian_that_grows_is_as_one_that_was_made_so() -> None:
    grown = Zipfian(10, random.Random(1))
    for _ in range(90):
        grown.grow()
    made = Zipfian(100, random.Random(1))
    assert [grown.next() for _ in range(100)] == [made.next() for _ in range(100)]


def test_the_scrambled_distribution_is_spread_over_all_records() -> None:
    source = random.Random(2)
    scrambled = ScrambledZipfian(1000, source)
    found = Counter(scrambled.next() for _ in range(20_000))
    hottest, times = found.most_common(1)[0]
    assert hottest == fnv64(0) % 1000
    assert times / 20_000 == pytest.approx(1 / 26.469, rel=0.15)
    assert len(found) > 900


def test_the_latest_records_come_most_often() -> None:
    latest = Latest(100, random.Random(3))
    assert Counter(latest.next() for _ in range(1000)).most_common(1)[0][0] == 99
    latest.grow()
    assert Counter(latest.next() for _ in range(1000)).most_common(1)[0][0] == 100


def test_the_hash_of_ycsb() -> None:
    signed = [fnv64(number) for number in range(100)]
    assert len(set(signed)) == 100
    assert min(signed) >= 0
    assert max(signed) < 1 << 63
    assert fnv64(0) == (1 << 64) - 0xA8C7F832281A39C5  # the sign is dropped


@pytest.mark.parametrize("name", WORKLOADS)
def test_a_workload_finds_what_it_asks_for(name: str) -> None:
    workload = WORKLOADS[name]
    there = dict(records(500, 10))
    calls: Counter[str] = Counter()

    class Mixed:
        def get(self, key: bytes) -> bytes | None:
            calls["get"] += 1
            return there.get(key)

        def put(self, key: bytes, value: bytes) -> None:
            calls["put"] += 1
            there[key] = value

        def read_range(self, start: bytes, most: int) -> list[tuple[bytes, bytes]]:
            calls["scan"] += 1
            assert 1 <= most <= 100
            return []

    operations = Operations(500, 10, 1).draw(workload, 2000)
    perform(Mixed(), operations)  # type: ignore[arg-type]
    writes = workload.updates + workload.inserts + workload.modifications
    assert calls["put"] == pytest.approx(2000 * writes, rel=0.2)
    assert calls["get"] == pytest.approx(2000 * (workload.reads + workload.modifications), rel=0.1)
    assert calls["scan"] == pytest.approx(2000 * workload.scans, rel=0.1)
    assert len(there) == 500 + calls["put"] if workload.inserts else len(there) == 500
