"""Run the test suite under every CPython 3.10 to 3.14 of this machine; say which were not found.

Looked for: ``python3.X``, ``python3`` and ``python`` on PATH, pyenv's versions, ``py -3.X``. Each
version has an environment of its own, ``.venvs/3.X``. Arguments are passed on to pytest.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

MINORS = range(10, 15)
REPORT = (
    "import sys; print(sys.implementation.name, sys.version_info[0], sys.version_info[1]);"
    "print(sys.executable)"
)


def main(arguments: list[str]) -> int:
    """Test under each version; the exit status is 1 if one failed or none was found."""
    outcomes: dict[str, str] = {}
    failed = False
    for minor in MINORS:
        version = f"3.{minor}"
        interpreter = find(minor)
        if interpreter is None:
            outcomes[version] = "not found here, not tested"
            continue
        print(f"== {version}: {interpreter}", flush=True)
        started = time.monotonic()
        status = run_tests(version, interpreter, arguments)
        seconds = time.monotonic() - started
        failed = failed or status != 0
        verdict = "passed" if status == 0 else f"FAILED (status {status})"
        outcomes[version] = f"{verdict} in {seconds:.0f} s   {interpreter}"
    print("\n== Summary")
    for version, outcome in outcomes.items():
        print(f"{version:5}  {outcome}")
    nothing_ran = all("not found" in outcome for outcome in outcomes.values())
    return 1 if failed or nothing_ran else 0


def run_tests(version: str, interpreter: str, arguments: list[str]) -> int:
    """``make test`` with this interpreter in its own environment; the exit status."""
    command = ["make", "test", f"PYTHON={shlex.quote(Path(interpreter).as_posix())}"]
    command += [f"VENV=.venvs/{version}", f"ARGS={shlex.join(arguments)}"]
    kept = {name: value for name, value in os.environ.items() if name not in MAKE_VARIABLES}
    return subprocess.run(command, env=kept, check=False).returncode


MAKE_VARIABLES = {"MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "PYTHON", "VENV", "ARGS"}
"""What the outer make hands on, and the inner one must not inherit."""


def find(minor: int) -> str | None:
    """The path of a working CPython 3.minor, or None."""
    for command in candidates(minor):
        path = probe(command, minor)
        if path is not None:
            return path
    return None


def candidates(minor: int) -> Iterator[list[str]]:
    """The commands that may start CPython 3.minor, the likeliest first."""
    yield [f"python3.{minor}"]
    yield ["python3"]
    yield ["python"]
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    if root.is_dir():
        for directory in sorted(root.glob(f"3.{minor}.*"), key=patch_level, reverse=True):
            yield [str(directory / "bin" / "python")]
    if os.name == "nt":
        yield ["py", f"-3.{minor}"]


def patch_level(directory: Path) -> int:
    """13 for ``3.10.13``; -1 for a name that is not a plain release."""
    patch = directory.name.rpartition(".")[2]
    return int(patch) if patch.isdigit() else -1


def probe(command: list[str], minor: int) -> str | None:
    """The interpreter behind ``command`` if it starts and is CPython 3.minor, else None.

    A version manager's shim may exist for a version that is not chosen here; it then fails.
    """
    try:
        found = subprocess.run(
            [*command, "-c", REPORT], capture_output=True, text=True, timeout=60, check=False
        )
    except OSError:
        return None
    lines = found.stdout.splitlines()
    if found.returncode != 0 or len(lines) != 2 or lines[0] != f"cpython 3 {minor}":
        return None
    return lines[1]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
