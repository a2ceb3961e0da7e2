"""Log-rank test of two groups from counts per interval, also stratified by site.

Observed and expected deaths and the hypergeometric variance (Mantel, 1966), censored patients at
risk for half of their interval. Sites are strata by adding their O - E and V.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import chi2

from common.metrics.estimate import Estimate, not_estimable
from common.metrics.kaplan_meier import at_risk_at_start
from common.metrics.score_scale import FloatArray


@dataclass(frozen=True)
class LogRank:
    """Observed minus expected deaths of the high-risk group, and its variance."""

    difference: float
    variance: float

    def __add__(self, other: LogRank) -> LogRank:
        """Return the stratified test over both."""
        return LogRank(self.difference + other.difference, self.variance + other.variance)

    @property
    def chi_square(self) -> Estimate:
        """Chi-square with one degree of freedom."""
        if self.variance <= 0:
            return not_estimable("no death while both risk groups were under observation")
        return Estimate(self.difference**2 / self.variance)

    @property
    def p_value(self) -> Estimate:
        """Two-sided p value."""
        statistic = self.chi_square
        if statistic.value is None:
            return statistic
        return Estimate(float(chi2.sf(statistic.value, 1)))


def log_rank(
    died_high: FloatArray, censored_high: FloatArray, died_low: FloatArray, censored_low: FloatArray
) -> LogRank:
    """Return the test of high against low risk from (T,) counts per interval."""
    n_high = at_risk_at_start(died_high, censored_high) - censored_high / 2
    n_low = at_risk_at_start(died_low, censored_low) - censored_low / 2
    n, d = n_high + n_low, died_high + died_low
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.where(n > 0, n_high / n, 0.0)
        ties = np.where(n > 1, np.clip((n - d) / (n - 1), 0.0, 1.0), 0.0)
    expected = d * share
    variance = d * share * (1 - share) * ties
    return LogRank(float((died_high - expected).sum()), float(variance.sum()))
