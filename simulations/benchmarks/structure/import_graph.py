"""Analyse imports: modules loaded, circles of modules, knots of folders, imports in functions.

An import stands in a function only where it loads a slow or an optional package that the module
does not load at its top anyway. Slow is what takes more than `SLOW_S` in a fresh interpreter;
the benchmark measures every package of `SLOW` again. Optional is what an extra installs.
"""

import sys
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property

from simulations.benchmarks.structure.sources import Import, Module

Graph = Mapping[str, Iterable[str]]


SLOW_S = 0.1
SLOW = {
    "dp_accounting": 0.89,
    "fastapi": 0.24,
    "flwr": 0.43,
    "flwr.simulation": 2.0,
    "h5py": 0.13,
    "lifelines": 1.33,
    "matplotlib": 0.24,
    "matplotlib.pyplot": 0.53,
    "opacus": 3.98,
    "pandas": 0.58,
    "pyarrow": 0.11,
    "randomgen": 0.14,
    "safetensors.torch": 1.15,
    "scipy": 0.12,
    "torch": 1.79,
}
"""Package -> seconds to import it; numpy (0.08), cryptography, grpc and pydantic are not slow."""


class ImportGraph:
    """Which module loads which.

    Args:
        modules: Dotted name -> module.
        optional: Import names of the packages that only an extra installs.
    """

    def __init__(self, modules: Mapping[str, Module], optional: Iterable[str]) -> None:
        self._modules = modules
        self._costly = frozenset(SLOW) | frozenset(optional)

    def own(self, target: str) -> str | None:
        """Return the module of ours that an import names, or None."""
        parent = target.rpartition(".")[0]
        return next((name for name in (target, parent) if name in self._modules), None)

    @cached_property
    def loads(self) -> dict[str, set[str]]:
        """Module -> modules of ours that its top level imports by name."""
        return {
            name: {own for i in module.imports if not i.local and (own := self.own(i.target))}
            for name, module in self._modules.items()
        }

    def costly(self, name: str) -> set[str]:
        """Return the slow and optional packages that importing `name` loads, directly or not."""
        found, queue, seen = set[str](), [name], set[str]()
        while queue:
            module = queue.pop()
            if module in seen:
                continue
            seen.add(module)
            found |= self._costly_at_top[module]
            queue += [*self.loads[module], *parents(module)]
        return found

    @cached_property
    def _costly_at_top(self) -> dict[str, set[str]]:
        return {
            name: {
                p for i in module.imports if not i.local and (p := self._costly_package(i.target))
            }
            for name, module in self._modules.items()
        }

    def _costly_package(self, target: str) -> str | None:
        parts = target.split(".")
        dotted = (".".join(parts[:n]) for n in range(len(parts), 0, -1))
        return next((name for name in dotted if name in self._costly), None)

    def needless_local_imports(self) -> Iterator[tuple[Module, Import]]:
        """Yield the imports in functions that load nothing slow or optional."""
        for module in self._modules.values():
            at_top: set[str] | None = None
            for imported in module.imports:
                if not imported.local:
                    continue
                at_top = self.costly(module.name) if at_top is None else at_top
                own = self.own(imported.target)
                cost = self.costly(own) if own else {self._costly_package(imported.target)} - {None}
                if cost <= at_top:
                    yield module, imported

    def module_circles(self) -> list[list[str]]:
        """Return the groups of modules that load each other in a circle."""
        return circles(self.loads)

    def folder_knots(self) -> list[list[str]]:
        """Return the groups of folders that import each other, of every depth.

        Imports in functions count: a knot is a matter of who knows whom, not of when.
        """
        edges = {
            (module.folder, self._modules[own].folder)
            for module in self._modules.values()
            for imported in module.imports
            if (own := self.own(imported.target))
        }
        knots = []
        for depth in range(1, 1 + max(folder.count(".") + 1 for folder, _ in edges)):
            graph: dict[str, set[str]] = {}
            for edge in edges:
                source, target = (".".join(folder.split(".")[:depth]) for folder in edge)
                graph.setdefault(source, set()).add(target)
            knots += [knot for knot in circles(graph) if knot not in knots]
        return knots


def parents(name: str) -> list[str]:
    """Return the packages above a module, which importing it runs first.

    Example:
        >>> parents("common.wire.names")
        ['common', 'common.wire']
    """
    parts = name.split(".")
    return [".".join(parts[:n]) for n in range(1, len(parts))]


def circles(graph: Graph) -> list[list[str]]:
    """Return the strongly connected components of more than one node, by Tarjan's algorithm.

    Example:
        >>> circles({"a": "b", "b": "ac", "c": "d"})
        [['a', 'b']]
    """
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for target in graph.get(node, ()):
            if target not in index:
                visit(target)
                low[node] = min(low[node], low[target])
            elif target in stack:
                low[node] = min(low[node], index[target])
        if low[node] == index[node]:
            component = [stack.pop()]
            while component[-1] != node:
                component.append(stack.pop())
            found.append(sorted(component))

    sys.setrecursionlimit(max(sys.getrecursionlimit(), 10_000))
    for node in graph:
        if node not in index:
            visit(node)
    return sorted(component for component in found if len(component) > 1)
