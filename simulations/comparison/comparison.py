"""Compare arms over the same folds: paired differences, corrected intervals and p-values."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from simulations.comparison.arm_metrics import CELL, arm_metrics, arm_scores

FloatArray = npt.NDArray[np.float64]


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
    """Return one row per (arm, seed, fold): its `arm_scores` over all test patients.

    Args:
        predictions: Columns arm, seed, fold, hospital, risk, response_prob, time_months, event,
            response; one row per test patient.
    """
    rows = [
        dict(zip(CELL, key, strict=True))
        | arm_scores(cell)
        | {"n_test": len(cell), "n_events": int(np.nansum(cell["event"]))}
        for key, cell in predictions.groupby(CELL, sort=True)
    ]
    return pd.DataFrame(rows)


def paired_difference(
    arm: FloatArray, reference: FloatArray, *, test_share: float
) -> PairedDifference:
    """Return the corrected resampled t interval of Nadeau and Bengio (2003).

    Training sets of different folds overlap; the variance of the mean is therefore
    (1/k + n_test/n_train) s², not s²/k.

    Args:
        arm: (k,) metric of the arm per cell; NaN cells are left out in both.
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
    corrected_p = [math.nan] * len(p_values)
    running = 0.0
    for rank, i in enumerate(sorted(finite, key=lambda i: p_values[i])):
        running = max(running, min(1.0, (len(finite) - rank) * p_values[i]))
        corrected_p[i] = running
    return corrected_p


def compare_arms(cells: pd.DataFrame, reference: str, *, test_share: float) -> pd.DataFrame:
    """Return one row per (arm, metric): mean, SD and the paired difference to the reference.

    Args:
        cells: Table of `cell_metrics`.
        reference: Arm the others are compared with.
        test_share: n_test / n_train, for the corrected interval.
    """
    rows: list[dict[str, Any]] = []
    for metric in arm_metrics():
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
        p_of = dict(zip(others, holm([differences[arm].p_value for arm in others]), strict=True))
        for arm in wide.columns:
            row = {"metric": metric, "arm": arm, **_spread(wide[arm])}
            if arm in differences:
                difference = vars(differences[arm])
                row |= {"difference": difference["mean"]} | difference | {"p_holm": p_of[arm]}
            rows.append(row | _spread(wide[arm]))
    return pd.DataFrame(rows)


def _spread(values: pd.Series[float]) -> dict[str, float]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Degrees of freedom", category=RuntimeWarning)
        return {"mean": float(values.mean()), "sd": float(values.std(ddof=1))}
