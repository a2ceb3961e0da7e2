"""Sum real-valued terms over patients and sites: losses, calibration, Brier scores.

Each patient's term is bounded, and each site rounds its sum once to fixed point.
"""

import numpy as np

from common.errors import DataError
from common.metrics.tables.grid import EvaluationGrid, IntArray
from common.metrics.tables.predictions import Predictions
from common.metrics.tables.score_scale import FloatArray, response_score
from common.metrics.tables.table_schema import FIXED_POINT, N_CALIBRATION_BINS

MAX_LOSS = 50.0
MIN_CENSORING = 0.05
"""Weights 1 / G(t) are cut off at 20. Sums are exact and never noised, so the cut only guards
against a handful of patients ruling the score; a cut at 4 moved a real IBS by 0.02."""


def fixed_point(sums: FloatArray) -> IntArray:
    """Return round(sums * 2^32) as int64.

    Raises:
        DataError: A sum is not finite or above 1e9, beyond the range of the fixed point.
    """
    if not np.isfinite(sums).all() or (np.abs(sums) > 2.0**30).any():
        raise DataError(
            "an evaluation sum is not finite or too large",
            why="sums over sites are exact integers up to 1e9",
            cure="check the predictions for NaN or infinite values",
        )
    return np.rint(sums * FIXED_POINT).astype(np.int64)


def moments(terms: FloatArray) -> FloatArray:
    """Return the sum and the sum of squares over patients, (2, ...); NaN counts as absent."""
    values = np.nan_to_num(terms)
    return np.stack([values.sum(0), np.square(values).sum(0)])


def response_losses(predictions: Predictions) -> FloatArray:
    """Return (2, 2) sums and sums of squares of squared error and log-loss (at most 50)."""
    p, y = predictions.response_prob, predictions.response
    with np.errstate(divide="ignore"):
        nll = -np.where(y > 0.5, np.log(p), np.log1p(-p))
    return moments(np.column_stack([np.square(p - y), np.minimum(nll, MAX_LOSS)]))


def bin_sums(probability: FloatArray, bins: IntArray, n_bins: int) -> IntArray:
    """Return (2, H, n_bins) fixed-point sums of p and of logit(p) a score bin.

    Args:
        probability: (n, H) predicted probabilities; a column with NaN is left out.
        bins: (n,) score bin of each patient.
        n_bins: Number of score bins.
    """
    sums = np.zeros((2, probability.shape[1], n_bins))
    for column in range(probability.shape[1]):
        p = np.nan_to_num(probability[:, column])
        logit = np.where(np.isnan(probability[:, column]), 0.0, response_score(p))
        sums[0, column] = np.bincount(bins, p, n_bins)
        sums[1, column] = np.bincount(bins, logit, n_bins)
    return fixed_point(sums)


def censoring_at(grid: EvaluationGrid, time_months: FloatArray) -> FloatArray:
    """Return G(t-) at any times, log-linear between the edges of the broadcast curve.

    Raises:
        DataError: The grid carries no censoring curve.
    """
    if grid.censoring is None:
        raise DataError(
            "the grid carries no censoring curve",
            cure="run the phase `margins` first and use EvaluationGrid.refined",
        )
    edges = grid.time_edges[:-1]
    log_curve = np.log(np.maximum(grid.censoring[:-1], 1e-12))
    return np.asarray(np.exp(np.interp(time_months, edges, log_curve)), np.float64)


def brier_terms(predictions: Predictions, grid: EvaluationGrid) -> FloatArray:
    """Return (n, 9) weighted squared errors at the grid's `brier_times`, last their mean over time.

    A patient who died by t has target 0 and weight 1 / G(T-); one still followed at t has target
    1 and weight 1 / G(t); one censored before t has weight 0 (Graf et al., Statistics in
    Medicine 1999). Weights are cut off at 20. The mean over time is the trapezoid rule between
    the first and the last time; summed over patients it is the integrated Brier score.
    """
    t = grid.brier_times[None, :]
    own = 1 / np.maximum(censoring_at(grid, predictions.time_months), MIN_CENSORING)[:, None]
    at = 1 / np.maximum(censoring_at(grid, grid.brier_times), MIN_CENSORING)[None, :]
    is_followed = predictions.time_months[:, None] > t
    died = (predictions.event[:, None] > 0.5) & ~is_followed
    weight = np.where(is_followed, at, np.where(died, own, 0.0))
    terms = weight * np.square(is_followed - predictions.survival)
    span = grid.brier_times[-1] - grid.brier_times[0]
    mean = (terms[:, 1:] + terms[:, :-1]) / 2 @ np.diff(grid.brier_times) / span
    return np.column_stack([terms, mean])


def brier_sums(predictions: Predictions, grid: EvaluationGrid) -> IntArray:
    """Return (2, 9) fixed-point sums and sums of squares of `brier_terms` over patients."""
    return fixed_point(moments(brier_terms(predictions, grid)))


def d_calibration_sums(predictions: Predictions) -> IntArray:
    """Return (10,) fixed-point patients a tenth of S_i(T_i) (Haider et al., JMLR 2020).

    A death counts 1 in the tenth of its predicted survival; a censored patient with S = s is
    spread evenly over [0, s], because its death will lie there.
    """
    edges = np.linspace(0, 1, N_CALIBRATION_BINS + 1)
    usable = np.isfinite(predictions.survival_at_time)
    s = np.clip(predictions.survival_at_time[usable], 1e-12, 1.0)[:, None]
    died = predictions.event[usable, None] > 0.5
    inside = np.clip(s - edges[:-1], 0, np.diff(edges))
    tenth = np.clip(np.ceil(s * N_CALIBRATION_BINS) - 1, 0, N_CALIBRATION_BINS - 1)
    whole = tenth == np.arange(N_CALIBRATION_BINS)
    return fixed_point(np.where(died, whole, inside / s).sum(0))
