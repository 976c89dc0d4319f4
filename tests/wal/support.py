"""Shared by the tests of the log: places to keep one, a manager that notes what it is told."""

from __future__ import annotations

import contextlib
import os
import threading
import time

import wal
from wal.files.faulty import FaultyFileSystem
from wal.files.memory import MemoryFileSystem
from wal.files.standard import StandardFileSystem

#: Small files, and no background work that a test did not ask for.
DEFAULTS = {
    "preallocate_bytes": 64 << 10,
    "buffer_bytes": 16 << 10,
    "flush_interval": 3600,
}
#: How long anything may take before it counts as hanging.
PATIENCE = 10.0


class Recorder(wal.LogManager):
    """Writes down every call, in order, and keeps the entries that came with it."""

    def __init__(self):
        self.calls = []
        self.recovered = []  # (id, chunks)
        self.checkpoints = []  # (last id, [(id, chunks), ...])
        self.archived = []  # wal.SealedSegment
        self.offered = []  # wal.RecoveredSegment

    def should_recover_segment(self, segment):
        self.calls.append(("should_recover_segment", segment.segment_id))
        self.offered.append(segment)
        return wal.Recovery.RECOVER

    def recover(self, entry):
        self.calls.append(("recover", entry.id))
        self.recovered.append((entry.id, entry.read_all()))

    def checkpoint_to(self, last_id, entries, log):
        self.calls.append(("checkpoint_to", last_id))
        self.checkpoints.append((last_id, [(entry.id, entry.read_all()) for entry in entries]))

    def archive(self, segment):
        self.calls.append(("archive", segment.segment_id))
        self.archived.append(segment)

    @property
    def checkpointed(self):
        """Every entry that ``checkpoint_to`` was handed, in order."""
        return [entry for _, entries in self.checkpoints for entry in entries]


class Holding(Recorder):
    """Keeps everything in the log: its checkpoints wait until they may proceed."""

    def __init__(self):
        super().__init__()
        self.entered = threading.Event()
        self.proceed = threading.Event()

    def checkpoint_to(self, last_id, entries, log):
        self.entered.set()
        assert self.proceed.wait(PATIENCE), "the checkpoint was never let go"
        super().checkpoint_to(last_id, entries, log)


class Place:
    """A directory on some file system, the logs opened in it, and what lies in its files."""

    def __init__(self, files, directory):
        self.files = files
        self.directory = directory
        self._logs = []
        self._copies = []

    def open(self, manager=None, **options):
        """A log, shut down by the fixture if the test does not do it."""
        options = {**DEFAULTS, "file_system": self.files, **options}
        configuration = wal.Configuration(self.directory, **options)
        manager = Recorder() if manager is None else manager
        log = configuration.open(manager)
        self._logs.append((log, manager))
        return log

    def recovered(self, **options):
        """What an opening hands to ``recover``; the log is closed again."""
        manager = Recorder()
        self.open(manager, **options).shutdown()
        return manager.recovered

    def killed(self):
        """What a process that ends now leaves: the files as they are, and no lock."""
        files, directory = self.files, self.directory
        if isinstance(files, FaultyFileSystem):
            files = files.inner
        if isinstance(files, MemoryFileSystem):
            files = files.copy()
        else:
            directory = f"{directory}-{len(self._copies)}"
            os.mkdir(directory)
            for name, data in self._at_one_moment().items():
                with open(os.path.join(directory, name), "wb") as file:
                    file.write(data)
        copy = Place(files, directory)
        self._copies.append(copy)
        return copy

    def _at_one_moment(self):
        """Every file's bytes, read again until no background thread has changed any."""
        found = None
        while True:
            before, found = found, {}
            for name in self.names():
                with contextlib.suppress(FileNotFoundError, PermissionError):
                    found[name] = self.read(name)
            if found == before:
                return found

    def close(self):
        for copy in self._copies:
            copy.close()
        for log, manager in self._logs:
            if isinstance(manager, Holding):
                manager.proceed.set()
            with contextlib.suppress(wal.WalError):
                log.shutdown(timeout=PATIENCE)
        self._logs.clear()

    # -- the files ---------------------------------------------------------------------------------

    def names(self, prefix=""):
        return [name for name in self.files.list(self.directory) if name.startswith(prefix)]

    def path(self, name):
        return os.path.join(self.directory, name)

    def read(self, name):
        file = self.files.open(self.path(name), writable=False)
        try:
            return file.read_at(0, file.size())
        finally:
            file.close()

    def write(self, name, offset, data):
        file = self.files.open(self.path(name))
        try:
            file.write_at(offset, [data])
        finally:
            file.close()

    def flip(self, name, offset, bit=0):
        """Change one bit of a file."""
        self.write(name, offset, bytes([self.read(name)[offset] ^ 1 << bit]))


class Worker:
    """A thread whose end, and whose error, are waited for."""

    def __init__(self, function, *arguments):
        self._function = function
        self._arguments = arguments
        self.result = None
        self.error = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        try:
            self.result = self._function(*self._arguments)
        except BaseException as error:  # noqa: BLE001 - it is raised to who joins
            self.error = error

    @property
    def ident(self):
        return self._thread.ident

    def running(self):
        return self._thread.is_alive()

    def wait(self):
        """Wait for the end, and return the error if there was one."""
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive(), "the thread hangs"
        return self.error

    def join(self):
        """Wait for the end; the result, or the error raised."""
        if self.wait() is not None:
            raise self.error
        return self.result


class Gate:
    """Holds the threads that come to a named point of a faulty file system until it is opened."""

    def __init__(self, system, kind, path=""):
        self._kind = kind
        self._path = path
        self._arrived = threading.Semaphore(0)
        self._opened = threading.Event()
        self._system = system
        system.on_call = self._on_call

    def _on_call(self, kind, path, number):
        if kind == self._kind and self._path in os.path.basename(path):
            self._arrived.release()
            assert self._opened.wait(PATIENCE), "the gate was never opened"

    def arrival(self):
        """Wait until one more thread stands at the gate."""
        assert self._arrived.acquire(timeout=PATIENCE), "nobody came to the gate"

    def open(self):
        self._system.on_call = None
        self._opened.set()


def until(condition):
    """Wait for something that another thread brings about. It must happen; when does not matter."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.0005)


def threads():
    """The log's own threads that run."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("wal-")]


def make_files(kind):
    return StandardFileSystem() if kind == "standard" else MemoryFileSystem()
