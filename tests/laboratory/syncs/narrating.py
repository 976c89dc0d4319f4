"""A trace as the text that stands in docs/system-calls.md: for each step, who calls what.

Threads are told one after the other, since how they interleave differs from run to run; which
order between threads matters is in ``rules``. Files have short names, numbered anew in each step.
Left out are lock files, calls that failed, and what the flusher writes on its own when a log is
idle, but for the step about it. ``python -m tests.laboratory.syncs.narrating`` prints the blocks
for the document.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile

from tests.laboratory.syncs.scenes import SCENES
from tests.laboratory.syncs.tracing import Mark, trace

#: Steps of many threads: how they share the syncs differs from run to run.
UNTOLD = ("50 puts of tasks", "puts of 8 threads")
ROLES = ("caller", "preparer", "checkpointer", "compactor", "flusher")
_NAMES = {"wal-": "segment", "free-": "spare", "tmp-": "tmp", "kept-": "kept"}
_NUMBERED = re.compile(r"(wal-|free-|tmp-|kept-)[\w-]+|\d{12}(\.table)")
_IDLE = "idleness"


def steps(events):
    """Each step of a trace, by its name: the lines that tell it."""
    roles = thread_roles(events)
    found = {}
    name, inside = None, []
    for event in events:
        if isinstance(event, Mark):
            verb, _, rest = event.text.replace('\\"', '"').partition(" ")
            if verb == "begin":
                name, inside = rest, []
            elif verb == "end":
                found[name] = lines(name, inside, roles)
                name = None
        if name is not None:
            inside.append(event)
    return {name: told for name, told in found.items() if name not in UNTOLD}


def thread_roles(events):
    """What each thread is for, as far as its name tells; others are callers."""
    roles = {}
    for event in events:
        if isinstance(event, Mark) and event.text.startswith("thread "):
            _, number, name = event.text.split(" ", 2)
            roles[int(number)] = next((role for role in ROLES if name.endswith(role)), "caller")
    return roles


def lines(name, events, roles):
    """The lines of a step: thread by thread, each in its order."""
    short = _Short()
    told = {role: [] for role in ROLES}
    for event in events:
        role = roles.get(event.thread, "caller")
        line = _told(event, short)
        if line and (role != "flusher" or name.startswith(_IDLE)):
            told[role].append(line)
    return [name] + [
        f"  {role:<13}{line}".rstrip() for role in ROLES for line in _joined(told[role])
    ]


def _told(event, short):
    if isinstance(event, Mark):
        returns = event.text == "returned" or event.text.startswith(("ack ", "accepted "))
        return "returns" if returns else "shows what it holds" if event.text == "shown" else ""
    if event.failed or any(path.endswith("LOCK") for path in event.paths):
        return ""
    call = _plain(event.name)
    return f"{call:<10} {' → '.join(short(path, call) for path in event.paths)}"


def _plain(name):
    for plain in ("pwrite", "rename", "unlink", "link", "mkdir"):
        if name.startswith(plain):
            return plain
    return "create" if name.startswith(("open", "creat")) else name


def _joined(told):
    """Several writes to one file, or removals in one directory, are told as one: ``…``.

    How many there are depends on sizes, the order of removals on nothing that matters.
    """
    found = []
    for line in told:
        what = line.rpartition("/")[0] + "/" if line.startswith("unlink") else line
        again = found and line.startswith(("pwrite", "unlink")) and found[-1].startswith(what)
        if not again:
            found.append(line)
        else:
            found[-1] = f"{what}…" if line.startswith("unlink") else f"{line} …"
    return found


class _Short:
    """Paths relative to the store, numbers from 1 in the order in which they come."""

    def __init__(self):
        self._seen = {}

    def __call__(self, path, call):
        short = "../" if path == "." else path.removeprefix("my.db").lstrip("/") or "./"
        short = _NUMBERED.sub(self._number, short)
        return short.rstrip("/") + "/" if call in ("fsync", "mkdir") else short

    def _number(self, match):
        kind = _NAMES.get(match[1], "table")
        names = self._seen.setdefault(kind, {})
        return f"{kind}-{names.setdefault(match[0], len(names) + 1)}"


def main():
    with tempfile.TemporaryDirectory() as directory:
        for told in steps(trace(os.path.realpath(directory), *SCENES)).values():
            sys.stdout.write("\n".join(["```text", *told, "```", "", ""]))


if __name__ == "__main__":
    main()
