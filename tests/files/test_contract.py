"""The contract of the file seam, kept by each of its implementations."""

from __future__ import annotations

import array
import os
import threading

import pytest

from wal.errors import LogLockedError
from wal.files.faulty import FaultyFileSystem
from wal.files.memory import MemoryFileSystem
from wal.files.seeking import SeekingFile
from wal.files.standard import StandardFileSystem


class SeekingFileSystem(StandardFileSystem):
    file_type = SeekingFile


MAKERS = {
    "standard": StandardFileSystem,
    "seeking": SeekingFileSystem,
    "memory": MemoryFileSystem,
    "faulty over memory": FaultyFileSystem,
    "faulty over standard": lambda: FaultyFileSystem(StandardFileSystem()),
}


@pytest.fixture(params=MAKERS)
def system(request):
    return MAKERS[request.param]()


@pytest.fixture
def directory(system, tmp_path):
    path = os.path.join(tmp_path, "log")
    system.make_directory(path)
    return path


@pytest.fixture
def path(directory):
    return os.path.join(directory, "data")


@pytest.fixture
def file(system, path):
    file = system.create(path)
    yield file
    file.close()


class TestReading:
    def test_an_empty_file(self, file):
        assert file.read_at(0, 10) == b""
        assert file.size() == 0

    def test_within(self, file):
        file.write_at(0, [b"0123456789"])
        assert file.read_at(3, 4) == b"3456"
        assert file.read_at(0, 0) == b""

    def test_only_the_end_makes_it_short(self, file):
        file.write_at(0, [b"0123456789"])
        assert file.read_at(8, 100) == b"89"
        assert file.read_at(10, 1) == b""
        assert file.read_at(1000, 1) == b""

    def test_a_negative_offset(self, file):
        file.write_at(0, [b"0123456789"])
        with pytest.raises(OSError, match="Err"):
            file.read_at(-1, 1)
        with pytest.raises(OSError, match="Err"):
            file.write_at(-1, [b"a"])


class TestWriting:
    def test_buffers_follow_each_other(self, file):
        file.write_at(0, [b"one ", bytearray(b"two "), memoryview(b"three")])
        assert file.read_at(0, 100) == b"one two three"

    def test_buffers_are_measured_in_bytes(self, file):
        numbers = array.array("I", range(600))
        file.write_at(0, [numbers, memoryview(numbers)])
        assert file.read_at(0, 9600) == numbers.tobytes() * 2

    def test_one_buffer_of_wide_items(self, file):
        numbers = array.array("Q", range(600))
        file.write_at(3, [numbers])
        assert file.read_at(3, 9600) == numbers.tobytes()

    @pytest.mark.parametrize("buffers", [[], [b""], [b"", b""], [memoryview(b"")]])
    def test_nothing(self, file, buffers):
        file.write_at(5, buffers)
        assert file.size() == 0

    def test_empty_buffers_between(self, file):
        file.write_at(0, [b"", b"a", b"", b"b", b""])
        assert file.read_at(0, 10) == b"ab"

    def test_more_buffers_than_one_call_takes(self, file):
        buffers = [bytes([number % 251]) * (number % 3) for number in range(5000)]
        file.write_at(7, buffers)
        assert file.read_at(7, 100_000) == b"".join(buffers)

    def test_over_what_was_there(self, file):
        file.write_at(0, [b"0123456789"])
        file.write_at(2, [b"ab", b"c"])
        assert file.read_at(0, 100) == b"01abc56789"

    def test_beyond_the_end_leaves_zeros(self, file):
        file.write_at(0, [b"ab"])
        file.write_at(5, [b"c"])
        assert file.read_at(0, 100) == b"ab\0\0\0c"

    def test_the_caller_may_change_its_buffer_afterwards(self, file):
        buffer = bytearray(b"before")
        file.write_at(0, [buffer])
        buffer[:] = b"behind"
        assert file.read_at(0, 6) == b"before"

    def test_read_only(self, system, path, file):
        file.write_at(0, [b"kept"])
        reader = system.open(path, writable=False)
        for change in (
            lambda: reader.write_at(0, [b"lost"]),
            lambda: reader.truncate(0),
            lambda: reader.allocate(100),
        ):
            with pytest.raises(OSError, match="Err"):
                change()
        assert reader.read_at(0, 10) == b"kept"
        reader.close()

    def test_all_who_have_it_open_see_it(self, system, path, file):
        other = system.open(path)
        other.write_at(0, [b"written"])
        assert file.read_at(0, 10) == b"written"
        other.close()


class TestLength:
    def test_allocated_room_is_zeros(self, file):
        file.write_at(0, [b"abc"])
        file.allocate(3_000_000)
        assert file.size() == 3_000_000
        assert file.read_at(0, 5) == b"abc\0\0"
        assert file.read_at(3, 3_000_000) == bytes(2_999_997)

    def test_a_long_file_stays_as_it_is(self, file):
        file.write_at(0, [b"abc"])
        file.allocate(2)
        file.allocate(3)
        assert file.read_at(0, 10) == b"abc"

    def test_cut(self, file):
        file.write_at(0, [b"0123456789"])
        file.truncate(4)
        assert file.read_at(0, 100) == b"0123"

    def test_grown(self, file):
        file.write_at(0, [b"ab"])
        file.truncate(4)
        assert file.read_at(0, 100) == b"ab\0\0"

    def test_cut_and_grown_again(self, file):
        file.write_at(0, [b"abcdef"])
        file.truncate(2)
        file.allocate(4)
        assert file.read_at(0, 100) == b"ab\0\0"


class TestClosing:
    def test_using_it_afterwards(self, file):
        file.close()
        file.close()
        for use in (
            lambda: file.read_at(0, 1),
            lambda: file.write_at(0, [b"a"]),
            lambda: file.write_at(0, [b"a", b"b"]),
            lambda: file.allocate(10),
            lambda: file.truncate(0),
            file.sync,
            file.size,
        ):
            with pytest.raises(ValueError, match="closed"):
                use()

    def test_others_stay_open(self, system, path, file):
        other = system.open(path)
        other.close()
        file.write_at(0, [b"a"])
        file.sync()
        assert file.read_at(0, 1) == b"a"


class TestNames:
    def test_create(self, system, directory, path, file):
        assert system.exists(path)
        assert system.list(directory) == ["data"]
        with pytest.raises(FileExistsError):
            system.create(path)

    def test_what_is_missing(self, system, directory, path):
        assert not system.exists(path)
        for use in (
            lambda: system.open(path),
            lambda: system.open(path, writable=False),
            lambda: system.create(os.path.join(path, "within")),
            lambda: system.rename(path, path + "-new"),
            lambda: system.link(path, path + "-new"),
            lambda: system.remove(path),
            lambda: system.list(path),
        ):
            with pytest.raises(FileNotFoundError):
                use()
        assert system.list(directory) == []

    def test_a_file_where_a_directory_should_be(self, system, path, file):
        for use in (
            lambda: system.create(os.path.join(path, "below")),
            lambda: system.make_directory(path),
            lambda: system.make_directory(os.path.join(path, "below")),
            lambda: system.list(path),
        ):
            with pytest.raises(OSError, match="Err"):
                use()

    def test_a_directory_where_a_file_should_be(self, system, directory):
        for use in (system.open, system.create, system.remove):
            with pytest.raises(OSError, match="Err"):
                use(directory)
        with pytest.raises(OSError, match="Err"):
            system.open(directory, writable=False)
        assert system.exists(directory)

    def test_list_is_sorted(self, system, directory):
        for name in ("c", "a", "b"):
            system.create(os.path.join(directory, name)).close()
        system.make_directory(os.path.join(directory, "aa"))
        assert system.list(directory) == ["a", "aa", "b", "c"]

    def test_rename(self, system, directory, path, file):
        file.write_at(0, [b"content"])
        file.close()
        system.rename(path, path + "-new")
        assert system.list(directory) == ["data-new"]
        renamed = system.open(path + "-new")
        assert renamed.read_at(0, 100) == b"content"
        renamed.close()

    def test_rename_replaces(self, system, directory, path, file):
        file.write_at(0, [b"new"])
        file.close()
        other = system.create(path + "-old")
        other.write_at(0, [b"old"])
        other.close()
        system.rename(path, path + "-old")
        assert system.list(directory) == ["data-old"]
        replaced = system.open(path + "-old")
        assert replaced.read_at(0, 100) == b"new"
        replaced.close()

    def test_rename_goes_on_in_an_open_file(self, system, path, file):
        system.rename(path, path + "-new")
        file.write_at(0, [b"late"])
        file.sync()
        other = system.open(path + "-new")
        assert other.read_at(0, 100) == b"late"
        other.close()

    def test_rename_stays_in_its_directory(self, system, directory, path, file):
        elsewhere = os.path.join(directory, "sub")
        system.make_directory(elsewhere)
        with pytest.raises(ValueError, match="two directories"):
            system.rename(path, os.path.join(elsewhere, "data"))
        assert system.exists(path)

    def test_remove(self, system, directory, path, file):
        file.close()
        system.remove(path)
        assert system.list(directory) == []
        with pytest.raises(FileNotFoundError):
            system.open(path)

    def test_a_removed_file_can_be_read_on(self, system, path, file):
        file.write_at(0, [b"still here"])
        system.remove(path)
        assert file.read_at(0, 100) == b"still here"
        system.create(path).close()
        assert file.read_at(0, 100) == b"still here"

    def test_link(self, system, directory, path, file):
        elsewhere = os.path.join(directory, "sub")
        system.make_directory(elsewhere)
        linked = os.path.join(elsewhere, "linked")
        file.write_at(0, [b"content"])
        system.link(path, linked)
        assert system.list(elsewhere) == ["linked"]
        other = system.open(linked)
        assert other.read_at(0, 100) == b"content"
        other.write_at(0, [b"C"])
        other.close()
        assert file.read_at(0, 100) == b"Content"

    def test_either_name_can_go(self, system, directory, path, file):
        file.write_at(0, [b"content"])
        file.close()
        system.link(path, path + "-2")
        system.remove(path)
        system.link(path + "-2", path + "-3")
        system.remove(path + "-2")
        assert system.list(directory) == ["data-3"]
        last = system.open(path + "-3")
        assert last.read_at(0, 100) == b"content"
        last.close()

    def test_a_link_replaces_nothing(self, system, directory, path, file):
        system.create(path + "-2").close()
        for taken in (path, path + "-2"):
            with pytest.raises(FileExistsError):
                system.link(path, taken)
        with pytest.raises(OSError, match="Err"):
            system.link(directory, path + "-3")
        assert system.list(directory) == ["data", "data-2"]

    def test_the_root_is_a_directory(self, system, directory):
        root = os.path.splitdrive(directory)[0] + os.sep
        assert system.exists(root)
        for use in (system.open, system.create, system.remove):
            with pytest.raises(OSError, match="Err"):
                use(root)

    def test_directories(self, system, directory):
        deep = os.path.join(directory, "a", "b", "c")
        system.make_directory(deep)
        system.make_directory(deep)
        system.make_directory(os.path.join(directory, "a") + os.sep)
        assert system.exists(deep)
        assert system.list(directory) == ["a"]
        system.sync_directory(deep)


class TestLock:
    def test_excludes_and_names_the_holder(self, system, path):
        held = system.lock(path)
        for _ in range(2):
            with pytest.raises(LogLockedError) as caught:
                system.lock(path)
            assert caught.value.pid == os.getpid()
            assert caught.value.path == path
        held.release()

    def test_can_be_taken_again(self, system, path):
        system.lock(path).release()
        assert system.exists(path)
        held = system.lock(path)
        held.release()
        held.release()
        system.lock(path).release()

    def test_a_second_release_does_not_free_the_next_holder(self, system, path):
        first = system.lock(path)
        first.release()
        second = system.lock(path)
        first.release()
        with pytest.raises(LogLockedError):
            system.lock(path)
        second.release()

    def test_waits(self, system, path):
        held = system.lock(path)
        timer = threading.Timer(0.05, held.release)
        timer.start()
        system.lock(path, timeout=10).release()
        timer.join()

    def test_can_be_released_by_another_thread(self, system, path):
        held = system.lock(path)
        thread = threading.Thread(target=held.release)
        thread.start()
        thread.join()
        system.lock(path).release()


def test_threads_read_and_write_side_by_side(file):
    """Each thread owns a stripe; no write lands in another's, no read sees a mixture."""
    rounds, width, count = 60, 700, 4
    problems = []

    def work(number):
        for turn in range(rounds):
            data = bytes([number * rounds + turn]) * width
            file.write_at(number * width, [data[:300], data[300:]])
            if file.read_at(number * width, width) != data:
                problems.append((number, turn))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not problems
    assert file.size() == width * count
