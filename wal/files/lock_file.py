"""The lock file: one holder between processes and between the callers in one of them."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Final

from filelock import FileLock, Timeout

from wal.errors import LogLockedError

_POLL_SECONDS: Final = 0.01
_PID_DIGITS: Final = 20


class LockFile:
    """A held lock on a file that carries its holder's pid."""

    __slots__ = ("_lock",)

    def __init__(self, path: str, timeout: float) -> None:
        # preserve_lock_file: without it Windows removes the file at each release. on_acquired: the
        # locked descriptor is the only one that may write where locks are mandatory.
        self._lock = FileLock(
            path,
            mode=0o600,
            thread_local=False,
            fallback_to_soft=False,
            preserve_lock_file=True,
            on_acquired=_write_pid,
        )
        try:
            self._lock.acquire(timeout=max(timeout, 0.0), poll_interval=_POLL_SECONDS)
        except Timeout:
            raise LogLockedError(path, read_pid(path)) from None
        except OSError as error:  # no room for the pid, a disk that cannot be written
            error.filename = error.filename or path
            raise

    def release(self) -> None:
        """Let others have it; a second time does nothing."""
        self._lock.release(force=True)


def pid_record(pid: int) -> bytes:
    r"""What a lock file holds. All pids take the same room, so that one replaces another whole.

    The first byte says nothing: it is what is locked, so on Windows only the holder can read it.

    >>> pid_record(4711)
    b' 4711                \n'
    """
    return b" %-*d\n" % (_PID_DIGITS, pid)


def parse_pid(tail: bytes) -> int | None:
    """The pid in a record without its first byte.

    >>> parse_pid(pid_record(4711)[1:])
    4711
    >>> parse_pid(b"")
    """
    digits = tail.strip()
    return int(digits) if digits.isdigit() and len(digits) <= _PID_DIGITS else None


def read_pid(path: str) -> int | None:
    """The pid that the holder of a lock file wrote, or None where it cannot be read."""
    with suppress(OSError), open(path, "rb", buffering=0) as file:
        file.seek(1)
        return parse_pid(file.read(_PID_DIGITS + 1))
    return None


def _write_pid(descriptor: int) -> None:
    record = pid_record(os.getpid())
    os.lseek(descriptor, 0, os.SEEK_SET)
    os.write(descriptor, record)
    os.ftruncate(descriptor, len(record))
