"""What the files of every platform have in common: a descriptor, its length, its syncs."""

from __future__ import annotations

import errno
import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from wal.files import Buffer

_ZEROS: Final = bytes(1 << 20)


class Descriptor(int):
    """A file descriptor that the last thread to let go of it closes.

    Whoever passes it to a system call holds a reference meanwhile. So a file closed by one thread
    while another reads it does not hand its number to the next file opened, and the read with it.
    """

    __slots__ = ()

    def __del__(self, _close: Callable[[int], None] = os.close) -> None:
        with suppress(OSError):
            _close(self)


class DescriptorFile:
    """An open file of the operating system, but for reading and writing."""

    # A closed file has no _descriptor: a check for it costs the open one nothing.
    __slots__ = ("_descriptor",)

    def __init__(self, descriptor: Descriptor) -> None:
        self._descriptor = descriptor

    def read_at(self, offset: int, length: int) -> bytes:
        """See :class:`wal.files.File`."""
        raise NotImplementedError

    def write_at(self, offset: int, buffers: Sequence[Buffer]) -> None:
        """See :class:`wal.files.File`."""
        raise NotImplementedError

    def allocate(self, length: int) -> None:
        """Write zeros from the end of the file up to ``length``.

        Written, since neither a hole nor the unwritten extents of ``fallocate`` would do: the first
        sync over either must also commit that the blocks are in use now, a second trip to the disk.
        So nobody else may be writing there meanwhile. After an error the length is the former one.
        """
        former = self.size()
        try:
            for start in range(former, length, len(_ZEROS)):
                self.write_at(start, [_ZEROS[: length - start]])
        except OSError:
            with suppress(OSError):
                self.truncate(former)
            raise

    def sync(self) -> None:
        """Make the bytes and the length durable, but not the times, which would cost more."""
        try:
            sync_data(self._descriptor)
        except AttributeError:
            raise file_closed() from None
        except OSError as error:
            self.add_name(error)
            raise

    def truncate(self, length: int) -> None:
        """Cut the file, or grow it with a hole."""
        try:
            os.ftruncate(self._descriptor, length)
        except AttributeError:
            raise file_closed() from None
        except OSError as error:
            self.add_name(error)
            raise

    def size(self) -> int:
        """The length in bytes."""
        try:
            return os.fstat(self._descriptor).st_size
        except AttributeError:
            raise file_closed() from None

    def close(self) -> None:
        """Close the descriptor once the last call in progress on it has returned."""
        with suppress(AttributeError):
            del self._descriptor

    def add_name(self, error: OSError) -> None:
        """Have an error say which file it is of, where the system tells what that is called now."""
        with suppress(OSError, AttributeError):  # no /proc; closed meanwhile
            error.filename = os.readlink(f"/proc/self/fd/{int(self._descriptor)}")


def file_closed() -> ValueError:
    """For any use of a closed file."""
    return ValueError("the file is closed")


def nothing_written() -> OSError:
    """For a write that reports neither an error nor progress, which would be continued for ever."""
    return OSError(errno.EIO, "a write of some bytes wrote none")


if sys.platform == "darwin":
    import fcntl

    # What a file system that knows no F_FULLFSYNC (a network's) answers.
    _NO_FULL_SYNC: Final = {errno.ENOTSUP, errno.EINVAL, errno.ENOTTY, errno.ENOSYS}

    def sync_data(descriptor: int) -> None:
        """Also out of the drive's own cache, where macOS's fsync leaves them."""
        try:
            fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
        except OSError as error:
            if error.errno not in _NO_FULL_SYNC:
                raise
            os.fsync(descriptor)

    sync_names = sync_data
else:
    sync_data = getattr(os, "fdatasync", os.fsync)
    sync_names = os.fsync
