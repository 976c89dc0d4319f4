"""Faults on demand, and what a power loss may and may not leave."""

from __future__ import annotations

import contextlib
import errno
import random
import threading

import pytest

from wal.errors import LogLockedError
from wal.files.faulty import FaultyFileSystem, PowerLoss
from wal.files.memory import MemoryFileSystem
from wal.files.standard import StandardFileSystem

SECTOR = 512
A, B, C = (letter * SECTOR for letter in (b"a", b"b", b"c"))


@pytest.fixture
def system():
    """With an empty durable directory, and nothing counted yet."""
    return FaultyFileSystem(MemoryFileSystem(directories=["log"]))


@pytest.fixture
def file(system):
    """A file of one sector, name and content durable."""
    return durable_file(system, "log/data", A)


def durable_file(system, path, content):
    file = system.create(path)
    file.write_at(0, [content])
    file.sync()
    system.sync_directory("log")
    return file


def states(system, **options):
    return [contents(state) for state in system.crash_states(**options)]


def contents(state):
    """What is in the directory, or None if that is gone."""
    if not state.exists("log"):
        return None
    return {
        path.replace("\\", "/").removeprefix("/log/"): data
        for path, data in state.contents().items()
    }


def possible(system, name="data"):
    """All that one file may hold; None stands for its absence."""
    return {state.get(name) for state in states(system)}


def kinds(system):
    return [call.kind for call in system.calls]


class TestCalls:
    def test_changes_are_numbered(self, system):
        file = system.create("log/data")
        file.write_at(0, [b"ab", b"c"])
        file.allocate(100)
        file.read_at(0, 1)
        file.truncate(50)
        file.sync()
        file.close()
        system.rename("log/data", "log/new")
        system.sync_directory("log")
        system.link("log/new", "log/other")
        system.list("log")
        system.remove("log/new")
        system.lock("log/LOCK").release()
        assert [str(call) for call in system.calls] == [
            "call 1 (create log/data)",
            "call 2 (write_at log/data 0+3)",
            "call 3 (allocate log/data 100)",
            "call 4 (truncate log/data 50)",
            "call 5 (sync log/data)",
            "call 6 (rename log/data to log/new)",
            "call 7 (sync_directory log)",
            "call 8 (link log/new to log/other)",
            "call 9 (remove log/new)",
            "call 10 (lock log/LOCK)",
        ]

    def test_which_count_can_be_chosen(self):
        system = FaultyFileSystem(MemoryFileSystem({"data": b"abc"}), count={"read_at", "sync"})
        file = system.open("data")
        file.read_at(0, 1)
        file.write_at(0, [b"x"])
        file.sync()
        assert [(call.number, call.kind) for call in system.calls] == [(1, "read_at"), (2, "sync")]

    def test_an_unknown_kind_is_refused(self, system):
        with pytest.raises(ValueError, match="fsync"):
            FaultyFileSystem(count="fsync")
        with pytest.raises(ValueError, match="fsync"):
            system.fail(kinds=["sync", "fsync"])

    def test_a_new_directory_is_several(self, system):
        system.make_directory("log/a/b")
        assert [(call.kind, call.path) for call in system.calls] == [
            ("make_directory", "log/a"),
            ("sync_directory", "log"),
            ("make_directory", "log/a/b"),
            ("sync_directory", "log/a"),
        ]

    def test_a_renamed_file_goes_by_its_new_name(self, system, file):
        system.rename("log/data", "log/new")
        file.sync()
        assert system.calls[-1].path == "log/new"

    def test_the_hook_sees_every_call_before_it_acts(self, system):
        seen = []
        system.on_call = lambda *call: seen.append((*call, system.inner.list("log")))
        system.create("log/data").size()
        assert seen == [("create", "log/data", 1, []), ("size", "log/data", 0, ["data"])]

    def test_the_hook_can_hold_a_thread(self, system, file):
        """While one thread is held before its sync, another writes."""
        arrived, proceed = threading.Event(), threading.Event()

        def hold(kind, path, number):
            if kind == "sync":
                arrived.set()
                assert proceed.wait(10)

        system.on_call = hold
        thread = threading.Thread(target=file.sync)
        thread.start()
        assert arrived.wait(10)
        file.write_at(0, [B])
        assert possible(system) == {A, B}
        proceed.set()
        thread.join()
        assert possible(system) == {B}

    def test_the_hook_can_raise(self, system, file):
        def interrupt(kind, path, number):
            raise KeyboardInterrupt

        system.on_call = interrupt
        with pytest.raises(KeyboardInterrupt):
            file.write_at(0, [B])
        assert system.killed_state().contents() == {**system.inner.contents()}
        assert possible(system) == {A}


class TestFaults:
    def test_the_next_call(self, system, file):
        fault = system.fail(errno.EDQUOT)
        with pytest.raises(OSError, match="log/data") as caught:
            file.write_at(0, [B])
        assert caught.value.errno == errno.EDQUOT
        assert file.read_at(0, SECTOR) == A
        file.write_at(0, [B])
        assert fault.hits == 1

    def test_the_nth(self, system, file):
        system.fail(nth=3)
        file.write_at(0, [B])
        file.read_at(0, 1)
        file.write_at(0, [B])
        with pytest.raises(OSError, match="Err"):
            file.write_at(0, [B])

    def test_of_a_kind(self, system, file):
        system.fail(nth=2, kinds="sync")
        file.sync()
        file.write_at(0, [B])
        with pytest.raises(OSError, match="Err"):
            file.sync()
        file.sync()

    def test_of_a_kind_that_does_not_count(self, system, file):
        system.fail(kinds={"read_at", "open"})
        with pytest.raises(OSError, match="Err"):
            file.read_at(0, 1)
        assert "read_at" not in kinds(system)

    @pytest.mark.parametrize("path", ["wal-*", lambda path: "wal" in path])
    def test_of_a_path(self, system, file, path):
        fault = system.fail(path=path)
        file.sync()
        with pytest.raises(OSError, match="Err"):
            system.create("log/wal-1")
        assert fault.hits == 1

    def test_from_the_nth_on(self, system, file):
        fault = system.fail(nth=2, forever=True)
        file.sync()
        for _ in range(3):
            with pytest.raises(OSError, match="Err"):
                file.sync()
        assert fault.hits == 3
        system.heal()
        file.sync()

    def test_a_short_write(self, system, file):
        system.fail(errno.ENOSPC, written=700)
        with pytest.raises(OSError, match="Err"):
            file.write_at(SECTOR, [B, C])
        assert file.read_at(0, 9999) == A + B + C[:188]
        file.sync()
        assert possible(system) == {A + B + C[:188]}

    def test_a_partial_allocation(self, system, file):
        system.fail(errno.ENOSPC, written=700)
        with pytest.raises(OSError, match="Err"):
            file.allocate(10_000)
        assert file.size() == SECTOR + 700

    def test_after_the_work_is_done(self, system, file):
        system.fail(kinds="rename", after=True)
        with pytest.raises(OSError, match="Err"):
            system.rename("log/data", "log/new")
        assert system.list("log") == ["new"]

    def test_a_sync_that_works_but_says_otherwise(self, system, file):
        file.write_at(0, [B])
        system.fail(kinds="sync", after=True)
        with pytest.raises(OSError, match="Err"):
            file.sync()
        assert possible(system) == {B}

    def test_a_lock_that_fails_is_not_held(self, system):
        system.fail(kinds="lock", after=True)
        with pytest.raises(OSError, match="Err"):
            system.lock("log/LOCK")
        held = system.lock("log/LOCK")
        with pytest.raises(LogLockedError):
            system.lock("log/LOCK")
        held.release()

    def test_each_fault_counts_for_itself(self, system, file):
        system.fail(errno.EIO, nth=1)
        system.fail(errno.ENOSPC, nth=2)
        for code in (errno.EIO, errno.ENOSPC):
            with pytest.raises(OSError, match="Err") as caught:
                file.sync()
            assert caught.value.errno == code

    def test_over_the_operating_system(self, tmp_path):
        system = FaultyFileSystem(StandardFileSystem())
        path = str(tmp_path / "data")
        file = system.create(path)
        system.fail(errno.ENOSPC, written=2)
        with pytest.raises(OSError, match="Err"):
            file.write_at(0, [b"abc"])
        assert (tmp_path / "data").read_bytes() == b"ab"
        file.close()


class TestPowerLoss:
    def test_no_handler_of_errors_takes_it(self, system, file):
        assert not issubclass(PowerLoss, Exception)
        system.stop_at(len(system.calls) + 1)
        with pytest.raises(PowerLoss, match="sync log/data"):
            file.sync()

    def test_nothing_works_afterwards(self, system, file):
        system.stop_at(len(system.calls) + 2)
        file.write_at(0, [B])
        assert not system.lost_power
        for use in (
            lambda: file.write_at(0, [C]),
            lambda: file.read_at(0, 1),
            lambda: system.open("log/data"),
            lambda: system.list("log"),
            file.sync,
            file.size,
        ):
            with pytest.raises(PowerLoss):
                use()
        assert system.lost_power
        assert possible(system) == {A, B}

    def test_but_the_code_can_unwind(self, system, file):
        held = system.lock("log/LOCK")
        system.stop_at(1)
        with pytest.raises(PowerLoss):
            file.sync()
        file.close()
        held.release()

    def test_a_thread_that_was_held_meanwhile(self, system, file):
        """Its call began before the power went, and must not act after it."""
        arrived, proceed = threading.Event(), threading.Event()
        outcome = []

        def hold(kind, path, number):
            if kind == "write_at":
                arrived.set()
                assert proceed.wait(10)

        def write():
            try:
                file.write_at(0, [B])
            except PowerLoss:
                outcome.append("lost")

        system.on_call = hold
        thread = threading.Thread(target=write)
        thread.start()
        assert arrived.wait(10)
        system.stop_at(1)
        with pytest.raises(PowerLoss):
            file.sync()
        proceed.set()
        thread.join()
        assert outcome == ["lost"]
        assert possible(system) == {A}


class TestContent:
    def test_what_was_there_at_first_is_durable(self):
        system = FaultyFileSystem(MemoryFileSystem({"log/data": A}))
        assert states(system) == [{"data": A}]
        system.open("log/data").write_at(0, [B])
        assert possible(system) == {A, B}

    def test_synced_is_never_lost(self, system, file):
        assert states(system) == [{"data": A}]
        file.write_at(0, [B])
        file.sync()
        assert states(system) == [{"data": B}]

    def test_unsynced_may_be_lost(self, system, file):
        file.write_at(0, [B])
        assert possible(system) == {A, B}

    def test_nothing_and_everything_come_first(self, system, file):
        file.write_at(0, [B])
        system.create("log/other")
        assert states(system, limit=2) == [{"data": A}, {"data": B, "other": b""}]

    def test_a_write_is_torn_between_sectors_only(self, system, file):
        file.allocate(3 * SECTOR)
        file.sync()
        file.write_at(0, [B + B + B])
        old = [A, bytes(SECTOR), bytes(SECTOR)]
        found = possible(system)
        assert len(found) == 8
        for data in found:
            for number in range(3):
                assert data[number * SECTOR :][:SECTOR] in (old[number], B)

    def test_writes_reach_the_disk_in_any_order(self, system, file):
        file.allocate(2 * SECTOR)
        file.sync()
        file.write_at(0, [B])
        file.write_at(SECTOR, [C])
        assert possible(system) == {
            A + bytes(SECTOR),
            B + bytes(SECTOR),
            A + C,
            B + C,
        }

    def test_any_version_of_a_sector_may_be_there(self, system, file):
        file.write_at(0, [B])
        file.write_at(0, [C])
        assert possible(system) == {A, B, C}

    def test_a_sector_is_written_whole(self, system, file):
        """Two small writes in one sector: never the second without the first."""
        file.write_at(0, [b"x"])
        file.write_at(1, [b"y"])
        assert possible(system) == {A, b"x" + A[1:], b"xy" + A[2:]}

    def test_writes_across_sectors_keep_their_neighbours(self, system, file):
        file.write_at(0, [A + B + C])
        file.sync()
        file.write_at(SECTOR - 1, [b"x" * (SECTOR + 2)])
        whole = A[1:] + b"x" * (SECTOR + 2) + C[1:]
        assert file.read_at(0, 9999) == whole
        assert possible(system) >= {A + B + C, whole, A + b"x" * SECTOR + C}

    def test_growth_may_be_there_without_the_data_or_not_at_all(self, system, file):
        file.write_at(SECTOR, [B])
        assert possible(system) == {A, A + B, A + bytes(SECTOR)}

    def test_allocated_room_may_be_missing(self, system, file):
        file.allocate(1000)
        assert possible(system) == {A, A + bytes(488)}
        file.sync()
        assert possible(system) == {A + bytes(488)}

    def test_a_cut_may_be_undone(self, system, file):
        file.truncate(100)
        assert A in possible(system)
        assert A[:100] in possible(system)
        file.sync()
        assert possible(system) == {A[:100]}

    def test_what_was_cut_off_does_not_come_back_after_a_sync(self, system, file):
        file.truncate(100)
        file.allocate(SECTOR)
        assert possible(system) >= {A, A[:100] + bytes(412)}
        file.sync()
        assert possible(system) == {A[:100] + bytes(412)}

    def test_a_sync_covers_only_its_file(self, system, file):
        other = durable_file(system, "log/other", A)
        file.write_at(0, [B])
        other.write_at(0, [C])
        other.sync()
        found = states(system)
        assert {state["other"] for state in found} == {C}
        assert {state["data"] for state in found} == {A, B}

    def test_every_handle_writes_to_the_same_file(self, system, file):
        system.open("log/data").write_at(0, [B])
        file.sync()
        assert possible(system) == {B}

    def test_a_sync_covers_only_what_was_there_when_it_began(self, file):
        """A write in the midst of a sync is not covered by it."""

        class Slow(MemoryFileSystem):
            during = staticmethod(lambda: None)

            def open(self, path, *, writable=True):
                file = super().open(path, writable=writable)
                slow = SlowFile(file._node, path, writable)
                slow.system = self
                return slow

        class SlowFile(type(MemoryFileSystem({"x": b""}).open("x"))):
            __slots__ = ("system",)

            def sync(self):
                self.system.during()

        inner = Slow({"log/data": A + A})
        system = FaultyFileSystem(inner)
        file = system.open("log/data")
        file.write_at(0, [B])
        inner.during = lambda: file.write_at(SECTOR, [C])
        file.sync()
        assert possible(system) == {B + A, B + C}


class TestFailedSync:
    @pytest.fixture
    def failed(self, system, file):
        """A second sector, readable, whose sync failed."""
        file.write_at(SECTOR, [B])
        system.fail(kinds="sync")
        with pytest.raises(OSError, match="Err"):
            file.sync()
        return file

    def test_the_data_can_be_read(self, failed):
        assert failed.read_at(0, 9999) == A + B

    def test_a_later_sync_does_not_help(self, system, failed):
        failed.sync()
        assert possible(system) == {A, A + bytes(SECTOR), A + B}

    def test_it_covers_what_came_later(self, system, failed):
        failed.write_at(0, [C])
        failed.sync()
        assert possible(system) == {C, C + bytes(SECTOR), C + B}

    def test_writing_it_again_does(self, system, failed):
        failed.write_at(SECTOR, [B])
        failed.sync()
        assert possible(system) == {A + B}

    def test_old_versions_do_not_come_back(self, system, failed):
        failed.write_at(SECTOR, [C])
        failed.sync()
        assert possible(system) == {A + C}

    def test_the_next_process_does_not_know(self, system, failed):
        """It reads the data, and syncs, and a power loss takes them all the same."""
        found = system.killed()
        reopened = found.open("log/data")
        assert reopened.read_at(0, 9999) == A + B
        reopened.sync()
        assert A in possible(found)
        reopened.write_at(SECTOR, [reopened.read_at(SECTOR, SECTOR)])
        reopened.sync()
        assert possible(found) == {A + B}
        assert A in possible(system)

    def test_of_a_directory(self, system):
        system.create("log/data")
        system.fail(kinds="sync_directory")
        with pytest.raises(OSError, match="Err"):
            system.sync_directory("log")
        system.sync_directory("log")
        assert possible(system) == {None, b""}

    def test_of_a_directory_with_changes_that_rest_on_it(self, system):
        system.create("log/data")
        system.fail(kinds="sync_directory")
        with pytest.raises(OSError, match="Err"):
            system.sync_directory("log")
        system.create("log/other")
        system.rename("log/data", "log/new")
        system.sync_directory("log")
        assert states(system) == [{"new": b"", "other": b""}]


class TestNames:
    def test_a_created_file_may_be_missing_although_synced(self, system):
        file = system.create("log/data")
        file.write_at(0, [A])
        file.sync()
        assert possible(system) == {None, A}
        system.sync_directory("log")
        assert possible(system) == {A}

    def test_a_name_says_nothing_of_the_content(self, system):
        file = system.create("log/data")
        system.sync_directory("log")
        file.write_at(0, [A])
        assert possible(system) == {b"", A, bytes(SECTOR)}

    def test_a_renaming_is_done_or_not(self, system, file):
        system.rename("log/data", "log/new")
        assert states(system) == [{"data": A}, {"new": A}]
        system.sync_directory("log")
        assert states(system) == [{"new": A}]

    def test_a_replaced_file_is_the_old_or_the_new_one(self, system, file):
        durable_file(system, "log/new", B)
        system.rename("log/data", "log/new")
        assert states(system) == [{"data": A, "new": B}, {"new": A}]

    def test_a_removed_file_may_come_back(self, system, file):
        system.remove("log/data")
        assert possible(system) == {None, A}
        system.sync_directory("log")
        assert possible(system) == {None}

    def test_with_what_was_written_to_it_or_not(self, system, file):
        file.write_at(0, [B])
        system.remove("log/data")
        file.write_at(0, [C])
        assert possible(system) == {None, A, B, C}

    def test_a_link_is_there_or_not(self, system, file):
        system.link("log/data", "log/link")
        assert states(system) == [{"data": A}, {"data": A, "link": A}]
        system.sync_directory("log")
        file.write_at(0, [B])
        assert states(system) == unordered({"data": A, "link": A}, {"data": B, "link": B})

    def test_a_link_outlives_the_first_name(self, system, file):
        system.make_directory("log/sub")
        system.link("log/data", "log/sub/link")
        system.remove("log/data")
        assert states(system) == unordered(
            {}, {"data": A}, {"sub/link": A}, {"data": A, "sub/link": A}
        )
        system.sync_directory("log/sub")
        assert states(system) == unordered({"sub/link": A}, {"data": A, "sub/link": A})

    def test_changes_are_undone_one_by_one(self, system, file):
        durable_file(system, "log/other", B)
        system.rename("log/data", "log/1")
        system.rename("log/other", "log/2")
        assert states(system) == unordered(
            {"data": A, "other": B},
            {"1": A, "2": B},
            {"data": A, "2": B},
            {"1": A, "other": B},
        )

    def test_a_change_that_rests_on_another_goes_with_it(self, system, file):
        """create, rename: the new name without the creation is impossible."""
        system.rename("log/data", "log/1")
        system.rename("log/1", "log/2")
        assert states(system) == unordered({"data": A}, {"2": A}, {"1": A})

    def test_a_name_used_again(self, system, file):
        system.remove("log/data")
        other = system.create("log/data")
        other.write_at(0, [B])
        other.sync()
        assert possible(system) == {A, B, None}

    def test_a_directory_takes_all_that_is_in_it(self, system, file):
        system.stop_at(len(system.calls) + 2)
        with pytest.raises(PowerLoss, match="sync_directory log"):
            system.make_directory("log/sub")
        assert {state.exists("log/sub") for state in system.crash_states()} == {False, True}

    def test_a_directory_that_was_made_is_durable(self, system):
        system.make_directory("log/sub")
        file = system.create("log/sub/data")
        assert {state.exists("log/sub") for state in system.crash_states()} == {True}
        file.close()

    def test_synced_under_a_lost_directory(self, system):
        system.fail(kinds="sync_directory", path="log")
        with pytest.raises(OSError, match="Err"):
            system.make_directory("log/sub")
        file = system.create("log/sub/data")
        file.write_at(0, [A])
        file.sync()
        system.sync_directory("log/sub")
        assert states(system) == [{}, {"sub/data": A}]

    def test_names_of_before_the_wrapper(self):
        system = FaultyFileSystem(MemoryFileSystem({"log/1": A, "log/2": B}))
        system.rename("log/1", "log/2")
        assert states(system) == [{"1": A, "2": B}, {"2": A}]


def unordered(*expected):
    """Equal to a list of the same items, in any order."""

    class Unordered:
        def __eq__(self, found):
            return len(found) == len(expected) and all(each in found for each in expected)

        __hash__ = None

    return Unordered()


class TestStates:
    def fill(self, system):
        for number in range(4):
            file = system.create(f"log/{number}")
            for turn in range(6):
                file.write_at(turn * 700, [bytes([number * 16 + turn + 1]) * 700])
        system.rename("log/0", "log/4")

    def test_the_same_seed_gives_the_same(self, system):
        self.fill(system)
        first = [(state.label, contents(state)) for state in system.crash_states(seed=7)]
        again = [(state.label, contents(state)) for state in system.crash_states(seed=7)]
        assert first == again
        assert len(first) == 100
        assert states(system, seed=8) != states(system, seed=7)

    def test_no_two_are_alike(self, system):
        self.fill(system)
        found = states(system, limit=300)
        assert len(found) == 300
        assert all(found.count(state) == 1 for state in found)

    def test_each_single_loss_comes_up(self, system):
        """Any sector alone, any length alone, the renaming alone."""
        self.fill(system)
        found = states(system, limit=1000)
        everything = found[1]
        assert {**everything, "0": everything["4"]}.items() - {("4", everything["4"])} in [
            state.items() for state in found
        ]
        for name, data in everything.items():
            tears = [
                each[name] for each in found if name in each and {**each, name: data} == everything
            ]
            for at in range(0, len(data), SECTOR):
                assert any(
                    torn[:at] == data[:at]
                    and torn[at : at + SECTOR] != data[at : at + SECTOR]
                    and torn[at + SECTOR :] == data[at + SECTOR :]
                    for torn in tears
                )
            assert data[:3500] in tears

    def test_they_are_of_the_moment(self, system, file):
        file.write_at(0, [B])
        found = system.crash_states()
        file.sync()
        assert {state["data"] for state in map(contents, found)} == {A, B}

    def test_they_are_file_systems(self, system, file):
        file.write_at(0, [B])
        first, second = system.crash_states()
        first.open("log/data").write_at(0, [C])
        assert second.open("log/data").read_at(0, SECTOR) == B
        assert file.read_at(0, SECTOR) == B
        assert repr(second) == "<CrashState: everything is there>"

    def test_a_killed_process_leaves_all_it_wrote(self, system, file):
        file.write_at(0, [B])
        system.rename("log/data", "log/new")
        system.lock("log/LOCK")
        state = system.killed_state()
        assert state.list("log") == ["LOCK", "new"]
        assert state.open("log/new").read_at(0, SECTOR) == B
        state.lock("log/LOCK").release()

    def test_what_it_did_not_sync_is_still_not_durable(self, system, file):
        file.write_at(0, [B])
        system.rename("log/data", "log/new")
        found = system.killed()
        assert found.calls == []
        assert states(found) == states(system)
        assert system.calls[-2].kind == "write_at"
        assert any("write_at log/data 0+512" in state.label for state in found.crash_states())

    def test_over_the_operating_system(self, tmp_path):
        (tmp_path / "kept").write_bytes(A)
        (tmp_path / "sub").mkdir()
        (tmp_path / "sub" / "below").write_bytes(B)
        system = FaultyFileSystem(StandardFileSystem())
        path = str(tmp_path / "data")
        file = system.create(path)
        file.write_at(0, [C])
        file.close()
        found = list(system.crash_states())
        assert {state.exists(path) for state in found} == {False, True}
        for state in (*found, system.killed_state()):
            assert state.open(str(tmp_path / "kept")).read_at(0, SECTOR) == A
            assert state.open(str(tmp_path / "sub" / "below")).read_at(0, SECTOR) == B


def test_a_careful_replacement_survives_every_crash():
    """Write, sync, rename, sync the directory: at every call the old content or the new one."""

    def replace(system):
        file = system.create("log/tmp")
        file.write_at(0, [B * 3])
        file.sync()
        file.close()
        system.rename("log/tmp", "log/data")
        system.sync_directory("log")

    def run(number):
        system = FaultyFileSystem(MemoryFileSystem({"log/data": A}))
        system.stop_at(number)
        with contextlib.suppress(PowerLoss):
            replace(system)
        return system

    number = 1
    while (system := run(number)).lost_power:
        assert possible(system) <= {A, B * 3}
        number += 1
    assert number == 6
    assert possible(system) == {B * 3}


def test_a_careless_one_is_found_out():
    system = FaultyFileSystem(MemoryFileSystem({"log/data": A}))
    system.create("log/tmp").write_at(0, [B])
    system.rename("log/tmp", "log/data")
    assert possible(system) == {A, B, b"", bytes(SECTOR)}


@pytest.mark.parametrize("seed", range(100))
def test_the_model_agrees_with_the_files(seed):
    """After any history: everything is what can be read; and synced, it is all that is possible.

    Syncs fail now and then; what they left clean is written again before the last ones.
    """
    rng = random.Random(seed)
    system = FaultyFileSystem(MemoryFileSystem({"log/0": A + B, "log/1": C}))
    system.fail(kinds={"sync", "sync_directory"}, nth=rng.randrange(1, 9))
    for _ in range(40):
        with contextlib.suppress(FileNotFoundError, FileExistsError, OSError):
            change_something(system, rng)
        if rng.random() < 0.2:
            # Second, unless what is durable is the same.
            found = [state.contents() for state in system.crash_states(limit=2)]
            assert system.inner.contents() in found
    system.heal()
    for name in system.list("log"):
        with_all_written_again(system, f"log/{name}").sync()
        system.rename(f"log/{name}", f"log/{name}")
    found = [state.contents() for state in system.crash_states()]
    assert system.inner.contents() in found
    system.sync_directory("log")
    for path, data in system.inner.contents().items():
        assert {state.contents().get(path) for state in system.crash_states()} == {data}


def change_something(system, rng):
    path = f"log/{rng.randrange(4)}"
    match rng.choice(
        ["write", "write", "cut", "grow", "sync", "create", "rename", "remove", "names"]
    ):
        case "write":
            data = rng.randbytes(rng.randrange(1500))
            system.open(path).write_at(rng.randrange(2500), [data])
        case "cut":
            system.open(path).truncate(rng.randrange(2500))
        case "grow":
            system.open(path).allocate(rng.randrange(4000))
        case "sync":
            system.open(path).sync()
        case "create":
            system.create(path)
        case "rename":
            system.rename(path, f"log/{rng.randrange(4)}")
        case "remove":
            system.remove(path)
        case "names":
            system.sync_directory("log")


def with_all_written_again(system, path):
    file = system.open(path)
    data = file.read_at(0, file.size())
    # Also an empty or unchanged length, which a failed sync may have left clean.
    file.truncate(len(data) + 1)
    file.truncate(len(data))
    file.write_at(0, [data])
    return file
