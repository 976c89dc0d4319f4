"""Kinds of damage: each yields a label, and what becomes of which files (None: removed)."""

from __future__ import annotations

import itertools
import os

BLOCK = 4096
SECTOR = 512


def flip(left, path, places):
    """Single bits: each of these (byte, bit)."""
    data = left.files[path]
    for at, bit in places:
        changed = bytearray(data)
        changed[at] ^= 1 << bit
        yield f"bit {bit} of byte {at}", {path: bytes(changed)}


def every_bit(data, stop=None):
    """Every bit of a file, or of its beginning."""
    return itertools.product(range(len(data) if stop is None else stop), range(8))


def some_bits(rng, data, count, stop=None):
    """So many bits anywhere in it, drawn with ``rng``."""
    length = len(data) if stop is None else stop
    return [(rng.randrange(length), rng.randrange(8)) for _ in range(count)]


def cut(left, path, lengths):
    """Cut to these lengths."""
    for length in lengths:
        yield f"cut to {length} bytes", {path: left.files[path][:length]}


def grown(left, path, rng):
    """Longer than it was, by zeros, by anything, by itself."""
    data = left.files[path]
    for more in (b"\0", bytes(SECTOR), bytes(BLOCK), rng.randbytes(1), rng.randbytes(777), data):
        yield f"grown by {len(more)} bytes", {path: data + more}


def blank(left, path, size, stop):
    """Each sector, or block, up to a place, zeroed, and each filled with ones."""
    data = left.files[path]
    for at in range(0, min(stop, len(data)), size):
        for byte in (b"\0", b"\xff"):
            filled = byte * len(data[at : at + size])
            yield (
                f"{size} bytes of {byte!r} at {at}",
                {path: data[:at] + filled + data[at + size :]},
            )


def swapped_blocks(left, path, rng, count, stop):
    """Two blocks of one file, up to a place, in each other's."""
    data = left.files[path]
    for size in (BLOCK, SECTOR):
        places = range(0, min(stop, len(data)) - size + 1, size)
        pairs = [*itertools.combinations(places, 2)]
        for one, other in rng.sample(pairs, min(count, len(pairs))):
            changed = bytearray(data)
            changed[one : one + size] = data[other : other + size]
            changed[other : other + size] = data[one : one + size]
            yield f"{size} bytes at {one} and {other} swapped", {path: bytes(changed)}


def misdirected(left, rng, count):
    """A block of one file written into another, or exchanged with one of it."""
    paths = left.of_the_store()
    for number in range(count):
        one, other = rng.sample(paths, 2)
        size = rng.choice((BLOCK, SECTOR))
        first, second = left.files[one], left.files[other]
        at = rng.randrange(0, max(1, len(first)), size)
        to = rng.randrange(0, max(1, len(second)), size)
        taken, lost = first[at : at + size], second[to : to + size]
        label = f"{size} bytes at {at} of {one} at {to}"
        if number % 2:
            yield label, {other: second[:to] + taken + second[to + len(taken) :]}
        else:
            changed = first[:at] + lost + first[at + len(lost) :]
            yield (
                label + ", exchanged",
                {one: changed, other: second[:to] + taken + second[to + len(taken) :]},
            )


def older(left):
    """Each file replaced by each older version of itself."""
    for path in left.of_the_store():
        for number, data in enumerate(left.versions.get(path, ())):
            yield f"version {number}", {path: data}


def missing(left):
    """Each file removed."""
    for path in left.of_the_store():
        yield "removal", {path: None}


def strange(left, others):
    """Each file replaced by the one of that name of another store."""
    for path in left.of_the_store():
        if path in others:
            yield "that of another store", {path: others[path]}


def exchanged(left):
    """The names of any two files of a directory swapped; and one of them copied over the other."""
    for one, other in itertools.combinations(left.of_the_store(), 2):
        if os.path.dirname(one) == os.path.dirname(other):
            first, second = left.files[one], left.files[other]
            yield "names swapped", {one: second, other: first}
            yield "one copied", {one: second}
            yield "one copied", {other: first}
