"""msgpack of untrusted bytes: what decoding it may set aside, told before it is decoded.

For an array msgpack sets aside the room of as many items as its head announces, before any of them
has come. Limits bound each head, but not how many stand nested in each other: a thousand heads in
5 KB can ask for a thousand times the longest array. So a decoder asks :func:`is_affordable` first.
What it answers costs next to nothing where arrays are short, or their heads rare; a walk through
the bytes decides the rest, so that nothing that was written as it should be is ever refused.
"""

from __future__ import annotations

import re
from typing import Final

SHORT: Final = 2048
"""Arrays of at most so many items are not looked for: nested as deep as msgpack goes they take"""
FREE: Final = SHORT * 1024 * 8
"""these 16 MiB, which may always be taken."""
FACTOR: Final = 64
"""Bytes that they may take besides, for each byte of the data."""

_POINTER: Final = 8
_DEPTH: Final = 1024  # of msgpack's own stack

_HEADS: Final = {0xDC: 2, 0xDD: 4}
"""Codes of arrays: how many bytes their count has. Those of at most 15 items are short."""
_MAPS: Final = {0xDE: 2, 0xDF: 4}
#: Codes with a length: how many bytes that has, and how many stand between it and the data.
_MEASURED: Final = {
    code + number: (1 << number, between)
    for code, between in ((0xC4, 0), (0xC7, 1), (0xD9, 0))
    for number in range(3)
}
#: How many bytes stand behind the other codes.
_FIXED: Final = dict(
    zip(range(0xCA, 0xD9), (4, 8, 1, 2, 4, 8, 1, 2, 4, 8, 2, 3, 5, 9, 17), strict=True)
) | {0xA0 + length: length for length in range(1, 32)}
_COUNTED: Final = b"|".join(b"\\x%02x.{%d}" % (length, length) for length in range(64))
#: Many of those at once, and short keys. Not any number: each costs memory until the match is over.
_PASSED: Final = re.compile(
    rb"(?:[\x00-\xa0\xc0-\xc3\xe0-\xff]+|[\xc4\xd9](?:%s)|%s){0,4096}"
    % (_COUNTED, b"|".join(b"\\x%02x.{%d}" % each for each in _FIXED.items())),
    re.DOTALL,
)


def is_affordable(data: bytes, longest: int) -> bool:
    r"""Whether decoding takes no more for arrays than ``FREE + FACTOR * len(data)`` bytes.

    ``longest`` is the limit that the decoder is given for the items of one array.

    >>> is_affordable(b"\xdd\x00\x00\xff\xff" * 3, 1 << 16)
    True
    >>> is_affordable(b"\xdd\x00\x00\xff\xff" * 1000, 1 << 16)
    False
    """
    if longest <= SHORT:
        return True
    room = (FREE + FACTOR * len(data)) // _POINTER
    heads = min(_DEPTH, data.count(b"\xdc") + data.count(b"\xdd"))
    return heads * longest <= room or _announced(data, longest, room) <= room


def _announced(data: bytes, longest: int, enough: int) -> int:
    """The items of all arrays together, up to ``enough``. No more than bytes, if they are there."""
    total = at = 0
    while total <= enough:
        begin = at
        passed = _PASSED.match(data, at)
        at = len(data) if passed is None else passed.end()
        if at >= len(data):
            break
        code = data[at]
        size, between = _MEASURED.get(code, (_HEADS.get(code) or _MAPS.get(code) or 0, 0))
        count = int.from_bytes(data[at + 1 : at + 1 + size], "big")
        if size:
            at += 1 + size
        elif at == begin:
            break  # cut off: the decoder ends here
        if code in _MEASURED:
            at += between + count
        elif code in _HEADS:
            if count > longest:
                break  # here too
            total += count
    return total
