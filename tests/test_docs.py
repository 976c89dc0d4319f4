"""The documentation points at things that exist, its programs run, and nothing public lacks it."""

from __future__ import annotations

import importlib
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = [
    path
    for path in [
        *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
        *sorted((ROOT / "docs").rglob("*.md")),
    ]
    if path.exists()
]

FENCE = re.compile(r"^(```|~~~).*?^\1\s*?$", re.MULTILINE | re.DOTALL)
CODE_SPAN = re.compile(r"`[^`\n]+`")
INLINE_LINK = re.compile(r"\]\(\s*<?([^()\s>]*(?:\([^()\s]*\)[^()\s>]*)*)>?(?:\s+\"[^\"]*\")?\s*\)")
REFERENCE = re.compile(r"^\s{0,3}\[[^\]]+\]:\s+<?([^\s>]+)", re.MULTILINE)
HEADING = re.compile(r"^#{1,6}\s+(.+?)\s*#*\s*$", re.MULTILINE)
NAMED = re.compile(r"<[^>]*\b(?:id|name)=\"([^\"]+)\"")
ELSEWHERE = re.compile(r"^(?:[a-z][a-z0-9+.-]*:|//)", re.IGNORECASE)

pages = pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def links_of(text: str) -> Iterator[str]:
    """The targets of a page's links, without those to other sites."""
    prose = CODE_SPAN.sub("", FENCE.sub("", text))
    for pattern in (INLINE_LINK, REFERENCE):
        for target in pattern.findall(prose):
            if target and not ELSEWHERE.match(target):
                yield target


def anchors_of(text: str) -> set[str]:
    """The anchors that a page offers, made from its headings as the usual renderers do."""
    prose = FENCE.sub("", text)
    anchors = set(NAMED.findall(prose))
    seen: dict[str, int] = {}
    for heading in HEADING.findall(prose):
        plain = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")
        count = seen.get(slug, 0)
        seen[slug] = count + 1
        anchors.add(f"{slug}-{count}" if count else slug)
    return anchors


def fault_of(page: Path, target: str) -> str | None:
    """What is wrong with a link on a page, or None."""
    path, _, anchor = unquote(target).partition("#")
    found = (page.parent / path).resolve() if path else page
    if ROOT not in (found, *found.parents):
        return f"{target}: outside of the project"
    if not found.exists():
        return f"{target}: there is no such file"
    if anchor and found.suffix == ".md" and anchor not in anchors_of(read(found)):
        return f"{target}: there is no such heading"
    return None


@pages
def test_links(page: Path) -> None:
    faults = [fault_of(page, target) for target in links_of(read(page))]
    assert not any(faults), "\n".join(filter(None, faults))


def test_links_and_anchors_are_found() -> None:
    text = "# A `b` & c\n\n# A `b` & c\n\n[x](y.md#z), ![p](<q.png>)\n\n```\n[no](no)\n```\n"
    text += "[r]: s.md\n[s](https://example.org)\n"
    assert list(links_of(text)) == ["y.md#z", "q.png", "s.md"]
    assert anchors_of(text) == {"a-b--c", "a-b--c-1"}
    assert fault_of(ROOT / "README.md", "no-such-file.md") is not None
    assert fault_of(ROOT / "README.md", "README.md#no-such-heading") is not None
    assert fault_of(ROOT / "README.md", "../elsewhere") is not None


@pages
def test_make_targets(page: Path) -> None:
    text = read(page)
    code = [match[0] for pattern in (FENCE, CODE_SPAN) for match in pattern.finditer(text)]
    named = {target for part in code for target in re.findall(r"\bmake ([a-z][\w-]*)", part)}
    defined = set(re.findall(r"^([a-z][\w-]*):(?!=)", read(ROOT / "Makefile"), re.MULTILINE))
    assert named <= defined


@pytest.mark.parametrize("package", ["wal", "kvstore"])
def test_public_names_are_described(package: str) -> None:
    module = importlib.import_module(package)
    silent = []
    for name in getattr(module, "__all__", []):
        value = getattr(module, name)
        if not (inspect.isclass(value) or inspect.isroutine(value)):
            continue
        members = inspect.getmembers(value) if inspect.isclass(value) else []
        methods = [
            (f"{name}.{key}", member)
            for key, member in members
            if not key.startswith("_")
            and (inspect.isroutine(member) or isinstance(member, property))
        ]
        silent += [label for label, item in [(name, value), *methods] if not inspect.getdoc(item)]
    assert not silent, f"without a docstring: {silent}"


PROGRAM = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PROGRAMS = PROGRAM.findall(read(ROOT / "README.md"))


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda text: text.split(maxsplit=2)[1])
def test_programs_of_the_readme(program: str, tmp_path: Path) -> None:
    run(program, tmp_path)


def test_the_tour_of_the_store(tmp_path: Path) -> None:
    """Its programs go on where the one before has ended: all of them are one."""
    parts = PROGRAM.findall(read(ROOT / "docs" / "store.md"))
    assert parts
    run("\n".join(parts), tmp_path)


def run(program: str, directory: Path) -> None:
    (directory / "program.py").write_text(program, encoding="utf-8")
    command = [sys.executable, "-W", "error", "-c", RUN_PROGRAM, str(ROOT)]
    result = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""


RUN_PROGRAM = "import runpy, sys; sys.path.insert(0, sys.argv[1]); runpy.run_path('program.py')"

MACHINE_PATHS = re.compile(
    # Put together here so that this file does not contain what it looks for.
    rb"(?<![\w.:/\\-])/(?:" + b"|".join([b"work", b"root", b"tmp/v", b"home/\\w+", b"Users/\\w+"])
    + rb")(?:/|\b(?!\w))"
)  # fmt: skip


def tracked_files() -> list[Path]:
    """The files under version control; outside of a clone, the packages and the pages."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True)
    names = [name for name in listed.stdout.decode().split("\0") if name]
    if listed.returncode != 0:
        return [*PAGES, *(p for d in ("wal", "kvstore") for p in (ROOT / d).rglob("*.py"))]
    return [ROOT / name for name in names if (ROOT / name).is_file()]


def test_no_paths_of_one_machine() -> None:
    found = []
    for path in tracked_files():
        for number, line in enumerate(path.read_bytes().split(b"\n"), 1):
            if MACHINE_PATHS.search(line):
                found.append(f"{path.relative_to(ROOT).as_posix()}:{number}")
    assert not found, "\n".join(found)
