"""Where jobs run: in a process of their own, so that they cost the foreground no interpreter time.

A :class:`Worker` keeps one process, started when a job is first large enough to pay for it. The
two speak through the process's stdin and stdout, in frames of msgpack; the process ends when its
stdin does, also in the middle of a job: no child outlives its parent. It shares no lock and no file
with the parent, and makes nothing but ``tmp-`` files, which only the parent renames.

Started as ``python -I -c …`` with the parent's ``sys.path``: it imports this package and nothing of
the program's, so that the program needs no ``if __name__ == "__main__"``, and nothing is forked.

Where there is no such process (other file systems, a program without an interpreter of its own, a
process that dies or cannot be started) the job runs in the calling thread instead.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import queue
import signal
import struct
import subprocess
import sys
import threading
from contextlib import suppress
from typing import IO, Any, Final, NoReturn

import msgpack

from kvstore.background.building import Built, Job, MergeJob, SegmentJob, StoppedError
from kvstore.directory import is_temporary, temporary_prefix
from kvstore.errors import CorruptStoreError, FormatVersionError, MissingCodecError
from kvstore.tables.records import TableRecord
from wal.files import FileSystem, StandardFileSystem

logger = logging.getLogger("kvstore.worker")

LEAST_BYTES: Final = 1 << 20
"""What a job must have to read before a process pays."""
MOST_FAILURES: Final = 3
_PATIENCE: Final = 60.0  # for a process to come up, and for a killed one to be gone
_LENGTH: Final = struct.Struct("<I")
_PROGRAM: Final = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from kvstore.background.worker import serve; serve(int(sys.argv[2]))"
)
_JOBS: Final[dict[str, type[SegmentJob | MergeJob]]] = {
    "segment": SegmentJob,
    "merge": MergeJob,
}


class _ProcessError(Exception):
    """The process is of no use: it did not come up, or has died."""


class Worker:
    """Runs one job at a time. ``stop`` may be called from any thread.

    >>> from kvstore.background.building import Shape
    >>> from wal.files import MemoryFileSystem
    >>> worker = Worker(MemoryFileSystem())
    >>> worker.run(MergeJob("tables", (), True, Shape()))
    []
    >>> worker.stop()
    """

    def __init__(
        self,
        files: FileSystem,
        *,
        processes: bool = True,
        niceness: int = 0,
        least_bytes: int = LEAST_BYTES,
    ) -> None:
        self._files = files
        self._least_bytes = least_bytes
        self._niceness = niceness
        # Another process sees the operating system's files, and nothing that wraps them.
        self._may_start = processes and type(files) is StandardFileSystem and _has_interpreter()
        self._failures = 0  # in a row
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._stopped = False

    def run(self, job: Job) -> list[Built]:
        """Do a job; the errors are the job's own. StoppedError if :meth:`stop` ends it."""
        if self._may_start and job.size >= self._least_bytes:
            try:
                return self._run_elsewhere(job)
            except _ProcessError as error:
                self._give_up(job, error)
        return job.run(self._files, lambda: self._stopped)

    def stop(self) -> None:
        """End the job that is under way, if there is one, and take no more."""
        with self._lock:
            self._stopped = True
        self._end()

    @property
    def pid(self) -> int | None:
        """Of its process, if there is one."""
        process = self._process
        return None if process is None else process.pid

    # -- the process -------------------------------------------------------------------------------

    def _run_elsewhere(self, job: Job) -> list[Built]:
        process = self._process or self._start()
        assert process.stdin is not None
        kind = next(name for name, each in _JOBS.items() if isinstance(job, each))
        try:
            _send(process.stdin, [kind, job.pack()])
        except (OSError, ValueError) as error:  # ValueError: stop has closed the pipe
            raise _ProcessError(f"it cannot be reached: {error}") from error
        answer = self._hear(process)
        try:
            built = _result_of(answer)
        except (_ProcessError, StoppedError):
            raise
        except Exception:
            self._failures = 0  # the job's own error
            raise
        self._failures = 0
        return built

    def _hear(self, process: subprocess.Popen[bytes]) -> list[Any]:
        assert process.stdout is not None
        try:
            answer = _receive(process.stdout)
        except (OSError, ValueError) as error:
            raise _ProcessError(f"it cannot be reached: {error}") from error
        if answer is None:
            raise _ProcessError("it has ended")
        return answer

    def _start(self) -> subprocess.Popen[bytes]:
        with self._lock:
            if self._stopped:
                raise StoppedError
            try:
                process = self._process = _spawn(self._niceness)
            except OSError as error:
                raise _ProcessError(f"it cannot be started: {error}") from error
        overdue = threading.Timer(_PATIENCE, process.kill)
        overdue.daemon = True
        overdue.start()
        try:
            self._hear(process)
        finally:
            overdue.cancel()
        return process

    def _give_up(self, job: Job, error: _ProcessError) -> None:
        """After the process failed a job: that is to be done here, the next one by another."""
        process = self._process
        self._end()
        if process is not None:
            _sweep(self._files, job.directory, process.pid)
        if self._stopped:
            raise StoppedError from error
        self._failures += 1
        self._may_start = self._failures < MOST_FAILURES
        logger.warning("a process that builds tables failed: %s; a thread does its job", error)

    def _end(self) -> None:
        with self._lock:
            process, self._process = self._process, None
        if process is not None:
            process.kill()
            with suppress(subprocess.TimeoutExpired):
                process.wait(_PATIENCE)
                _close(process)  # else that would wait for whoever reads from it


def _has_interpreter() -> bool:
    """Whether ``sys.executable`` is Python, and not a program that has it built in."""
    name = os.path.basename(sys.executable or "").lower()
    return name.startswith(("python", "pypy")) and not getattr(sys, "frozen", False)


def _spawn(niceness: int) -> subprocess.Popen[bytes]:
    path = [os.path.abspath(each) for each in sys.path if isinstance(each, str)]
    flags = 0
    if sys.platform == "win32":
        flags = subprocess.CREATE_NO_WINDOW | subprocess.BELOW_NORMAL_PRIORITY_CLASS
    mode = f"utf8={int(sys.flags.utf8_mode)}"  # as here: paths are encoded alike
    return subprocess.Popen(
        [sys.executable, "-I", "-B", "-X", mode, "-c", _PROGRAM, json.dumps(path), str(niceness)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=os.path.abspath(os.sep),  # keeps no directory from being removed
        start_new_session=True,  # Ctrl-C is for the parent
        creationflags=flags,
    )


def _close(process: subprocess.Popen[bytes]) -> None:
    for pipe in (process.stdin, process.stdout):
        assert pipe is not None
        with suppress(OSError):  # of what could not be written any more
            pipe.close()


def _sweep(files: FileSystem, directory: str, pid: int) -> None:
    """Remove what a dead process was writing, as far as that can be done."""
    with suppress(OSError):
        for name in files.list(directory):
            if name.startswith(temporary_prefix(pid)):
                with suppress(OSError):
                    files.remove(os.path.join(directory, name))


# ------------------------------------------------------------------ frames


def _send(pipe: IO[bytes], message: list[Any]) -> None:
    body: bytes = msgpack.packb(message, unicode_errors="surrogateescape")
    pipe.write(_LENGTH.pack(len(body)) + body)
    pipe.flush()


def _receive(pipe: IO[bytes]) -> list[Any] | None:
    """The next message; None where there is none any more."""
    head = pipe.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        return None
    (length,) = _LENGTH.unpack(head)
    body = pipe.read(length)
    if len(body) < length:
        return None
    message: list[Any] = msgpack.unpackb(body, unicode_errors="surrogateescape")
    return message


def _result_of(answer: list[Any]) -> list[Built]:
    """What a job gave, or its error; _ProcessError for anything else."""
    try:
        kind, told = answer
        if kind == "built":
            return [Built(_checked(name), TableRecord.unpack(record)) for name, record in told]
        error = _ERRORS[kind](*told)
    except (ValueError, TypeError, KeyError) as reason:
        raise _ProcessError(f"its answer makes no sense: {reason!r}") from None
    raise error


def _checked(name: object) -> str:
    """A name that a job may give a table: the parent renames it, and nothing elsewhere."""
    if not isinstance(name, str) or not is_temporary(name) or os.path.basename(name) != name:
        raise ValueError(f"{name!r} is no name for a table")
    return name


_ERRORS: Final[dict[str, type[Exception]]] = {
    "corrupt": CorruptStoreError,
    "format": FormatVersionError,
    "codec": MissingCodecError,
    "system": OSError,
}


def _error_answer(error: Exception) -> list[Any]:
    """An error as a message. One that is not known is raised: whoever asked does the job again."""
    if isinstance(error, CorruptStoreError):
        return ["corrupt", [error.path, error.offset, error.reason]]
    if isinstance(error, FormatVersionError):
        return ["format", [str(error)]]
    if isinstance(error, MissingCodecError):
        return ["codec", [str(error)]]
    if isinstance(error, OSError):
        return ["system", [error.errno, error.strerror, error.filename]]
    raise error


# ------------------------------------------------------------------ in the process


def serve(niceness: int) -> NoReturn:
    """Run the jobs that come through stdin until it ends."""
    with suppress(OSError):
        getattr(os, "nice", int)(niceness)  # Windows has none
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.freeze()
    gc.disable()  # a job makes no circles, and lists of many keys, which would be walked again
    jobs: queue.SimpleQueue[list[Any]] = queue.SimpleQueue()
    threading.Thread(target=_read_jobs, args=(sys.stdin.buffer, jobs), daemon=True).start()
    answers, files = sys.stdout.buffer, StandardFileSystem()
    sys.stdout = sys.stderr  # nothing else may get between the answers
    _send(answers, ["ready", []])
    while True:
        kind, packed = jobs.get()
        _send(answers, _answer(_JOBS[kind].unpack(packed), files))
        gc.collect()


def _read_jobs(pipe: IO[bytes], jobs: queue.SimpleQueue[list[Any]]) -> None:
    while (message := _receive(pipe)) is not None:
        jobs.put(message)
    os._exit(0)  # the parent has gone, or wants it so


def _answer(job: Job, files: FileSystem) -> list[Any]:
    try:
        return ["built", [[built.name, built.record.pack()] for built in job.run(files)]]
    except Exception as error:  # noqa: BLE001 - it is sent to whoever asked
        return _error_answer(error)
