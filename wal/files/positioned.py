"""Files of systems that read and write at an offset in one call (pread, pwritev)."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Final

from wal.files.descriptor import DescriptorFile, file_closed, nothing_written

assert sys.platform != "win32"

from os import pread, pwrite  # noqa: E402  (after the assertion that tells mypy where they exist)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wal.files import Buffer


def _pwrite_joined(descriptor: int, buffers: Sequence[Buffer], offset: int) -> int:
    return pwrite(descriptor, b"".join(buffers), offset)


# macOS has it since version 11.
pwritev = getattr(os, "pwritev", _pwrite_joined)

#: The most buffers that one call takes (IOV_MAX of Linux and macOS alike).
MOST_BUFFERS: Final = 1024
#: The most bytes asked of one call. macOS refuses 2 GiB, Linux writes it in part.
MOST_BYTES: Final = 1 << 30


class PositionedFile(DescriptorFile):
    """A file without a position: threads read and write it side by side."""

    __slots__ = ()

    def read_at(self, offset: int, length: int) -> bytes:
        """One system call, unless it is cut short before the end of the file."""
        try:
            data = pread(self._descriptor, length, offset)
        except AttributeError:
            raise file_closed() from None
        except OSError as error:
            self.add_name(error)
            raise
        if len(data) == length or not data:
            return data
        return self._read_on(offset, length, data)

    def _read_on(self, offset: int, length: int, data: bytes) -> bytes:
        parts = [data]
        done = len(data)
        descriptor = self._descriptor
        while data and done < length:
            data = pread(descriptor, length - done, offset + done)
            parts.append(data)
            done += len(data)
        return b"".join(parts)

    def write_at(self, offset: int, buffers: Sequence[Buffer]) -> None:
        """One system call, unless it is cut short or there are too many buffers for one."""
        try:
            descriptor = self._descriptor
        except AttributeError:
            raise file_closed() from None
        # len counts the items of other buffers, not their bytes.
        length = sum([len(b) if type(b) is bytes else memoryview(b).nbytes for b in buffers])
        written = 0
        try:
            if len(buffers) == 1 and 0 < length <= MOST_BYTES:
                written = pwrite(descriptor, buffers[0], offset)
            elif len(buffers) <= MOST_BUFFERS and 0 < length <= MOST_BYTES:
                written = pwritev(descriptor, buffers, offset)
            if written != length:
                _write_on(descriptor, offset, buffers, written)
        except OSError as error:
            del descriptor  # else the error, for as long as it is kept, would keep the file open
            self.add_name(error)
            raise


def _write_on(descriptor: int, offset: int, buffers: Sequence[Buffer], written: int) -> None:
    """Write what is behind the first ``written`` bytes, in as many calls as it takes."""
    rest = _skip([memoryview(b).cast("B") for b in buffers if memoryview(b).nbytes], written)
    offset += written
    while rest:
        written = pwritev(descriptor, _one_call(rest), offset)
        if not written:
            raise nothing_written()
        offset += written
        rest = _skip(rest, written)


def _one_call(views: list[memoryview]) -> list[memoryview]:
    room = MOST_BYTES
    taken = []
    for view in views[:MOST_BUFFERS]:
        taken.append(view[:room])
        room -= len(taken[-1])
        if not room:
            break
    return taken


def _skip(views: list[memoryview], count: int) -> list[memoryview]:
    for number, view in enumerate(views):
        if count < len(view):
            return [view[count:], *views[number + 1 :]]
        count -= len(view)
    return []
