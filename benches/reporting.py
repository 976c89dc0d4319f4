"""What was measured, as a table and as JSON, with what it was measured on."""

from __future__ import annotations

import json
import os
import platform
import sqlite3
import sys
import sysconfig
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from benches.goals import GOALS, Figure
from benches.settings import Settings

DEPENDENCIES = ("crc32c", "filelock", "msgpack", "sortedcontainers")
PEERS = ("diskcache", "lmdb", "plyvel", "rocksdict", "sqlitedict")


def row(figure: Figure) -> str:
    """A figure as a line of the table."""
    goal = GOALS.get(figure.name)
    if goal is None or figure.value is None:
        verdict = ""
    else:
        verdict = f"{goal} {'reached' if goal.reached(figure.value) else 'MISSED'}"
    verdict += " (noisy floor)" if figure.noisy else ""
    value = "unknown" if figure.value is None else f"{_number(figure.value)} {figure.unit}"
    details = "  ".join(f"{name} {_number(number)}" for name, number in figure.details.items())
    return f"{figure.name:46} {value:>16}  {verdict:32} {details}".rstrip()


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def document(figures: Sequence[Figure], settings: Settings, directory: str) -> dict[str, Any]:
    """Everything that there is to say about a run, ready for JSON."""
    return {
        "machine": machine(directory),
        "python": python(),
        "settings": asdict(settings),
        "figures": [_as_json(figure) for figure in figures],
    }


def _as_json(figure: Figure) -> dict[str, Any]:
    goal = GOALS.get(figure.name)
    judged = goal is not None and figure.value is not None
    return {
        **asdict(figure),
        "goal": None if goal is None else asdict(goal),
        "noisy": figure.noisy,
        "reached": goal.reached(figure.value) if judged else None,  # type: ignore[union-attr, arg-type]
    }


def save(path: str, figures: Sequence[Figure], settings: Settings, directory: str) -> None:
    with open(path, "w", encoding="utf-8") as file:
        json.dump(document(figures, settings, directory), file, indent=1)
        file.write("\n")


def machine(directory: str) -> dict[str, Any]:
    load = os.getloadavg() if hasattr(os, "getloadavg") else None
    return {
        "system": platform.system(),
        "release": platform.release(),
        "architecture": platform.machine(),
        "processor": _processor(),
        "cpus": os.cpu_count(),
        "memory_bytes": _memory(),
        "file_system": _file_system(directory),
        "load_average": load,
    }


def _processor() -> str:
    if sys.platform == "linux":
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    return platform.processor()


def _memory() -> int | None:
    if sys.platform == "win32":
        return None
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _file_system(directory: str) -> str | None:
    """The kind of file system that was measured on: that of the longest mount point above."""
    if sys.platform != "linux":
        return None
    path = os.path.realpath(directory)
    kinds = {}
    with open("/proc/mounts", encoding="utf-8", errors="replace") as mounts:
        for line in mounts:
            _, mounted, kind, *_ = line.split()
            if path == mounted or path.startswith(mounted.rstrip("/") + "/"):
                kinds[len(mounted)] = kind
    return kinds[max(kinds)] if kinds else None


def python() -> dict[str, Any]:
    return {
        "version": platform.python_version(),
        "implementation": platform.python_implementation(),
        "free_threaded": bool(sysconfig.get_config_var("Py_GIL_DISABLED")),
        "packages": {name: _version(name) for name in DEPENDENCIES + PEERS},
        "sqlite": sqlite3.sqlite_version,
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
