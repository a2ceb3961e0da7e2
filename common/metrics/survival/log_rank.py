"""Log-rank test of two groups from counts per interval, also stratified by site.

Observed and expected deaths and the hypergeometric variance (Mantel, 1966). Sites are
strata by adding their O - E and V.
"""

from dataclasses import dataclass

import numpy as np
from scipy.stats import chi2

from common.metrics.survival.kaplan_meier import at_risk_at_start
from common.metrics.tables.estimate import Estimate, not_estimable
from common.metrics.tables.score_scale import FloatArray


@dataclass(frozen=True)
class LogRank:
    """Observed minus expected deaths of the high-risk group, and its variance."""

    difference: float
    variance: float

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


def log_rank(high: FloatArray, low: FloatArray, censored_share: float) -> LogRank:
    """Return the test of high against low risk.

    Args:
        high: (2, T) [censored | died] per interval of the high-risk group.
        low: (2, T) of the low-risk group.
        censored_share: Share of an interval's censored patients that leave before its deaths.
    """
    n_high = at_risk_at_start(high[1], high[0]) - censored_share * high[0]
    n_low = at_risk_at_start(low[1], low[0]) - censored_share * low[0]
    n, d = n_high + n_low, high[1] + low[1]
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.where(n > 0, n_high / n, 0.0)
        ties = np.where(n > 1, np.clip((n - d) / (n - 1), 0.0, 1.0), 0.0)
    variance = d * share * (1 - share) * ties
    return LogRank(float((high[1] - d * share).sum()), float(variance.sum()))
