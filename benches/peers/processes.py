"""A process of its own for each engine.

The parent names a function and its arguments, in JSON through a pipe; the child calls it with its
:class:`Session` and answers what it returned. Between calls the child and its own children are
stopped where the system can, so that what one engine still has to do costs only itself.
"""

from __future__ import annotations

import glob
import json
import os
import pkgutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Concatenate, ParamSpec, TypeVar

from benches.peers.engines import Engine, Tuning, engine
from benches.settings import ROOT

P = ParamSpec("P")
T = TypeVar("T")


class Session:
    """What a child keeps from call to call: its engine, open or not."""

    def __init__(self, name: str) -> None:
        self.engine = engine(name)
        self._opened: Engine | None = None

    def open(self, path: str, /, **tuning: Any) -> None:
        self._opened = self.engine(path, Tuning(**tuning))

    @property
    def opened(self) -> Engine:
        if self._opened is None:
            raise ValueError("no store is open")
        return self._opened

    def close(self) -> None:
        if self._opened is not None:
            self._opened.close()
            self._opened = None


class Process:
    """A child with an engine of this name."""

    def __init__(self, name: str) -> None:
        self.name = name
        kind, _, elsewhere = name.partition("@")
        command = [sys.executable, "-c", _START, str(ROOT), elsewhere, kind]
        self._child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def call(
        self, function: Callable[Concatenate[Session, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """What the function returns there. It is one of a module's own; all it takes is JSON."""
        name = f"{function.__module__}:{function.__qualname__}"
        self._signal("SIGCONT")
        self._write(json.dumps([name, args, kwargs]))
        answer = self._read()
        self._signal("SIGSTOP")
        result: T = json.loads(answer)
        return result

    def _write(self, line: str) -> None:
        assert self._child.stdin is not None
        with suppress(BrokenPipeError):  # no answer will tell
            self._child.stdin.write(line + "\n")
            self._child.stdin.flush()

    def _read(self) -> str:
        assert self._child.stdout is not None
        answer = self._child.stdout.readline()
        if not answer:
            raise RuntimeError(f"the process of {self.name} has failed; it told above why")
        return answer

    def _signal(self, name: str) -> None:
        """Send it to the child and its own children; a system without that signal goes without."""
        number = getattr(signal, name, None)
        if number is not None and self._child.poll() is None:
            for pid in list(_family(self._child.pid)):
                with suppress(ProcessLookupError):
                    os.kill(pid, number)

    def kill(self) -> None:
        """Kill it and its children as ``kill -9`` does, in the middle of whatever they do."""
        self._signal("SIGKILL")
        self._child.wait()

    def end(self, *, kill: bool = False) -> None:
        self._signal("SIGKILL" if kill else "SIGCONT")
        self._child.communicate()


_START = """
import sys
root, elsewhere, engine = sys.argv[1:]
sys.path[0] = root
import benches
if elsewhere:
    sys.path.insert(0, elsewhere)
from benches.peers.processes import serve
serve(engine)
"""
"""Takes the benchmarks from here in any case, and kvstore from another checkout if one is named."""


@contextmanager
def processes(names: Sequence[str]) -> Iterator[list[Process]]:
    """A process for each engine. Their stores are closed at the end."""
    started: list[Process] = []
    failed = True
    try:
        for name in names:
            started.append(Process(name))
            started[-1].call(Session.close)  # it is up, and stands still
        yield started
        failed = False
    finally:
        for process in started:
            process.end(kill=failed)


def _family(pid: int) -> Iterator[int]:
    """A process and, where /proc tells, its children and theirs."""
    yield pid
    for name in glob.glob(f"/proc/{pid}/task/*/children"):
        with suppress(OSError), open(name, encoding="ascii") as file:
            for child in file.read().split():
                yield from _family(int(child))


def serve(name: str) -> None:
    """Answer calls until there are no more. Whatever is printed here goes to stderr."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    session = Session(name)
    for line in sys.stdin:
        function, arguments, keywords = json.loads(line)
        result = pkgutil.resolve_name(function)(session, *arguments, **keywords)
        print(json.dumps(result), file=answers, flush=True)
    session.close()
