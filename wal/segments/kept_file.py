"""The file of a segment that is kept for reading: open only while somebody reads it."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import suppress

from wal.errors import PositionNotFoundError
from wal.files import Buffer, File, FileSystem


class KeptFile:
    """A :class:`wal.files.File` that opens itself when it is read, and can be put to rest again.

    Hundreds of segments may be kept, and a process may open only so many files. The registry puts
    one to rest when its last pin goes; so nobody reads meanwhile.
    """

    def __init__(self, files: FileSystem, path: str, length: int, file: File | None = None) -> None:
        self._files = files
        self._path = path
        self._length = length
        self._file = file
        self._closed = False
        self._opening = threading.Lock()  # that two readers do not open it twice

    def read_at(self, offset: int, length: int) -> bytes:
        """As of any file; PositionNotFoundError where it is not there any more."""
        file = self._file
        if file is None:
            file = self._open()
        return file.read_at(offset, length)

    def _open(self) -> File:
        with self._opening:
            if self._closed:
                raise ValueError("the file is closed")
            if self._file is None:
                try:
                    self._file = self._files.open(self._path, writable=False)
                except FileNotFoundError:
                    message = f"{self._path} is not in the log any more"
                    raise PositionNotFoundError(message) from None
            return self._file

    def rest(self) -> File | None:
        """The open file, if there is one, to be closed by the caller; a later read opens it anew.

        A file that was written to is not kept open either: its handle is let go of here as well.
        """
        file, self._file = self._file, None
        return file

    def size(self) -> int:
        """The length, without opening it: nothing changes it any more."""
        return self._length

    def close(self) -> None:
        """Close it for good."""
        with self._opening:
            self._closed = True
            file = self.rest()
        if file is not None:
            with suppress(OSError):
                file.close()

    def map(self) -> None:
        """Not mapped: it does not stay open."""

    def write_at(self, offset: int, buffers: Sequence[Buffer]) -> None:
        """Never asked for: what is kept is not changed."""
        raise NotImplementedError

    def allocate(self, length: int) -> None:
        """Never asked for."""
        raise NotImplementedError

    def sync(self) -> None:
        """Nothing to do: it was durable before it was kept."""

    def truncate(self, length: int) -> None:
        """Never asked for."""
        raise NotImplementedError
