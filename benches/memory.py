"""What a process takes of the machine: resident memory, bytes written."""

from __future__ import annotations

import sys

from benches.settings import MIB


def memory_mib(kind: str) -> float | None:
    """This process's memory now (VmRSS) or at its peak (VmHWM); None where nobody tells.

    Linux tells both, macOS the peak alone.
    """
    if sys.platform == "win32":
        return None
    if sys.platform == "linux":  # ru_maxrss begins with what the parent had
        with open("/proc/self/status", encoding="utf-8", errors="replace") as status:
            return next(int(line.split()[1]) for line in status if line.startswith(kind)) / 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / MIB


def written_bytes() -> int | None:
    """What this process and its children that have ended gave to disks; None where nobody tells.

    Pages are counted when they become dirty: also those of mapped files, and not again while they
    wait to be written. What was removed before it was written is taken off.
    """
    if sys.platform != "linux":
        return None
    with open("/proc/self/io", encoding="ascii") as lines:
        counts = dict(line.split(": ") for line in lines)
    return int(counts["write_bytes"]) - int(counts["cancelled_write_bytes"])
