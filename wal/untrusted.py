"""msgpack of untrusted bytes: what decoding it may set aside, told before it is decoded.

For an array msgpack sets aside the room of as many items as its head announces, before any of them
has come. Limits bound each head, but not how many stand nested in each other: a thousand heads in
5 KB can ask for a thousand times the longest array. So a decoder asks :func:`is_affordable` first.
What it answers costs next to nothing where arrays are short, or their heads rare; a walk through
the bytes decides the rest, so that nothing that was written as it should be is ever refused.
"""

from __future__ import annotations

from typing import Final

SHORT: Final = 2048
"""Arrays of at most so many items are not looked for: nested as deep as msgpack goes they take"""
FREE: Final = SHORT * 1024 * 8
"""these 16 MiB, which may always be taken."""
FACTOR: Final = 64
"""Bytes that they may take besides, for each byte of the data."""

_POINTER: Final = 8
_DEPTH: Final = 1024  # of msgpack's own stack

_ARRAY16: Final = 0xDC
_ARRAY32: Final = 0xDD
_HEADS: Final = ((b"\xdc", 2), (b"\xdd", 4))
#: How many bytes stand behind a code that are neither items nor announced by a length.
_FIXED: Final = dict(
    zip(range(0xCA, 0xD9), (4, 8, 1, 2, 4, 8, 1, 2, 4, 8, 2, 3, 5, 9, 17), strict=True)
)
#: Codes with a length: how many bytes that has, and how many stand between it and the data.
_MEASURED: Final = {
    code + number: (1 << number, between)
    for code, between in ((0xC4, 0), (0xC7, 1), (0xD9, 0))
    for number in range(3)
}
#: Codes that open something: how many bytes its count has, and how many values stand for each.
_OPENING: Final = {_ARRAY16: (2, 1), _ARRAY32: (4, 1), 0xDE: (2, 2), 0xDF: (4, 2)}


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
    return (
        heads * longest <= room
        or _announced(data, longest) <= room
        or _most_open(data, longest) <= room
    )


def _announced(data: bytes, longest: int) -> int:
    """The items of all arrays together, if every byte that may be an array's head were one."""
    total = 0
    for head, size in _HEADS:
        at = data.find(head)
        while at >= 0:
            count = int.from_bytes(data[at + 1 : at + 1 + size], "big")
            if count <= longest:
                total += count
            at = data.find(head, at + 1)
    return total


def _most_open(data: bytes, longest: int) -> int:
    """The most items that are announced at once by arrays which have not come to their end."""
    at, most, now = 0, 0, 0
    left, held = [1], [0]  # of everything that is open: the values to come, the items announced
    while left and at < len(data):
        if not left[-1]:
            left.pop()
            now -= held.pop()
            continue
        left[-1] -= 1
        code = data[at]
        at += 1
        if code in _OPENING or 0x80 <= code < 0xA0:
            size, each = _OPENING.get(code, (0, 2 if code < 0x90 else 1))
            count = int.from_bytes(data[at : at + size], "big") if size else code & 15
            at += size
            if each == 1 and count > longest:
                break  # the decoder ends here
            left.append(each * count)
            held.append(count if each == 1 else 0)
            now += held[-1]
            most = max(most, now)
        elif code in _MEASURED:
            size, between = _MEASURED[code]
            at += size + between + int.from_bytes(data[at : at + size], "big")
        elif 0xA0 <= code < 0xC0:
            at += code & 31
        else:
            at += _FIXED.get(code, 0)
    return most
