"""Fuzz one decoder: ``python -m tests.laboratory.hostile.fuzz TARGET --seconds N``.

With atheris (``pip install kvstore[fuzz]``, where it has wheels) the changes are guided by what
code they reach; without it, or with ``--plain``, they come from the engine of changes in this
directory and a seed. Either begins with the kept corpus. An input that fails is written to
``--out``, as is, with atheris, whatever reached new code. What is worth keeping goes into
``corpus/TARGET`` by hand: as ``crash-…`` where it was a bug.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import sys
import time
from pathlib import Path

CORPUS = Path(__file__).parent / "corpus"


def corpus_of(name):
    """The kept inputs of a target, by file name."""
    return {path.name: path.read_bytes() for path in sorted((CORPUS / name).iterdir())}


def fuzz_plainly(target, inputs, *, seed, seconds=None, count=None, memory_every=64):
    """Try changed inputs until time or count is up; how many were tried.

    A failure is an AssertionError that carries ``data``, the input, and says the seed.
    """
    from tests.laboratory.hostile.changes import mutated
    from tests.laboratory.hostile.targets import Silence

    rng = random.Random(f"{target.name} {seed}")
    corpus = list(inputs)
    tried, end = 0, time.monotonic() + (seconds or 1e9)
    with Silence() as silence:
        while time.monotonic() < end and (count is None or tried < count):
            data = mutated(rng, rng.choice(corpus), corpus)
            try:
                target.check(data, memory=tried % memory_every == memory_every - 1)
                silence.check()
            except Exception as error:
                failure = AssertionError(
                    f"{target.name}, seed {seed}, input {tried} (sha256 {_digest(data)}): {error!r}"
                )
                failure.data = data
                raise failure from error
            tried += 1
    return tried


def _digest(data):
    return hashlib.sha256(data).hexdigest()[:16]


def _with_atheris(name, arguments):
    import atheris

    with atheris.instrument_imports(include=["wal", "kvstore"]):
        from tests.laboratory.hostile.targets import TARGETS, Silence
    target, silence, tried = TARGETS[name], Silence(), 0

    def one_input(data):
        nonlocal tried
        tried += 1
        target.check(data, memory=tried % 64 == 0)
        silence.check()

    found = os.path.join(arguments.out, f"{name}-found")
    os.makedirs(found, exist_ok=True)
    options = [
        f"-max_total_time={arguments.seconds}",
        "-max_len=65536",
        "-timeout=60",
        "-rss_limit_mb=2048",
        f"-seed={arguments.seed or 1}",
        f"-artifact_prefix={os.path.join(arguments.out, name)}-crash-",
        "-print_final_stats=1",
        "-verbosity=1",
    ]
    silence.__enter__()
    atheris.Setup([sys.argv[0], *options, found, str(CORPUS / name)], one_input)
    atheris.Fuzz()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("target", choices=sorted(each.name for each in CORPUS.iterdir()))
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default=".", help="a directory for what fails")
    parser.add_argument("--plain", action="store_true", help="without atheris, even if it is there")
    arguments = parser.parse_args()
    if not arguments.plain:
        try:
            _with_atheris(arguments.target, arguments)
        except ModuleNotFoundError as error:
            if error.name != "atheris":
                raise
            sys.stderr.write("no atheris here: plain changes, without guidance\n")
    from tests.laboratory.hostile.targets import TARGETS

    target, inputs = TARGETS[arguments.target], corpus_of(arguments.target).values()
    try:
        tried = fuzz_plainly(target, inputs, seed=arguments.seed, seconds=arguments.seconds)
    except AssertionError as failure:
        path = os.path.join(arguments.out, f"{target.name}-crash-{_digest(failure.data)}")
        Path(path).write_bytes(failure.data)
        sys.stderr.write(f"{failure}\n\nthe input is in {path}\n")
        raise
    sys.stdout.write(f"{target.name}: {tried:,} inputs, nothing found\n")


if __name__ == "__main__":
    main()
