r"""Ranges of keys: the arguments of a scan as one half-open interval.

Keys are compared as bytes, so the key that follows ``k`` is ``k + b"\x00"``, and the first key
after all that begin with a prefix is the prefix with its last byte raised.
"""

from __future__ import annotations

from typing import NamedTuple

from kvstore.mutations import as_bytes


class Range(NamedTuple):
    """All keys with ``low <= key < high``; a ``high`` of None is above every key."""

    low: bytes
    high: bytes | None


def as_range(
    start: object, stop: object, prefix: object, include_start: bool, include_stop: bool
) -> Range:
    r"""The interval that a caller means; None is no bound.

    >>> as_range(b"a", b"c", None, True, False)
    Range(low=b'a', high=b'c')
    >>> as_range(b"a", b"c", None, False, True)
    Range(low=b'a\x00', high=b'c\x00')
    >>> as_range(None, None, b"ab", True, False)
    Range(low=b'ab', high=b'ac')
    """
    if prefix is not None:
        if start is not None or stop is not None:
            raise ValueError("a prefix is a range of its own: give it, or start and stop")
        low = as_bytes(prefix, "prefix")
        return Range(low, after_prefix(low))
    low, high = b"", None
    if start is not None:
        low = as_bytes(start, "start") + (b"" if include_start else b"\0")
    if stop is not None:
        high = as_bytes(stop, "stop") + (b"\0" if include_stop else b"")
    return Range(low, high)


def after_prefix(prefix: bytes) -> bytes | None:
    r"""The first key after all that begin with a prefix; None where there is none.

    >>> after_prefix(b"a"), after_prefix(b"a\xff"), after_prefix(b"\xff")
    (b'b', b'b', None)
    """
    stem = prefix.rstrip(b"\xff")
    return stem[:-1] + bytes([stem[-1] + 1]) if stem else None


def as_limit(limit: object) -> int | None:
    """A number of items, None for all of them."""
    if limit is None:
        return None
    if not isinstance(limit, int) or isinstance(limit, bool):
        raise TypeError(f"limit must be an int or None, not {type(limit).__name__}")
    if limit < 0:
        raise ValueError(f"limit must not be negative, but is {limit}")
    return limit
