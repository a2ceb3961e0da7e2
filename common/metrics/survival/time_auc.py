"""Cumulative/dynamic AUC at horizons, its mean over time, and Uno's C from a survival table.

At horizon t the cases died by t, weighted by 1 / G at their death; the controls are followed
beyond t (Uno et al., JASA 2007; Hung and Chiang, 2010). The mean over time weighs AUC(t) by the
fall of the Kaplan-Meier curve (Lambert and Chevret, 2016). G comes from the same table unless
given. All functions take leading batch dimensions (..., 2, T, S).
"""

import numpy as np

from common.metrics.survival.concordance import PairCounts, interval_pairs, inverse_squares
from common.metrics.survival.kaplan_meier import (
    censoring_curve,
    interval_middles,
    survival_at_edges,
)
from common.metrics.tables.grid import EvaluationGrid, IntArray
from common.metrics.tables.score_scale import FloatArray


def auc_at_edges(table: FloatArray, edges: IntArray) -> FloatArray:
    """Return AUC(t) at several time edges, (..., len(edges))."""
    weight = _inverse_censoring(table)
    cases = np.cumsum(table[..., 1, :, :] * weight[..., None], -2)
    total = table.sum(-3)
    survivors = np.flip(np.cumsum(np.flip(total, -2), -2), -2)
    case, control = cases[..., edges - 1, :], survivors[..., edges, :]
    below = np.cumsum(control, -1) - control / 2
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((case * below).sum(-1) / (case.sum(-1) * control.sum(-1)))


def integrated_auc(table: FloatArray, auc: FloatArray) -> FloatArray:
    """Return the mean of AUC(t) over edges, weighted by the fall of S before each, (...,).

    Edges without cases carry no weight; NaN where none is left.

    Args:
        table: (..., 2, T, S) counts.
        auc: (..., m) AUC at edges 1 to m of the grid.
    """
    died, censored = table[..., 1, :, :].sum(-1), table[..., 0, :, :].sum(-1)
    survival = survival_at_edges(died, censored, 0.5)[..., : auc.shape[-1]]
    fall = -np.diff(survival, axis=-1, prepend=1.0)
    weight = np.where(np.isfinite(auc), fall, 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((np.nan_to_num(auc) * weight).sum(-1) / weight.sum(-1))


def uno_c(table: FloatArray, last_edge: int, pairs: PairCounts | None = None) -> FloatArray:
    """Return Uno's C with deaths up to a horizon, (...,).

    Args:
        table: (..., 2, T, S) counts.
        last_edge: Index of the horizon's edge.
        pairs: `interval_pairs(table)`, if at hand.
    """
    died, censored = table[..., 1, :, :].sum(-1), table[..., 0, :, :].sum(-1)
    weight = inverse_squares(interval_middles(censoring_curve(died, censored)), last_edge)
    return (pairs or interval_pairs(table)).weighted(weight).c_index()


def last_followed_edge(table: FloatArray, grid: EvaluationGrid) -> int:
    """Return the edge of the last horizon that somebody outlives, 0 if there is none."""
    total = table.sum((0, 2))
    survivors = np.flip(np.cumsum(np.flip(total)))
    horizon_edges = [grid.edge_of(float(h)) for h in grid.horizons]
    return max((edge for edge in horizon_edges if survivors[edge] >= 1), default=0)


def _inverse_censoring(table: FloatArray) -> FloatArray:
    died, censored = table[..., 1, :, :].sum(-1), table[..., 0, :, :].sum(-1)
    middle = interval_middles(censoring_curve(died, censored))
    with np.errstate(divide="ignore"):
        return np.where(middle > 0, 1 / middle, 0.0)
