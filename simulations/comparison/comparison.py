"""Compare arms over the same folds: paired differences, corrected intervals and p-values."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

FloatArray = npt.NDArray[np.float64]
CELL = ["arm", "seed", "fold"]
METRICS = ("c_index", "response_auc")
WITHIN = "_within"
"""Suffix of the same metric over pairs of patients of one hospital."""


@dataclass(frozen=True)
class PairedDifference:
    """Mean difference of two arms over the same folds.

    Attributes:
        mean: Arm minus reference.
        ci_low: Lower end of the 95 % interval.
        ci_high: Upper end.
        p_value: Two-sided.
        n_cells: Folds times seeds compared.
    """

    mean: float
    ci_low: float
    ci_high: float
    p_value: float
    n_cells: int


def cell_metrics(predictions: pd.DataFrame) -> pd.DataFrame:
    """Return one row an (arm, seed, fold): C-index and response AUC over all test patients.

    Where hospitals are scored by different models (`local_only`, `leave_one_out`), each with a
    scale of its own, ranking patients of different hospitals means little; so for every arm
    the comparison inside hospitals is given too (`c_index_within`, `response_auc_within`).

    Args:
        predictions: Columns arm, seed, fold, hospital, risk, response_prob, time_months, event,
            response; one row a test patient.
    """
    rows = []
    for key, cell in predictions.groupby(CELL, sort=True):
        rows.append(
            dict(zip(CELL, key, strict=True))
            | {
                "c_index": concordance(cell),
                "c_index_within": _within_hospitals(cell, concordance, _comparable_pairs),
                "response_auc": response_auc(cell),
                "response_auc_within": _within_hospitals(cell, response_auc, _response_pairs),
                "n_test": len(cell),
                "n_events": int(np.nansum(cell["event"])),
            }
        )
    return pd.DataFrame(rows)


def concordance(rows: pd.DataFrame) -> float:
    """Return Harrell's C of `risk` (higher is worse), NaN without a comparable pair."""
    from lifelines.utils import concordance_index

    known = rows[["time_months", "event", "risk"]].notna().all(axis=1)
    used = rows[known]
    try:
        return float(concordance_index(used["time_months"], -used["risk"], used["event"]))
    except ZeroDivisionError:
        return math.nan


def response_auc(rows: pd.DataFrame) -> float:
    """Return the ROC AUC of `response_prob`, NaN with one class only."""
    from sklearn.metrics import roc_auc_score

    used = rows[rows[["response", "response_prob"]].notna().all(axis=1)]
    if used["response"].nunique() < 2:
        return math.nan
    return float(roc_auc_score(used["response"], used["response_prob"]))


def _within_hospitals(
    cell: pd.DataFrame,
    score: Callable[[pd.DataFrame], float],
    pairs_of: Callable[[pd.DataFrame], float],
) -> float:
    """Return a metric over pairs of the same hospital, weighted by comparable pairs."""
    total, agreeing = 0.0, 0.0
    for _, rows in cell.groupby("hospital"):
        pairs = pairs_of(rows)
        if pairs:
            total += pairs
            agreeing += pairs * score(rows)
    return agreeing / total if total else math.nan


def _response_pairs(rows: pd.DataFrame) -> float:
    known = rows[rows[["response", "response_prob"]].notna().all(axis=1)]["response"]
    return float(known.sum() * (len(known) - known.sum()))


def _comparable_pairs(rows: pd.DataFrame) -> float:
    known = rows[rows[["time_months", "event", "risk"]].notna().all(axis=1)]
    time = known["time_months"].to_numpy()
    event = known["event"].to_numpy() == 1
    later = (time[None, :] > time[:, None]) | ((time[None, :] == time[:, None]) & ~event[None, :])
    return float((later & event[:, None]).sum())


def paired_difference(
    arm: FloatArray, reference: FloatArray, *, test_share: float
) -> PairedDifference:
    """Return the corrected resampled t interval of Nadeau and Bengio (2003).

    Training sets of different folds overlap; the variance of the mean is therefore
    (1/k + n_test/n_train) s², not s²/k.

    Args:
        arm: (k,) metric of the arm a cell; NaN cells are left out in both.
        reference: (k,) metric of the reference on the same cells.
        test_share: n_test / n_train.
    """
    difference = (arm - reference)[np.isfinite(arm) & np.isfinite(reference)]
    k = len(difference)
    if k < 2:
        return PairedDifference(math.nan, math.nan, math.nan, math.nan, k)
    mean = float(difference.mean())
    error = math.sqrt((1 / k + test_share) * float(difference.var(ddof=1)))
    if error == 0.0:
        return PairedDifference(mean, mean, mean, 1.0 if mean == 0.0 else 0.0, k)
    quantile = float(stats.t.ppf(0.975, k - 1))
    p_value = float(2 * stats.t.sf(abs(mean) / error, k - 1))
    return PairedDifference(mean, mean - quantile * error, mean + quantile * error, p_value, k)


def holm(p_values: list[float]) -> list[float]:
    """Return Holm-adjusted p-values (Holm, 1979), NaN kept as NaN."""
    finite = [i for i, p in enumerate(p_values) if math.isfinite(p)]
    adjusted = [math.nan] * len(p_values)
    running = 0.0
    for rank, i in enumerate(sorted(finite, key=lambda i: p_values[i])):
        running = max(running, min(1.0, (len(finite) - rank) * p_values[i]))
        adjusted[i] = running
    return adjusted


def compare_arms(cells: pd.DataFrame, reference: str, *, test_share: float) -> pd.DataFrame:
    """Return one row an (arm, metric): mean, SD and the paired difference to the reference.

    Args:
        cells: Table of `cell_metrics`.
        reference: Arm the others are compared with.
        test_share: n_test / n_train, for the corrected interval.
    """
    rows: list[dict[str, Any]] = []
    for metric in (*METRICS, *(metric + WITHIN for metric in METRICS)):
        wide = cells.pivot_table(index=["seed", "fold"], columns="arm", values=metric, dropna=False)
        if wide.isna().all(axis=None):
            continue
        others = [arm for arm in wide.columns if arm != reference]
        base = wide[reference].to_numpy(dtype=np.float64)
        differences = {
            arm: paired_difference(
                wide[arm].to_numpy(dtype=np.float64), base, test_share=test_share
            )
            for arm in others
        }
        adjusted = dict(
            zip(others, holm([differences[arm].p_value for arm in others]), strict=True)
        )
        for arm in wide.columns:
            row = {"metric": metric, "arm": arm, **_spread(wide[arm])}
            if arm in differences:
                found = vars(differences[arm])
                row |= {"difference": found["mean"]} | found | {"p_holm": adjusted[arm]}
            rows.append(row | _spread(wide[arm]))
    return pd.DataFrame(rows)


def _spread(values: pd.Series[float]) -> dict[str, float]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Degrees of freedom", category=RuntimeWarning)
        return {"mean": float(values.mean()), "sd": float(values.std(ddof=1))}
