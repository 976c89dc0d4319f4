"""The errors as values: they can be pickled and copied, and tell what they say."""

from __future__ import annotations

import copy
import errno
import pickle  # noqa: TID251 - the errors are ours

import pytest

import kvstore
from kvstore import errors

ERRORS = [
    kvstore.StoreError("something"),
    kvstore.StoreNotFoundError("my.db"),
    kvstore.StoreLockedError("my.db/LOCK", 7),
    kvstore.StoreLockedError("my.db/LOCK", None),
    kvstore.StoreClosedError("my.db: the store was closed"),
    kvstore.StoreFailedError("no room", errno.ENOSPC, latched=False),
    kvstore.StoreFailedError("failed", None, latched=True),
    kvstore.ReadOnlyError("read-only"),
    kvstore.CorruptStoreError("my.db/MANIFEST", 42, "torn"),
    kvstore.FormatVersionError("version 2"),
    kvstore.ConflictError("k was changed"),
    kvstore.TransactionTooOldError("too old"),
    kvstore.CodecMismatchError("users: made with json"),
    kvstore.MissingCodecError("zstd: pip install kvstore[zstd]"),
    kvstore.ChangesLostError(7),
    kvstore.KeyTooLongError("a key"),
    kvstore.ValueTooLongError("a value"),
]

NAMES = (
    "errno",
    "strerror",
    "filename",
    "latched",
    "pid",
    "path",
    "offset",
    "reason",
    "oldest_id",
)


def test_every_error_is_here():
    kinds = {value for value in vars(errors).values() if isinstance(value, type)}
    assert {kind for kind in kinds if issubclass(kind, errors.StoreError)} == {*map(type, ERRORS)}


def copies():
    yield lambda error: pickle.loads(pickle.dumps(error))
    yield copy.copy
    yield copy.deepcopy


@pytest.mark.parametrize("error", ERRORS, ids=repr)
@pytest.mark.parametrize("copied", [*copies()], ids=["pickle", "copy", "deepcopy"])
def test_errors_cross_processes(error, copied):
    """An error whose class takes other arguments than its text could not be unpickled."""
    other = copied(error)
    assert type(other) is type(error)
    assert (str(other), other.args, vars(other)) == (str(error), error.args, vars(error))
    for name in NAMES:
        assert getattr(other, name, "none") == getattr(error, name, "none")


def test_every_name_is_compared():
    assert {name for error in ERRORS for name in vars(error)} <= {*NAMES}


@pytest.mark.parametrize(
    "kind", [*dict.fromkeys(map(type, ERRORS))], ids=lambda kind: kind.__name__
)
def test_every_error_is_public_and_documented(kind):
    assert getattr(kvstore, kind.__name__) is kind
    assert kind.__name__ in kvstore.__all__
    assert kind.__doc__
    assert kind.__name__ in errors.__doc__


def test_their_kinds():
    """What else they are, for who knows nothing of this package."""
    assert issubclass(kvstore.StoreNotFoundError, FileNotFoundError)
    assert issubclass(kvstore.StoreFailedError, OSError)
    assert issubclass(kvstore.TransactionTooOldError, kvstore.ConflictError)
    assert issubclass(kvstore.KeyTooLongError, ValueError)
    assert issubclass(kvstore.ValueTooLongError, ValueError)
    assert all(issubclass(kind, kvstore.StoreError) for kind in map(type, ERRORS))
    assert str(kvstore.ChangesLostError(7)).count("7") == 1


def test_a_note_is_kept():
    error = kvstore.StoreNotFoundError("my.db")
    error.__notes__ = ["look elsewhere"]
    assert pickle.loads(pickle.dumps(error)).__notes__ == ["look elsewhere"]
