"""The commands of ``python -m wal``, on sound logs and damaged ones, and beside a writer."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import random
import shutil
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from crc32c import crc32c

import wal
from wal.checkpoint_marker import BLOCK
from wal.cli import output
from wal.cli.commands import main
from wal.cli.pieces import ForgivingFile
from wal.segments import format as fmt

ROOT = Path(__file__).resolve().parents[2]
SEED = int(os.environ.get("SEED", "1"))
PATIENCE = 60.0

Entries = list[tuple[int, list[bytes]]]


class Keeper(wal.LogManager):
    """Keeps what it recovers, and lets nothing be checkpointed."""

    def __init__(self) -> None:
        self.recovered: Entries = []

    def recover(self, entry: wal.Entry) -> None:
        self.recovered.append((entry.id, entry.read_all()))

    def checkpoint_to(
        self, last_id: wal.EntryId, entries: wal.SegmentReader, log: wal.WriteAheadLog
    ) -> None:
        raise RuntimeError("kept")


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    logger = logging.getLogger("wal.checkpointer")
    logger.disabled = True
    yield
    logger.disabled = False


def open_log(directory: Path, **options: Any) -> wal.WriteAheadLog:
    options = {
        "preallocate_bytes": 8 << 10,
        "flush_interval": 3600,
        "max_sealed_segments": 1000,
        **options,
    }
    manager = options.pop("manager", None) or Keeper()
    return wal.Configuration(directory, **options).open(manager)


def close(log: wal.WriteAheadLog) -> None:
    with contextlib.suppress(wal.CheckpointError):
        log.shutdown()


def recovered(directory: Path, **options: Any) -> Entries:
    """What an opening of a copy shows."""
    keeper = Keeper()
    copy = directory.with_name(directory.name + "-copy")
    shutil.copytree(directory, copy)
    options = {"preallocate_bytes": 8 << 10, "max_sealed_segments": 1000, **options}
    try:
        close(wal.Configuration(copy, **options).open(keeper))
    finally:
        shutil.rmtree(copy)
    return keeper.recovered


def fill(log: wal.WriteAheadLog, count: int = 60) -> Entries:
    """Entries of several kinds, in some segments."""
    entries: Entries = []
    for number in range(count):
        chunks = [b"%d " % number * 120]
        if number % 7 == 3:
            with log.begin_entry() as entry:
                for chunk in (*chunks, b"", b"x" * 700):
                    entry.write_chunk(chunk)
            entries.append((entry.id, [*chunks, b"", b"x" * 700]))
            continue
        if number % 7 == 5:
            chunks = [b"a", b"", b"bc" * number]
        if number % 7 == 6:
            chunks = []
        entries.append((log.append(chunks), chunks))
    return entries


@pytest.fixture
def clean(tmp_path: Path) -> Path:
    """A log that was shut down."""
    log = open_log(tmp_path / "log")
    fill(log)
    close(log)
    return tmp_path / "log"


@pytest.fixture
def killed(tmp_path: Path) -> Path:
    """What a killed process left, with three segments or more."""
    log = open_log(tmp_path / "original")
    fill(log)
    shutil.copytree(tmp_path / "original", tmp_path / "log")
    close(log)
    return tmp_path / "log"


def segments(directory: Path) -> list[Path]:
    return sorted(directory.glob("wal-*"))


def patch(path: Path, offset: int, data: bytes | None = None) -> None:
    """Overwrite some bytes, or flip a bit of one."""
    content = bytearray(path.read_bytes())
    data = bytes([content[offset] ^ 0x10]) if data is None else data
    content[offset : offset + len(data)] = data
    path.write_bytes(content)


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command in this process; its status, what it printed, what it complained of."""

    def call(*arguments: object) -> tuple[int, str, str]:
        status = main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return status, out, err

    return call


def frames(run: Run, directory: Path, *options: object) -> list[dict[str, Any]]:
    _, out, _ = run("dump", directory, "--json", *options)
    return [json.loads(line) for line in out.splitlines()]


def of_kind(lines: list[dict[str, Any]], *kinds: str) -> list[dict[str, Any]]:
    return [line for line in lines if line["kind"] in kinds]


# -- a sound log -----------------------------------------------------------------------------------


def test_inspect(clean: Path, run: Run) -> None:
    status, out, err = run("inspect", clean, "--json")
    found = json.loads(out)
    assert (status, err) == (0, "")
    assert found["sound"]
    assert found["clean"]
    assert found["last_id"] == found["evidence"] == found["entries"] == 60
    assert {slot["state"] for slot in found["slots"]} == {"newest", "valid"}
    newest = next(slot for slot in found["slots"] if slot["state"] == "newest")
    last = found["segments"][-1]
    assert newest["clean"]["length"] == last["bytes_used"]
    assert len(found["segments"]) == len(segments(clean)) > 2
    for segment, path in zip(found["segments"], segments(clean), strict=True):
        assert segment["file"] == str(path)
        assert segment["state"] == "live"
        header = fmt.decode_header(str(path), path.read_bytes()[:400])
        assert segment["header"]["salt"] == header.salt.hex()
        assert segment["header"]["id_limit"] == header.id_limit
        assert segment["torn_bytes"] == 0
        assert segment["damage"] is None


def test_inspect_as_text(clean: Path, run: Run) -> None:
    status, out, _ = run("inspect", clean)
    assert status == 0
    for path in segments(clean):
        assert path.name in out
    assert "newest" in out
    assert out.rstrip().endswith("shut down cleanly")


def test_states_of_segments(tmp_path: Path, run: Run) -> None:
    log = open_log(tmp_path / "a")
    fill(log)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    close(log)
    newest = max(segments(tmp_path / "b"))
    dead = tmp_path / "b" / "wal-00000000000000000000"
    shutil.copy(newest, dead)
    marker = tmp_path / "b" / "CHECKPOINT"
    current = wal_marker(marker)
    marker.write_bytes(current.ljust(2 * BLOCK, b"\0"))
    newest.rename(newest.with_name(newest.name.replace("wal-", "abandoned-")))
    found = json.loads(run("inspect", tmp_path / "b", "--json")[1])
    states = [segment["state"] for segment in found["segments"]]
    assert states[0] == "dead"
    assert states[-1] == "abandoned"
    assert set(states[1:-1]) == {"live"}
    assert found["spares"] == sorted(path.name for path in (tmp_path / "b").glob("free-*"))


def wal_marker(path: Path) -> bytes:
    """The marker with everything below segment 1 dead."""
    from dataclasses import replace

    from wal.checkpoint_marker import decode_slots

    marker, _ = decode_slots(str(path), path.read_bytes())
    assert marker is not None
    return replace(marker, oldest_live=1).encode()


def test_dump(clean: Path, run: Run) -> None:
    lines = frames(run, clean, "--data", "hex", "--data-bytes", 0)
    shown: list[list[bytes]] = []
    ids: list[int] = []
    for line in of_kind(lines, "entry", "group"):
        ids += range(line["first_id"], line["last_id"] + 1)
        shown.append([bytes.fromhex(data) for data in line["data"]])
        assert line["lengths"] == [len(data) for data in shown[-1]]
    entries = recovered(clean)
    assert ids == [entry_id for entry_id, _ in entries]
    assert [c for chunks in shown for c in chunks] == [c for _, cs in entries for c in cs]
    assert {line["kind"] for line in lines} == {"entry", "group"}


def test_dump_of_one_segment(clean: Path, run: Run) -> None:
    second = segments(clean)[1]
    lines = frames(run, clean, "--segment", int(second.name[4:]))
    assert lines
    assert {line["segment"] for line in lines} == {second.name}
    status, out, err = run("dump", clean, "--segment", 999_999)
    assert (status, out) == (2, "")
    assert "999999" in err


def test_dump_limit_and_text(clean: Path, run: Run) -> None:
    assert len(frames(run, clean, "--limit", 3)) == 3
    status, out, _ = run("dump", clean, "--limit", 3)
    assert (status, len(out.splitlines())) == (0, 3)
    _, out, _ = run("dump", clean, "--limit", 1, "--data", "ascii", "--data-bytes", 4)
    assert out.splitlines()[1] == "    chunk 0: 0 0 …"


def test_dump_shows_a_witness(tmp_path: Path, run: Run) -> None:
    log = open_log(tmp_path / "log", flush_interval=0.005)
    log.append([b"x"])
    written, deadline = log.stats().bytes_written, time.monotonic() + PATIENCE
    while log.stats().bytes_written == written:
        assert time.monotonic() < deadline
        time.sleep(0.001)
    close(log)
    witness = of_kind(frames(run, tmp_path / "log"), "witness")[0]
    assert (witness["durable_id"], witness["entries"]) == (1, 0)
    assert "witness" in run("dump", tmp_path / "log")[1]


def test_verify(clean: Path, run: Run) -> None:
    status, out, _ = run("verify", clean, "--json")
    found = json.loads(out)
    assert status == 0
    assert (found["sound"], found["damage"], found["entries"]) == (True, [], 60)
    assert "sound: entries up to 60" in run("verify", clean)[1]


def test_an_empty_log_is_sound(tmp_path: Path, run: Run) -> None:
    close(open_log(tmp_path / "log"))
    for command in ("inspect", "dump", "verify"):
        assert run(command, tmp_path / "log")[0] == 0
    assert run("salvage", tmp_path / "log", tmp_path / "out")[0] == 0
    assert recovered(tmp_path / "out") == []


# -- damage ----------------------------------------------------------------------------------------


def test_a_torn_tail_is_sound(killed: Path, run: Run) -> None:
    last = of_kind(frames(run, killed), "entry", "group")[-1]
    path = killed / last["segment"]
    patch(path, last["offset"] + 50)
    status, out, _ = run("verify", killed, "--json")
    found = json.loads(out)
    assert (status, found["last_id"]) == (0, 59)
    assert 0 < found["torn_bytes"] <= last["bytes"]
    assert recovered(killed)[-1][0] == 59
    assert of_kind(frames(run, killed), "torn")[0]["offset"] == last["offset"]


def test_damage_names_file_and_offset(killed: Path, run: Run) -> None:
    line = of_kind(frames(run, killed), "group")[2]
    patch(killed / line["segment"], line["offset"] + 40)
    status, out, _ = run("verify", killed, "--json")
    damage = json.loads(out)["damage"]
    assert status == 1
    assert damage[0]["file"] == str(killed / line["segment"])
    assert damage[0]["offset"] == line["offset"]
    assert str(line["offset"]) in run("verify", killed)[1]
    assert run("inspect", killed)[0] == run("dump", killed)[0] == 1
    gap = of_kind(frames(run, killed), "gap")[0]
    assert (gap["offset"], gap["bytes"]) == (line["offset"], line["bytes"])


def damage_header(log: Path) -> None:
    patch(segments(log)[1], 30)


def damage_length(log: Path) -> None:
    os.truncate(segments(log)[0], 4000)


def remove_segment(log: Path) -> None:
    segments(log)[1].unlink()


def remove_newest(log: Path) -> None:
    segments(log)[-1].unlink()


def remove_marker(log: Path) -> None:
    (log / "CHECKPOINT").unlink()


def zero_marker(log: Path) -> None:
    (log / "CHECKPOINT").write_bytes(bytes(2 * BLOCK))


def rename_segment(log: Path) -> None:
    last = segments(log)[-1]
    last.rename(last.with_name(f"wal-{int(last.name[4:]) + 1:020d}"))


def cut_the_end(log: Path) -> None:
    """Take back the last entry of a log that was shut down cleanly."""
    last = segments(log)[-1]
    content = last.read_bytes().rstrip(b"\0")
    patch(last, len(content) - 20, bytes(20))


DAMAGES = [
    damage_header,
    damage_length,
    remove_segment,
    remove_newest,
    remove_marker,
    zero_marker,
    rename_segment,
    cut_the_end,
]


@pytest.mark.parametrize("spoil", DAMAGES)
def test_kinds_of_damage(spoil: Callable[[Path], None], clean: Path, run: Run) -> None:
    spoil(clean)
    status, out, _ = run("verify", clean, "--json")
    assert status == 1
    with pytest.raises(wal.CorruptLogError) as raised:
        recovered(clean)
    damage = json.loads(out)["damage"][0]
    assert Path(damage["file"]).name == Path(raised.value.path).name
    assert damage["offset"] == raised.value.offset
    for command in ("inspect", "dump"):
        assert run(command, clean)[0] == 1
        assert run(command, clean, "--json")[0] == 1


@pytest.mark.parametrize("state", ["clean", "killed"])
def test_verify_agrees_with_opening(state: str, run: Run, request: pytest.FixtureRequest) -> None:
    """Whatever byte is damaged: verify finds fault where opening does, at the same place."""
    log: Path = request.getfixturevalue(state)
    rng = random.Random(SEED)
    used = {path: len(path.read_bytes().rstrip(b"\0")) for path in segments(log)}
    verdicts = set()
    for _ in range(40):
        path = rng.choice(list(used))
        offset = rng.randrange(used[path])
        patch(path, offset)
        try:
            recovered(log)
            expected: tuple[str, int] | None = None
        except wal.CorruptLogError as error:
            expected = (Path(error.path).name, error.offset)
        status, out, _ = run("verify", log, "--json")
        damage = json.loads(out)["damage"]
        found = (Path(damage[0]["file"]).name, damage[0]["offset"]) if damage else None
        assert found == expected, f"SEED={SEED}: {path.name} at {offset}"
        assert status == (1 if damage else 0)
        verdicts.add(status)
        patch(path, offset)
    assert 1 in verdicts


@pytest.mark.parametrize("spoil", [None, *DAMAGES])
def test_nothing_is_changed(
    spoil: Callable[[Path], None] | None, clean: Path, tmp_path: Path, run: Run
) -> None:
    if spoil is not None:
        spoil(clean)

    def state() -> dict[str, object]:
        paths = [clean, *clean.iterdir()]
        times = {str(path): path.stat().st_mtime_ns for path in paths}
        return {"times": times, **{p.name: p.read_bytes() for p in paths if p.is_file()}}

    before = state()
    for command in ("inspect", "dump", "verify"):
        run(command, clean)
    run("salvage", clean, tmp_path / "out", "--doubtful")
    assert state() == before


# -- salvage ---------------------------------------------------------------------------------------


def salvaged(run: Run, log: Path, *options: object) -> tuple[dict[str, Any], Entries]:
    out = log.with_name("out")
    shutil.rmtree(out, ignore_errors=True)
    status, printed, _ = run("salvage", log, out, "--json", *options)
    found = json.loads(printed)
    assert status == (0 if found["sound"] else 1)
    assert run("verify", out)[0] == 0
    return found, recovered(out)


def ids_of(found: dict[str, Any], what: str) -> set[int]:
    """The ids in ranges that are listed under a name."""
    prefix = "old_" if what == "ids" else ""
    last = "old_last" if what == "ids" else "last_id"
    first = f"{prefix}first" if what == "ids" else "first_id"
    return {n for line in found[what] for n in range(line[first], line[last] + 1)}


def check_salvage(found: dict[str, Any], copied: Entries, original: Entries) -> None:
    """Each entry is copied as it was, in order, under the new id that is listed."""
    new_ids = {
        run["old_first"] + n: run["new_first"] + n
        for run in found["ids"]
        for n in range(run["old_last"] - run["old_first"] + 1)
    }
    chunks = dict(original)
    assert copied == [(new_ids[old], chunks[old]) for old in sorted(new_ids)]
    assert found["entries"] == len(copied)


def test_salvage_of_a_sound_log(clean: Path, run: Run) -> None:
    found, copied = salvaged(run, clean)
    check_salvage(found, copied, recovered(clean))
    assert ids_of(found, "ids") == set(range(1, 61))
    assert found["missing"] == found["doubtful"] == []
    out = clean.with_name("other")
    assert "nothing is missing" in run("salvage", clean, out)[1]


def test_salvage_goes_on_behind_damage(killed: Path, run: Run) -> None:
    original = recovered(killed)
    lines = of_kind(frames(run, killed), "entry", "group")
    lost = [lines[2], lines[3], lines[20]]
    for line in lost:
        patch(killed / line["segment"], line["offset"] + line["bytes"] - 1)
    found, copied = salvaged(run, killed)
    check_salvage(found, copied, original)
    assert ids_of(found, "missing") == {line["first_id"] for line in lost}
    assert len(copied) == len(original) - 3
    text = run("salvage", killed, killed.with_name("text"))[1]
    assert f"missing: {lost[0]['first_id']}..{lost[1]['first_id']}" in text


def test_salvage_behind_damage_in_the_last_segment(killed: Path, run: Run) -> None:
    """What the frames behind it prove to have been durable is certain, the very last is not."""
    original = recovered(killed)
    lines = of_kind(frames(run, killed), "entry", "group")
    last = [line for line in lines if line["segment"] == lines[-1]["segment"]]
    assert len(last) > 2
    patch(killed / last[0]["segment"], last[0]["offset"] + 30)
    found, copied = salvaged(run, killed)
    check_salvage(found, copied, original)
    assert ids_of(found, "missing") == {last[0]["first_id"]}
    assert ids_of(found, "doubtful") == {60}
    assert len(copied) == 58
    found, copied = salvaged(run, killed, "--doubtful")
    check_salvage(found, copied, original)
    assert len(copied) == 59


def test_salvage_past_a_tear(tmp_path: Path, run: Run) -> None:
    log = open_log(tmp_path / "original")
    for number in range(6):
        log.append([b"%d" % number], durability=wal.Durability.WRITE)
    shutil.copytree(tmp_path / "original", tmp_path / "log")
    close(log)
    lines = of_kind(frames(run, tmp_path / "log"), "group")
    assert {line["durable_id"] for line in lines} == {0}
    patch(tmp_path / "log" / lines[2]["segment"], lines[2]["offset"] + 20)
    found, copied = salvaged(run, tmp_path / "log")
    assert found["sound"]
    assert found["missing"] == []
    assert [chunks for _, chunks in copied] == [[b"0"], [b"1"]]
    assert ids_of(found, "doubtful") == {4, 5, 6}
    found, copied = salvaged(run, tmp_path / "log", "--doubtful")
    assert [chunks for _, chunks in copied] == [[b"0"], [b"1"], [b"3"], [b"4"], [b"5"]]
    assert "(copied)" in run("salvage", tmp_path / "log", tmp_path / "o", "--doubtful")[1]


def test_salvage_takes_nothing_above_a_successors_start(killed: Path, run: Run) -> None:
    """Frames behind a segment's end were never committed, whatever they hold."""
    original = recovered(killed)
    first = segments(killed)[0]
    header = fmt.decode_header(str(first), first.read_bytes()[:400])
    line = of_kind(frames(run, killed), "entry", "group")
    end = max(f["offset"] + f["bytes"] for f in line if f["segment"] == first.name)
    forged = b"".join(fmt.encode_group(header, header.seed, end, 60_000, 0, [b"forged"], 1))
    patch(first, end, forged)
    found, copied = salvaged(run, killed)
    check_salvage(found, copied, original)
    assert found["sound"]
    assert len(copied) == len(original)


@pytest.mark.parametrize("spoil", [remove_marker, zero_marker])
def test_salvage_without_a_marker(spoil: Callable[[Path], None], clean: Path, run: Run) -> None:
    original = recovered(clean)
    spoil(clean)
    found, copied = salvaged(run, clean)
    check_salvage(found, copied, original)
    assert (len(copied), found["missing"]) == (60, [])
    assert not found["sound"]


@pytest.mark.parametrize("spoil", [damage_header, remove_segment])
def test_salvage_without_a_whole_segment(
    spoil: Callable[[Path], None], clean: Path, run: Run
) -> None:
    original = recovered(clean)
    inside = of_kind(
        frames(run, clean, "--segment", int(segments(clean)[1].name[4:])), "group", "entry"
    )
    spoil(clean)
    found, copied = salvaged(run, clean)
    check_salvage(found, copied, original)
    gone = set(range(inside[0]["first_id"], inside[-1]["last_id"] + 1))
    assert ids_of(found, "missing") == gone
    assert len(copied) == 60 - len(gone)


def test_salvage_without_the_newest_header(killed: Path, run: Run) -> None:
    """Nothing says how much it held: the marker is older."""
    patch(segments(killed)[-1], 10)
    found, _ = salvaged(run, killed)
    assert found["missing"][-1]["last_id"] is None
    assert "..?" in run("salvage", killed, killed.with_name("text"))[1]


def test_salvage_leaves_out_what_was_abandoned(killed: Path, run: Run) -> None:
    close(open_log(killed, manager=wal.LogVoid()))
    shutil.rmtree(killed.with_name("out"), ignore_errors=True)
    found = json.loads(run("inspect", killed, "--json")[1])
    abandoned = [s["file"] for s in found["segments"] if s["state"] == "abandoned"]
    if abandoned:  # unless they were recycled already
        values, copied = salvaged(run, killed)
        assert not copied
        assert len(values["abandoned"]) == len(abandoned)


def test_salvage_streams_what_is_larger_than_its_memory(tmp_path: Path, run: Run) -> None:
    piece = random.Random(SEED).randbytes(1 << 20)
    log = open_log(tmp_path / "log", preallocate_bytes=1 << 20, buffer_bytes=1 << 20)
    with log.begin_entry() as entry, entry.begin_chunk(40 << 20) as chunk:
        for _ in range(40):
            chunk.write(piece)
    close(log)
    tracemalloc.start()
    try:
        status, out, _ = run("salvage", tmp_path / "log", tmp_path / "out", "--json")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (status, json.loads(out)["entries"]) == (0, 1)
    assert peak < 24 << 20
    with wal.Configuration(tmp_path / "out", read_only=True).open(Keeper()) as copy:
        (found,) = copy.entries()
        (reader,) = found.chunks()
        assert reader.length == 40 << 20
        for _ in range(40):
            assert reader.read(1 << 20) == piece


def test_salvage_keeps_version_info_and_segments(tmp_path: Path, run: Run) -> None:
    log = open_log(tmp_path / "log", version_info=b"mine")
    for _ in range(40):
        with log.begin_entry() as entry:
            entry.write_chunk(bytes(2 << 20))
    close(log)
    assert run("salvage", tmp_path / "log", tmp_path / "out")[0] == 0
    found = json.loads(run("inspect", tmp_path / "out", "--json")[1])
    assert found["clean"]
    assert len(found["segments"]) > 1
    assert {s["header"]["version_info"] for s in found["segments"]} == {b"mine".hex()}


def test_where_a_salvage_may_go(clean: Path, tmp_path: Path, run: Run) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    (tmp_path / "empty").mkdir()
    for out in (tmp_path / "full", tmp_path / "full" / "file", clean, clean / "inside"):
        status, printed, err = run("salvage", clean, out)
        assert (status, printed) == (2, "")
        assert str(out) in err
    assert run("salvage", clean, tmp_path / "empty")[0] == 0


# -- exit status -----------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["inspect", "dump", "verify"])
def test_not_a_log(command: str, tmp_path: Path, run: Run) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "missing", tmp_path / "file"):
        status, out, err = run(command, path)
        assert (status, out) == (2, "")
        assert str(path) in err
    assert run("salvage", tmp_path, tmp_path / "out")[0] == 2
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("arguments", [[], ["nothing"], ["verify"], ["dump", "x", "--limit", "-1"]])
def test_wrong_usage(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        main(arguments)
    assert raised.value.code == 2


def test_a_newer_version(clean: Path, run: Run) -> None:
    path = segments(clean)[-1]
    content = bytearray(path.read_bytes())
    header = fmt.decode_header("", bytes(content[:400]))
    content[4] = 2
    body = bytes(content[: header.size - 4])
    content[header.size - 4 : header.size] = fmt.CRC.pack(crc32c(body))
    path.write_bytes(content)
    status, _, err = run("verify", clean)
    assert status == 2
    assert "version 2" in err


def as_process(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "wal", *map(str, arguments)]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, encoding="utf-8", timeout=PATIENCE
    )


def test_as_a_process(clean: Path, tmp_path: Path) -> None:
    done = as_process("verify", clean, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["sound"]
    assert as_process("salvage", clean, tmp_path / "out").stderr == ""
    damage_header(clean)
    done = as_process("verify", clean)
    assert (done.returncode, done.stderr) == (1, "")
    assert "damaged" in done.stdout
    assert as_process("verify", tmp_path).returncode == 2
    assert "usage" in as_process().stderr


# -- beside a writer -------------------------------------------------------------------------------

WRITER = """
import sys
import wal

class Forgetful(wal.LogManager):
    def recover(self, entry): pass
    def checkpoint_to(self, last_id, entries, log): pass

size = int(sys.argv[2])
log = wal.Configuration(sys.argv[1], preallocate_bytes=size, flush_interval=0.005).open(Forgetful())
print("ready", flush=True)
number = 0
while True:
    number += 1
    if number % 50 == 0:
        with log.begin_entry() as entry:
            entry.write_chunk(b"x" * 5000)
    log.append([b"%d" % number * 100], durability=list(wal.Durability)[number % 3])
"""


@pytest.mark.parametrize("segment_bytes", [64 << 10, 16 << 20])
def test_beside_a_writer(segment_bytes: int, tmp_path: Path, run: Run) -> None:
    """It rotates, checkpoints and recycles meanwhile; none of that is damage."""
    log = tmp_path / "log"
    command = [sys.executable, "-c", WRITER, str(log), str(segment_bytes)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as writer:
        try:
            assert writer.stdout is not None
            assert writer.stdout.readline().strip() == b"ready"
            last = 0
            for _ in range(12):
                status, out, err = run("verify", log, "--json")
                assert (status, err) == (0, ""), out
                assert json.loads(out)["last_id"] >= last
                last = json.loads(out)["last_id"]
                assert run("dump", log, "--limit", 10)[0] == 0
                assert run("inspect", log)[0] == 0
            assert run("salvage", log, tmp_path / "out")[0] == 0
        finally:
            writer.kill()
    assert last > 0
    assert run("verify", log)[0] == 0


# -- small things ----------------------------------------------------------------------------------


def test_a_disk_that_cannot_read(tmp_path: Path) -> None:
    """What cannot be read is zeros, block by block; the rest is as it is."""
    content = bytes(range(1, 251)) * 80

    class Bad:
        def read_at(self, offset: int, length: int) -> bytes:
            if offset < 9000 < offset + length:
                raise OSError(5, "Input/output error")
            return content[offset : offset + length]

        def size(self) -> int:
            return len(content)

    file = ForgivingFile(Bad())  # type: ignore[arg-type]
    whole = file.read_at(0, 1 << 20)
    assert whole == content[:8192] + bytes(4096) + content[12288:]
    assert file.unreadable == {8192}
    assert file.read_at(100, 200) == content[100:300]


def test_tables_without_rich(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("rich", "rich.console", "rich.table"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    output.print_table(("a", "bb"), [(1, "x"), (1000, "")])
    assert capsys.readouterr().out == "a     bb\n1     x\n1000\n"
