"""A small mutation engine: what a fuzzer without coverage does to an input, from a seed.

Changes are those that break decoders: bits, whole numbers in place of fields, lengths a little off,
parts cut out, doubled, moved, or spliced in from another input.
"""

from __future__ import annotations

#: Of a field of so many bytes, either way round.
NUMBERS = [0, 1, 2, 0x7F, 0x80, 0xFF, 0x100, 0x7FFF, 0x8000, 0xFFFF, 0x10000]
NUMBERS += [0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1 << 62, (1 << 63) - 1, 1 << 63, (1 << 64) - 1]
#: What opens something in msgpack: arrays, maps, bins, strings, exts, the unused code.
HEADS = [
    *(b"\xdc\xff\xff", b"\xdd\x00\x04\x00\x00", b"\xdd\xff\xff\xff\xff", b"\x9f", b"\x90", b"\x80"),
    *(b"\xde\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xc4\x00", b"\xc4\xff", b"\xc5\xff\xff"),
    *(
        b"\xc6\xff\xff\xff\xff",
        b"\xd9\xff",
        b"\xdb\xff\xff\xff\xff",
        b"\xc7\x10\x01",
        b"\xd4\x01\x00",
    ),
    *(b"\xd8\x01" + bytes(16), b"\xc9\xff\xff\xff\xff\x01", b"\xc1", b"\xc0", b"\xc2"),
    *(b"\xcb\x7f\xf8" + bytes(6), b"\xd6\xff" + b"\xff" * 4, b"\xc7\x0c\xff" + b"\xff" * 12),
]
LARGEST = 300 << 10


def mutated(rng, data, corpus):
    """One to a few changes; sometimes very many."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8, 40))):
        rng.choice(CHANGES)(rng, out, corpus)
    return bytes(out[:LARGEST])


def _flip(rng, out, corpus):
    if out:
        out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)


def _byte(rng, out, corpus):
    if out:
        out[rng.randrange(len(out))] = rng.randrange(256)


def _number(rng, out, corpus):
    """An interesting number, in the place of a field."""
    size = rng.choice((1, 2, 4, 8))
    if len(out) >= size:
        at = rng.randrange(len(out) - size + 1)
        number = rng.choice(NUMBERS) & ((1 << 8 * size) - 1)
        out[at : at + size] = number.to_bytes(size, rng.choice(("little", "big")))


def _nudge(rng, out, corpus):
    """A field that is off by a little, as a wrong length is."""
    size = rng.choice((1, 2, 4, 8))
    if len(out) >= size:
        at, order = rng.randrange(len(out) - size + 1), rng.choice(("little", "big"))
        number = int.from_bytes(out[at : at + size], order) + rng.choice((-2, -1, 1, 2, 8, -8))
        out[at : at + size] = (number & ((1 << 8 * size) - 1)).to_bytes(size, order)


def _span(rng, out):
    start = rng.randrange(len(out) + 1)
    return start, min(len(out), start + rng.choice((1, 2, 4, 8, 16, 64, 512)))


def _cut(rng, out, corpus):
    start, stop = _span(rng, out)
    del out[start:stop]


def _truncate(rng, out, corpus):
    del out[rng.randrange(len(out) + 1) :]


def _double(rng, out, corpus):
    start, stop = _span(rng, out)
    out[start:start] = out[start:stop] * rng.choice((1, 1, 2, 50))


def _move(rng, out, corpus):
    start, stop = _span(rng, out)
    piece = bytes(out[start:stop])
    del out[start:stop]
    at = rng.randrange(len(out) + 1)
    out[at:at] = piece


def _splice(rng, out, corpus):
    """A part of another input, over or into this one."""
    other = rng.choice(corpus)
    start, stop = _span(rng, other)
    at = rng.randrange(len(out) + 1)
    out[at : at + rng.choice((0, stop - start))] = other[start:stop]


def _head(rng, out, corpus):
    """Something that opens in msgpack, once or nested deep."""
    at = rng.randrange(len(out) + 1)
    head = rng.choice(HEADS) * rng.choice((1, 1, 1, 3, 40, 2000))
    out[at : at + rng.choice((0, len(head)))] = head


def _zeros(rng, out, corpus):
    start, stop = _span(rng, out)
    out[start:stop] = bytes(stop - start)


CHANGES = [_flip, _flip, _byte, _number, _number, _nudge, _nudge, _cut, _truncate, _double]
CHANGES += [_move, _splice, _splice, _head, _zeros]
