"""Opening files on Windows so that they can be renamed and removed while they are open."""

from __future__ import annotations

import os
import sys
from typing import Final

assert sys.platform == "win32"

import _winapi  # noqa: E402  (after the assertion that tells mypy where it exists)
import msvcrt  # noqa: E402

_SHARE_READ_WRITE_DELETE: Final = 1 | 2 | 4
_CREATE_NEW: Final = 1
_OPEN_EXISTING: Final = 3
_ATTRIBUTE_NORMAL: Final = 0x80


def open_descriptor(path: str, *, writable: bool, create: bool) -> int:
    """As os.open, which would not share deletion, and so keep an open file from being renamed."""
    try:
        handle = _winapi.CreateFile(
            path,
            _winapi.GENERIC_READ | (_winapi.GENERIC_WRITE if writable else 0),
            _SHARE_READ_WRITE_DELETE,
            0,
            _CREATE_NEW if create else _OPEN_EXISTING,
            _ATTRIBUTE_NORMAL,
            0,
        )
    except OSError as error:
        raise OSError(error.errno, error.strerror, path, error.winerror) from None
    access = os.O_RDWR if writable else os.O_RDONLY
    try:
        return msvcrt.open_osfhandle(handle, access | os.O_BINARY | os.O_NOINHERIT)
    except BaseException:
        _winapi.CloseHandle(handle)
        raise
