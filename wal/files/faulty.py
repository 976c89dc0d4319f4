"""A file system that fails on demand and tells what a power loss may leave."""

from __future__ import annotations

import copy
import os
from contextlib import suppress
from typing import TYPE_CHECKING

from wal.files.crash_states import Snapshot
from wal.files.faults import CHANGES, Faults, PowerLoss
from wal.files.faulty_file import FaultyFile
from wal.files.memory import MemoryFileSystem, normal_path
from wal.files.unsynced import DirectoryHistory, FileHistory, Node

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from wal.files import FileSystem, Lock
    from wal.files.crash_states import CrashState

__all__ = ["FaultyFileSystem", "PowerLoss"]


class FaultyFileSystem(Faults):
    r"""Wraps a file system (a fresh one in memory by default), for tests of whatever runs on it.

    It numbers the calls made through it, those that change something unless ``count`` names others:

    >>> system = FaultyFileSystem()
    >>> file = system.create("data")
    >>> file.write_at(0, [b"one"])
    >>> file.sync()
    >>> [str(call) for call in system.calls]
    ['call 1 (create data)', 'call 2 (write_at data 0+3)', 'call 3 (sync data)']

    Calls fail as told by :meth:`~wal.files.faults.Faults.fail`:

    >>> import errno
    >>> fault = system.fail(errno.ENOSPC, kinds="write_at", written=2)
    >>> file.write_at(3, [b" two"])
    Traceback (most recent call last):
    OSError: [Errno 28] No space left on device: 'data'
    >>> file.read_at(0, 100), fault.hits
    (b'one t', 1)

    The power fails before the call told by :meth:`~wal.files.faults.Faults.stop_at`, and
    :meth:`crash_states` are what may be found afterwards. Here the name was never synced, nor were
    the last two bytes:

    >>> system.stop_at(len(system.calls) + 1)
    >>> system.sync_directory("/")
    Traceback (most recent call last):
    wal.files.faults.PowerLoss: before call 5 (sync_directory /)
    >>> for state in system.crash_states():
    ...     state.label, [*state.contents().values()]
    ('nothing unsynced is there', [])
    ('everything is there', [b'one t'])
    ('everything but call 4 (write_at data 3+4)', [b'one'])
    ('everything but one sector of call 4 (write_at data 3+4)', [b'one\x00\x00'])

    ``on_call``, if set, is called with the kind, the path and the number (0 for a call that is not
    counted) before each call, and may hold its thread there or raise.

    What it assumes of a disk is what :mod:`wal.files` says, and a sync that failed is never made up
    for by a later one: what it should have covered stays unsynced until it is written again. What
    the inner file system holds at first is durable; write to it through this one only.
    """

    def __init__(
        self, inner: FileSystem | None = None, *, count: str | Iterable[str] = CHANGES
    ) -> None:
        super().__init__(count)
        self.inner: FileSystem = MemoryFileSystem() if inner is None else inner
        # By full path, of every directory in which something was opened or changed. Under the lock
        # of the calls, which also keeps the changes in them in the order of those in inner.
        self._histories: dict[str, DirectoryHistory] = {}

    def crash_states(
        self, *, seed: int = 0, limit: int | None = 100, mixtures: int | None = None
    ) -> Iterator[CrashState]:
        """What a power loss at this moment may leave: at most ``limit`` states, no two alike.

        First nothing unsynced, and all of it. Then in turn each unsynced call lost, each sector
        lost, each growth without its data, each call alone, and mixtures that depend on ``seed``,
        until nothing new is found. ``label`` says of each what it is, ``kind`` which of these.

        Given a number of ``mixtures``, so many come behind all others: without a limit that is
        every loss of a single write, and a sample of the rest.

        Over a file system that is not in memory they hold the directories used through this one.
        """
        with self.lock_calls:
            files, directories = self._contents()
            histories = self._histories if self.lost_power else copy.deepcopy(self._histories)
            snapshot = Snapshot(files, directories, histories, self.labels())
        return snapshot.states(seed, limit, mixtures)

    def killed_state(self) -> MemoryFileSystem:
        """What is there if the process ends and the machine goes on: all that was handed over."""
        with self.lock_calls:
            return MemoryFileSystem(*self._contents())

    def killed(self) -> FaultyFileSystem:
        """The same as the next process finds it: what was not durable still is not.

        It has a copy of all files in memory, no faults, no locks held, and counts from 1.
        """
        with self.lock_calls:
            system = FaultyFileSystem(self.killed_state(), count=self.counted)
            system._histories = copy.deepcopy(self._histories)
            system.continue_from(self)
            return system

    def resolve(self, path: str) -> str:
        return self.inner.resolve(path)

    def open(self, path: str, *, writable: bool = True) -> FaultyFile:
        """Open an existing file."""

        def act(_: str) -> FaultyFile:
            with self.powered():
                file = self.inner.open(path, writable=writable)
                return FaultyFile(self, file, self._known(path))

        return self.call("open", path, "", act, discard=FaultyFile.close)

    def create(self, path: str) -> FaultyFile:
        """Create a file that did not exist."""

        def act(label: str) -> FaultyFile:
            with self.powered():
                history, name = self._place(path)
                file = self.inner.create(path)
                history.forget(name)
                node = Node(path, self._key(path), FileHistory(b""))
                history.change(self.tick(label), None, name, node)
                return FaultyFile(self, file, node)

        return self.call("create", path, "", act, discard=FaultyFile.close)

    def exists(self, path: str) -> bool:
        """Whether there is a file or directory of that name."""
        return self.call("exists", path, "", lambda label: self.inner.exists(path))

    def rename(self, old: str, new: str) -> None:
        """Rename within a directory, replacing what had the new name."""

        def act(label: str) -> None:
            with self.powered():
                history, name = self._place(old)
                if self.inner.exists(new):
                    self._load(new)
                node = self._known(old) if self.inner.exists(old) else None
                self.inner.rename(old, new)
                if node is not None:
                    history.change(self.tick(label), name, self._place(new)[1], node)
                    node.path, node.key = new, self._key(new)

        self.call("rename", old, f"to {new}", act)

    def link(self, old: str, new: str) -> None:
        """Give a file a second name. Calls on it once it is open go by the first one."""

        def act(label: str) -> None:
            with self.powered():
                history, name = self._place(new)
                node = self._load(old) if self.inner.exists(old) else None
                self.inner.link(old, new)
                if node is not None:
                    history.forget(name)
                    history.change(self.tick(label), None, name, node)

        self.call("link", old, f"to {new}", act)

    def remove(self, path: str) -> None:
        """Remove a file."""

        def act(label: str) -> None:
            with self.powered():
                history, name = self._place(path)
                node = self._load(path)
                self.inner.remove(path)
                history.change(self.tick(label), name, None, node)

        self.call("remove", path, "", act)

    def make_directory(self, path: str) -> None:
        """Create a directory and its missing parents: a call for each, and one for each sync."""
        head, tail = os.path.split(path)
        parent = (head if tail else os.path.dirname(head)) or os.curdir

        def act(label: str) -> None:
            with self.powered():
                history, name = self._place(path)
                new = not self.inner.exists(path)
                self.inner.make_directory(path)
                if new:
                    history.change(self.tick(label), None, name, Node(path, self._key(path)))

        if not self.inner.exists(parent):
            self.make_directory(parent)
        self.call("make_directory", path, "", act)
        self.sync_directory(parent)

    def sync_directory(self, path: str) -> None:
        """Make the directory's names durable, but for those that a failed sync left clean."""
        key = self._key(path)

        def act(label: str) -> None:
            with self.powered():
                mark = self.last_tick
            try:
                self.inner.sync_directory(path)
            except OSError:
                failed()
                raise
            with self.powered():
                if key in self._histories:
                    self._histories[key].synced(mark)

        def failed() -> None:
            with self.powered():
                if key in self._histories:
                    self._histories[key].sync_failed(self.last_tick)

        self.call("sync_directory", path, "", act, failed=failed)

    def lock(self, path: str, timeout: float = 0.0) -> Lock:
        """Take the lock file. Its content is not modelled: after a crash it may be empty."""

        def act(label: str) -> Lock:
            with self.powered():
                history, name = self._place(path)
            lock = self.inner.lock(path, timeout)
            try:
                with self.powered():
                    if name not in history.names:
                        node = Node(path, self._key(path), FileHistory(b""))
                        history.change(self.tick(label), None, name, node)
            except PowerLoss:
                lock.release()
                raise
            return lock

        return self.call("lock", path, "", act, discard=lambda lock: lock.release())

    def list(self, directory: str) -> list[str]:
        """The names in a directory, sorted."""
        return self.call("list", directory, "", lambda label: self.inner.list(directory))

    # What follows is called with the lock held.

    def _key(self, path: str) -> str:
        in_memory = isinstance(self.inner, MemoryFileSystem)
        return normal_path(path) if in_memory else os.path.abspath(path)

    def _place(self, path: str) -> tuple[DirectoryHistory, str]:
        """The history, begun if need be, of the directory that the path is in, and the name."""
        parent, name = os.path.split(self._key(path))
        if parent not in self._histories:
            spelled = os.path.dirname(path)
            nodes = {
                each: Node(os.path.join(spelled, each), os.path.join(parent, each))
                for each in self.inner.list(parent)
            }
            self._histories[parent] = DirectoryHistory(nodes)
        return self._histories[parent], name

    def _known(self, path: str) -> Node:
        """An existing file's node."""
        history, name = self._place(path)
        if name not in history.names:
            history.adopt(name, Node(path, self._key(path)))
        return history.names[name]

    def _load(self, path: str) -> Node:
        """The node of an existing file that is about to lose its name or to get another one."""
        file = self.inner.open(path, writable=False)
        node = self._known(path)
        node.history_of(file)
        file.close()
        return node

    def _contents(self) -> tuple[dict[str, bytes], Iterable[str]]:
        if isinstance(self.inner, MemoryFileSystem):
            return self.inner.contents(), self.inner.directories()
        return _read_out(self.inner, self._histories)


def _read_out(system: FileSystem, roots: Iterable[str]) -> tuple[dict[str, bytes], Iterable[str]]:
    """Every file below the roots, and every directory."""
    files: dict[str, bytes] = {}
    directories: set[str] = set()
    left = [*roots]
    while left:
        directory = left.pop()
        if directory in directories:
            continue
        directories.add(directory)
        for path in (os.path.join(directory, name) for name in system.list(directory)):
            try:
                file = system.open(path, writable=False)
            except (IsADirectoryError, PermissionError):  # the latter on Windows
                left.append(path)
                continue
            # A held lock file cannot be read on Windows.
            with suppress(PermissionError):
                files[path] = b""
                files[path] = file.read_at(0, file.size())
            file.close()
    return files, sorted(directories)
