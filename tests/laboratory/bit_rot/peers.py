"""The same damage to the files of other engines: ``python -m tests.laboratory.bit_rot.peers``.

Each engine holds the same items. Of each a store is made once; each case is a copy of its files
with one flaw, opened and read wholly in a child process: every key by itself, some that are absent,
then all in order. A case counts as the worst of what it gave:

=========  =====================================================================================
right      every answer, and no error: nothing was damaged that says anything
error      the engine raised something, and every answer that it gave was right
missing    a key that is there was not found, or a scan ended without it: no error in its place
changed    another value, or a key that was never written: no error in its place
crash      the process was ended by a signal
hang       no end within the timeout
=========  =====================================================================================

Where flaws go: a file is drawn by the length that it has up to its last byte that is not zero, then
a place in that. Lock files and logs for people are left out. ``error`` says nothing of an engine's
merit over ``right``; ``missing`` and ``changed`` are wrong data.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import platform
import random
import select
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter

from tests.laboratory.bit_rot.peer_engines import ENGINES

OUTCOMES = ("right", "error", "missing", "changed", "crash", "hang")
#: Each kind of flaw, and how often it is drawn.
KINDS = {"bit": 70, "sector": 8, "misdirected": 8, "swapped": 4, "cut": 8, "removed": 2}
SECTOR = 512
TIMEOUT = 30.0
#: Say nothing of the data.
LEFT_OUT = ("LOCK", "LOG", "lock.mdb", "items.db-shm")


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="tests.laboratory.bit_rot.peers", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--cases", type=int, default=2000, help="for each engine")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--engines", default="", help="those whose names begin so, by commas")
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args(arguments)
    if not hasattr(os, "fork"):
        sys.stderr.write("this needs a platform with fork\n")
        return 1
    begins = tuple(chosen.engines.split(","))
    if not any(kind.name.startswith(begins) for kind in ENGINES):
        parser.error("no such engine; there are " + ", ".join(kind.name for kind in ENGINES))
    rows = {}
    for kind in ENGINES:
        if kind.name.startswith(begins):
            row = campaign(kind(), chosen.cases, chosen.seed)
            if row is not None:
                rows[kind.name] = row
                sys.stderr.write(f"{kind.name}: {row['seconds']} seconds\n")
    told = {"seed": chosen.seed, "versions": versions(), "engines": rows}
    sys.stdout.write(json.dumps(told, indent=1) if chosen.json else "\n".join(lines(told)))
    sys.stdout.write("\n")
    return 0


def campaign(engine, cases, seed):
    """The outcomes of so many cases; None, with a message, where the engine is not installed."""
    try:
        importlib.import_module(engine.package)  # once, not in each child
    except ImportError as error:
        sys.stderr.write(f"without {engine.name}: {error} (pip install 'kvstore[bench]')\n")
        return None
    with tempfile.TemporaryDirectory(prefix="bit-rot-") as directory:
        path = os.path.join(directory, "made")
        problem = in_child(lambda: engine.make(path))
        if problem is not None:
            raise AssertionError(f"{engine.name}: {problem}")
        taken = path + "-taken"
        files = files_of(taken if os.path.exists(taken) else path)
        sound = attempt(engine, directory, files)
        if sound != "right":
            raise AssertionError(f"{engine.name}, undamaged: {sound}")
        rng = random.Random(seed)
        counts = Counter()
        started = time.monotonic()
        for _ in range(cases):
            kind = rng.choices([*KINDS], [*KINDS.values()])[0]
            counts[attempt(engine, directory, damaged(files, kind, rng))] += 1
        seconds = round(time.monotonic() - started)
    return {"cases": cases, **{name: counts[name] for name in OUTCOMES}, "seconds": seconds}


# -- flaws -----------------------------------------------------------------------------------------


def files_of(directory):
    """Every file below a directory, by its path in it."""
    files = {}
    for parent, _, names in os.walk(directory):
        for name in names:
            path = os.path.join(parent, name)
            with open(path, "rb") as file:
                files[os.path.relpath(path, directory)] = file.read()
    return files


def damaged(files, kind, rng):
    """The files with one flaw."""
    name, at = place(files, rng)
    data = files[name]
    if kind == "removed":
        return {other: content for other, content in files.items() if other != name}
    if kind == "cut":
        changed = data[:at]
    elif kind == "bit":
        changed = data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]
    else:
        size = 4096 if kind == "swapped" else SECTOR
        start = at // size * size
        found = bytes(size)
        if kind != "sector":
            other, there = place(files, rng)
            if kind == "swapped":
                other = name
            there = there % max(1, len(files[other])) // size * size
            found = files[other][there : there + size]
        lost = data[start : start + size]
        changed = data[:start] + found[: len(lost)] + data[start + len(found[: len(lost)]) :]
        if kind == "swapped":
            changed = (
                changed[:there] + lost[: len(found)] + changed[there + len(lost[: len(found)]) :]
            )
    return {**files, name: changed}


def place(files, rng):
    """A file and an offset in it, each byte that holds anything as likely as any other."""
    used = {
        name: len(data.rstrip(b"\0"))
        for name, data in sorted(files.items())
        if os.path.basename(name) not in LEFT_OUT and data.rstrip(b"\0")
    }
    (name,) = rng.choices([*used], [*used.values()])
    return name, rng.randrange(used[name])


# -- one case --------------------------------------------------------------------------------------


def attempt(engine, directory, files):
    """What comes of opening and reading these files in a child process."""
    path = os.path.join(directory, "case")
    shutil.rmtree(path, ignore_errors=True)
    os.mkdir(path)
    for name, data in files.items():
        target = os.path.join(path, name)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        with open(target, "wb") as file:
            file.write(data)
    return in_child(lambda: worst(engine, path))


def worst(engine, path):
    """The worst answer that an engine gives."""
    found = "right"
    try:
        for asked, got, right in engine.read(path):
            if asked == "scan":
                wrong = any(got[key] != right.get(key) for key in got)
                missing = right.keys() - got.keys()
            else:
                wrong = got is not None and got != right
                missing = got is None and right is not None
            if wrong:
                return "changed"
            if missing:
                found = "missing"
    except Exception:  # noqa: BLE001
        return found if found != "right" else "error"
    return found


def in_child(work):
    """What the work returns in a forked process; "crash" where a signal ends it, or "hang"."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            end_child(work, writing)
        os._exit(1)
    os.close(writing)
    ready, _, _ = select.select([reading], [], [], TIMEOUT)
    answer = os.read(reading, 4096).decode() if ready else "hang"
    os.close(reading)
    if answer == "hang":
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status) and answer != "hang":
        return "crash"
    return json.loads(answer) if answer not in ("hang", "") else answer or "crash"


def end_child(work, writing):
    """Do the work, say what came of it, and end without a trace."""
    import logging
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    logging.disable(logging.CRITICAL)
    try:
        found = work()
    except Exception as error:  # noqa: BLE001
        found = repr(error)[:1000]
    os.write(writing, json.dumps(found).encode())
    os._exit(0)


# -- what is printed -------------------------------------------------------------------------------


def versions():
    """Of everything that had a part in it."""
    import importlib.metadata
    import sqlite3

    found = {"python": platform.python_version(), "sqlite3": sqlite3.sqlite_version}
    for name in ("kvstore", "lmdb", "plyvel", "rocksdict"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def lines(told):
    """A table in Markdown."""
    yield "| Engine | Cases | " + " | ".join(name.capitalize() for name in OUTCOMES) + " |"
    yield "|---" + "|---:" * (len(OUTCOMES) + 1) + "|"
    for name, row in told["engines"].items():
        numbers = " | ".join(f"{row[key]:,}" for key in ("cases", *OUTCOMES))
        yield f"| {name} | {numbers} |"
    yield ""
    known = ", ".join(f"{name} {version}" for name, version in told["versions"].items())
    yield f"Seed {told['seed']}; {known}."


if __name__ == "__main__":
    sys.exit(main())
