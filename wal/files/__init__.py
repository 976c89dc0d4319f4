"""The file seam: everything that the log asks of an operating system, and nothing more.

Three implementations keep one contract (``tests/files`` runs the same tests over all of them):

- :class:`wal.files.standard.StandardFileSystem`, the operating system's files;
- :class:`wal.files.memory.MemoryFileSystem`, for tests and scratch logs;
- :class:`wal.files.faulty.FaultyFileSystem`, which wraps another one, fails on demand, and tells
what
  a power loss might leave.

What the log assumes of any of them: a 512-byte sector is old or new, never mixed; a sync that
returns is true; a rename is atomic. What it does not assume: any order between unsynced writes,
that a created, renamed or removed name is durable before its directory is synced, or that a failed
sync may be repeated.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import array
    import mmap

    Buffer = bytes | bytearray | memoryview | mmap.mmap | array.array[int]
else:
    Buffer = bytes | bytearray | memoryview


class File(Protocol):
    """An open file. Every method may be called from many threads at once; offsets are in bytes.

    Errors of the operating system are raised as OSError and leave the file open. Using a closed
    file raises ValueError; closing it twice does nothing.
    """

    def read_at(self, offset: int, length: int) -> bytes:
        """Up to ``length`` bytes from ``offset``; fewer only at the end of the file."""

    def write_at(self, offset: int, buffers: Sequence[Buffer]) -> None:
        """Write all the buffers one behind the other at ``offset``, growing the file where needed.

        Returns when the operating system has every byte (short writes are continued). After an
        error any part of it may have been written.
        """

    def allocate(self, length: int) -> None:
        """Grow the file to ``length`` bytes with zeros that really take up blocks on the disk.

        A later write below ``length`` then needs no room and changes no metadata. A file that is
        already as long is left alone. Not durable before :meth:`sync`.
        """

    def sync(self) -> None:
        """Make every byte written so far, and the file's length, survive a power loss."""

    def truncate(self, length: int) -> None:
        """Cut the file to ``length`` bytes, or grow it with zeros. Durable after :meth:`sync`."""

    def size(self) -> int:
        """The length of the file in bytes."""

    def close(self) -> None:
        """Give the file back. Syncs nothing."""


class Lock(Protocol):
    """A held lock file."""

    def release(self) -> None:
        """Let others have it. Releasing twice does nothing. The file stays where it is."""


class FileSystem(Protocol):
    """Names and directories. Paths are strings in the operating system's syntax."""

    def resolve(self, path: str) -> str:
        """The path in a form that stays right: absolute, symbolic links followed.

        A log keeps it: the process may change its directory, and a link may be set anew.
        """

    def open(self, path: str, *, writable: bool = True) -> File:
        """Open an existing file; FileNotFoundError where there is none.

        OSError for what is no regular file, a symbolic link too: it is not followed.
        """

    def create(self, path: str) -> File:
        """Create an empty file and open it; FileExistsError where there is one.

        The new name is durable only after :meth:`sync_directory`. Mode 0600 where modes exist.
        """

    def exists(self, path: str) -> bool:
        """Whether the path names a file or a directory."""

    def list(self, directory: str) -> list[str]:
        """The names in a directory, sorted, without the directory's own path."""

    def rename(self, old: str, new: str) -> None:
        """Give a file a new name in the same directory, atomically replacing what had that name."""

    def link(self, old: str, new: str) -> None:
        """Give a file a second name, in whatever directory; both stand for the same bytes.

        FileExistsError where there is something of the new name; another OSError, or
        NotImplementedError, where files cannot be linked, or not from there to here: copy it then.
        The new name is durable only after :meth:`sync_directory`.
        """

    def remove(self, path: str) -> None:
        """Take a file's name away. Open files stay readable where the system allows it."""

    def make_directory(self, path: str) -> None:
        """Create a directory and every missing parent (mode 0700), each synced into its own parent.

        A directory that exists is left alone, but for its parent's sync: a crash may have come
        between. It may be reached through a symbolic link.
        """

    def sync_directory(self, path: str) -> None:
        """Make every creation, rename and removal in the directory survive a power loss."""

    def lock(self, path: str, timeout: float = 0.0) -> Lock:
        """Take the exclusive lock on ``path``, created if missing, and write the pid into it.

        Exclusive between processes and between two callers in one process. Waits up to ``timeout``
        seconds; then :class:`wal.LogLockedError` with the holder's pid where it can be read. A
        contender that fails leaves the file's contents alone.
        """


# The implementations import the protocols above.
from wal.files.memory import MemoryFileSystem  # noqa: E402
from wal.files.standard import StandardFileSystem  # noqa: E402

__all__ = [
    "Buffer",
    "FaultyFileSystem",
    "File",
    "FileSystem",
    "Lock",
    "MemoryFileSystem",
    "PowerLoss",
    "StandardFileSystem",
]


def __getattr__(name: str) -> object:
    """``FaultyFileSystem`` and ``PowerLoss`` are for tests: imported when they are asked for."""
    if name in ("FaultyFileSystem", "PowerLoss"):
        from wal.files import faulty

        return getattr(faulty, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
