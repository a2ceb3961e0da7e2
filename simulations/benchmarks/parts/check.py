"""Define the form of every benchmark: named checks, each with a value and a bound.

A benchmark is a module `simulations/benchmarks/NAME.py` with a docstring whose first line says
what it shows, a constant `DURATION` (how long it takes, in words) and::

    def checks(data: Path) -> Iterator[Check]: ...

    if __name__ == "__main__":
        run("NAME", checks, seeds=[7])

Progress goes to standard error. With `--json` the last line of standard output is one object
`{"name", "seeds", "checks": [{"what", "value", "bound", "op", "holds"}, ...]}`; the exit status
is 1 when a check fails.
"""

from __future__ import annotations

import argparse
import json
import math
import operator
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from common.errors import TumorboardError

Op = Literal["<=", ">=", "<", ">", "=="]
_COMPARE: dict[str, Callable[[float, float], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
    "==": operator.eq,
}


@dataclass(frozen=True)
class Check:
    """One figure and what it is held against.

    Attributes:
        what: What was measured, with its unit and on how much.
        value: The figure; None where it could not be measured, which never holds.
        bound: What it is compared with.
        op: `value op bound` must be true.
        note: What a reader should know; empty = nothing.

    Example:
        >>> Check("error of the mean", 0.01, 0.02, "<=").holds
        True
    """

    what: str
    value: float | None
    bound: float
    op: Op
    note: str = ""

    @property
    def holds(self) -> bool:
        """Whether the figure is what it should be; NaN never is."""
        value = self.value
        return value is not None and not math.isnan(value) and _COMPARE[self.op](value, self.bound)

    def as_dict(self) -> dict[str, object]:
        """Return the check for JSON; infinities and NaN become None."""
        value = self.value if self.value is not None and math.isfinite(self.value) else None
        told: dict[str, object] = {
            "what": self.what,
            "value": value,
            "bound": self.bound,
            "op": self.op,
            "holds": self.holds,
        }
        return told | ({"note": self.note} if self.note else {})

    def __str__(self) -> str:
        """Return the check as one line."""
        value = "not measured" if self.value is None else f"{self.value:.6g}"
        verdict = "holds" if self.holds else "FAILS"
        note = f" ({self.note})" if self.note else ""
        return f"{verdict}  {self.what}: {value} {self.op} {self.bound:g}{note}"


def progress(text: str) -> None:
    """Write one line of progress to standard error."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def run(
    name: str,
    checks: Callable[[Path], Iterable[Check]],
    *,
    seeds: Sequence[int],
    arguments: Sequence[str] | None = None,
) -> None:
    """Run a benchmark from the command line and exit with its status.

    Args:
        name: Name of the module.
        checks: Yields checks as they are measured; takes the folder of the real data.
        seeds: Every seed used; empty if nothing is random.
        arguments: Command line; that of the process by default.

    Raises:
        SystemExit: Always; 0 if all checks hold, else 1.
    """
    parser = argparse.ArgumentParser(prog=f"python -m simulations.benchmarks.{name}")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="real data")
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    given = parser.parse_args(arguments)
    started = time.monotonic()
    found: list[Check] = []
    try:
        for check in checks(given.data):
            found.append(check)
            progress(f"[{time.monotonic() - started:6.1f} s] {check}")
    except TumorboardError as error:
        sys.stderr.write(f"{error}\n")
        raise SystemExit(error.exit_status) from error
    told = {"name": name, "seeds": list(seeds), "checks": [check.as_dict() for check in found]}
    lines = [json.dumps(told, allow_nan=False)] if given.json else [str(check) for check in found]
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()
    raise SystemExit(0 if found and all(check.holds for check in found) else 1)
