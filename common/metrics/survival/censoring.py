"""Estimate the probability G(t) of still being under observation, from the censoring margin.

Kaplan-Meier with censoring as the event; patients who die in an interval are at risk of being
censored for half of it. Broadcast by the server in the second phase.
"""

from __future__ import annotations

import numpy as np

from common.metrics.survival.kaplan_meier import at_risk_at_start
from common.metrics.tables.score_scale import FloatArray


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
