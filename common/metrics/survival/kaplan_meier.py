"""Kaplan-Meier, Nelson-Aalen and restricted mean survival from counts per interval.

`censored_share` is the share of an interval's censored patients that leave before its deaths: 0
on fine intervals (Kaplan and Meier, JASA 1958, let deaths go first at equal times), 0.5 on wide
ones (actuarial, n - c/2). Variance by Greenwood; band on the log(-log S) scale (Kalbfleisch and
Prentice, 2002).

G(t), the probability of still being under observation, is the same with censoring as the event;
patients who die in an interval are at risk of being censored for half of it.
"""

from dataclasses import dataclass, replace

import numpy as np

from common.metrics.tables.estimate import MIN_SHOWN, Estimate, not_estimable
from common.metrics.tables.score_scale import FloatArray

Z95 = 1.959963984540054


@dataclass(frozen=True)
class SurvivalCurve:
    """Survival of one group at every finite time edge after 0.

    Attributes:
        label: Name of the group.
        time_months: (m,) right ends of the finite intervals.
        survival: (m,) S just after each edge.
        ci_low: (m,) lower limit of the pointwise 95 % band.
        ci_high: (m,) upper limit.
        cumulative_hazard: (m,) Nelson-Aalen estimate.
        at_risk: (m,) patients still followed just after each edge.
        events: (m,) deaths within each interval.
        error_bound: Largest distance at any edge to the curve of the patient rows.
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


def hazards(died: FloatArray, censored: FloatArray, censored_share: float) -> FloatArray:
    """Return the share that dies in each interval, (..., T), in [0, 1]; 0 with nobody at risk."""
    at_risk = at_risk_at_start(died, censored) - censored_share * censored
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.clip(np.where(at_risk > 0, died / at_risk, 0.0), 0.0, 1.0))


def survival_at_edges(died: FloatArray, censored: FloatArray, censored_share: float) -> FloatArray:
    """Return S at the right end of every interval, (..., T), from counts (..., T)."""
    return np.asarray(np.cumprod(1 - hazards(died, censored, censored_share), -1))


def survival_curve(
    label: str,
    died: FloatArray,
    censored: FloatArray,
    edges: FloatArray,
    censored_share: float = 0.5,
) -> SurvivalCurve:
    """Return the curve of one group.

    Args:
        label: Name of the group.
        died: (T,) deaths per interval.
        censored: (T,) censored per interval.
        edges: (T + 1,) time edges; the last is inf.
        censored_share: See the module.
    """
    n = at_risk_at_start(died, censored)
    at_risk = n - censored_share * censored
    survival = survival_at_edges(died, censored, censored_share)
    with np.errstate(invalid="ignore", divide="ignore"):
        greenwood = np.cumsum(np.where(died > 0, died / (at_risk * (at_risk - died)), 0.0))
    low, high = _log_log_band(survival, greenwood)
    finite = slice(0, len(died) - 1)
    return SurvivalCurve(
        label=label,
        time_months=edges[1:-1],
        survival=survival[finite],
        ci_low=low[finite],
        ci_high=high[finite],
        cumulative_hazard=np.cumsum(hazards(died, censored, censored_share))[finite],
        at_risk=n[1:],
        events=died[finite],
        error_bound=float(_edge_error(died, censored, survival)[finite].max(initial=0.0)),
        n_patients=float(n[0]) if len(n) else 0.0,
    )


def _log_log_band(survival: FloatArray, greenwood: FloatArray) -> tuple[FloatArray, FloatArray]:
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        width = Z95 * np.sqrt(greenwood) / np.abs(np.log(survival))
        low, high = survival ** np.exp(width), survival ** np.exp(-width)
    inside = (survival > 0) & (survival < 1) & np.isfinite(width)
    return np.where(inside, low, survival), np.where(inside, high, survival)


def _edge_error(died: FloatArray, censored: FloatArray, survival: FloatArray) -> FloatArray:
    """Largest |S - S of the rows| at each edge: all censored after, or before, the deaths."""
    n = at_risk_at_start(died, censored)
    before = n - censored
    with np.errstate(invalid="ignore", divide="ignore"):
        highest = np.cumprod(np.where(died > 0, 1 - died / n, 1.0))
        lowest = np.cumprod(np.where(died > 0, 1 - died / before, 1.0))
    return np.asarray(np.maximum(highest - survival, survival - lowest))


def restricted_mean(curve: SurvivalCurve, horizon_months: float) -> Estimate:
    """Return the mean survival time up to a horizon, months: the area under S.

    S falls linearly between edges. Variance: sum over deaths of the squared area that is left,
    by Greenwood's terms (Klein and Moeschberger, 2003, section 4.5).
    """
    last = int(np.argmin(np.abs(curve.time_months - horizon_months))) + 1
    before = np.concatenate([[curve.n_patients], curve.at_risk[:last]])
    if before[-1] < 1:
        return not_estimable("horizon beyond follow-up")
    levels = np.concatenate([[1.0], curve.survival[:last]])
    widths = np.diff(np.concatenate([[0.0], curve.time_months[:last]]))
    areas = (levels[1:] + levels[:-1]) / 2 * widths
    left = areas.sum() - np.cumsum(areas)
    died, n = curve.events[:last], before[:-1]
    with np.errstate(invalid="ignore", divide="ignore"):
        terms = np.where((died > 0) & (n > died), np.square(left) * died / (n * (n - died)), 0.0)
    value, sd = float(areas.sum()), float(np.sqrt(terms.sum()))
    return Estimate(value, ci_low=value - Z95 * sd, ci_high=value + Z95 * sd)


def shown(curve: SurvivalCurve, *, exact: bool, stride: int = 1) -> SurvivalCurve:
    """Return the part of a curve that may be shown.

    Points where fewer than 5 patients are still followed are left out (exact tables), and of fine
    intervals only every `stride`-th edge is kept.
    """
    keep = np.arange(stride - 1, len(curve.time_months), stride)
    if exact:
        keep = keep[curve.at_risk[keep] >= MIN_SHOWN]
    events = np.diff(np.concatenate([[0.0], np.cumsum(curve.events)[keep]]))
    return replace(
        curve,
        time_months=curve.time_months[keep],
        survival=curve.survival[keep],
        ci_low=curve.ci_low[keep],
        ci_high=curve.ci_high[keep],
        cumulative_hazard=curve.cumulative_hazard[keep],
        at_risk=curve.at_risk[keep],
        events=events,
    )


def censoring_curve(died: FloatArray, censored: FloatArray) -> FloatArray:
    """Return G at every time edge, (..., T + 1), from counts (..., T); 1 at time 0, falling.

    The open last interval keeps the value at its start: nothing is known beyond.
    """
    at_risk = at_risk_at_start(died, censored) - died / 2
    with np.errstate(invalid="ignore", divide="ignore"):
        leaves = np.where(at_risk > 0, censored / at_risk, 0.0)
    stays = 1 - np.clip(leaves, 0.0, 1.0)
    stays[..., -1] = 1.0
    ones = np.ones((*stays.shape[:-1], 1))
    return np.concatenate([ones, np.cumprod(stays, -1)], -1)


def interval_middles(curve: FloatArray) -> FloatArray:
    """Return G in the middle of each interval on the log scale, (..., T)."""
    return np.sqrt(curve[..., 1:] * curve[..., :-1])
