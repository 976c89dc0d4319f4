"""Kill a writer again and again, and see that nothing acknowledged is lost.

A child process indexes the source files of this interpreter's standard library: for each file its
text, and an entry for each word in it, in one atomic batch. It reports every batch once it is
acknowledged. This process kills it at random moments (SIGKILL: no goodbye, no flush), opens the
store, and checks that

- every acknowledged file is there, byte for byte, with all its words;
- every other file is there with all its words, or not at all;

then it starts the next child, until the index is complete, and asks it some questions.

    python examples/crash_recovery.py [--seed N] [--crashes N] [--files N]
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import logging
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import kvstore

LIBRARY = os.path.dirname(os.__file__)
TEXT, WORD = b"text\0", b"word\0"
MEMTABLE_BYTES = 4 << 20  # little, so that there is a checkpoint every few dozen files
QUERIES = (b"fsync", b"deque", b"monotonic", b"mmap")


# ------------------------------------------------------------------ what is indexed


def source_files(most: int) -> list[str]:
    """Source files of the standard library, by their paths in it: always the same selection."""
    found = []
    for directory, folders, names in os.walk(LIBRARY):
        folders[:] = sorted({*folders} - {"site-packages", "dist-packages", "test", "__pycache__"})
        paths = (os.path.join(directory, name) for name in names if name.endswith(".py"))
        found += [os.path.relpath(path, LIBRARY) for path in paths]
    found.sort()
    return sorted(random.Random(1).sample(found, min(most, len(found))))


class Source(NamedTuple):
    """One file, as it must be found."""

    text: bytes
    words: set[bytes]


def read_source(path: str) -> Source:
    with open(os.path.join(LIBRARY, path), "rb") as file:
        text = file.read()
    return Source(text, set(re.findall(rb"[a-z][a-z_]{2,39}", text.lower())))


def index(db: kvstore.Store, path: str) -> None:
    """Everything about one file, all or nothing."""
    source = read_source(path)
    name = os.fsencode(path)
    with db.batch() as batch:
        batch.put(TEXT + name, source.text)
        for word in source.words:
            batch.put(WORD + word + b"\0" + name, b"")


def child(directory: str, files: int) -> None:
    """Index what is missing, and report each file on standard output once it is acknowledged."""
    with kvstore.open(directory, memtable_bytes=MEMTABLE_BYTES) as db:
        os.write(1, b"open\n")
        for path in source_files(files):
            if TEXT + os.fsencode(path) not in db:
                index(db, path)
                os.write(1, b"%.6f %s\n" % (time.monotonic(), os.fsencode(path)))


# ------------------------------------------------------------------ killing it


@dataclass
class Tally:
    """What has happened so far."""

    acknowledged: set[str] = field(default_factory=set)
    crashes: int = 0
    early: int = 0
    replayed: int = 0
    torn_bytes: int = 0
    commits: int = 0
    commit_seconds: float = 0.0
    checks: int = 0


class TornTails(logging.Handler):
    """Sums up the bytes that the log reports to have cut off."""

    def __init__(self, tally: Tally) -> None:
        super().__init__()
        self._tally = tally

    def emit(self, record: logging.LogRecord) -> None:
        if "torn tail" in record.msg and isinstance(record.args, tuple):
            self._tally.torn_bytes += int(str(record.args[1]))


class Life:
    """One child, from its start to its end."""

    def __init__(self, directory: str, files: int) -> None:
        command = [sys.executable, os.path.abspath(__file__), "--child", directory]
        command += ["--files", str(files)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE)
        self.acknowledged: list[str] = []
        self.times: list[float] = []

    def run(self, kill_after: int | None, delay: float) -> bool:
        """Follow its reports, and kill it ``delay`` seconds after so many; whether it was killed.

        None lets it live to its end; 0 kills it ``delay`` seconds after its start, or at its first
        report if that comes sooner.
        """
        timer = self._kill_in(delay) if kill_after == 0 else None
        for line in self._process.stdout or ():
            if line.endswith(b"\n") and line != b"open\n":
                moment, _, name = line.rstrip(b"\n").partition(b" ")
                self.acknowledged.append(os.fsdecode(name))
                self.times.append(float(moment))
                if kill_after == 0:
                    self._process.kill()
                elif len(self.acknowledged) == kill_after:
                    timer = self._kill_in(delay)
        with self._process:  # waits for its end
            pass
        if timer is not None:
            timer.cancel()
            timer.join()
        code = self._process.returncode
        require(code == 0 or timer is not None, f"the child ended by itself, with status {code}")
        return code != 0

    def _kill_in(self, delay: float) -> threading.Timer:
        timer = threading.Timer(delay, self._process.kill)
        timer.start()
        return timer


def require(condition: bool, otherwise: str) -> None:
    if not condition:
        raise SystemExit(f"FAILED: {otherwise}")


def check(directory: str, sources: dict[str, Source], tally: Tally) -> int:
    """Open the store after a crash, and compare all of it with the files; how many there are."""
    with kvstore.open(directory, memtable_bytes=MEMTABLE_BYTES) as db:
        tally.replayed += db.stats().replayed_entries
        words = collections.defaultdict(set)
        for key in db.keys(prefix=WORD):
            word, _, name = key.removeprefix(WORD).partition(b"\0")
            words[os.fsdecode(name)].add(word)
        texts = {os.fsdecode(k.removeprefix(TEXT)): v for k, v in db.scan(prefix=TEXT)}
    lost = tally.acknowledged - texts.keys()
    require(not lost, f"acknowledged and lost: {sorted(lost)}")
    for path, source in sources.items():
        there = path in texts
        require(not there or texts[path] == source.text, f"{path}: not what was written")
        expected = source.words if there else set()
        require(words.pop(path, set()) == expected, f"{path}: its batch is half there")
    require(not words, f"words of unknown files: {sorted(words)}")
    tally.checks += len(sources)
    tally.acknowledged.update(texts)
    return len(texts)


def crash_until_done(
    directory: str, sources: dict[str, Source], tally: Tally, crashes: int, rng: random.Random
) -> Iterator[int]:
    """Start, kill and check, until the index is complete; how many files are in it, each time."""
    done = 0
    while done < len(sources):
        left = crashes - tally.crashes
        kill_after: int | None = None
        if left > 0:
            mean = (len(sources) - done) / (left + 1)
            # One in six meets its end while it starts, perhaps while it recovers from the last.
            kill_after = 0 if rng.random() < 1 / 6 else rng.randint(1, max(1, round(1.5 * mean)))
        life = Life(directory, len(sources))
        killed = life.run(kill_after, rng.uniform(0, 0.4 if kill_after == 0 else 0.005))
        tally.acknowledged.update(life.acknowledged)
        tally.crashes += killed
        tally.early += killed and not life.acknowledged
        if len(life.times) > 1:
            tally.commits += len(life.times) - 1
            tally.commit_seconds += life.times[-1] - life.times[0]
        done = check(directory, sources, tally)
        yield done


# ------------------------------------------------------------------ telling about it


@contextlib.contextmanager
def progress(total: int) -> Iterator[Callable[[int, int], object]]:
    """Shows how far it is: as a bar where rich is installed, in lines where it is not."""
    try:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    except ImportError:
        bars = False
    else:
        bars = sys.stdout.isatty()
    if not bars:

        def tell(done: int, crashes: int) -> None:
            label = "complete: " if done == total else f"crash {crashes:3}:"
            print(f"  {label} {done:4} of {total} files, as acknowledged", flush=True)

        yield tell
        return
    crashes = TextColumn("files, {task.fields[crashes]} crashes")
    with Progress(BarColumn(), MofNCompleteColumn(), crashes) as bar:
        task = bar.add_task("", total=total, crashes=0)
        yield lambda done, crashes: bar.update(task, completed=done, crashes=crashes)


def answer(directory: str) -> None:
    """Some questions to the finished index."""
    with kvstore.open(directory, "r") as db:
        print(f"\n{db.count():,} keys in {db.stats().tables} tables. Files with the word")
        for word in QUERIES:
            prefix = WORD + word + b"\0"
            names = [os.fsdecode(key.removeprefix(prefix)) for key in db.keys(prefix=prefix)]
            some = ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
            print(f"  {word.decode():<10} {len(names):4}: {some}")


def report(tally: Tally, seconds: float) -> None:
    rate = tally.commits / tally.commit_seconds if tally.commit_seconds else 0.0
    early = f"({tally.early} before the first commit)"
    print(f"\n  crashes survived         {tally.crashes:10,}   {early}")
    print(
        f"  files checked            {tally.checks:10,}   none lost, none changed, none by halves"
    )
    print(f"  log entries replayed     {tally.replayed:10,}")
    print(f"  bytes of torn tails cut  {tally.torn_bytes:10,}")
    print(f"  commits per second       {rate:10,.0f}   (a file each, synced; its reading included)")
    print(f"  seconds                  {seconds:10.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seed", type=int, help="repeats a run's choice of moments")
    parser.add_argument("--crashes", type=int, default=20, help="how many (default: 20)")
    parser.add_argument("--files", type=int, default=500, help="how many to index (default: 500)")
    parser.add_argument("--child", metavar="DIRECTORY", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.child, options.files)
        return
    started = time.monotonic()
    seed = random.SystemRandom().randrange(1 << 32) if options.seed is None else options.seed
    sources = {path: read_source(path) for path in source_files(options.files)}
    size = sum(len(source.text) for source in sources.values()) / 1e6
    print(f"Indexing {len(sources)} files of {LIBRARY} ({size:.1f} MB); seed {seed}")
    tally = Tally()
    logger = logging.getLogger("wal.recovery")
    logger.addHandler(TornTails(tally))
    logger.propagate = False
    directory = tempfile.mkdtemp(prefix="crash-recovery-")
    try:
        with progress(len(sources)) as tell:
            rng = random.Random(seed)
            for done in crash_until_done(directory, sources, tally, options.crashes, rng):
                tell(done, tally.crashes)
        answer(directory)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    report(tally, time.monotonic() - started)


if __name__ == "__main__":
    main()
