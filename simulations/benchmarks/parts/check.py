"""Define the form of every benchmark: named checks, each with a value and a bound.

A benchmark is a module in a folder of `simulations/benchmarks` with a docstring whose first line
says what it shows, and::

    DURATION = "about 2 minutes on one core"
    NEEDS = ("tcga",)  # folders of the real data; left out where none is needed

    @dataclass(frozen=True)
    class OwnSize(Size):
        patients: int = 2000

    FULL, MINIATURE = OwnSize(seeds=(1, 2, 3)), OwnSize(seeds=(1,), patients=60)

    def checks(data: Path, size: OwnSize) -> Iterator[Check]: ...

    if __name__ == "__main__":
        main(__file__)

The miniature takes seconds, and the tests run it. A run at full size begins with it, so that what
would crash in the end crashes at once; unless it is partial, both yield the same checks.
"""

import math
import operator
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Literal

Op = Literal["<=", ">=", "<", ">", "==", "finite"]
_COMPARE: dict[str, Callable[[float, float], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
    "==": operator.eq,
    "finite": lambda value, _bound: math.isfinite(value),
}


@dataclass(frozen=True)
class Size:
    """How much a benchmark does; each adds what it needs.

    Attributes:
        seeds: Every seed used; empty if nothing is random, or random without a seed.
        partial: Subjects are left out or others, so the checks are not those of the full size.
    """

    seeds: tuple[int, ...] = ()
    partial: bool = False


@dataclass(frozen=True)
class Check:
    """One figure and what it is held against.

    Attributes:
        what: What was measured, with its unit; the same at every size.
        value: The figure; None where it could not be measured, which never holds.
        bound: What it is compared with.
        op: `value op bound` must be true; "finite": any finite value will do.
        note: What a reader should know; empty = nothing.
        full_size: The bound makes sense at full size only.

    Example:
        >>> print(Check("error of the mean", 0.01, 0.02, "<="))
        holds  error of the mean: 0.01 <= 0.02
    """

    what: str
    value: float | None
    bound: float
    op: Op
    note: str = ""
    full_size: bool = False

    @property
    def holds(self) -> bool:
        """Whether the figure is what it should be; NaN never is."""
        value = self.value
        if value is None or math.isnan(value):
            return False
        return bool(_COMPARE[self.op](value, self.bound))

    def in_miniature(self) -> "Check":
        """Return the check as a miniature holds it: without a bound that needs the full size."""
        return replace(self, op="finite") if self.full_size else self

    def as_dict(self) -> dict[str, object]:
        """Return the check for JSON; infinities and NaN become None."""
        value = None if self.value is None else float(self.value)
        fields: dict[str, object] = {
            "what": self.what,
            "value": value if value is not None and math.isfinite(value) else None,
            "bound": float(self.bound),
            "op": self.op,
            "holds": self.holds,
        }
        return fields | ({"note": self.note} if self.note else {})

    def __str__(self) -> str:
        """Return the check as one line."""
        value = "not measured" if self.value is None else f"{self.value:.6g}"
        bound = self.op if self.op == "finite" else f"{self.op} {self.bound:g}"
        note = f" ({self.note})" if self.note else ""
        return f"{'holds' if self.holds else 'FAILS'}  {self.what}: {value} {bound}{note}"


def at_full_size(checks: Iterable[Check]) -> Iterable[Check]:
    """Return the checks, marked as bounds that make sense at full size only."""
    return (replace(check, full_size=True) for check in checks)


def progress(text: str) -> None:
    """Write one line of progress to standard error."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()
