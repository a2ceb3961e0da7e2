"""Read the modules of the source tree, with their imports and definitions, without running any."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

PACKAGES = ("common", "client", "server", "simulations")
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Import:
    """One import statement's target.

    Attributes:
        target: Dotted name of the module, or of a name in it, that is imported.
        line: Where the statement stands.
        local: Whether it stands in a function, and so runs when that is called.
    """

    target: str
    line: int
    local: bool


@dataclass(frozen=True)
class Module:
    """One module.

    Attributes:
        name: Dotted name; that of the package where the file is an `__init__.py`.
        path: Its file.
        text: Its source.
    """

    name: str
    path: Path
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        """Its syntax tree."""
        return ast.parse(self.text)

    @cached_property
    def folder(self) -> str:
        """Dotted name of the folder that holds the file."""
        return self.name if self.path.stem == "__init__" else self.name.rpartition(".")[0]

    @cached_property
    def imports(self) -> tuple[Import, ...]:
        """Every import that runs; those for type checkers alone do not."""
        return tuple(_imports(self.tree, local=False))

    @cached_property
    def required(self) -> tuple[str, ...]:
        """Names of the optional modules that it loads by `common.optional.require`."""
        calls = (node for node in ast.walk(self.tree) if isinstance(node, ast.Call) and node.args)
        return tuple(
            str(call.args[0].value)
            for call in calls
            if getattr(call.func, "id", "") == "require" and isinstance(call.args[0], ast.Constant)
        )

    def functions(self) -> Iterator[Function]:
        """Yield every function and method, nested ones too."""
        yield from (node for node in ast.walk(self.tree) if isinstance(node, Function))

    def undocumented(self) -> list[str]:
        """Return the public classes, functions and methods (or the module) without a docstring."""
        missing = _undocumented(self.tree.body, self.name)
        return missing if ast.get_docstring(self.tree) else [self.name, *missing]


def read_sources(root: Path) -> dict[str, Module]:
    """Return dotted name -> module of the four packages below `root`."""
    modules = {}
    for path in sorted(path for package in PACKAGES for path in (root / package).rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        modules[name] = Module(name, path, path.read_text(encoding="utf-8"))
    return modules


def _imports(node: ast.AST, *, local: bool) -> Iterator[Import]:
    if isinstance(node, ast.Import):
        yield from (Import(alias.name, node.lineno, local) for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        yield from (Import(f"{node.module}.{a.name}", node.lineno, local) for a in node.names)
    elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
        yield from (i for below in node.orelse for i in _imports(below, local=local))
    else:
        local = local or isinstance(node, Function)
        yield from (i for below in ast.iter_child_nodes(node) for i in _imports(below, local=local))


def _undocumented(body: list[ast.stmt], prefix: str) -> list[str]:
    missing = []
    for node in body:
        if not isinstance(node, Function | ast.ClassDef) or node.name.startswith("_"):
            continue
        name = f"{prefix}.{node.name}"
        if not ast.get_docstring(node):
            missing.append(name)
        if isinstance(node, ast.ClassDef):
            missing += _undocumented(node.body, name)
    return missing
