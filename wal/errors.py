"""The errors of the log.

::

    WalError
    ├── LogLockedError            another writer holds LOCK (pid)
    ├── LogNotFoundError          nothing to open read-only (also FileNotFoundError)
    ├── LogClosedError            used after shutdown, or in a forked child
    ├── LogFailedError            a write or sync failed: no commits until it is reopened
    ├── ReadOnlyLogError          a write asked of a log opened read-only
    ├── EntryStateError           an entry used after its end, or inside another
    ├── SegmentAllocationError    no room for a segment: that commit alone failed (OSError)
    ├── CheckpointError           checkpointing failed or cannot keep up
    ├── CallbackError             an on_commit raised; its entry is committed all the same
    ├── CorruptLogError           damage to something acknowledged: path, offset, reason
    ├── FormatVersionError        written by a newer version of this package
    ├── PositionNotFoundError     the position's segment is gone, or nothing was written there
    └── ChunkLengthError          a chunk did not get the number of bytes it announced

Everything that the log itself refuses derives from :class:`WalError`. A wrong type of argument is a
``TypeError`` and a value out of range a ``ValueError``, as everywhere in Python.
"""

from __future__ import annotations

import os


class WalError(Exception):
    """Base of every error that the log raises."""

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.args, self.__dict__)


class LogLockedError(WalError):
    """Another writer has the log open. ``path`` is the lock file, ``pid`` its holder or None."""

    def __init__(self, path: str, pid: int | None = None) -> None:
        self.path = path
        self.pid = pid
        holder = "another process" if pid is None else f"process {pid}"
        if pid == os.getpid():
            holder = f"this process ({pid})"
        super().__init__(f"{path}: the log is locked by {holder}")


class LogNotFoundError(WalError, FileNotFoundError):
    """There is no log to open read-only."""

    def __init__(self, path: str) -> None:
        self.path = path
        super().__init__(f"{path}: there is no log")

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.path,)


class LogClosedError(WalError):
    """The log was shut down, or it belongs to the parent of this forked process."""


class LogFailedError(WalError):
    """A write or a sync failed. The log refuses every later commit until it is reopened.

    The failure is kept as ``__cause__``; its ``errno`` is repeated here (None where it had none). A
    commit that raised this is *in doubt*: after reopening its entry is there whole or not at all.
    """

    def __init__(self, message: str, errno: int | None = None) -> None:
        self.errno = errno
        super().__init__(message)


class ReadOnlyLogError(WalError):
    """A log opened with ``read_only=True`` was asked to write."""


class EntryStateError(WalError):
    """An entry was used out of turn: after its end, inside another, or with a chunk open."""


class SegmentAllocationError(WalError, OSError):
    """There was no room to prepare a segment. Only the commit that raised it is affected."""

    def __init__(self, path: str, cause: OSError) -> None:
        OSError.__init__(self, cause.errno, f"no room for a segment ({cause.strerror})", path)
        self._path = path

    def __str__(self) -> str:
        return OSError.__str__(self)

    def __reduce__(self) -> tuple[object, ...]:
        reason = (self.strerror or "").removeprefix("no room for a segment (").removesuffix(")")
        return type(self), (self._path, OSError(self.errno, reason))


class CheckpointError(WalError):
    """``checkpoint_to`` or ``archive`` failed (``__cause__``); also tells who waits for it."""


class CallbackError(WalError):
    """The ``on_commit`` of ``entry_id`` raised (``__cause__``). The entry is committed."""

    def __init__(self, entry_id: int) -> None:
        self.entry_id = entry_id
        super().__init__(
            f"the on_commit callback of entry {entry_id} raised; the entry is committed"
        )


class CorruptLogError(WalError):
    """Something acknowledged is damaged. Nothing is repaired in place: see ``wal salvage``."""

    def __init__(self, path: str, offset: int, reason: str) -> None:
        self.path = path
        self.offset = offset
        self.reason = reason
        super().__init__(f"{path}: damaged at offset {offset}: {reason}")


class FormatVersionError(WalError):
    """The file has a format version that this package does not know."""

    def __init__(self, path: str, version: int, supported: int) -> None:
        self.path = path
        self.version = version
        self.supported = supported
        super().__init__(
            f"{path}: format version {version}; this package reads version {supported}"
        )


class PositionNotFoundError(WalError, LookupError):
    """The position (or the entries asked for) is no longer, or never was, in the log."""


class ChunkLengthError(WalError, ValueError):
    """A streamed chunk got more or fewer bytes than it announced; its entry is rolled back."""

    def __init__(self, announced: int, written: int) -> None:
        self.announced = announced
        self.written = written
        super().__init__(f"a chunk of {announced} bytes was announced, {written} were written")


def without_frames(error: BaseException) -> BaseException:
    """An error that is to be kept, rid of its traceback (log it before).

    The frames of a traceback keep everything alive that they can see: a log that failed would never
    go away by itself, nor let go of its lock.
    """
    error.__context__ = None
    return error.with_traceback(None)


def copy_of_interrupt(error: BaseException) -> BaseException:
    """A copy, to be kept, of an error that goes on through the frames of its thread."""
    try:
        return type(error)(*error.args)
    except Exception:  # noqa: BLE001 - a class with a signature of its own
        return RuntimeError(repr(error))


def _rebuild(kind: type[WalError], args: tuple[object, ...], state: dict[str, object]) -> WalError:
    """What an unpickled error is made with: not every ``__init__`` takes ``args``."""
    error = kind.__new__(kind)
    error.args = args
    error.__dict__.update(state)
    return error
