"""Count pairs and the log-rank exactly, from the patients of one site.

They add up over sites to the site-stratified C-index and log-rank without any binning, and
without the server seeing a single site.
"""

import numpy as np
import numpy.typing as npt

from common.metrics.tables.grid import IntArray
from common.metrics.tables.predictions import Predictions
from common.metrics.tables.score_scale import FloatArray


def survival_pairs(rows: Predictions) -> IntArray:
    """Return (2,) [2 * concordant + tied in risk, 2 * comparable] pairs within the site.

    Comparable: the earlier time is a death, or equal times with one death. Equal times with two
    deaths are not comparable, as in scikit-survival.
    """
    twice, comparable = 0, 0
    for i in np.flatnonzero(rows.event > 0.5):
        time, risk = rows.time_months[i], rows.risk[i]
        later = (rows.time_months > time) | ((rows.time_months == time) & (rows.event < 0.5))
        lower = rows.risk[later]
        twice += 2 * int((lower < risk).sum()) + int((lower == risk).sum())
        comparable += len(lower)
    return np.array([twice, 2 * comparable], np.int64)


def response_pairs(rows: Predictions) -> IntArray:
    """Return (2,) [2 * won + tied, 2 * all] pairs of a responder and a non-responder."""
    score, responders = rows.response_prob, rows.response > 0.5
    negative, positive = np.sort(score[~responders]), score[responders]
    below = np.searchsorted(negative, positive, side="left")
    upto = np.searchsorted(negative, positive, side="right")
    return np.array([int((below + upto).sum()), 2 * len(negative) * len(positive)], np.int64)


def exact_log_rank(rows: Predictions, high: npt.NDArray[np.bool_]) -> FloatArray:
    """Return (2,) [O - E of the high-risk group, its variance] within the site."""
    times, died = rows.time_months, rows.event > 0.5
    moments, at = np.unique(times[died], return_inverse=True)
    d = np.bincount(at, minlength=len(moments)).astype(np.float64)
    d_high = np.bincount(at, high[died], len(moments))
    n = len(times) - np.searchsorted(np.sort(times), moments, side="left")
    n_high = high.sum() - np.searchsorted(np.sort(times[high]), moments, side="left")
    share = n_high / np.maximum(n, 1)
    ties = np.where(n > 1, (n - d) / np.maximum(n - 1, 1), 0.0)
    return np.array([(d_high - d * share).sum(), (d * share * (1 - share) * ties).sum()])
