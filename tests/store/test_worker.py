"""The process that builds tables: the same results, the same errors, and an end in any case."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from kvstore.background import worker as workers
from kvstore.background.building import Built, MergeJob, SegmentJob, Shape, StoppedError
from kvstore.background.worker import Worker
from kvstore.errors import CorruptStoreError, FormatVersionError, MissingCodecError
from kvstore.tables.records import TableRecord
from tests.store.disk import PATIENCE, Disk, contents_of, merge_job, segment_job
from tests.store.test_checkpointing import read, temporaries
from wal.files import FaultyFileSystem, MemoryFileSystem, StandardFileSystem

ROOT = Path(__file__).resolve().parents[2]
FILES = StandardFileSystem()


@pytest.fixture
def worker():
    worker = Worker(FILES, least_bytes=0)
    yield worker
    worker.stop()


@pytest.fixture
def directory(tmp_path):
    return str(tmp_path / "d")


def job_in(directory, count=50):
    return segment_job(FILES, directory, [{b"%05d" % n: b"v" for n in range(count)}])


def test_the_same_as_here(worker, directory):
    job = job_in(directory)
    (elsewhere,) = worker.run(job)
    (here,) = job.run(FILES)
    assert worker.pid is not None
    assert elsewhere.name.startswith(f"tmp-{worker.pid}-")
    assert here.name.startswith(f"tmp-{os.getpid()}-")
    same = {"items", "size", "low", "high", "first_entry_id", "last_entry_id", "value_bytes"}
    for name in same:
        assert getattr(elsewhere.record, name) == getattr(here.record, name)
    assert read(FILES, directory, [elsewhere]) == read(FILES, directory, [here])


def test_one_process_for_many_jobs(worker, directory):
    job = job_in(directory)
    pids = {worker.run(job) and worker.pid for _ in range(3)}
    assert len(pids) == 1


def test_small_jobs_start_no_process(directory):
    worker = Worker(FILES)
    assert worker.run(job_in(directory))
    assert worker.pid is None


@pytest.mark.parametrize(
    "files", [MemoryFileSystem(), FaultyFileSystem(StandardFileSystem())], ids=["memory", "faulty"]
)
def test_other_file_systems_stay_here(files, directory):
    worker = Worker(files, least_bytes=0)
    assert worker.run(segment_job(files, directory, [{b"a": b"1"}]))
    assert worker.pid is None


def test_none_where_none_is_wanted(directory):
    worker = Worker(FILES, processes=False, least_bytes=0)
    assert worker.run(job_in(directory))
    assert worker.pid is None


@pytest.mark.parametrize("executable", ["", None, "/opt/app/editor"])
def test_none_where_python_is_built_into_a_program(directory, monkeypatch, executable):
    monkeypatch.setattr(sys, "executable", executable)
    worker = Worker(FILES, least_bytes=0)
    assert worker.run(job_in(directory))
    assert worker.pid is None


class TestErrors:
    def test_damage(self, worker, directory):
        job = job_in(directory)
        with open(job.segment.path, "r+b") as file:
            file.seek(job.segment.end - 20)
            file.write(b"\xff\xff")
        with pytest.raises(CorruptStoreError) as caught:
            worker.run(job)
        assert caught.value.path == job.segment.path
        assert "cannot be read" in caught.value.reason
        assert worker.pid is not None  # it is well, and goes on

    def test_a_missing_table(self, worker, directory):
        os.mkdir(directory)
        record = TableRecord(7, bytes(16), 1000, 5, 1, 9, 3, 0, b"a", b"c", None, 30)
        with pytest.raises(CorruptStoreError, match="missing"):
            worker.run(merge_job(directory, [[record]]))

    def test_of_the_system(self, worker, directory):
        job = job_in(directory)
        lost = SegmentJob(directory + "/gone", job.segment, 0, False, Shape())
        with pytest.raises(FileNotFoundError) as caught:
            worker.run(lost)
        assert caught.value.errno == errno.ENOENT
        assert caught.value.filename.startswith(directory + "/gone")

    @pytest.mark.parametrize(
        "error",
        [
            CorruptStoreError("p", 7, "r"),
            FormatVersionError("f"),
            MissingCodecError("c"),
            OSError(errno.ENOSPC, "No space", "/x"),
        ],
        ids=lambda error: type(error).__name__,
    )
    def test_come_back_as_themselves(self, error):
        with pytest.raises(type(error)) as caught:
            workers._result_of(workers._error_answer(error))
        assert str(caught.value) == str(error)
        assert caught.value.__dict__ == error.__dict__

    def test_one_that_is_not_known_is_met_here_again(self, worker, directory, caplog):
        job = job_in(directory)
        nonsense = MergeJob(directory, ((None,),), True, Shape())
        object.__setattr__(nonsense, "pack", lambda: [directory, [[["nonsense"]]], True, [1]])
        with pytest.raises(AttributeError):
            worker.run(nonsense)
        assert worker.run(job)


class TestFailures:
    def test_one_that_dies_is_replaced(self, worker, directory, caplog):
        job = job_in(directory)
        worker.run(job)
        first = worker.pid
        os.kill(first, signal.SIGTERM)
        worker._process.wait(PATIENCE)
        assert worker.run(job)
        assert worker.pid is None  # a thread did that one
        assert "a thread does its job" in caplog.text
        worker.run(job)
        assert worker.pid not in (None, first)

    def test_what_a_dead_one_was_writing_goes(self, worker, directory):
        job = job_in(directory)
        (built,) = worker.run(job)
        os.kill(worker.pid, signal.SIGTERM)
        worker._process.wait(PATIENCE)
        (here,) = worker.run(job)
        assert temporaries(FILES, directory) == [here.name]
        assert built.name != here.name

    def test_it_is_not_tried_for_ever(self, directory, monkeypatch, caplog):
        caplog.set_level(logging.WARNING)
        tried = []

        def spawn(niceness):
            tried.append(niceness)
            raise OSError(errno.EAGAIN, "no more processes")

        monkeypatch.setattr(workers, "_spawn", spawn)
        worker = Worker(FILES, least_bytes=0, niceness=3)
        job = job_in(directory)
        for _ in range(6):
            assert worker.run(job)
        assert tried == [3] * workers.MOST_FAILURES

    def test_a_program_that_says_nothing(self, directory, monkeypatch):
        monkeypatch.setattr(workers, "_PROGRAM", "pass")
        worker = Worker(FILES, least_bytes=0)
        assert worker.run(job_in(directory))
        worker.stop()


class TestEnd:
    def test_with_its_parent(self, tmp_path):
        """Also with one that is killed in the middle of a job, and had no guard in its program."""
        program = f"""
            import os, sys
            sys.path.insert(0, {str(ROOT)!r})
            import wal
            from kvstore.background.worker import Worker
            from tests.store.disk import segment_job
            files = wal.files.StandardFileSystem()
            job = segment_job(files, {str(tmp_path / "d")!r}, [{{b"a": b"1"}}])
            worker = Worker(files, least_bytes=0)
            worker.run(job)
            print(worker.pid, flush=True)
            sys.stdin.read()
        """
        path = tmp_path / "program.py"
        path.write_text(textwrap.dedent(program))
        parent = subprocess.Popen(
            [sys.executable, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        with parent:
            pid = int(parent.stdout.readline())
            parent.kill()
            parent.wait(PATIENCE)
            # Its own stdout is the parent's pipe: that ends when it does.
        _gone(pid)

    def test_stop_ends_a_job(self, worker, directory):
        """The process is held still, so that the job cannot have ended before."""
        if not hasattr(signal, "SIGSTOP"):
            pytest.skip("a process cannot be held here")
        job = job_in(directory)
        worker.run(job)
        pid = worker.pid
        os.kill(pid, signal.SIGSTOP)
        raised = []

        def run():
            with pytest.raises(StoppedError):
                worker.run(job)
            raised.append(True)

        thread = threading.Thread(target=run)
        thread.start()
        worker.stop()
        thread.join(PATIENCE)
        assert raised == [True]
        with pytest.raises(StoppedError):
            worker.run(job)

    def test_stopping_twice_or_before_the_start(self):
        worker = Worker(FILES)
        worker.stop()
        worker.stop()


def _gone(pid):
    """Wait for the end of a process that is not a child: it ends at its stdin's."""
    if hasattr(os, "pidfd_open"):
        with contextlib.suppress(ProcessLookupError):
            descriptor = os.pidfd_open(pid)
            import select

            try:
                assert select.select([descriptor], [], [], PATIENCE)[0]
            finally:
                os.close(descriptor)


def test_jobs_and_results_survive_the_way(directory):
    record = TableRecord(7, bytes(16), 1000, 5, 1, 9, 3, 0, b"a", None, "zlib", 30)
    shape = Shape("zlib", 5000, 7_000_000)
    for job in (
        MergeJob(directory, ((record,), (record, record)), True, shape),
        segment_job(FILES, directory, [{b"a": b"1"}], shape=shape, drop=True, after=3),
    ):
        sent = workers.msgpack.packb(job.pack())
        assert type(job).unpack(workers.msgpack.unpackb(sent)) == job
    answer = ["built", [["tmp-1-x", record.pack()]]]
    assert workers._result_of(answer) == [Built("tmp-1-x", record)]


def test_names_that_are_no_utf_8(worker, tmp_path):
    if sys.platform in ("darwin", "win32"):
        pytest.skip("there are none")
    directory = os.path.join(str(tmp_path), os.fsdecode(b"\xff\xfe"))
    assert worker.run(job_in(directory))
    assert worker.pid is not None


def test_a_store_whose_tables_are_built_elsewhere(tmp_path):
    with Disk(FILES, tmp_path / "db", processes=True, work=True) as disk:
        model = {}
        for number in range(5):
            batch = {b"%d" % (number * 7 % 20 + n): b"%d" % number for n in range(10)}
            disk.write_run(batch)
            model |= batch
        disk.compact()
        assert {disk.worker.pid, disk.compaction_worker.pid}.isdisjoint({None, os.getpid()})
        assert contents_of(disk.catalog.runs) == disk.contents() == model
        assert disk.table_names() == disk.named()
