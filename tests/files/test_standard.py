"""What only the operating system's files do."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
import threading

import pytest

from wal.errors import LogLockedError
from wal.files import descriptor, lock_file
from wal.files.standard import StandardFileSystem

posix = pytest.mark.skipif(sys.platform == "win32", reason="has other calls")

if sys.platform != "win32":
    from wal.files import positioned


@pytest.fixture
def system():
    return StandardFileSystem()


@pytest.fixture
def path(tmp_path):
    return os.path.join(tmp_path, "data")


@pytest.fixture
def file(system, path):
    file = system.create(path)
    yield file
    file.close()


@posix
class TestWrites:
    """Calls are counted and cut short underneath."""

    @pytest.fixture
    def calls(self, monkeypatch):
        """The number of buffers in each pwritev; 0 stands for a pwrite."""
        calls = []
        pwrite, pwritev = positioned.pwrite, positioned.pwritev

        def noted(descriptor, buffers, offset):
            calls.append(len(buffers))
            return pwritev(descriptor, buffers, offset)

        def noted_one(descriptor, buffer, offset):
            calls.append(0)
            return pwrite(descriptor, buffer, offset)

        monkeypatch.setattr(positioned, "pwritev", noted)
        monkeypatch.setattr(positioned, "pwrite", noted_one)
        return calls

    def test_one_call_for_many_buffers(self, file, calls):
        file.write_at(0, [b"a"] * 1024)
        assert calls == [1024]

    def test_a_single_buffer_needs_no_vector(self, file, calls):
        file.write_at(0, [b"a"])
        assert calls == [0]

    def test_no_call_takes_more_than_iov_max(self, file, calls):
        file.write_at(0, [b"a", b""] * 2500)
        assert calls == [1024, 1024, 452]
        assert file.read_at(0, 9999) == b"a" * 2500

    def test_nothing_needs_no_call(self, file, calls):
        file.write_at(0, [b"", b""])
        file.write_at(0, [])
        assert calls == []

    def test_no_call_takes_too_many_bytes(self, file, calls, monkeypatch):
        monkeypatch.setattr(positioned, "MOST_BYTES", 10)
        file.write_at(0, [b"abcdefg", b"hijklmn", b"opq"])
        assert calls == [2, 2]
        assert file.read_at(0, 99) == b"abcdefghijklmnopq"

    @pytest.mark.parametrize("most", [1, 2, 3, 7, 100])
    def test_short_writes_are_continued(self, file, monkeypatch, most):
        pwrite = positioned.pwrite

        def short(descriptor, buffers, offset):
            return pwrite(descriptor, b"".join(buffers)[:most], offset)

        monkeypatch.setattr(positioned, "pwritev", short)
        monkeypatch.setattr(positioned, "pwrite", lambda fd, data, at: short(fd, [data], at))
        file.write_at(3, [b"abcdefghijkl"])
        file.write_at(20, [b"mno", b"", b"pqrst", bytearray(b"uvwxyz")])
        assert file.read_at(0, 99) == b"\0\0\0abcdefghijkl\0\0\0\0\0mnopqrstuvwxyz"

    def test_no_progress_is_an_error(self, file, monkeypatch):
        monkeypatch.setattr(positioned, "pwritev", lambda *_: 0)
        with pytest.raises(OSError, match="Err") as caught:
            file.write_at(0, [b"ab", b"cd"])
        assert caught.value.errno == errno.EIO

    def test_short_reads_are_continued(self, file, monkeypatch):
        file.write_at(0, [b"0123456789"])
        pread = positioned.pread
        monkeypatch.setattr(positioned, "pread", lambda fd, n, at: pread(fd, min(n, 3), at))
        assert file.read_at(1, 8) == b"12345678"
        assert file.read_at(5, 100) == b"56789"

    def test_without_pwritev(self, file, monkeypatch):
        monkeypatch.setattr(positioned, "pwritev", positioned._pwrite_joined)
        file.write_at(0, [b"ab", b"cd"])
        assert file.read_at(0, 10) == b"abcd"


class TestAllocate:
    def test_really_takes_up_room(self, file, path):
        file.allocate(1 << 20)
        file.sync()
        if hasattr(os.stat_result, "st_blocks"):
            assert os.stat(path).st_blocks * 512 >= 1 << 20

    def test_in_blocks_of_at_most_a_mebibyte(self, file, monkeypatch):
        written = []
        monkeypatch.setattr(
            type(file), "write_at", lambda self, at, data: written.append((at, len(data[0])))
        )
        file.allocate(2_500_000)
        assert written == [(0, 1 << 20), (1 << 20, 1 << 20), (2 << 20, 2_500_000 - (2 << 20))]

    def test_no_room_leaves_the_former_length(self, file, monkeypatch):
        file.write_at(0, [b"abc"])
        write_at = type(file).write_at

        def full(self, offset, buffers):
            if offset > 1 << 20:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            write_at(self, offset, buffers)

        monkeypatch.setattr(type(file), "write_at", full)
        with pytest.raises(OSError, match="Err") as caught:
            file.allocate(3 << 20)
        assert caught.value.errno == errno.ENOSPC
        assert file.read_at(0, 100) == b"abc"

    def test_the_error_stays_the_first_one(self, file, monkeypatch):
        def full(self, offset, buffers):
            raise OSError(errno.ENOSPC, "full")

        def broken(self, length):
            raise OSError(errno.EIO, "broken too")

        monkeypatch.setattr(type(file), "write_at", full)
        monkeypatch.setattr(type(file), "truncate", broken)
        with pytest.raises(OSError, match="full"):
            file.allocate(100)


class TestDescriptors:
    def test_closed_at_once_when_idle(self, file):
        number = int(file._descriptor)
        file.close()
        with pytest.raises(OSError, match="Err"):
            os.fstat(number)

    def test_closed_when_forgotten(self, system, path):
        file = system.create(path)
        number = int(file._descriptor)
        del file
        with pytest.raises(OSError, match="Err"):
            os.fstat(number)

    def test_not_reused_while_a_call_is_in_progress(self, system, path, monkeypatch):
        """One thread syncs; another closes the file and opens the next, which gets a new number."""
        entered, proceed = threading.Event(), threading.Event()
        synced = []

        def sync(descriptor):
            entered.set()
            assert proceed.wait(10)
            synced.append(os.fstat(descriptor).st_ino)

        monkeypatch.setattr(descriptor, "sync_data", sync)
        file = system.create(path)
        inode = os.stat(path).st_ino
        thread = threading.Thread(target=file.sync)
        thread.start()
        assert entered.wait(10)
        file.close()
        other = system.create(path + "-other")
        proceed.set()
        thread.join()
        other.close()
        assert synced == [inode]


@posix
class TestModes:
    def test_only_the_owner_may(self, system, tmp_path):
        umask = os.umask(0)
        try:
            deep = os.path.join(tmp_path, "a", "b")
            system.make_directory(deep)
            system.create(os.path.join(deep, "data")).close()
            system.lock(os.path.join(deep, "LOCK")).release()
        finally:
            os.umask(umask)
        assert _mode(os.path.join(tmp_path, "a")) == 0o700
        assert _mode(deep) == 0o700
        assert _mode(os.path.join(deep, "data")) == 0o600
        assert _mode(os.path.join(deep, "LOCK")) == 0o600


def _mode(path):
    return stat.S_IMODE(os.stat(path).st_mode)


@posix
class TestDirectories:
    @pytest.fixture
    def synced(self, system, monkeypatch):
        synced = []
        sync_directory = StandardFileSystem.sync_directory

        def noted(self, path):
            synced.append(path)
            sync_directory(self, path)

        monkeypatch.setattr(StandardFileSystem, "sync_directory", noted)
        return synced

    def test_each_new_one_is_synced_into_its_parent(self, system, tmp_path, synced):
        top = str(tmp_path)
        system.make_directory(os.path.join(top, "a", "b"))
        assert synced == [top, os.path.join(top, "a")]

    def test_so_is_one_that_a_crash_may_have_left(self, system, tmp_path, synced):
        os.mkdir(tmp_path / "a")
        system.make_directory(os.path.join(tmp_path, "a") + os.sep)
        assert synced == [str(tmp_path)]

    def test_a_relative_one(self, system, tmp_path, synced, monkeypatch):
        monkeypatch.chdir(tmp_path)
        system.make_directory("a")
        assert synced == [os.curdir]

    def test_a_parent_that_may_not_be_opened(self, system, tmp_path, monkeypatch):
        def denied(self, path):
            raise PermissionError(errno.EACCES, "denied", path)

        os.mkdir(tmp_path / "a")
        monkeypatch.setattr(StandardFileSystem, "sync_directory", denied)
        system.make_directory(str(tmp_path / "a"))
        with pytest.raises(PermissionError):
            system.make_directory(str(tmp_path / "b"))

    @pytest.mark.parametrize(("code", "raised"), [(errno.EINVAL, False), (errno.EIO, True)])
    def test_what_a_sync_may_answer(self, system, tmp_path, monkeypatch, code, raised):
        def answer(descriptor):
            raise OSError(code, os.strerror(code))

        monkeypatch.setattr("wal.files.standard.sync_names", answer)
        if raised:
            with pytest.raises(OSError, match="Err"):
                system.sync_directory(str(tmp_path))
        else:
            system.sync_directory(str(tmp_path))


HOLDER = """
import os, sys
from wal.files.standard import StandardFileSystem
lock = StandardFileSystem().lock(sys.argv[1])
print(os.getpid(), flush=True)
sys.stdin.readline()
"""


class TestLockBetweenProcesses:
    @pytest.fixture
    def holder(self, path):
        root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
        process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=root,
            text=True,
        )
        with process:
            process.pid_told = int(process.stdout.readline())
            yield process
            process.kill()

    def test_excludes_and_names_the_holder(self, system, path, holder):
        for _ in range(3):
            with pytest.raises(LogLockedError) as caught:
                system.lock(path)
            assert caught.value.pid == holder.pid_told

    def test_free_once_the_holder_is_killed(self, system, path, holder):
        holder.kill()
        holder.wait()
        assert lock_file.read_pid(path) == holder.pid_told
        system.lock(path, timeout=5).release()
        assert lock_file.read_pid(path) == os.getpid()

    def test_times_out(self, system, path, holder):
        with pytest.raises(LogLockedError):
            system.lock(path, timeout=0.05)


class TestPid:
    @pytest.mark.parametrize(
        "content", [b"", b" ", b"x", b" abc\n", b" 12 34\n", b" -5\n", b" " + b"9" * 40]
    )
    def test_what_is_not_one(self, path, content):
        with open(path, "wb") as file:
            file.write(content)
        assert lock_file.read_pid(path) is None

    def test_no_file(self, path):
        assert lock_file.read_pid(path) is None

    def test_replaces_whatever_was_there(self, system, path):
        with open(path, "wb") as file:
            file.write(b"7" * 100)
        system.lock(path).release()
        assert os.path.getsize(path) == len(lock_file.pid_record(1))
        assert lock_file.read_pid(path) == os.getpid()


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="the system does not tell names")
class TestErrors:
    """They said what was refused, and not of which file."""

    @pytest.fixture
    def refused(self, system, path):
        """A file that is open for reading alone, and was given another name since."""
        system.create(path).close()
        file = system.open(path, writable=False)
        system.rename(path, path + "-renamed")
        yield file
        file.close()

    @pytest.mark.parametrize(
        "call", [lambda file: file.write_at(0, [b"x"]), lambda file: file.truncate(7)]
    )
    def test_name_the_file(self, refused, path, call):
        with pytest.raises(OSError, match=os.path.basename(path)) as caught:
            call(refused)
        assert caught.value.filename == path + "-renamed"

    def test_keep_no_file_open(self, refused, path):
        """An error that was kept kept the file open, after its close: a full disk stayed busy."""
        with pytest.raises(OSError, match="descriptor") as caught:
            refused.write_at(0, [b"x"])
        refused.close()
        links = [f"/proc/self/fd/{number}" for number in os.listdir("/proc/self/fd")]
        assert caught.value.filename not in map(os.path.realpath, links)

    @pytest.mark.parametrize("what", ["sync_directory", "lock"])
    def test_of_names_and_locks_do_so_too(self, system, path, monkeypatch, what):
        def fail(_):
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr("wal.files.standard.sync_names", fail)
        monkeypatch.setattr("wal.files.lock_file._write_pid", fail)
        where = path if what == "lock" else os.path.dirname(path)
        with pytest.raises(OSError, match="space") as caught:
            getattr(system, what)(where)
        assert caught.value.filename == where
        monkeypatch.undo()
        system.lock(path).release()
