"""Checkpointed segments that stay for later reading: how long, across restarts, beside damage."""

from __future__ import annotations

import contextlib
import errno
import logging
import os

import pytest

import wal
from tests.wal.histories import every_crash
from tests.wal.promises import Caller, Known, end
from tests.wal.support import Gate, Place, Recorder, Worker, until
from wal.cli.commands import main
from wal.files.faulty import FaultyFileSystem
from wal.segments import retention

pytestmark = pytest.mark.usefixtures("no_power_no_noise")

PLENTY = {"retain_bytes": 1 << 30}
HOUR = 3600 * 1_000_000_000


@pytest.fixture
def clock(monkeypatch):
    """The time of retention, moved by hand; it begins at the real one."""

    class Clock:
        ahead = 0

        def __call__(self):
            return self.real() + self.ahead

    clock = Clock()
    Clock.real = staticmethod(retention._now)
    monkeypatch.setattr(retention, "_now", clock)
    return clock


def fill(log, *numbers):
    """Each number an entry in a segment of its own, which is checkpointed."""
    for number in numbers:
        log.append([b"%d" % number])
        log.checkpoint_active(wait=True)


def settled(place, kept):
    """Wait until so many files are kept: it happens behind the checkpoint."""
    until(lambda: len(place.names("kept-")) == kept and len(place.names("wal-")) == 1)


def held(log, after=None):
    return [int(entry.read_all()[0]) for entry in log.entries(after)]


# -- what is kept ----------------------------------------------------------------------------------


def test_without_retention_nothing_is_kept(place):
    log = place.open()
    assert log.oldest_entry_id == 1
    log.append([b"1"])
    assert log.oldest_entry_id == 1
    log.checkpoint_active(wait=True)
    until(lambda: len(place.names("wal-")) == 1)
    assert place.names("kept-") == []
    assert held(log) == []
    assert log.oldest_entry_id == log.last_entry_id + 1 == 2
    with pytest.raises(wal.PositionNotFoundError):
        held(log, after=0)


@pytest.mark.parametrize("options", [PLENTY, {"retain_seconds": 3600.0}, {"retain_seconds": 60}])
def test_checkpointed_entries_stay_readable(place, options):
    log = place.open(**options)
    fill(log, 1, 2, 3)
    log.append([b"4"])
    settled(place, 3)
    assert held(log) == held(log, after=0) == [1, 2, 3, 4]
    assert held(log, after=2) == [3, 4]
    assert log.oldest_entry_id == 1
    assert log.stats().segments_kept == 3


@pytest.mark.parametrize("clean", [True, False])
def test_across_restarts(place, clean):
    log = place.open(**PLENTY)
    fill(log, 1, 2, 3)
    log.append([b"4"])
    settled(place, 3)
    if clean:
        log.shutdown()
    else:
        place = place.killed()
    log = place.open(manager := Recorder(), **PLENTY)
    assert [entry_id for entry_id, _ in manager.recovered] == [4]
    assert held(log) == [1, 2, 3, 4]
    assert held(log, after=1) == [2, 3, 4]
    assert log.oldest_entry_id == 1
    fill(log, 5)
    settled(place, 4 if clean else 5)
    assert held(log) == [1, 2, 3, 4, 5]
    assert manager.archived[-1].last_id == log.last_entry_id
    log.shutdown()
    assert held(place.open(**PLENTY)) == [1, 2, 3, 4, 5]


def test_entries_are_whole_and_have_positions(place):
    log = place.open(**PLENTY)
    log.append([b"a", b"", b"b" * 1000])
    with log.begin_entry() as entry:
        record = entry.write_chunk(b"streamed")
    log.checkpoint_active(wait=True)
    settled(place, 1)
    for _ in range(2):
        assert [(entry.id, entry.read_all()) for entry in log.entries()] == [
            (1, [b"a", b"", b"b" * 1000]),
            (2, [b"streamed"]),
        ]
        for entry in log.entries():
            for chunk in entry.chunks():
                with log.read_at(chunk.position) as again:
                    assert again == bytes(chunk)
        with log.read_at(record.position) as chunk, log.pin(record.position.segment_id):
            assert chunk.read() == b"streamed"
        nowhere = wal.LogPosition(record.position.segment_id, record.position.offset + 1, 0)
        with pytest.raises(wal.PositionNotFoundError):
            log.read_at(nowhere)
        log.shutdown()
        log = place.open(**PLENTY)


def test_a_reader_goes_on_in_a_segment_that_becomes_kept(place):
    log = place.open(**PLENTY)
    for number in (1, 2, 3):
        log.append([b"%d" % number])
    with log.read_at(next(iter(log.entries())).chunks()[0].position) as chunk:
        entries = log.entries()
        assert next(entries).id == 1
        log.checkpoint_active(wait=True)
        fill(log, 4)
        settled(place, 2)
        assert [entry.id for entry in entries] == [2, 3, 4]
        assert chunk.read() == b"1"


def test_segments_of_which_little_is_used_give_back_the_rest(place):
    log = place.open(**PLENTY)
    log.append([bytes(40 << 10)])
    fill(log, 1)
    fill(log, 2)
    settled(place, 2)
    lengths = [len(place.read(name)) for name in place.names("kept-")]
    assert lengths[0] == 64 << 10
    assert lengths[1] < 200
    assert [entry.id for entry in log.entries()] == [1, 2, 3]


def test_kept_files_are_open_only_while_they_are_read(tmp_path):
    class Counting(wal.files.MemoryFileSystem):
        handles = 0

        def open(self, path, *, writable=True):
            file = super().open(path, writable=writable)
            if "kept-" not in path:
                return file
            self.handles += 1
            return Counted(self, file)

    class Counted:
        def __init__(self, files, file):
            self.files, self.file = files, file

        def __getattr__(self, name):
            return getattr(self.file, name)

        def close(self):
            if self.file is not None:
                self.files.handles -= 1
                self.file.close()
            self.file = None

    place = Place(files := Counting(), str(tmp_path))
    log = place.open(**PLENTY)
    fill(log, 1, 2, 3)
    settled(place, 3)
    log.shutdown()
    log = place.open(**PLENTY)
    assert files.handles == 0
    entries = log.entries()
    assert [next(entries).id, next(entries).id] == [1, 2]
    assert files.handles == 1
    entries.close()
    assert files.handles == 0
    assert held(log) == [1, 2, 3]
    assert files.handles == 0
    place.close()
    assert files.handles == 0


def test_who_follows_reads_nothing_twice(tmp_path):
    system = FaultyFileSystem(count=["read_at"])
    place = Place(system, "log")
    log = place.open()
    for number in range(50):
        log.append([b"%d" % number * 20])
    assert len([*log.entries(after=0)]) == 50
    entries = log.entries(after=30)
    next(entries)
    entries.close()
    seen = len(system.calls)
    log.append([b"more"])
    assert [entry.id for entry in log.entries(after=50)] == [51]
    assert next(entry.id for entry in log.entries(after=31)) == 32
    assert [entry.id for entry in log.entries(after=51)] == []
    begun = [int(str(call).split()[-1].split("+")[0]) for call in system.calls[seen:]]
    assert min(begun) > 20 * 100
    place.close()


# -- how long --------------------------------------------------------------------------------------


def test_bytes(place):
    size = 64 << 10
    log = place.open(retain_bytes=2 * size, keep_free_segments=1)
    for number in range(1, 7):
        log.append([bytes([number]) * (40 << 10)])
        log.checkpoint_active(wait=True)
        until(lambda number=number: len(place.names("kept-")) == min(number, 2))
    assert [entry.id for entry in log.entries()] == [5, 6]
    assert log.oldest_entry_id == 5
    assert [entry.id for entry in log.entries(after=4)] == [5, 6]
    with pytest.raises(wal.PositionNotFoundError):
        next(log.entries(after=3))
    until(lambda: len(place.names("free-")) == 1)
    log.shutdown()
    log = place.open(retain_bytes=1)
    until(lambda: len(place.names("kept-")) == 1)  # whole segments, at least so much
    assert log.oldest_entry_id == 6


def test_seconds(place, clock):
    log = place.open(retain_seconds=3600.0)
    fill(log, 1, 2)
    settled(place, 2)
    clock.ahead = HOUR // 2
    fill(log, 3)
    settled(place, 3)
    clock.ahead = 2 * HOUR
    fill(log, 4)  # it was begun an hour ago, by this clock
    settled(place, 0)
    assert held(log) == []
    assert log.oldest_entry_id == 5
    clock.ahead = -HOUR  # set back: they stay for longer, that is all
    fill(log, 5)
    settled(place, 1)
    assert held(log) == [5]


def test_seconds_pass_without_a_commit(place):
    log = place.open(retain_seconds=0.02)
    fill(log, 1)
    settled(place, 0)
    assert held(log) == []


def test_seconds_pass_while_the_log_is_closed(place, clock):
    log = place.open(retain_seconds=3600.0)
    fill(log, 1, 2)
    settled(place, 2)
    log.shutdown()
    clock.ahead = HOUR // 2
    log = place.open(retain_seconds=3600.0)
    assert held(log) == [1, 2]
    log.shutdown()
    clock.ahead = 3 * HOUR
    log = place.open(retain_seconds=3600.0)
    settled(place, 0)
    assert held(log) == []


def test_either_asks_for_a_segment(place, clock):
    log = place.open(retain_seconds=3600.0, retain_bytes=1)
    fill(log, 1, 2, 3)
    settled(place, 3)
    clock.ahead = 2 * HOUR
    fill(log, 4)
    settled(place, 1)
    assert held(log) == [4]


def test_opened_without_retention_the_kept_files_go(place):
    log = place.open(**PLENTY)
    fill(log, 1, 2)
    settled(place, 2)
    log.shutdown()
    log = place.open()
    assert place.names("kept-") == []
    assert held(log) == []
    assert log.oldest_entry_id == 3


def test_a_reader_holds_a_segment_beyond_its_time(place):
    log = place.open(retain_bytes=1)
    fill(log, 1)
    settled(place, 1)
    entries = log.entries()
    assert next(entries).id == 1
    fill(log, 2, 3)
    settled(place, 2)
    assert log.oldest_entry_id == 3
    assert held(log, after=2) == [3]
    with pytest.raises(wal.PositionNotFoundError):  # the second is gone
        next(entries)
    settled(place, 1)


@pytest.mark.parametrize(
    "options",
    [{"retain_bytes": -1}, {"retain_seconds": -1}, {"retain_seconds": float("inf")}],
)
def test_wrong_values(options):
    with pytest.raises(ValueError, match="retain_"):
        wal.Configuration("log", **options)


@pytest.mark.parametrize("options", [{"retain_bytes": 1.5}, {"retain_seconds": "1"}])
def test_wrong_types(options):
    with pytest.raises(TypeError, match="retain_"):
        wal.Configuration("log", **options)


# -- what goes wrong -------------------------------------------------------------------------------


def three_kept(place):
    log = place.open(**PLENTY)
    fill(log, 1, 2, 3)
    log.append([b"4"])
    settled(place, 3)
    log.shutdown()
    return place.names("kept-")


def flip_the_header(place, names):
    place.flip(names[1], 20)


def exchange(place, names):
    second, third = place.read(names[1]), place.read(names[2])
    place.write(names[1], 0, third)
    place.write(names[2], 0, second)


def remove(place, names):
    place.files.remove(place.path(names[1]))


def rename(place, names):
    place.files.rename(place.path(names[1]), place.path(names[1][:-1] + "9"))


def empty(place, names):
    file = place.files.open(place.path(names[1]))
    file.truncate(0)
    file.close()


@pytest.mark.parametrize(
    ("spoil", "left"),
    [(flip_the_header, 3), (exchange, 4), (remove, 3), (rename, 3), (empty, 3)],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_a_kept_file_that_is_wrong_is_dropped(place, spoil, left, caplog):
    """And all that is older: then the caller is told what is gone, and from where there is all."""
    spoil(place, three_kept(place))
    with caplog.at_level(logging.WARNING, "wal.retention"):
        log = place.open(manager := Recorder(), **PLENTY)
    assert [entry_id for entry_id, _ in manager.recovered] == [4]
    assert caplog.records
    assert log.oldest_entry_id == left
    assert held(log) == held(log, after=left - 1) == [*range(left, 5)]
    with pytest.raises(wal.PositionNotFoundError):
        held(log, after=0)
    assert len(place.names("kept-")) == 4 - left


def test_names_that_are_no_kept_segments_are_left_alone(place):
    three_kept(place)
    for name in ("kept-1", f"kept-{1:020d}", f"kept-{1:020d}-x", "kept-me"):
        place.files.create(place.path(name)).close()
    assert held(place.open(**PLENTY)) == [1, 2, 3, 4]
    assert len(place.names("kept-")) == 7


def test_damage_is_found_by_reading(place):
    second = three_kept(place)[1]
    place.flip(second, len(place.read(second)) - 2)
    log = place.open(**PLENTY)
    entries = log.entries()
    assert next(entries).id == 1
    with pytest.raises(wal.CorruptLogError) as caught:
        next(entries)
    assert caught.value.path == place.path(second)
    assert held(log, after=2) == [3, 4]


def test_a_kept_file_cut_short_is_damage(place):
    second = three_kept(place)[1]
    file = place.files.open(place.path(second))
    file.truncate(file.size() - 1)
    file.close()
    with pytest.raises(wal.CorruptLogError):
        held(place.open(**PLENTY))


def test_a_kept_file_taken_away_meanwhile(place):
    names = three_kept(place)
    log = place.open(**PLENTY)
    place.files.remove(place.path(names[1]))
    with pytest.raises(wal.PositionNotFoundError):
        held(log)
    assert held(log, after=2) == [3, 4]
    log.shutdown()
    log = place.open(retain_seconds=1e-9)  # nothing is left to recycle of the second
    settled(place, 0)


def test_a_kept_file_that_the_disk_does_not_read_stays(faulty, faulty_place, caplog):
    place = faulty_place
    second = three_kept(place)[1]

    def refuse(kind, path, number):
        if kind == "read_at" and path.endswith(second):
            raise OSError(errno.EIO, "unreadable")

    faulty.on_call = refuse
    log = place.open(**PLENTY)
    assert held(log) == [3, 4]
    log.shutdown()
    faulty.on_call = None
    assert held(place.open(**PLENTY)) == [1, 2, 3, 4]


@pytest.mark.parametrize("kind", ["rename", "sync_directory", "truncate"])
def test_keeping_is_tried_again(faulty, faulty_place, kind):
    place = faulty_place
    log = place.open(**PLENTY)
    log.append([b"1"])
    fault = None

    def fail_behind_the_marker(call, path, number):
        nonlocal fault
        if fault is None and call == "rename" and "wal-" in path:
            fault = True
            if kind == "rename":
                raise OSError(errno.EIO, "not now")
            faulty.fail(errno.EIO, kinds=kind)

    log.append([b"2"])
    faulty.on_call = fail_behind_the_marker
    logging.disable(logging.CRITICAL)
    try:
        log.checkpoint_active(wait=True)
    except wal.CheckpointError:
        log.checkpoint_active(wait=True)
    finally:
        logging.disable(logging.NOTSET)
    settled(place, 1)
    assert fault
    assert held(log) == [1, 2]


def test_an_abandoned_segment_ends_the_chain(place):
    class Abandoning(Recorder):
        def should_recover_segment(self, segment):
            return wal.Recovery.ABANDON

    three_kept(place)
    log = place.open(Abandoning(), **PLENTY)
    log.append([b"5"])
    until(lambda: not place.names("abandoned-"))  # the fourth is gone
    for after in (None, 0):
        with pytest.raises(wal.PositionNotFoundError):
            held(log, after)
    assert held(log, after=log.oldest_entry_id - 1) == [5]
    log.shutdown()
    log = place.open(**PLENTY)
    assert held(log) == held(log, after=log.oldest_entry_id - 1) == [5]
    assert place.names("kept-") == []


# -- beside the writer -----------------------------------------------------------------------------


def test_read_only(place):
    log = place.open(**PLENTY)
    fill(log, 1, 2, 3)
    settled(place, 3)
    beside = place.open(read_only=True)
    assert held(beside) == [1, 2, 3]
    assert beside.oldest_entry_id == 1
    assert beside.stats().segments_kept == 3
    assert held(beside, after=3) == []


def test_read_only_while_the_writer_takes_the_files(place):
    log = place.open(**PLENTY)
    fill(log, 1, 2, 3)
    settled(place, 3)
    beside = place.open(read_only=True)
    position = next(entry.chunks()[0].position for entry in beside.entries())
    log.shutdown()
    log = place.open(retain_bytes=1)
    until(lambda: len(place.names("kept-")) == 1)
    with pytest.raises(wal.PositionNotFoundError):
        held(beside)
    with pytest.raises(wal.PositionNotFoundError):
        beside.read_at(position)
    assert beside.oldest_entry_id == 3
    assert held(beside, after=2) == [3]


def test_read_only_across_the_rename(place):
    log = place.open(manager := Recorder(), **PLENTY)
    log.append([b"1"])
    log.sync()
    log.append([b"2"])
    beside = place.open(read_only=True)
    position = next(beside.entries()).chunks()[0].position
    fill(log, 3)
    settled(place, 1)
    assert held(beside)[0] == 1
    with beside.read_at(position) as chunk:
        assert chunk.read() == b"1"
    assert manager.archived


def test_read_only_before_a_segment_has_its_kept_name(faulty, faulty_place):
    """The marker has passed it, and it is being archived: it is read under its own name."""
    place = faulty_place
    log = place.open(**PLENTY)
    fill(log, 1, 2)
    settled(place, 2)
    gate = Gate(faulty, "rename", "wal-")
    log.append([b"3"])
    worker = Worker(log.checkpoint_active, True)
    gate.arrival()
    beside = place.open(read_only=True)
    assert held(beside) == [1, 2, 3]
    gate.open()
    worker.join()
    settled(place, 3)
    assert held(beside) == [1, 2, 3]


# -- crashes ---------------------------------------------------------------------------------------


def history(caller):
    caller.open()
    caller.append(100)
    caller.stream(200, 30)
    caller.checkpoint()
    caller.append(40)
    caller.roll_back(3000, 2500)
    caller.append(41)
    caller.checkpoint()
    caller.close()
    caller.open()
    caller.append(1500)
    caller.append(42)
    caller.checkpoint()
    caller.close()


def check_kept(known, system, label, **options):
    """What can be read is an unbroken part of what was written, up to its end."""
    try:
        caller = Caller(system, known.copy(), **options)
        caller.open()
        found = [(entry.id, entry.read_all()) for entry in caller.log.entries()]
        expected = [(each.id, each.chunks) for each in caller.known.written]
        assert found == expected[len(expected) - len(found) :]
        oldest = caller.log.oldest_entry_id
        assert [each for each in expected if each[0] >= oldest] == found
        assert [entry.id for entry in caller.log.entries(after=oldest - 1)] == [*dict(found)]
        caller.append(10)
        caller.checkpoint()
        caller.close()
        caller.open()
        again = [(entry.id, entry.read_all()) for entry in caller.log.entries()]
        caller.close()
        if options["retain_bytes"] > 1 << 20:
            assert len(found) == len(expected), "something was dropped"
            assert again[:-1] == found
    except BaseException as error:
        raise AssertionError(f"{label}: {error!r}") from error


@pytest.mark.parametrize("retain_bytes", [1 << 30, 1, 5000])
def test_power_lost_before_each_call(retain_bytes):
    options = {"retain_bytes": retain_bytes}
    states = 0
    for number, caller in every_crash(history, **options):
        known = caller.known
        for state in caller.system.crash_states(seed=number, limit=5):
            label = f"power lost before call {number}, {state.label}"
            check_kept(known, state, label, **options)
            states += 1
        label = f"killed before call {number}"
        check_kept(known, caller.system.killed_state(), label, **options)
    assert states > 200


def test_power_lost_while_expired_files_are_dropped():
    """An opening without retention, cut short at each call; then one with it."""
    known = Known()
    caller = Caller(FaultyFileSystem(), known, **PLENTY)
    history(caller)
    files = caller.system.killed_state()

    def drop(caller):
        caller.options["retain_bytes"] = 0
        caller.open()
        caller.close()

    fresh = lambda: FaultyFileSystem(files.copy())  # noqa: E731
    for number, cut in every_crash(drop, fresh, known, **PLENTY):
        for state in cut.system.crash_states(seed=number, limit=20):
            caller = Caller(state, known.copy(), **PLENTY).open()
            ids = [entry.id for entry in caller.log.entries()]
            assert ids == [each.id for each in caller.known.written][-len(ids) :] or not ids
            end(caller.log)


# -- the command line ------------------------------------------------------------------------------


def test_on_the_command_line(tmp_path, capsys):
    place = Place(wal.files.StandardFileSystem(), os.path.join(tmp_path, "log"))
    three_kept(place)
    names = place.names("kept-")
    place.close()
    for command in ("inspect", "verify", "dump"):
        assert main([command, place.directory]) == 0
        assert main([command, place.directory, "--json"]) == 0
    capsys.readouterr()
    assert main(["inspect", place.directory]) == 0
    said = capsys.readouterr().out
    assert all(name in said for name in names)
    assert "entries up to 4," in said
    assert main(["dump", place.directory, "--segment", str(int(names[0].split("-")[1]))]) == 0
    assert names[0] in capsys.readouterr().out
    place.flip(names[1], 20)  # nobody needs it to open the log
    assert main(["verify", place.directory]) == 0
    assert "damaged" in capsys.readouterr().out
    out = os.path.join(tmp_path, "out")
    assert main(["salvage", place.directory, out]) == 0


def test_a_file_that_a_reader_held_to_the_end_is_dropped_without_a_warning(place, caplog):
    """A gap was found behind it at the next opening, and taken for a loss."""
    with place.open(retain_bytes=100_000) as log:
        log.append([bytes(30_000)])
        log.checkpoint_active(wait=True)
        with contextlib.closing(log.entries()) as held:
            next(held)
            for _ in range(8):
                log.append([bytes(30_000)])
                log.checkpoint_active(wait=True)
            until(lambda: log.stats().segments_kept < 8)
            log.shutdown()
    kept = place.names("kept-")
    assert len(kept) > 1
    assert not kept[0].startswith("kept-00000000000000000001-")
    place.open(retain_bytes=100_000).shutdown()
    assert place.names("kept-") == kept
    assert not caplog.records
