"""Kaplan-Meier, Nelson-Aalen and restricted mean survival from counts per interval.

Censored patients are at risk for half of their interval (actuarial: n - c/2). Kaplan and Meier,
JASA 1958; variance by Greenwood; band on the log(-log S) scale (Kalbfleisch and Prentice).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from common.metrics.score_scale import FloatArray

Z95 = 1.959963984540054


@dataclass(frozen=True)
class SurvivalCurve:
    """Survival of one group at every finite time edge after 0.

    Attributes:
        label: Name of the group.
        time_months: (T - 1,) right ends of the finite intervals.
        survival: (T - 1,) S just after each edge.
        ci_low: (T - 1,) lower limit of the pointwise 95 % band.
        ci_high: (T - 1,) upper limit.
        cumulative_hazard: (T - 1,) Nelson-Aalen estimate.
        at_risk: (T - 1,) patients still followed just after each edge.
        events: (T - 1,) deaths within each interval.
        error_bound: Largest distance to the Kaplan-Meier curve of the patient rows at any edge.
        n_patients: Patients of the group.
    """

    label: str
    time_months: FloatArray
    survival: FloatArray
    ci_low: FloatArray
    ci_high: FloatArray
    cumulative_hazard: FloatArray
    at_risk: FloatArray
    events: FloatArray
    error_bound: float
    n_patients: float


def at_risk_at_start(died: FloatArray, censored: FloatArray) -> FloatArray:
    """Return the number at risk at the start of each interval, (..., T)."""
    total = died + censored
    return np.asarray(np.flip(np.cumsum(np.flip(total, -1), -1), -1))


def survival_at_edges(died: FloatArray, censored: FloatArray) -> FloatArray:
    """Return S at the right end of every interval, (..., T), from counts (..., T)."""
    exposed = at_risk_at_start(died, censored) - censored / 2
    with np.errstate(invalid="ignore", divide="ignore"):
        dies = np.where(exposed > 0, died / exposed, 0.0)
    return np.asarray(np.cumprod(1 - np.clip(dies, 0.0, 1.0), -1))


def survival_curve(
    label: str, died: FloatArray, censored: FloatArray, edges: FloatArray
) -> SurvivalCurve:
    """Return the curve of one group.

    Args:
        label: Name of the group.
        died: (T,) deaths per interval.
        censored: (T,) censored per interval.
        edges: (T + 1,) time edges; the last is inf.
    """
    n = at_risk_at_start(died, censored)
    exposed = n - censored / 2
    survival = survival_at_edges(died, censored)
    with np.errstate(invalid="ignore", divide="ignore"):
        greenwood = np.cumsum(np.where(died > 0, died / (exposed * (exposed - died)), 0.0))
        hazard = np.cumsum(np.where(exposed > 0, died / exposed, 0.0))
    low, high = _log_log_band(survival, greenwood)
    finite = slice(0, len(died) - 1)
    return SurvivalCurve(
        label=label,
        time_months=edges[1:-1],
        survival=survival[finite],
        ci_low=low[finite],
        ci_high=high[finite],
        cumulative_hazard=hazard[finite],
        at_risk=n[1:],
        events=died[finite],
        error_bound=float(_edge_error(died, censored)[finite].max(initial=0.0)),
        n_patients=float(n[0]) if len(n) else 0.0,
    )


def _log_log_band(survival: FloatArray, greenwood: FloatArray) -> tuple[FloatArray, FloatArray]:
    with np.errstate(invalid="ignore", divide="ignore"):
        width = Z95 * np.sqrt(greenwood) / np.abs(np.log(survival))
        low, high = survival ** np.exp(width), survival ** np.exp(-width)
    inside = (survival > 0) & (survival < 1) & np.isfinite(width)
    return np.where(inside, low, survival), np.where(inside, high, survival)


def _edge_error(died: FloatArray, censored: FloatArray) -> FloatArray:
    """Largest |S - S of the rows| at each edge: all censored after, or before, the deaths."""
    n = at_risk_at_start(died, censored)
    with np.errstate(invalid="ignore", divide="ignore"):
        highest = np.cumprod(np.where(n > 0, 1 - died / n, 1.0))
        before = n - censored
        lowest = np.cumprod(np.where(died > 0, 1 - died / before, 1.0))
    value = survival_at_edges(died, censored)
    return np.asarray(np.maximum(highest - value, value - lowest))


def restricted_mean(survival: FloatArray, edges: FloatArray, horizon_months: float) -> FloatArray:
    """Return the mean survival time up to a horizon, months: the area under S, (...,).

    Args:
        survival: (..., T) S at the right end of every interval.
        edges: (T + 1,) time edges.
        horizon_months: End of the area; an edge of the grid.
    """
    last = int(np.argmin(np.abs(edges[:-1] - horizon_months)))
    ones = np.ones((*survival.shape[:-1], 1))
    levels = np.concatenate([ones, survival[..., :last]], -1)
    widths = np.diff(edges[: last + 1])
    return np.asarray(((levels[..., 1:] + levels[..., :-1]) / 2 * widths).sum(-1))
