"""Find the benchmarks in their folders, and measure one."""

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any

from common.errors import ConfigError, DataError
from simulations.benchmarks.parts.check import Check, progress

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Benchmark:
    """One benchmark, as its source says.

    Attributes:
        name: Run it as `python -m simulations.benchmarks NAME`.
        topic: Folder it stands in.
        shows: First line of its docstring.
        duration: How long it takes, in words.
    """

    name: str
    topic: str
    shows: str
    duration: str

    @cached_property
    def module(self) -> Any:
        """Its module, imported when it is first asked for."""
        return import_module(f"simulations.benchmarks.{self.topic}.{self.name}")

    def measure(self, data: Path, *, miniature: bool = False) -> list[tuple[Check, float]]:
        """Return its checks at one size, each with the seconds it took.

        Raises:
            DataError: The real data is not there.
            TumorboardError: The benchmark cannot be run.
        """
        module, measured = self.module, []
        for folder in getattr(module, "NEEDS", ()):
            if not (data / folder).is_dir():
                raise DataError(
                    f"benchmark {self.name} needs real data that is not there",
                    where=str(data / folder),
                    cure="name the folder that holds it: --data ../shared/data",
                )
        progress(f"{self.name}, {'in miniature' if miniature else 'at full size'}:")
        started = last = time.monotonic()
        for check in module.checks(data, module.MINIATURE if miniature else module.FULL):
            held = check.in_miniature() if miniature else check
            now = time.monotonic()
            measured.append((held, round(now - last, 3)))
            progress(f"[{now - started:6.1f} s] {held}")
            last = now
        return measured

    def measure_both(self, data: Path) -> list[tuple[Check, float]]:
        """Return the checks at full size, after the miniature, and whether their names agree.

        Raises:
            TumorboardError: The benchmark cannot be run.
        """
        small, measured = self.measure(data, miniature=True), self.measure(data)
        if self.module.MINIATURE.partial or not measured:
            return measured
        alone = {check.what for check, _ in small} ^ {check.what for check, _ in measured}
        what = "checks that miniature and full size do not share"
        return [*measured, (Check(what, len(alone), 0, "==", "; ".join(sorted(alone))), 0.0)]


def benchmarks(root: Path = ROOT) -> Iterator[Benchmark]:
    """Yield every module that states its `DURATION`, in the order of paths; none is imported."""
    for path in sorted(root.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        if duration := re.search(r'^DURATION = "(.*)"$', text, flags=re.M):
            shows = text.removeprefix('"""').partition("\n")[0].rstrip('"')
            yield Benchmark(path.stem, path.parent.name, shows, duration[1])


def find_benchmark(name: str) -> Benchmark:
    """Return a benchmark by its name.

    Raises:
        ConfigError: There is none of that name.
    """
    listed = {benchmark.name: benchmark for benchmark in benchmarks()}
    if name not in listed:
        raise ConfigError(
            f"there is no benchmark named '{name}'", cure=f"choose one of {', '.join(listed)}"
        )
    return listed[name]
