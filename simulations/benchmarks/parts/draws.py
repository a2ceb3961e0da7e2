"""Summarise noisy figures: what a check can hold of them, and how sure that is.

A check holds a mean or a median over so many draws that a right program passes it 99 times in
100: with a margin between expected figure and bound, and a standard deviation s of one draw,
n >= (2.33 s / margin)^2 draws.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median, stdev

from scipy import stats


@dataclass(frozen=True)
class Summary:
    """A mean or median over n draws with its 95 % interval, and the SD of one draw."""

    value: float
    low: float
    high: float
    sd: float
    n: int

    @property
    def error(self) -> float:
        """Standard error of a mean."""
        return self.sd / math.sqrt(self.n)

    def __str__(self) -> str:
        """Return value, interval, spread and number of draws."""
        interval = f"95 % interval {self.low:.4g} to {self.high:.4g}"
        return f"{self.value:.4g}, {interval}, SD {self.sd:.2g}, {self.n} draws"


def mean_of(draws: Sequence[float]) -> Summary:
    """Return the mean of two or more draws with the t interval.

    Example:
        >>> str(mean_of([1.0, 2.0, 3.0]))
        '2, 95 % interval -0.4841 to 4.484, SD 1, 3 draws'
    """
    mean, sd, n = fmean(draws), stdev(draws), len(draws)
    half = float(stats.t.ppf(0.975, n - 1)) * sd / math.sqrt(n)
    return Summary(mean, mean - half, mean + half, sd, n)


def median_of(draws: Sequence[float]) -> Summary:
    """Return the median of two or more draws with the interval between order statistics."""
    ranked, n = sorted(draws), len(draws)
    rank = max(int(stats.binom.ppf(0.025, n, 0.5)) - 1, 0)
    return Summary(median(ranked), ranked[rank], ranked[n - 1 - rank], stdev(ranked), n)
