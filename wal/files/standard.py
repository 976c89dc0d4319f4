"""The operating system's files."""

from __future__ import annotations

import errno
import logging
import os
import stat
import sys
from contextlib import suppress
from typing import ClassVar, Final

from wal.files.descriptor import Descriptor, DescriptorFile, sync_names
from wal.files.lock_file import LockFile
from wal.files.seeking import SeekingFile

logger = logging.getLogger("wal.files")

_FILE_MODE: Final = 0o600
_DIRECTORY_MODE: Final = 0o700

if sys.platform == "win32":
    from wal.files.windows import open_descriptor

    _BEST: type[DescriptorFile] = SeekingFile
else:
    from wal.files.positioned import PositionedFile

    _BEST = PositionedFile

    #: Where a system knows no O_NOFOLLOW, the look at what there is has to do.
    _NO_FOLLOW: Final = getattr(os, "O_NOFOLLOW", 0)

    def open_descriptor(path: str, *, writable: bool, create: bool) -> int:
        """A descriptor of an existing file, or of one that did not exist."""
        flags = (os.O_RDWR if writable else os.O_RDONLY) | _NO_FOLLOW
        return os.open(path, flags | (os.O_CREAT | os.O_EXCL if create else 0), _FILE_MODE)


class StandardFileSystem:
    """Files and directories of the operating system, kept from other users (modes 0600 and 0700).

    Whoever may write to a directory can put anything there; what is opened in it is a regular file
    or an OSError that names it. A symbolic link is not followed, so that nobody makes the log write
    to another place, and a pipe is not waited for. Directories may be links.

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
        """Open an existing file, a regular one."""
        # Looked at before it is opened: to open a pipe may take for ever, a device do anything.
        # Should it be exchanged in between, O_NOFOLLOW and the second look are there.
        check_regular(path, os.lstat(path).st_mode)
        descriptor = Descriptor(open_descriptor(path, writable=writable, create=False))
        check_regular(path, os.fstat(descriptor).st_mode)
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
            _tell_of_others(path)
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
                error.filename = path
                raise
        finally:
            del descriptor  # an error that is kept keeps it open otherwise

    def lock(self, path: str, timeout: float = 0.0) -> LockFile:
        """Take the lock file, or raise :class:`wal.LogLockedError` after ``timeout`` seconds."""
        with suppress(FileNotFoundError):
            check_regular(path, os.lstat(path).st_mode)
        return LockFile(path, timeout)


def check_regular(path: str, mode: int) -> None:
    """Raise OSError, with the path, for what is no regular file."""
    if stat.S_ISREG(mode):
        return
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    if stat.S_ISLNK(mode):
        raise OSError(errno.ELOOP, "a symbolic link, which is not followed here", path)
    raise OSError(errno.EINVAL, "not a regular file", path)


def _tell_of_others(path: str) -> None:
    """Warn of a directory that was there before, and in which anybody may do anything."""
    if sys.platform == "win32":
        return  # its modes say nothing
    mode = stat.S_IMODE(os.stat(path).st_mode)
    if mode & stat.S_IWOTH:
        logger.warning("%s: every user may write to it (mode %04o); 0700 is usual", path, mode)
    elif mode & stat.S_IWGRP:
        logger.info("%s: its group may write to it (mode %04o)", path, mode)


def _parent(path: str) -> str:
    head, tail = os.path.split(path)
    return (head if tail else os.path.dirname(head)) or os.curdir
