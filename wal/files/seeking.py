"""Files of systems without pread and pwrite: seek, then read or write, under a lock."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Final

from wal.files.descriptor import Descriptor, DescriptorFile, file_closed, nothing_written

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wal.files import Buffer

#: The most bytes asked of one call; Windows counts them in a signed 32-bit integer.
MOST_BYTES: Final = 1 << 30


class SeekingFile(DescriptorFile):
    """A file with one position, which its threads use in turn."""

    __slots__ = ("_position_lock",)

    def __init__(self, descriptor: Descriptor) -> None:
        super().__init__(descriptor)
        self._position_lock = threading.Lock()

    def read_at(self, offset: int, length: int) -> bytes:
        """Seek and read, nobody else in between."""
        parts = []
        with self._position_lock:
            descriptor = self._at(offset)
            while length > 0:
                data = os.read(descriptor, min(length, MOST_BYTES))
                if not data:
                    break
                parts.append(data)
                length -= len(data)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def write_at(self, offset: int, buffers: Sequence[Buffer]) -> None:
        """Seek and write, nobody else in between."""
        # One call for many small buffers; the copy is cheaper than their system calls.
        data = memoryview(buffers[0] if len(buffers) == 1 else b"".join(buffers))
        rest = data.cast("B") if data.nbytes else data[:0]
        with self._position_lock:
            descriptor = self._at(offset)
            while rest:
                written = os.write(descriptor, rest[:MOST_BYTES])
                if not written:
                    raise nothing_written()
                rest = rest[written:]

    def _at(self, offset: int) -> Descriptor:
        """The descriptor, its position at ``offset``. The position lock is held."""
        try:
            descriptor = self._descriptor
        except AttributeError:
            raise file_closed() from None
        os.lseek(descriptor, offset, os.SEEK_SET)
        return descriptor
