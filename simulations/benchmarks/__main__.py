"""List the benchmarks: `python -m simulations.benchmarks`."""

from __future__ import annotations

import ast
import sys
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Listed:
    """One benchmark.

    Attributes:
        name: Run it as `python -m simulations.benchmarks.NAME --data ../shared/data --json`.
        shows: First line of its docstring.
        duration: How long it takes.
    """

    name: str
    shows: str
    duration: str


def benchmarks(folder: Path | None = None) -> list[Listed]:
    """Return every module that states its `DURATION`, read without importing any."""
    found = []
    for path in sorted((folder or Path(__file__).parent).rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        duration = _constant(tree, "DURATION")
        if duration is not None:
            shows = (ast.get_docstring(tree) or "").split("\n", maxsplit=1)[0]
            found.append(Listed(path.stem, shows, duration))
    return found


def _constant(tree: ast.Module, name: str) -> str | None:
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else []
        targets = [node.target] if isinstance(node, ast.AnnAssign) else targets
        if any(isinstance(target, ast.Name) and target.id == name for target in targets):
            value = getattr(node, "value", None)
            return str(value.value) if isinstance(value, ast.Constant) else None
    return None


def main() -> None:
    """Write the list to standard output."""
    listed = benchmarks()
    width = max((len(entry.name) for entry in listed), default=0)
    for entry in listed:
        sys.stdout.write(f"{entry.name:<{width}}  {entry.shows} [{entry.duration}]\n")
    sys.stdout.write(
        "\nRun one: python -m simulations.benchmarks.NAME --data ../shared/data --json\n"
    )


if __name__ == "__main__":
    main()
