"""Public scales on which predictions are cut into score bins.

A rank metric does not change under an increasing transformation, so scores are cut where bins
are spread well: the log-odds of response, and the log-odds of dying on average over the model's
intervals. Cuts are public: constants of the study, or quantiles of an already released score
margin (`quantile_cuts`).
"""

import math

import numpy as np
import numpy.typing as npt
import scipy

FloatArray = npt.NDArray[np.float64]

MARGIN_LIMIT = 8.0
"""Score margins cover log-odds in [-8, 8]; what lies outside falls into the end bins."""

_TINY = 1e-9

_log_odds = np.frompyfunc(lambda p: math.log(p) - math.log1p(-p), 1, 1)
"""One number a call. A vector loop may round the end of an array in another way, and where that is
depends on how many patients there are; scores are held against cuts that the server chooses."""


def response_score(probability: npt.ArrayLike) -> FloatArray:
    """Return the log-odds of a response probability, any shape; NaN stays NaN.

    >>> response_score([0.5]).tolist()
    [0.0]
    """
    p = np.clip(np.asarray(probability, np.float64), _TINY, 1 - _TINY)
    return np.asarray(_log_odds(p), np.float64)


def risk_score(risk: npt.ArrayLike, n_intervals: int) -> FloatArray:
    """Return the log-odds of -sum_j S_j / K being far from alive; higher is worse.

    The mean of S_j over the K intervals is m = -risk / K in [0, 1]; the score is logit(1 - m).

    Args:
        risk: -sum_j S_j in [-K, 0], any shape; NaN stays NaN.
        n_intervals: K.

    >>> risk_score([-2.0], 4).tolist()
    [0.0]
    """
    return response_score(1.0 + np.asarray(risk, np.float64) / n_intervals)


def default_cuts(n_bins: int, center: float, spread: float) -> FloatArray:
    """Return (n_bins - 1,) increasing cuts: quantiles of a normal around a public centre.

    Args:
        n_bins: Number of score bins, >= 2.
        center: Log-odds the scores are expected around (published prevalence or hazards).
        spread: Standard deviation of log-odds the model is expected to use.
    """
    quantiles = scipy.special.ndtri(np.arange(1, n_bins) / n_bins)
    return np.asarray(center + spread * quantiles, np.float64)


def margin_cuts(n_bins: int) -> FloatArray:
    """Return the (n_bins - 1,) fixed public cuts of a fine score margin."""
    return np.linspace(-MARGIN_LIMIT, MARGIN_LIMIT, n_bins - 1)


def quantile_cuts(margin: npt.ArrayLike, n_bins: int, fallback: FloatArray) -> FloatArray:
    """Return (n_bins - 1,) increasing cuts at the quantiles of a released margin.

    Post-processing of what is already released, so it costs no privacy. Cells of a noisy margin
    below twice the spread of its negative cells, which hold nothing but noise, count as empty;
    only the position of cuts depends on that.

    Args:
        margin: (M,) counts over the bins of `margin_cuts(M)`; noisy ones may be negative.
        n_bins: Number of score bins wanted.
        fallback: Cuts used where the margin holds no patient.
    """
    counts = np.asarray(margin, np.float64)
    negative = counts[counts < 0]
    floor = 2 * float(np.sqrt(np.square(negative).mean())) if len(negative) else 0.0
    counts = np.where(counts > floor, counts, 0.0)
    if counts.sum() <= 0:
        return fallback
    inner = margin_cuts(len(counts))
    step = inner[1] - inner[0]
    edges = np.concatenate(([inner[0] - step], inner, [inner[-1] + step]))
    cumulative = np.concatenate(([0.0], np.cumsum(counts)))
    # One edge for each cumulative value, the first of a run but the last before the first
    # patient: otherwise the interpolation is ambiguous at empty bins.
    keep = np.concatenate(([True], np.diff(cumulative) > 0))
    start = int(np.flatnonzero(counts)[0])
    keep[:start], keep[start] = False, True
    levels = np.arange(1, n_bins) / n_bins * cumulative[-1]
    cuts = np.interp(levels, cumulative[keep], edges[keep])
    return np.asarray(np.maximum.accumulate(cuts) + 1e-12 * np.arange(n_bins - 1), np.float64)
