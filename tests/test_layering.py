"""The layers stay layers: who imports whom, read from the source; and no module grows too long.

An arrow goes from a module to one in a *lower* layer. Modules of one layer may import each other
only inside one package (``wal.files.standard`` may use ``wal.files``), and never in a circle.
Imports under ``if TYPE_CHECKING:`` do not count; those inside functions do, but for the few listed.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

# ------------------------------------------------------------------ the rules; extend them here

LAYERS: dict[str, list[list[str]]] = {
    # Lowest first. A name with a star stands for all modules that are not named elsewhere.
    "wal": [
        [
            "wal.errors",
            "wal.positions",
            "wal.statistics",
            "wal.turnstile",
            "wal.telling",
            "wal.threads",
            "wal.untrusted",
        ],
        ["wal.files", "wal.files.*"],
        ["wal.config", "wal.tickets"],
        ["wal.segments", "wal.segments.*"],
        ["wal.log_manager", "wal.checkpoint_marker", "wal.leadership", "wal.append_buffer"],
        ["wal.judgement"],
        ["wal.rounds", "wal.recovery", "wal.reading", "wal.checkpointer"],
        ["wal.group_commit"],
        ["wal.chunk_writer", "wal.flusher"],
        ["wal.entry_writer"],
        ["wal.opening"],
        ["wal.closing"],
        ["wal.log"],
        ["wal.read_only"],
        ["wal"],
        ["wal.cli", "wal.cli.*"],
        ["wal.__main__"],
    ],
    "kvstore": [
        ["kvstore.memory", "kvstore.background", "kvstore.upkeep"],  # their own docstrings
        ["kvstore.errors", "kvstore.config", "kvstore.values", "kvstore.pulse"],
        ["kvstore.mutations", "kvstore.pages"],
        ["kvstore.ranges", "kvstore.codecs"],
        ["kvstore.keyspaces", "kvstore.sources"],
        ["kvstore.names", "kvstore.cursor", "kvstore.scan"],
        ["kvstore.batch", "kvstore.reading"],
        # tables and what is done with them
        ["kvstore.tables", "kvstore.tables.*"],
        ["kvstore.directory"],
        ["kvstore.background.building"],
        ["kvstore.background.catalog", "kvstore.background.worker", "kvstore.upkeep.restoring"],
        ["kvstore.background.compaction", "kvstore.upkeep.backup"],
        # memory
        ["kvstore.memory.in_flight", "kvstore.memory.ordered_keys"],
        ["kvstore.memory.layers"],
        ["kvstore.memory.state"],
        ["kvstore.memory.memtable"],
        ["kvstore.background.checkpointing", "kvstore.memory.pinned"],
        ["kvstore.engine"],
        # what users see
        ["kvstore.commit", "kvstore.upkeep.checking", "kvstore.change_feed", "kvstore.mapping"],
        ["kvstore.statistics", "kvstore.upkeep.verification", "kvstore.writing"],
        ["kvstore.parts", "kvstore.namespaces"],
        ["kvstore.snapshot", "kvstore.transactions"],
        ["kvstore.store"],
        ["kvstore.opening"],
        ["kvstore"],
        ["kvstore.aio", "kvstore.aio.*"],
    ],
}

UPWARD_INSIDE_FUNCTIONS = {
    ("wal.config", "wal.log"),  # Configuration.open: the composition root imports the configuration
    ("wal.log", "wal.read_only"),  # WriteAheadLog.open: a read-only log is a kind of log
}

PUBLIC_WAL_MODULES = ["wal", "wal.files", "wal.files.*", "wal.untrusted"]
"""What of ``wal`` a store may import; from ``wal`` itself only the names in its ``__all__``."""

DEPENDENCIES = {"crc32c", "filelock", "msgpack", "sortedcontainers"}
TERMINAL_DEPENDENCIES = {"rich"}
"""Optional, and only in modules called ``__main__`` or ``cli`` and in packages called ``cli``."""

MOST_CODE_LINES = 400
"""Lines of a module that are neither blank, comment nor docstring. Aim for 300."""

# ------------------------------------------------------------------ reading the source

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("wal", "kvstore")


@dataclass(frozen=True)
class Import:
    """``import module`` (name None) or ``from module import name``."""

    module: str
    name: str | None
    line: int
    in_function: bool


@dataclass(frozen=True)
class Module:
    name: str
    path: Path
    tree: ast.Module

    @property
    def is_terminal(self) -> bool:
        return self.path.stem == "__main__" or "cli" in self.name.split(".")

    def at(self, line: int) -> str:
        return f"{self.path.relative_to(ROOT).as_posix()}:{line}"


def parse(path: Path) -> Module:
    parts = path.relative_to(ROOT).with_suffix("").parts
    name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
    return Module(name, path, ast.parse(path.read_text(encoding="utf-8"), str(path)))


MODULES = {
    module.name: module
    for package in PACKAGES
    for module in map(parse, sorted((ROOT / package).rglob("*.py")))
}


def imports_of(module: Module) -> Iterator[Import]:
    yield from _imports(module, module.tree, in_function=False)


def _imports(module: Module, node: ast.AST, in_function: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING"):
            for other in child.orelse:
                yield from _imports(module, ast.Module([other], []), in_function)
        elif isinstance(child, ast.Import):
            for alias in child.names:
                yield Import(alias.name, None, child.lineno, in_function)
        elif isinstance(child, ast.ImportFrom):
            source = absolute(module, child)
            for alias in child.names:
                yield Import(source, alias.name, child.lineno, in_function)
        else:
            inside = isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
            yield from _imports(module, child, in_function or inside)


def absolute(module: Module, node: ast.ImportFrom) -> str:
    """The module that a ``from`` names, also where it is relative."""
    if node.level == 0:
        return node.module or ""
    package = module.name.split(".")
    if module.path.name != "__init__.py":
        package.pop()
    package = package[: len(package) - (node.level - 1)]
    return ".".join([*package, *([node.module] if node.module else [])])


def target_of(imported: Import) -> str:
    """The module that is reached; ``from wal.files import memory`` reaches ``wal.files.memory``."""
    submodule = f"{imported.module}.{imported.name}"
    return submodule if submodule in MODULES else imported.module


def belongs_to(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def layer_of(name: str) -> int | None:
    """The number of the layer of a module, or None if the table does not know it."""
    layers = LAYERS.get(name.partition(".")[0], [])
    for number, patterns in enumerate(layers):
        if name in patterns:
            return number
    for number, patterns in enumerate(layers):
        if any(fnmatchcase(name, pattern) for pattern in patterns):
            return number
    return None


def parametrized(modules: list[Module]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("module", modules, ids=lambda module: module.name)


def modules_of(*packages: str) -> list[Module]:
    return [m for m in MODULES.values() if m.name.partition(".")[0] in packages]


# ------------------------------------------------------------------ the tests


@parametrized(modules_of(*LAYERS))
def test_every_module_has_a_layer(module: Module) -> None:
    assert layer_of(module.name) is not None, (
        f"{module.name} is in no layer: add it to LAYERS at the top of {Path(__file__).name}, "
        "above everything that it imports"
    )


@parametrized(modules_of(*LAYERS))
def test_arrows_go_down(module: Module) -> None:
    package = module.name.partition(".")[0]
    own = layer_of(module.name)
    upward = []
    for imported in imports_of(module):
        target = target_of(imported)
        other = layer_of(target)
        if not belongs_to(target, package) or own is None or other is None:
            continue
        if imported.in_function and (module.name, target) in UPWARD_INSIDE_FUNCTIONS:
            continue
        if other > own or (other == own and not same_package(module.name, target)):
            where = f"the higher layer {other}" if other > own else "its own layer"
            upward.append(
                f"{module.at(imported.line)}: {module.name} (layer {own}) "
                f"imports {target}, of {where}"
            )
    assert not upward, "\n".join(upward)


def same_package(name: str, other: str) -> bool:
    """Whether both are in one package below the top, as ``wal.files`` and ``wal.files.memory``."""
    return name.count(".") > 0 and name.split(".")[:2] == other.split(".")[:2]


def test_no_circles() -> None:
    arrows = {
        module.name: sorted({target_of(i) for i in imports_of(module) if not i.in_function})
        for module in MODULES.values()
    }
    done: set[str] = set()

    def visit(name: str, trail: list[str]) -> None:
        if name in trail:
            circle = [*trail[trail.index(name) :], name]
            pytest.fail("modules import each other in a circle: " + " -> ".join(circle))
        if name in done:
            return
        for target in arrows.get(name, []):
            if target in MODULES and target != name:
                visit(target, [*trail, name])
        done.add(name)

    for name in arrows:
        visit(name, [])


@parametrized(modules_of("wal"))
def test_the_log_knows_no_store(module: Module) -> None:
    found = [
        f"{module.at(imported.line)}: imports {imported.module}"
        for imported in imports_of(module)
        if belongs_to(imported.module, "kvstore")
    ]
    assert not found, "\n".join(found)


@parametrized(modules_of("kvstore"))
def test_the_store_uses_public_names_of_the_log(module: Module) -> None:
    public = public_names()
    wrong = []
    for imported in imports_of(module):
        if not belongs_to(imported.module, "wal"):
            continue
        if not any(fnmatchcase(imported.module, pattern) for pattern in PUBLIC_WAL_MODULES):
            wrong.append(f"{module.at(imported.line)}: {imported.module} is not public")
        elif imported.module == "wal" and imported.name is not None:
            wrong += private_use(module, imported.line, imported.name, public)
        elif imported.name is not None and imported.name.startswith("_"):
            wrong.append(f"{module.at(imported.line)}: {imported.name} is not public")
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "wal":
            wrong += private_use(module, node.lineno, node.attr, public)
    assert not wrong, "\n".join(wrong)


def private_use(module: Module, line: int, name: str, public: set[str] | None) -> list[str]:
    """A complaint, if ``wal.name`` is neither in ``wal.__all__`` nor a public module."""
    if name in {"files", "__version__"} or public is None or name in public:
        return []
    return [f"{module.at(line)}: {name} is not in wal.__all__"]


def public_names() -> set[str] | None:
    """``wal.__all__`` as it is written, or None while there is none."""
    if "wal" not in MODULES:
        return None
    for node in MODULES["wal"].tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else []
        if isinstance(node, ast.AnnAssign):
            targets = [node.target]
        if any(isinstance(t, ast.Name) and t.id == "__all__" for t in targets):
            return set(ast.literal_eval(node.value))
    return None


@parametrized(modules_of(*PACKAGES))
def test_no_other_dependencies(module: Module) -> None:
    allowed = sys.stdlib_module_names | set(PACKAGES) | DEPENDENCIES
    if module.is_terminal:
        allowed |= TERMINAL_DEPENDENCIES
    found = [
        f"{module.at(imported.line)}: imports {imported.module}"
        for imported in imports_of(module)
        if imported.module.partition(".")[0] not in allowed
    ]
    assert not found, "\n".join(found)


def test_the_distribution_requires_these_and_no_others() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    block = re.search(r"^dependencies = \[$(.*?)^\]$", text, re.MULTILINE | re.DOTALL)
    assert block is not None
    assert set(re.findall(r'^\s*"([a-z0-9-]+)', block[1], re.MULTILINE)) == DEPENDENCIES


@parametrized(modules_of(*PACKAGES))
def test_modules_stay_short(module: Module) -> None:
    lines = code_lines(module)
    assert lines <= MOST_CODE_LINES, (
        f"{module.at(1)} has {lines} lines of code, of at most {MOST_CODE_LINES}: divide it"
    )


def code_lines(module: Module) -> int:
    """How many lines are neither blank, nor comment, nor docstring."""
    silent = {
        tokenize.COMMENT,
        tokenize.NL,
        tokenize.NEWLINE,
        tokenize.INDENT,
        tokenize.DEDENT,
        tokenize.ENDMARKER,
    }
    source = module.path.read_text(encoding="utf-8")
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in silent:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(module.tree):
        if is_docstring(node):
            lines.difference_update(range(node.lineno, node.end_lineno + 1))
    return len(lines)


def is_docstring(node: ast.AST) -> bool:
    """A string that stands by itself: of a module, class or function, or below an attribute."""
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )
