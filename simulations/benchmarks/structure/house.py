"""Measure the source tree: folders, imports, sizes, documentation, dependencies, test warnings.

What is read from the sources alone is an ordinary test too, so that no later change can undo it.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from simulations.benchmarks.parts.check import Check, Size
from simulations.benchmarks.parts.command import main
from simulations.benchmarks.structure import ways
from simulations.benchmarks.structure.dependencies import optional_imports, unused
from simulations.benchmarks.structure.import_graph import SLOW, SLOW_S, ImportGraph
from simulations.benchmarks.structure.sources import Module, read_sources

DURATION = "about 30 minutes: the test suite once"
ROOT = Path(__file__).parents[3]
LINES_BEFORE = 57_789
"""Lines when the folders were first drawn. Drawing them added none; what users gained since did."""


@dataclass(frozen=True)
class HouseSize(Size):
    """Packages whose import is timed; tests whose warnings are counted, so many at a time; ways."""

    packages: tuple[str, ...] = tuple(SLOW)
    tests: str = "tests"
    workers: int = 2
    ways: ways.WaysSize = ways.FULL


FULL, MINIATURE = (
    HouseSize(),
    HouseSize(
        partial=True,
        packages=("matplotlib",),
        tests="tests/common/test_optional.py",
        workers=0,
        ways=ways.WaysSize(modes=()),
    ),
)

TEST_OUTPUT = "TUMORBOARD_TEST_OUTPUT"
"""Environment variable: file with the output of `make test`, to be read instead of run again."""


def checks(data: Path, size: HouseSize) -> Iterator[Check]:
    """Yield the checks; real data is not needed."""
    yield from static_checks(ROOT)
    total = sum(module.text.count("\n") for module in read_sources(ROOT).values())
    note = f"{LINES_BEFORE} when the folders were first drawn"
    yield Check("lines of code without tests", total, LINES_BEFORE, "finite", note)
    yield _fast_packages(size.packages)
    yield from ways.checks(data, size.ways)
    yield _warnings(size.tests, size.workers)


def static_checks(root: Path) -> Iterator[Check]:
    """Yield what follows from the sources below `root` alone."""
    modules = read_sources(root)
    graph = ImportGraph(modules, optional_imports(root))
    needless = [f"{m.name}:{i.line} {i.target}" for m, i in graph.needless_local_imports()]
    yield _largest_folder(modules)
    yield _none("knots of folders", [" - ".join(knot) for knot in graph.folder_knots()])
    yield _none("circles of modules", [" - ".join(circle) for circle in graph.module_circles()])
    yield _none("imports in functions that load nothing slow or optional", needless)
    yield from _sizes(modules)
    yield _documented(modules)
    yield _none("dependencies that no code uses", list(unused(root, modules)))


def _none(what: str, offenders: Sequence[str]) -> Check:
    return Check(what, len(offenders), 0, "==", note="; ".join(offenders))


def _largest_folder(modules: Mapping[str, Module]) -> Check:
    files = Counter(m.folder for m in modules.values() if m.path.stem != "__init__")
    folder, number = files.most_common(1)[0]
    return Check("modules in the largest folder", number, 20, "<=", note=folder)


def _sizes(modules: Mapping[str, Module]) -> Iterator[Check]:
    files = {m.name: m.text.count("\n") for m in modules.values() if m.path.stem != "__init__"}
    functions = {
        f"{module.name}.{node.name}:{node.lineno}": (node.end_lineno or 0) - node.lineno + 1
        for module in modules.values()
        for node in module.functions()
    }
    bounds = {"file": (files, 150, 250, 400), "function": (functions, 15, 35, 60)}
    for kind, (lines, median, p90, most) in bounds.items():
        sizes = list(lines.values())
        longest = max(lines, key=lambda name: lines[name])
        yield Check(f"lines of a {kind}, median", float(np.median(sizes)), median, "<=")
        largest = float(np.quantile(sizes, 0.9))
        yield Check(f"lines of a {kind}, 90th percentile", largest, p90, "<=")
        yield Check(f"lines of the longest {kind}", lines[longest], most, "<=", note=longest)


def _documented(modules: Mapping[str, Module]) -> Check:
    missing = [name for module in modules.values() for name in module.undocumented()]
    return _none("public modules, classes and functions without a docstring", missing)


def _fast_packages(packages: Sequence[str]) -> Check:
    """Return whether every package that is called slow is slow to import, in a fresh process."""
    script = "import sys, time; t = time.perf_counter(); __import__(sys.argv[1]); "
    script += "print(time.perf_counter() - t)"
    fast = []
    for name in packages:
        command = [sys.executable, "-c", script, name]
        seconds = float(subprocess.run(command, capture_output=True, check=True, text=True).stdout)
        fast += [f"{name} {seconds:.2f} s"] if seconds <= SLOW_S else []
    return _none(f"packages called slow that load within {SLOW_S:g} s", fast)


def _warnings(tests: str, workers: int = 2) -> Check:
    """Return how often the ordinary tests below a folder warn or fail; a warning may do both."""
    stored = os.environ.get(TEST_OUTPUT)
    if stored:
        output = Path(stored).read_text(encoding="utf-8", errors="replace")
    else:
        options = ["-q", "-m", "not slow", "-n", str(workers), tests]
        command = [sys.executable, "-m", "pytest", *options]
        output = subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout
    last = re.findall(r"^=*\s*(.*\d+ passed.*?)\s*=*$", output, flags=re.M)
    found = re.findall(r"(\d+) (?:warning|failed|error)", last[-1]) if last else []
    value = sum(map(int, found)) + output.count("Exception in thread") if last else None
    what = "warnings, failures and thread exceptions of the ordinary tests"
    return Check(what, value, 0, "==", note=last[-1] if last else "")


if __name__ == "__main__":
    main(__file__)
