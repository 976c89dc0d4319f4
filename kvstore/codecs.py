"""Codecs: how the values of a namespace become bytes, and bytes values again.

A namespace's codec is recorded in the store by its name, and checked whenever the namespace is
opened: what was written with one is never read with another.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

import msgpack

from kvstore.mutations import as_value
from wal.untrusted import is_affordable

V = TypeVar("V")


@dataclass(frozen=True)
class Codec(Generic[V]):
    """A name, and two functions that undo each other.

    Whatever ``encode`` raises for a value it cannot take goes to the writer, and nothing is
    written; what ``decode`` raises goes to the reader. The name is what the store records: give a
    new one to a codec that reads other bytes.

    >>> import datetime
    >>> dates = Codec("date", lambda day: day.isoformat().encode(),
    ...               lambda data: datetime.date.fromisoformat(data.decode()))
    >>> dates.decode(dates.encode(datetime.date(2001, 2, 3)))
    datetime.date(2001, 2, 3)
    """

    name: str
    encode: Callable[[V], bytes]
    decode: Callable[[bytes], V]

    @property
    def encoder(self) -> Callable[[V], bytes] | None:
        """``encode``, None where values are the bytes themselves."""
        return None if self is BYTES else self.encode

    @property
    def decoder(self) -> Callable[[bytes], V] | None:
        """``decode``, None where values are the bytes themselves."""
        return None if self is BYTES else self.decode

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise TypeError("a codec's name must be a str, and not empty")
        for function in ("encode", "decode"):
            if not callable(getattr(self, function)):
                raise TypeError(f"a codec's {function} must be a function")


def _encode_text(value: str) -> bytes:
    if not isinstance(value, str):
        raise TypeError(f"the codec utf8 takes str, not {type(value).__name__}")
    return value.encode()


def _encode_json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def _decode_json(data: bytes) -> Any:
    try:
        return json.loads(data)
    except RecursionError:
        raise ValueError("not a value of the codec json: nested too deep") from None


def _encode_msgpack(value: object) -> bytes:
    packed: bytes = msgpack.packb(value, use_bin_type=True)
    return packed


def _decode_msgpack(data: bytes) -> Any:
    if not is_affordable(data, len(data)):
        raise ValueError("not a value of the codec msgpack: arrays in arrays")
    try:
        # Ints and other scalars are fine as keys of maps: nothing is hashed that was not packed so.
        return msgpack.unpackb(data, raw=False, strict_map_key=False)
    except TypeError as error:  # a list or a map as a key
        raise ValueError(f"not a value of the codec msgpack: {error}") from None


BYTES: Final[Codec[bytes]] = Codec("bytes", as_value, bytes)
"""Values are bytes: what a namespace has that asks for no codec."""
UTF8: Final[Codec[str]] = Codec("utf8", _encode_text, bytes.decode)
"""Values are str."""
JSON: Final[Codec[Any]] = Codec("json", _encode_json, _decode_json)
"""Values are what JSON knows: None, bool, int, float, str, lists, and dicts with str keys."""
MSGPACK: Final[Codec[Any]] = Codec("msgpack", _encode_msgpack, _decode_msgpack)
"""Values are what msgpack knows: as JSON's, and bytes; tuples come back as lists."""


def check_codec(codec: object) -> Codec[Any]:
    """A codec that a caller asked for; None is :data:`BYTES`."""
    if codec is None:
        return BYTES
    if not isinstance(codec, Codec):
        raise TypeError(f"codec must be a kvstore.Codec, not {type(codec).__name__}")
    return codec
