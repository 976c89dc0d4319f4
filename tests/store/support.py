"""Shared by the tests of the store."""

from __future__ import annotations

import random

import kvstore

BUFFER = kvstore.Durability.BUFFER
FSYNC = kvstore.Durability.FSYNC
WRITE = kvstore.Durability.WRITE

#: The smallest there is: checkpoints come often.
SMALL = 64 << 10
PATIENCE = 20.0


def contents(db):
    return dict(db.scan())


def random_batch(rng, keys=30, most=5, size=100):
    """Puts and some deletes, of few keys, so that they meet again."""
    return {
        b"key-%02d" % rng.randrange(keys): None
        if rng.random() < 0.3
        else rng.randbytes(rng.randrange(size))
        for _ in range(rng.randrange(1, most + 1))
    }


def apply(model, batch):
    for key, value in batch.items():
        if value is None:
            model.pop(key, None)
        else:
            model[key] = value


def random_history(seed, length, **options):
    """Batches, and the model after each: ``models[n]`` is what the first n make."""
    rng = random.Random(seed)
    batches = [random_batch(rng, **options) for _ in range(length)]
    models = [{}]
    for batch in batches:
        models.append({**models[-1]})
        apply(models[-1], batch)
    return batches, models


def read_file(files, path):
    file = files.open(path, writable=False)
    try:
        return file.read_at(0, file.size())
    finally:
        file.close()


def write_file(files, path, data):
    if files.exists(path):
        files.remove(path)
    file = files.create(path)
    file.write_at(0, [data])
    file.close()


def flipped(data, at, bit=0):
    """The bytes with one bit changed."""
    return data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]
