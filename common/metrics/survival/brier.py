"""Brier scores, integrated Brier score and log-loss from additive sums.

Each is a mean over patients of a bounded term whose sum and sum of squares the sites send, so it
equals the pooled figure to fixed-point precision. Survival terms use the broadcast censoring
curve (phase two). `explained` compares with predicting the Kaplan-Meier curve for everybody:
1 - Brier(t) / (S(t) (1 - S(t))).
"""

from __future__ import annotations

import numpy as np

from common.metrics.survival.kaplan_meier import Z95
from common.metrics.tables.estimate import Estimate, not_estimable
from common.metrics.tables.score_scale import FloatArray


def mean_estimate(moments: FloatArray, n: float) -> Estimate:
    """Return the mean of n terms with its 95 % interval, from (2,) their sum and sum of squares."""
    if n <= 0:
        return not_estimable("no patient with a known outcome")
    mean, squares = float(moments[0]) / n, float(moments[1]) / n
    if n < 2:
        return Estimate(mean)
    sd = float(np.sqrt(max(squares - mean**2, 0.0) / (n - 1)))
    return Estimate(mean, ci_low=mean - Z95 * sd, ci_high=mean + Z95 * sd)


def explained(brier: Estimate, survival: float) -> Estimate:
    """Return 1 - Brier / (S (1 - S)), at most 1; 0 = no better than the Kaplan-Meier curve."""
    reference = survival * (1 - survival)
    if brier.value is None:
        return brier
    if reference <= 0:
        return not_estimable("nobody, or everybody, has died by the horizon")
    limits = [None if x is None else 1 - x / reference for x in (brier.ci_high, brier.ci_low)]
    return Estimate(1 - brier.value / reference, ci_low=limits[0], ci_high=limits[1])
