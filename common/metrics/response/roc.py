"""ROC and precision-recall of the response from a table [label, score].

AUC = P(score of a responder > score of a non-responder), equal bins by half. Only pairs that
share a bin can be misjudged: |error| <= half of their share. Precision-recall area as average
precision over the bins. Functions take leading batch dimensions.
"""

import numpy as np

from common.metrics.tables.estimate import MIN_SHOWN, Estimate, not_estimable
from common.metrics.tables.score_scale import FloatArray


def roc_auc(table: FloatArray) -> FloatArray:
    """Return the AUC of tables (..., 2, R); NaN where a class is empty."""
    negative, positive = table[..., 0, :].astype(np.float64), table[..., 1, :].astype(np.float64)
    below = np.cumsum(negative, -1) - negative
    wins = (positive * (below + negative / 2)).sum(-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(wins / (positive.sum(-1) * negative.sum(-1)))


def roc_error_bound(table: FloatArray) -> float:
    """Return the largest |gridded AUC - AUC of the patient rows| of one table (2, R)."""
    shared = float((table[0] * table[1]).sum())
    return 0.5 * shared / float(table[0].sum() * table[1].sum())


def roc_sd(table: FloatArray) -> float:
    """Return the sampling standard deviation of the AUC (DeLong et al., Biometrics 1988).

    From the placements of both classes over the bins of one table (2, R); NaN with fewer than 2
    patients in a class.
    """
    negative, positive = table[0], table[1]
    n_neg, n_pos = float(negative.sum()), float(positive.sum())
    if n_neg < 2 or n_pos < 2:
        return float("nan")
    auc = float(roc_auc(table))
    of_positive = (np.cumsum(negative) - negative / 2) / n_neg
    of_negative = 1 - (np.cumsum(positive) - positive / 2) / n_pos
    s10 = float((positive * np.square(of_positive - auc)).sum()) / (n_pos - 1)
    s01 = float((negative * np.square(of_negative - auc)).sum()) / (n_neg - 1)
    variance = s10 / n_pos + s01 / n_neg
    return float(np.sqrt(variance)) if variance >= 0 else float("nan")


def average_precision(table: FloatArray) -> FloatArray:
    """Return the area under precision-recall of tables (..., 2, R), from the highest score."""
    falling = np.flip(table.astype(np.float64), -1)
    true = np.cumsum(falling[..., 1, :], -1)
    n_positive = np.cumsum(falling.sum(-2), -1)
    with np.errstate(invalid="ignore", divide="ignore"):
        precision = np.where(n_positive > 0, true / n_positive, 0.0)
        return np.asarray((precision * falling[..., 1, :]).sum(-1) / true[..., -1])


def roc_points(table: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return (false positive rate, true positive rate), each (R + 1,), from (0, 0) to (1, 1)."""
    falling = np.flip(table.astype(np.float64), -1)
    rates = np.cumsum(falling, -1) / falling.sum(-1, keepdims=True)
    rates = np.concatenate([np.zeros((2, 1)), rates], -1)
    return rates[0], rates[1]


def shown_roc(table: FloatArray, *, exact: bool) -> tuple[list[float], list[float]] | None:
    """Return the points of the ROC that may be shown, or None with an empty class.

    Exact tables: neighbouring bins are joined until each step holds at least 5 patients.
    """
    if table.sum(-1).min() <= 0 or (exact and table.sum() < MIN_SHOWN):
        return None
    if exact:
        falling, steps, counts = np.flip(table, -1), [], np.zeros(2)
        for column in falling.T:
            counts = counts + column
            if counts.sum() >= MIN_SHOWN:
                steps.append(counts)
                counts = np.zeros(2)
        steps[-1] = steps[-1] + counts
        table = np.flip(np.array(steps).T, -1)
    x, y = roc_points(table)
    return x.tolist(), y.tolist()


def refuse_one_class(table: FloatArray) -> str | None:
    """Return why an AUC cannot be had, or None."""
    if table.sum() == 0:
        return "no patient with a known response"
    if table[1].sum() == 0:
        return "no responder"
    if table[0].sum() == 0:
        return "no non-responder"
    return None


def roc_estimate(table: FloatArray, *, noisy: bool = False) -> Estimate:
    """Return the AUC of one table (2, R) with its error bound, or why there is none."""
    if noisy:
        if table[0].sum() <= 0 or table[1].sum() <= 0:
            return not_estimable("the noise is larger than a class")
        return Estimate(float(np.clip(roc_auc(table), 0.0, 1.0)))
    reason = refuse_one_class(table)
    if reason:
        return not_estimable(reason)
    return Estimate(float(roc_auc(table)), error_bound=roc_error_bound(table))
