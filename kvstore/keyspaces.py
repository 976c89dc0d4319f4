r"""Where the keys of a namespace are among all stored keys.

All namespaces share one ordered space of *stored* keys, and no key of one can reach into another,
whatever bytes are in it::

    key of the root                the key itself; but a leading FF becomes FF 00
    key of a namespace             FF 01, the id, the key
    entry of the directory         FF 02, the parent's id, the namespace's name

An id is a length byte and as many bytes, big-endian: no id is the beginning of another one. The
root's id is 0. So the order of the keys inside a namespace is that of the stored keys, and each
namespace is one interval of them.

>>> ROOT.stored(b"k"), ROOT.stored(b"\xff\x01")
(b'k', b'\xff\x00\x01')
>>> Keyspace(300).stored(b"k")
b'\xff\x01\x02\x01,k'
"""

from __future__ import annotations

from typing import Final, TypeVar

from kvstore.ranges import Range, after_prefix

V = TypeVar("V")

ESCAPE: Final = b"\xff"
_ROOT: Final = b"\xff\x00"
_NAMESPACE: Final = b"\xff\x01"
_DIRECTORY: Final = b"\xff\x02"


def encode_id(number: int) -> bytes:
    """A namespace's id as it stands in stored keys."""
    length = (number.bit_length() + 7) // 8
    return bytes([length]) + number.to_bytes(length, "big")


def decode_id(data: bytes, at: int) -> tuple[int, int]:
    """An id that begins at an index, and the index behind it; ValueError where there is none."""
    end = at + 1 + data[at] if at < len(data) else at
    if not at < end <= len(data):
        raise ValueError("a stored key is cut short inside its namespace's id")
    return int.from_bytes(data[at + 1 : end], "big"), end


class Keyspace:
    """The keys of one namespace."""

    def __init__(self, number: int) -> None:
        self.number = number
        self._prefix = _NAMESPACE + encode_id(number)

    def stored(self, key: bytes) -> bytes:
        """The stored key for a key."""
        return self._prefix + key

    def stored_batch(self, batch: dict[bytes, V]) -> dict[bytes, V]:
        """The same for all keys of a batch, which is not changed."""
        prefix = self._prefix
        return {prefix + key: value for key, value in batch.items()}

    def bounds(self, low: bytes, high: bytes | None) -> Range:
        """The stored keys for those with ``low <= key < high``."""
        return Range(
            self._prefix + low, after_prefix(self._prefix) if high is None else self._prefix + high
        )

    def shown(self, stored: list[bytes]) -> list[bytes]:
        """The keys for stored ones, all of this space, ascending."""
        skip = len(self._prefix)
        return [key[skip:] for key in stored]


class _Root(Keyspace):
    """The keys that are in no namespace."""

    def stored(self, key: bytes) -> bytes:
        return key if key < ESCAPE else _ROOT + key[1:]

    def stored_batch(self, batch: dict[bytes, V]) -> dict[bytes, V]:
        if not batch or max(batch) < ESCAPE:
            return batch
        return {self.stored(key): value for key, value in batch.items()}

    def bounds(self, low: bytes, high: bytes | None) -> Range:
        return Range(self.stored(low), _NAMESPACE if high is None else self.stored(high))

    def shown(self, stored: list[bytes]) -> list[bytes]:
        if not stored or stored[-1] < ESCAPE:
            return stored
        return [key if key < ESCAPE else ESCAPE + key[2:] for key in stored]


ROOT: Final = _Root(0)


def directory_key(parent: int, name: bytes) -> bytes:
    r"""The stored key of the directory's entry for a child namespace.

    >>> directory_key(0, b"users"), directory_key(1, b"")
    (b'\xff\x02\x00users', b'\xff\x02\x01\x01')
    """
    return _DIRECTORY + encode_id(parent) + name


def directory_bounds(parent: int | None = None) -> Range:
    """The stored keys of the directory: that of all, or of one namespace's children."""
    low = _DIRECTORY if parent is None else directory_key(parent, b"")
    return Range(low, after_prefix(low))


def split_stored(stored: bytes) -> tuple[int, bytes] | None:
    r"""The namespace's id and the key of a stored key; None for an entry of the directory.

    >>> split_stored(b"k"), split_stored(b"\xff\x00\x01"), split_stored(b"\xff\x01\x01\x07k")
    ((0, b'k'), (0, b'\xff\x01'), (7, b'k'))
    """
    if stored < ESCAPE:
        return 0, stored
    if stored.startswith(_ROOT):
        return 0, ESCAPE + stored[2:]
    if stored.startswith(_NAMESPACE):
        number, end = decode_id(stored, len(_NAMESPACE))
        return number, stored[end:]
    return None
