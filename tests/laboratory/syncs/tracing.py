"""Running a program under strace, and what it did as a list of calls and marks.

Strace stops a thread at each call's entry and exit, and writes a line for both (one, if no other
thread came between) while the thread waits. So what happened before something else, by whatever
way one thread hears of another, stands before it: the order of lines is all that is used, no clock.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field

CALLS = (
    "openat,open,creat,write,pwrite64,pwritev,pwritev2,fdatasync,fsync,sync_file_range,msync,sync,"
    "syncfs,rename,renameat,renameat2,link,linkat,symlink,symlinkat,unlink,unlinkat,rmdir,mkdir,"
    "mkdirat,ftruncate,truncate,fallocate,copy_file_range,sendfile,splice,io_uring_enter"
)
_BY_PATH = ("rename", "link", "symlink", "unlink", "rmdir", "mkdir", "open", "creat", "truncate")
_ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), *[os.pardir] * 3))
_LINE = re.compile(r"(\d+) +(.*)")
_CALL = re.compile(r"(\w+)\((.*)\) += +(-?\d+|\?)(.*)", re.DOTALL)
_RESUMED = re.compile(r"<\.\.\. \w+ resumed>(.*)", re.DOTALL)
_DESCRIPTOR = re.compile(r"(-?\d+|AT_FDCWD)<((?:[^>\\]|\\.)*)>(?:\(deleted\))?")
_STRING = re.compile(r'"((?:[^"\\]|\\.)*)"')


@dataclass
class Call:
    """A system call, from the line of its entry to that of its exit."""

    thread: int
    name: str
    paths: list[str]
    began: int
    ended: int
    failed: bool
    text: str = field(repr=False)  # the arguments
    note: str = ""  # what strace tells beside the result
    result: int = 0

    @property
    def path(self):
        return self.paths[0] if self.paths else ""


@dataclass
class Mark:
    """What the program told at this point of the trace."""

    thread: int
    text: str
    began: int

    @property
    def ended(self):
        return self.began


def why_not():
    """Why nothing can be traced here; empty if it can."""
    if shutil.which("strace") is None:
        return "strace is not installed (Linux only)"
    tried = subprocess.run(
        ["strace", "-f", "--seccomp-bpf", "-y", "-e", "trace=write", "-o", os.devnull, "true"],
        capture_output=True,
        text=True,
        check=False,
    )
    return "" if tried.returncode == 0 else f"strace cannot trace here: {tried.stderr.strip()}"


def trace(directory, *scenes, inject=()):
    """Play scenes in a directory and return what they did; faults are injected as asked."""
    out = os.path.join(directory, "trace.txt")
    command = ["strace", "-f", "--seccomp-bpf", "-y", "-v", "-s", "200000", "-o", out]
    command += ["-e", f"trace={CALLS}", "-e", "signal=none"]
    for fault in inject:
        command += ["-e", f"inject={fault}"]
    command += [sys.executable, "-m", "tests.laboratory.syncs.scenes", directory, *scenes]
    played = subprocess.run(
        command, cwd=_ROOT, capture_output=True, text=True, check=False, timeout=300
    )
    if played.returncode:
        raise AssertionError(f"{scenes} with {inject}: {played.stdout}{played.stderr}")
    with open(out, encoding="utf-8", errors="surrogateescape") as file:
        return parse(file, directory)


def parse(lines, directory):
    """The calls on what is in a directory, and the marks, in the order of their entries."""
    events, open_calls = [], {}
    for number, line in enumerate(lines):
        match = _LINE.match(line.rstrip("\n"))
        if match is None:
            raise AssertionError(f"not a line of a trace: {line[:200]}")
        thread, text = int(match[1]), match[2]
        if text.endswith("<unfinished ...>"):
            open_calls[thread] = (number, text.removesuffix("<unfinished ...>").rstrip())
            continue
        began, resumed = number, _RESUMED.match(text)
        if resumed is not None:
            began, head = open_calls.pop(thread)
            text = head + resumed[1]
        call = _CALL.match(text)
        if call is not None:
            event = _event(thread, began, number, call, directory)
            if event is not None:
                events.append(event)
    return sorted(events, key=lambda event: event.began)


def _event(thread, began, ended, call, directory):
    name, arguments, result, rest = call.groups()
    if name == "write" and '"mark: ' in arguments:
        return Mark(thread, _STRING.search(arguments)[1].removeprefix("mark: "), began)
    paths = [_inside(path, directory) for path in _paths(name, arguments)]
    if not paths or None in paths:
        return None
    failed = result == "?" or int(result) < 0
    count = 0 if result == "?" else int(result)
    return Call(thread, name, paths, began, ended, failed, arguments, rest, count)


def _paths(name, arguments):
    """The files that a call names: by a descriptor, or by paths. None for merely opening one."""
    if name.startswith("open") and not re.search("O_CREAT|O_TRUNC", arguments):
        return []
    if name.startswith(_BY_PATH):
        found = [match[1] for match in _STRING.finditer(arguments)]
        bases = [match[2] for match in _DESCRIPTOR.finditer(arguments.split('"')[0])]
        return [os.path.join(bases[0] if bases else "", path) for path in found]
    match = _DESCRIPTOR.match(arguments)
    return [] if match is None else [match[2].removesuffix(" (deleted)")]


def _inside(path, directory):
    """The path relative to the directory; None outside it."""
    relative = os.path.relpath(path, directory)
    return None if relative.startswith("..") else relative
