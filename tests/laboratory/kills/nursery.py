"""Where the processes that are to be killed come from: forked by one that has imported everything.

Starting Python and importing the store takes as long as ten of the lives that it is for. So one
process without threads waits for plans and forks a child for each. It also kills them, and is their
parent, so no id can have passed to another process. Where there is no fork each is started anew.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

PATIENCE = 60.0
_PROGRAM = (
    "import json, sys; sys.path[:] = json.loads(sys.argv.pop()); from {0} import main; main()"
)


class Nursery:
    """Begins and ends lives, one at a time. A context manager."""

    def __init__(self):
        self._forks = hasattr(os, "fork")
        self._process = _start(__name__) if self._forks else None

    def begin(self, plan):
        """Start a child that lives by a plan."""
        if self._forks:
            self._ask("begin", plan)
        else:
            self._process = _start("tests.laboratory.kills.child", json.dumps(plan), pipes=None)

    def kill(self):
        """Kill it, and return what it ended with: ``-SIGKILL``, unless it came to its own end."""
        if self._forks:
            return self._ask("kill", None)
        self._process.kill()  # TerminateProcess, where there are no signals
        return self._process.wait(PATIENCE) and -9

    def _ask(self, what, plan):
        self._process.stdin.write(json.dumps([what, plan]).encode() + b"\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, "the nursery has ended"
        return json.loads(answer)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self._forks:
            self._process.stdin.close()
            self._process.stdout.close()
        elif self._process is not None:
            self._process.kill()
        if self._process is not None:
            self._process.wait(PATIENCE)


def _start(module, *arguments, pipes=subprocess.PIPE):
    program = _PROGRAM.format(module)
    command = [sys.executable, "-I", "-B", "-c", program, *arguments, json.dumps(sys.path)]
    return subprocess.Popen(command, stdin=pipes, stdout=pipes)


def main():
    """Serve, until stdin ends; the last child does not outlive that."""
    from tests.laboratory.kills.child import live

    child = 0
    for line in sys.stdin:
        what, plan = json.loads(line)
        answer = None
        if child:  # also one that a failed test has left behind
            answer, child = _end(child), 0
        if what == "begin":
            child = os.fork()
            if not child:
                os.setsid()  # its own process group is killed with it
                live(plan)
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
    if child:
        _end(child)


def _end(child):
    for _ in range(1_000):  # until it has a group of its own
        try:
            os.killpg(child, signal.SIGKILL)
            break
        except ProcessLookupError:
            time.sleep(0.001)
    os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def wait_until_gone(pids):
    """Wait for processes that nobody kills: they have to end by themselves."""
    deadline = time.monotonic() + PATIENCE
    for pid in pids:
        while _runs(pid):
            assert time.monotonic() < deadline, f"process {pid} outlives its parent"
            time.sleep(0.005)


def _runs(pid):
    if sys.platform == "win32":
        return False  # it can be asked only by ending it
    try:
        os.kill(pid, 0)
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] != b"Z"
    except FileNotFoundError:  # where there is no /proc
        return not os.path.isdir("/proc/self")
    except (ProcessLookupError, PermissionError):
        return False
