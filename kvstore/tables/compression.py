"""How the blocks of a table are compressed: not at all, or by one of three codecs.

``zlib`` comes with Python. ``zstd`` and ``lz4`` are about four and nine times faster to
decompress, and are extras of the package: ``kvstore[zstd]``, ``kvstore[lz4]``. A table names its
codec; opening one whose package is not installed is a :class:`~kvstore.errors.MissingCodecError`.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Final

from kvstore.errors import FormatVersionError, MissingCodecError


@dataclass(frozen=True)
class Codec:
    """Two functions; ``decompress`` takes the length that is expected, and is None for damage.

    It never makes more than that of what it is given, whatever that says about itself.

    >>> codec = codec_of("zlib")
    >>> codec.decompress(codec.compress(b"one one one"), 11)
    b'one one one'
    """

    name: str
    compress: Callable[[bytes], bytes]
    decompress: Callable[[bytes, int], bytes | None]


def codec_of(name: str | None) -> Codec | None:
    """The codec of that name, None for none."""
    if name is None:
        return None
    make = _MAKERS.get(name)
    if make is None:
        raise FormatVersionError(f"unknown compression {name!r}")
    return make()


def _zlib() -> Codec:
    def decompress(data: bytes, length: int) -> bytes | None:
        work = zlib.decompressobj()
        try:
            # One byte more is allowed for: what is too long must not pass for what is right.
            found = work.decompress(data, length + 1)
        except zlib.error:
            return None
        return found if work.eof and not work.unused_data else None

    return Codec("zlib", lambda data: zlib.compress(data, 1), decompress)


def _zstd() -> Codec:
    zstd = _package("zstandard", "zstd")

    def decompress(data: bytes, length: int) -> bytes | None:
        try:
            if zstd.frame_content_size(data) != length:
                return None
            # Contexts are not safe from many threads; making one costs a microsecond.
            found: bytes = zstd.ZstdDecompressor().decompress(data, allow_extra_data=False)
        except zstd.ZstdError:
            return None
        return found

    return Codec("zstd", lambda data: zstd.ZstdCompressor(1).compress(data), decompress)


def _lz4() -> Codec:
    block = _package("lz4.block", "lz4")

    def decompress(data: bytes, length: int) -> bytes | None:
        try:
            found: bytes = block.decompress(data, uncompressed_size=length)
        except (block.LZ4BlockError, ValueError):
            return None
        return found

    return Codec("lz4", lambda data: block.compress(data, store_size=False), decompress)


def _package(module: str, extra: str) -> Any:
    try:
        return import_module(module)
    except ImportError:
        reason = f"compression {extra!r} needs a package: pip install kvstore[{extra}]"
        raise MissingCodecError(reason) from None


_MAKERS: Final = {"zlib": _zlib, "zstd": _zstd, "lz4": _lz4}
