"""One estimate of an evaluation: value, interval and limits, or why it cannot be estimated."""

import math
from dataclasses import asdict, dataclass, replace

MIN_SHOWN = 5
"""Smallest count of patients that is shown where tables are exact."""


@dataclass(frozen=True)
class Estimate:
    """A metric with its uncertainty.

    Attributes:
        value: The metric; None when it is not estimable.
        reason: Why there is no value, or a caveat that must be printed beside it.
        ci_low: Lower limit of the 95 % interval (sampling, and noise where there is any).
        ci_high: Upper limit.
        error_bound: Largest possible distance to the figure from the pooled patient rows that
            cutting into bins can cause; None where it is zero or unknown.
        noise_sd: Standard deviation that privacy noise alone adds; None without noise.
    """

    value: float | None
    reason: str | None = None
    ci_low: float | None = None
    ci_high: float | None = None
    error_bound: float | None = None
    noise_sd: float | None = None

    @property
    def estimable(self) -> bool:
        """Whether there is a value."""
        return self.value is not None

    def with_interval(self, low: float, high: float) -> "Estimate":
        """Return a copy with a 95 % interval; limits that are not finite are left out."""
        if self.value is None or not (math.isfinite(low) and math.isfinite(high)):
            return self
        return replace(self, ci_low=low, ci_high=high)

    def as_dict(self) -> dict[str, float | str | None]:
        """Return the estimate for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        """Return the estimate as a reader sees it."""
        if self.value is None:
            return f"not estimable ({self.reason})"
        interval = "" if self.ci_low is None else f" ({self.ci_low:.3f} to {self.ci_high:.3f})"
        return f"{self.value:.3f}{interval}"


def not_estimable(reason: str) -> Estimate:
    """Return an estimate without a value, and why.

    >>> str(not_estimable("no comparable pair"))
    'not estimable (no comparable pair)'
    """
    return Estimate(None, reason)
