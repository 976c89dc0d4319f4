"""Every example in a docstring of ``wal`` and ``kvstore`` runs, and prints what it says."""

from __future__ import annotations

import doctest
import importlib
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {
    module_name(path): path
    for package in ("wal", "kvstore")
    for path in sorted((ROOT / package).rglob("*.py"))
    if path.stem != "__main__"  # importing it would run the command
}


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = MODULES[name].read_text(encoding="utf-8")
    platform = re.search(r'^assert sys\.platform == "(\w+)"$', source, re.MULTILINE)
    if platform and platform[1] != sys.platform:
        pytest.skip(f"only for {platform[1]}")
    monkeypatch.chdir(tmp_path)  # an example may make files where it stands
    module = importlib.import_module(name)
    report: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    found = doctest.DocTestFinder().find(module, name)
    failed = sum(runner.run(docstring, out=report.append).failed for docstring in found)
    assert failed == 0, "".join(report)
