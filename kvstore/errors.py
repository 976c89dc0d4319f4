"""The errors of the store.

::

    StoreError
    ├── StoreNotFoundError   nothing to open                               (also FileNotFoundError)
    ├── StoreLockedError     another writer has it open; names its pid where known
    ├── StoreClosedError     used after close, or in a forked child
    ├── StoreFailedError     a write, sync or checkpoint failed            (also OSError)
    ├── ReadOnlyError        a write asked of a store opened with flag "r"
    ├── CorruptStoreError    damaged data: path, offset, reason
    ├── FormatVersionError   written by a newer version of this package
    ├── ConflictError        a transaction read what another one has changed since
    │   └── TransactionTooOldError   it is not known any more whether anything changed
    ├── CodecMismatchError   a namespace was written with another codec
    ├── MissingCodecError    a table's compression needs a package that is not installed
    ├── ChangesLostError     the change feed does not reach back so far; names the oldest id
    ├── KeyTooLongError      a key of more than 65,535 bytes               (also ValueError)
    └── ValueTooLongError    a value of 4 GiB or more                      (also ValueError)

A missing key is a ``KeyError``, a wrong type of argument a ``TypeError``. The operating system's
own refusals while a store is opened (no permission, not a directory) come through as they are.
Errors of the log never do: each becomes one of these, with the log's own as its ``__cause__``.
"""

from __future__ import annotations

import wal


class StoreError(Exception):
    """Base of every error that the store raises. All of them can be pickled, and copied."""

    def __reduce__(self) -> tuple[object, ...]:
        state = dict(self.__dict__)
        if isinstance(self, OSError):  # these are not in __dict__
            told = {name: getattr(self, name) for name in ("errno", "strerror", "filename")}
            state |= {name: value for name, value in told.items() if value is not None}
        return _rebuild, (type(self), self.args, state)


class StoreNotFoundError(StoreError, FileNotFoundError):
    """There is no store to open at the path, and the flag does not allow to create one."""

    def __init__(self, path: str) -> None:
        FileNotFoundError.__init__(self, 2, "there is no store", path)

    def __str__(self) -> str:
        return FileNotFoundError.__str__(self)


class StoreLockedError(StoreError):
    """Another writer has the store open. ``path`` is the lock file, ``pid`` its holder or None."""

    def __init__(self, path: str, pid: int | None) -> None:
        self.path = path
        self.pid = pid
        holder = f"process {pid}" if pid is not None else "another process"
        super().__init__(f"{path}: the store is open for writing in {holder}")


class StoreClosedError(StoreError):
    """The store was closed, or it belongs to the parent of this forked process."""


class StoreFailedError(StoreError, OSError):
    """A write, a sync or a checkpoint failed; ``errno`` is that of the cause, or None.

    ``latched`` tells whether the store refuses all further writes until it is reopened. If it does,
    a write that raised this is *in doubt*: after reopening it is there whole, or not at all. If it
    does not, only what was asked for has failed: there was no room, or a checkpoint will be
    retried.
    """

    def __init__(self, message: str, errno: int | None, *, latched: bool) -> None:
        OSError.__init__(self, message)
        self.errno = errno
        self.latched = latched


class ReadOnlyError(StoreError):
    """A store opened with flag ``"r"`` was asked to write."""


class CorruptStoreError(StoreError):
    """Something that was acknowledged is damaged. Nothing is repaired in place."""

    def __init__(self, path: str, offset: int, reason: str) -> None:
        self.path = path
        self.offset = offset
        self.reason = reason
        super().__init__(f"{path}: damaged at offset {offset}: {reason}")


class FormatVersionError(StoreError):
    """The data has a format that this version of the package does not know."""


class ConflictError(StoreError):
    """What a transaction read was changed before it committed: nothing was written; try again."""


class TransactionTooOldError(ConflictError):
    """So much was written since the transaction began that its reads cannot be checked any more."""


class CodecMismatchError(StoreError):
    """A namespace was made with a codec other than the one that was asked for."""


class MissingCodecError(StoreError):
    """A table is compressed with a method whose package is not installed; names the extra."""


class ChangesLostError(StoreError):
    """Changes that were asked for are no longer kept. ``oldest_id`` is the oldest that still is.

    ``changes(after=oldest_id - 1)`` begins with that one; what is missing has to come from a scan.
    """

    def __init__(self, oldest_id: int) -> None:
        self.oldest_id = oldest_id
        super().__init__(f"the changes are kept from entry {oldest_id} on, not from before")


class KeyTooLongError(StoreError, ValueError):
    """A key has more than 65,535 bytes."""


class ValueTooLongError(StoreError, ValueError):
    """A value has 4 GiB or more."""


def _rebuild(
    kind: type[StoreError], args: tuple[object, ...], state: dict[str, object]
) -> StoreError:
    """What an unpickled error is made with: not every ``__init__`` takes ``args``."""
    error = kind.__new__(kind)
    error.args = args
    for name, value in state.items():
        setattr(error, name, value)
    return error


def translate(error: wal.WalError) -> StoreError:
    """The store's error for one of the log's. Raise it ``from`` the log's."""
    if isinstance(error, wal.LogLockedError):
        return StoreLockedError(error.path, error.pid)
    if isinstance(error, wal.LogClosedError):
        return StoreClosedError(str(error).replace("the log", "the store"))
    if isinstance(error, wal.CorruptLogError):
        return CorruptStoreError(error.path, error.offset, error.reason)
    if isinstance(error, wal.FormatVersionError):
        return FormatVersionError(str(error))
    if isinstance(error, wal.LogFailedError):
        return StoreFailedError(str(error), error.errno, latched=True)
    if isinstance(error, wal.SegmentAllocationError):
        return StoreFailedError(str(error), error.errno, latched=False)
    if isinstance(error, wal.CheckpointError):
        return _checkpoint_failed(error)
    return StoreError(str(error))


def _checkpoint_failed(error: wal.CheckpointError) -> StoreError:
    cause = error.__cause__
    if isinstance(cause, CorruptStoreError):
        return CorruptStoreError(cause.path, cause.offset, cause.reason)
    return StoreFailedError(str(error), getattr(cause, "errno", None), latched=False)
