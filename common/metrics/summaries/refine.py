"""Derive the grid of an evaluation's second phase: score cuts at quantiles of the scores.

From the summed margins of phase one the server derives score cuts at quantiles and the censoring
curve; both are post-processing of what was already released, and both are sent to every site.
"""

from dataclasses import replace

import numpy as np

from common.metrics.survival.kaplan_meier import censoring_curve
from common.metrics.tables.grid import EvaluationGrid
from common.metrics.tables.score_scale import FloatArray, quantile_cuts
from common.metrics.tables.tables import SiteTables


def refined(
    grid: EvaluationGrid, margins: SiteTables, *, risk_threshold: float | None = None
) -> EvaluationGrid:
    """Return the grid of phase two.

    Args:
        grid: Grid of phase one.
        margins: Sum over sites of the arrays of phase `margins`.
        risk_threshold: Public threshold of the high-risk group (risk-score scale). Without one,
            the middle cut, which is the median of the margin, is used.
    """
    new = replace(grid, two_phases=True)
    margin = margins.counts("margin_survival")
    if margin is not None:
        cuts = quantile_cuts(margin, grid.size.scores, grid.survival_cuts)
        threshold = float(cuts[len(cuts) // 2])
        if risk_threshold is not None:
            cuts = _with_cut(cuts, risk_threshold)
            threshold = risk_threshold
        new = replace(new, survival_cuts=cuts, risk_threshold=threshold)
    times = margins.counts("margin_time")
    if times is not None:
        new = replace(new, censoring=censoring_curve(times[1], times[0]))
    answers = margins.counts("margin_response")
    if answers is not None:
        cuts = quantile_cuts(answers, grid.size.response, grid.response_cuts)
        new = replace(new, response_cuts=cuts)
    return new


def _with_cut(cuts: FloatArray, at: float) -> FloatArray:
    new_cuts = cuts.copy()
    new_cuts[int(np.argmin(np.abs(cuts - at)))] = at
    return new_cuts
