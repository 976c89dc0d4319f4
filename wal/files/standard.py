"""The operating system's files."""

from __future__ import annotations

import errno
import os
import stat
import sys
from contextlib import suppress
from typing import ClassVar, Final

from wal.files.descriptor import Descriptor, DescriptorFile, sync_names
from wal.files.lock_file import LockFile
from wal.files.seeking import SeekingFile

_FILE_MODE: Final = 0o600
_DIRECTORY_MODE: Final = 0o700

if sys.platform == "win32":
    from wal.files.windows import open_descriptor

    _BEST: type[DescriptorFile] = SeekingFile
else:
    from wal.files.positioned import PositionedFile

    _BEST = PositionedFile

    def open_descriptor(path: str, *, writable: bool, create: bool) -> int:
        """A descriptor of an existing file, or of one that did not exist."""
        flags = os.O_RDWR if writable else os.O_RDONLY
        return os.open(path, flags | (os.O_CREAT | os.O_EXCL if create else 0), _FILE_MODE)


class StandardFileSystem:
    """Files and directories of the operating system, kept from other users (modes 0600 and 0700).

    >>> import os, tempfile
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     file = StandardFileSystem().create(os.path.join(directory, "data"))
    ...     file.write_at(0, [b"one ", b"two"])
    ...     file.sync()
    ...     file.read_at(4, 100)
    ...     file.close()
    b'two'
    """

    file_type: ClassVar[type[DescriptorFile]] = _BEST

    def resolve(self, path: str) -> str:
        return os.path.realpath(path)

    def open(self, path: str, *, writable: bool = True) -> DescriptorFile:
        """Open an existing file."""
        descriptor = Descriptor(open_descriptor(path, writable=writable, create=False))
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        return self.file_type(descriptor)

    def create(self, path: str) -> DescriptorFile:
        """Create a file that did not exist."""
        return self.file_type(Descriptor(open_descriptor(path, writable=True, create=True)))

    def exists(self, path: str) -> bool:
        """Whether there is a file or directory of that name."""
        return os.path.exists(path)

    def list(self, directory: str) -> list[str]:
        """The names in a directory, sorted."""
        return sorted(os.listdir(directory))

    def rename(self, old: str, new: str) -> None:
        """Rename within a directory, replacing what had the new name."""
        if _parent(os.path.abspath(old)) != _parent(os.path.abspath(new)):
            raise ValueError(f"{old} and {new} are in two directories")
        os.replace(old, new)

    def link(self, old: str, new: str) -> None:
        """Give a file a second name, where the file system can."""
        os.link(old, new)

    def remove(self, path: str) -> None:
        """Remove a file."""
        os.remove(path)

    def make_directory(self, path: str) -> None:
        """Create a directory and its missing parents, each made durable in its own parent."""
        parent = _parent(path)
        if os.path.isdir(path):
            # Whoever may not open the parent did not make this directory in it.
            with suppress(PermissionError):
                self.sync_directory(parent)
            return
        if not os.path.isdir(parent):
            self.make_directory(parent)
        try:
            os.mkdir(path, _DIRECTORY_MODE)
        except FileExistsError:
            if not os.path.isdir(path):
                raise
        self.sync_directory(parent)

    def sync_directory(self, path: str) -> None:
        """Make the directory's names durable, where the platform can be asked to."""
        if sys.platform == "win32":
            # Directories cannot be opened there; NTFS journals its names in order by itself.
            return
        descriptor = Descriptor(os.open(path, os.O_RDONLY | os.O_DIRECTORY))
        try:
            sync_names(descriptor)
        except OSError as error:
            # The answer of file systems that have no such thing as syncing a directory.
            if error.errno not in (errno.EINVAL, errno.EBADF):
                raise

    def lock(self, path: str, timeout: float = 0.0) -> LockFile:
        """Take the lock file, or raise :class:`wal.LogLockedError` after ``timeout`` seconds."""
        return LockFile(path, timeout)


def _parent(path: str) -> str:
    head, tail = os.path.split(path)
    return (head if tail else os.path.dirname(head)) or os.curdir
