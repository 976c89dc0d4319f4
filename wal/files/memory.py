"""Files in memory, for tests and for logs that need not outlive the process."""

from __future__ import annotations

import errno
import os
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from wal.errors import LogLockedError
from wal.files.lock_file import parse_pid, pid_record

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from wal.files import Buffer


class MemoryFileSystem:
    r"""The contract of :class:`wal.files.FileSystem` in memory, each a world of its own.

    A path without a leading separator starts at the root. ``files`` is what there is at first;
    missing directories are made for it.

    >>> system = MemoryFileSystem({"log/old": b"left over"})
    >>> file = system.create("log/new")
    >>> file.write_at(3, [b"a", b"bc"])
    >>> system.rename("log/new", "log/newer")
    >>> system.list("log")
    ['newer', 'old']
    >>> file.read_at(0, 100)
    b'\x00\x00\x00abc'
    """

    def __init__(
        self, files: Mapping[str, bytes] | None = None, directories: Iterable[str] = ()
    ) -> None:
        self._lock = threading.Condition()
        # All under _lock. Directory -> name -> file, or None for a directory within.
        self._directories: dict[str, dict[str, _Node | None]] = {}
        self._held: set[str] = set()
        for path in (os.sep, *directories):
            self._make(normal_path(path))
        for path, data in (files or {}).items():
            parent, name = os.path.split(normal_path(path))
            self._make(parent)[name] = _Node(bytes(data))

    def resolve(self, path: str) -> str:
        return path

    def open(self, path: str, *, writable: bool = True) -> MemoryFile:
        """Open an existing file."""
        with self._lock:
            return MemoryFile(self._node(path), path, writable)

    def create(self, path: str) -> MemoryFile:
        """Create a file that did not exist."""
        with self._lock:
            entries, name = self._place(path)
            if name in entries or not name:
                raise os_error(errno.EEXIST, path)
            node = entries[name] = _Node(b"")
            return MemoryFile(node, path, writable=True)

    def exists(self, path: str) -> bool:
        """Whether there is a file or directory of that name."""
        with self._lock:
            parent, name = os.path.split(normal_path(path))
            return not name or name in self._directories.get(parent, ())

    def rename(self, old: str, new: str) -> None:
        """Rename within a directory, replacing what had the new name."""
        with self._lock:
            entries, name = self._place(old)
            target, new_name = self._place(new)
            if target is not entries:
                raise ValueError(f"{old} and {new} are in two directories")
            node = self._node(old)
            if entries.get(new_name, node) is None:
                raise os_error(errno.EISDIR, new)
            del entries[name]
            entries[new_name] = node

    def link(self, old: str, new: str) -> None:
        """Give a file a second name."""
        with self._lock:
            node = self._node(old)
            entries, name = self._place(new)
            if name in entries or not name:
                raise os_error(errno.EEXIST, new)
            entries[name] = node

    def remove(self, path: str) -> None:
        """Remove a file; whoever has it open keeps it."""
        with self._lock:
            entries, name = self._place(path)
            self._node(path)
            del entries[name]

    def make_directory(self, path: str) -> None:
        """Create a directory and its missing parents."""
        with self._lock:
            self._make(normal_path(path))

    def sync_directory(self, path: str) -> None:
        """Do nothing, where there is such a directory."""
        with self._lock:
            self._entries(path)

    def lock(self, path: str, timeout: float = 0.0) -> MemoryLock:
        """Take the lock file, or raise :class:`wal.LogLockedError` after ``timeout`` seconds."""
        key = normal_path(path)
        with self._lock:
            entries, name = self._place(path)
            if self._lock.wait_for(lambda: key not in self._held, max(timeout, 0.0)):
                node = self._node(path) if name in entries or not name else _Node(b"")
                node.data = pid_record(os.getpid())
                entries[name] = node
                self._held.add(key)
                return MemoryLock(self, key)
            raise LogLockedError(path, parse_pid(self._node(path).freeze()[1:]))

    def contents(self) -> dict[str, bytes]:
        """Every file's bytes by its full path. Copies what was written to since the last time."""
        with self._lock:
            return {
                os.path.join(directory, name): node.freeze()
                for directory, entries in self._directories.items()
                for name, node in entries.items()
                if node is not None
            }

    def directories(self) -> Sequence[str]:
        """The full path of every directory, sorted."""
        with self._lock:
            return sorted(self._directories)

    def copy(self) -> MemoryFileSystem:
        """Another one with the same files and no locks held; unchanged bytes are shared."""
        return MemoryFileSystem(self.contents(), self.directories())

    def list(self, directory: str) -> list[str]:
        """The names in a directory, sorted."""
        with self._lock:
            return sorted(self._entries(directory))

    # What follows is called with the lock held.

    def _entries(self, directory: str) -> dict[str, _Node | None]:
        key = normal_path(directory)
        entries = self._directories.get(key)
        if entries is None:
            raise os_error(self._why_missing(key), directory)
        return entries

    def _why_missing(self, path: str) -> int:
        parent, name = os.path.split(path)
        if parent in self._directories:
            return errno.ENOTDIR if name in self._directories[parent] else errno.ENOENT
        if not name:
            return errno.ENOENT
        return self._why_missing(parent)

    def _place(self, path: str) -> tuple[dict[str, _Node | None], str]:
        parent, name = os.path.split(normal_path(path))
        if parent not in self._directories:
            raise os_error(self._why_missing(parent), path)
        return self._directories[parent], name

    def _node(self, path: str) -> _Node:
        entries, name = self._place(path)
        if name not in entries and name:
            raise os_error(errno.ENOENT, path)
        node = entries[name] if name else None
        if node is None:
            raise os_error(errno.EISDIR, path)
        return node

    def _make(self, path: str) -> dict[str, _Node | None]:
        if path in self._directories:
            return self._directories[path]
        parent, name = os.path.split(path)
        if name:
            within = self._make(parent)
            if name in within:
                raise os_error(errno.EEXIST, path)
            within[name] = None
        return self._directories.setdefault(path, {})

    def _release(self, key: str) -> None:
        with self._lock:
            self._held.discard(key)
            self._lock.notify_all()


class MemoryFile:
    """An open file of a :class:`MemoryFileSystem`."""

    # As with the system's files, a closed one has no _node.
    __slots__ = ("_node", "_path", "_writable")

    def __init__(self, node: _Node, path: str, writable: bool) -> None:
        self._node = node
        self._path = path
        self._writable = writable

    def read_at(self, offset: int, length: int) -> bytes:
        """Up to ``length`` bytes; fewer at the end of the file."""
        if offset < 0 or length < 0:
            raise os_error(errno.EINVAL, self._path)
        node = self._open_node()
        with node.lock:
            return bytes(memoryview(node.data)[offset : offset + length])

    def write_at(self, offset: int, buffers: Sequence[Buffer]) -> None:
        """Write the buffers one behind the other."""
        written = b"".join(buffers)
        node = self._writable_node(offset)
        if written:
            with node.lock:
                data = node.thaw()
                data.extend(bytes(max(0, offset - len(data))))
                data[offset : offset + len(written)] = written

    def allocate(self, length: int) -> None:
        """Grow the file with zeros."""
        node = self._writable_node(length)
        with node.lock:
            if length > len(node.data):
                node.thaw().extend(bytes(length - len(node.data)))

    def sync(self) -> None:
        """Do nothing."""
        self._open_node()

    def truncate(self, length: int) -> None:
        """Cut the file, or grow it with zeros."""
        node = self._writable_node(length)
        with node.lock:
            data = node.thaw()
            del data[length:]
            data.extend(bytes(length - len(data)))

    def size(self) -> int:
        """The length in bytes."""
        node = self._open_node()
        with node.lock:
            return len(node.data)

    def close(self) -> None:
        """Let go of the file."""
        with suppress(AttributeError):
            del self._node

    def _open_node(self) -> _Node:
        try:
            return self._node
        except AttributeError:
            raise ValueError("the file is closed") from None

    def _writable_node(self, offset: int) -> _Node:
        node = self._open_node()
        if not self._writable:
            raise os_error(errno.EBADF, self._path)
        if offset < 0:
            raise os_error(errno.EINVAL, self._path)
        return node


class MemoryLock:
    """A held lock of a :class:`MemoryFileSystem`."""

    __slots__ = ("_key", "_system")

    def __init__(self, system: MemoryFileSystem, key: str) -> None:
        self._system: MemoryFileSystem | None = system
        self._key = key

    def release(self) -> None:
        """Let others have it; a second time does nothing."""
        system, self._system = self._system, None
        if system is not None:
            system._release(self._key)


class _Node:
    """A file's bytes: immutable, and shared with whoever asked for them, until the next write."""

    __slots__ = ("data", "lock")

    def __init__(self, data: bytes) -> None:
        self.data: bytes | bytearray = data
        self.lock = threading.Lock()

    def thaw(self) -> bytearray:
        """The bytes to be changed. The lock is held."""
        if not isinstance(self.data, bytearray):
            self.data = bytearray(self.data)
        return self.data

    def freeze(self) -> bytes:
        with self.lock:
            if not isinstance(self.data, bytes):
                self.data = bytes(self.data)
            return self.data


def normal_path(path: str) -> str:
    """One spelling for each path, from the root."""
    return os.path.normpath(os.path.join(os.sep, path))


def os_error(code: int, path: str) -> OSError:
    """The OSError that the operating system would raise: its subclass goes by the code."""
    return OSError(code, os.strerror(code), path)
