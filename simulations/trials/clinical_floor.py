"""Fit the clinical floor: ridge Cox and logistic regression on clinical columns."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from simulations.cohorts.cohort import Cohort

FloatArray = npt.NDArray[np.float64]
COX_PENALTY = 0.1
MINIMUM_EVENTS = 5


@dataclass(frozen=True)
class FloorPrediction:
    """Out-of-sample predictions of the floor; NaN where it could not be fitted.

    Attributes:
        risk: (n,) log partial hazard, higher is worse.
        response_prob: (n,) probability of response.
        survival: (n, H) probability to be alive at the horizons asked for.
    """

    risk: FloatArray
    response_prob: FloatArray
    survival: FloatArray


def fit_floor(train: Cohort, test: Cohort, *, horizons: tuple[float, ...] = ()) -> FloorPrediction:
    """Fit on training patients of all hospitals together, predict the test patients.

    Missing values become the training median, with a flag column where any was missing; columns
    are standardised on the training patients. Not private: a yardstick, never released.

    Args:
        train: Training patients; their clinical columns and outcomes are read.
        test: Patients to predict, with the same clinical columns.
        horizons: Months at which survival is predicted.
    """
    x, z = _prepare(train.clinical, test.clinical)
    risk, survival = _cox(x, train, z, horizons)
    return FloorPrediction(risk, _logistic(x, train.response, z), survival)


def _prepare(train: pd.DataFrame, test: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    median = train.median().fillna(0.0)
    frames = []
    for table in (train, test):
        complete = table.fillna(median)
        for column in train.columns[train.isna().any()]:
            complete[f"{column}_missing"] = table[column].isna().astype(float)
        frames.append(complete.astype(np.float64).reset_index(drop=True))
    spread = frames[0].std(ddof=0)
    names = [column for column in frames[0].columns if spread[column] > 1e-9]
    mean = frames[0][names].mean()
    return (frames[0][names] - mean) / spread[names], (frames[1][names] - mean) / spread[names]


def _cox(
    x: pd.DataFrame, train: Cohort, z: pd.DataFrame, horizons: tuple[float, ...]
) -> tuple[FloatArray, FloatArray]:
    from lifelines import CoxPHFitter

    time_months, event = train.time_months, train.event
    has_outcome = np.isfinite(time_months) & np.isfinite(event)
    if np.nansum(event[has_outcome]) < MINIMUM_EVENTS or x.shape[1] == 0:
        return np.full(len(z), np.nan), np.full((len(z), len(horizons)), np.nan)
    table = x[has_outcome].assign(time=time_months[has_outcome], event=event[has_outcome])
    model: Any = CoxPHFitter(penalizer=COX_PENALTY).fit(table, "time", "event")
    risk = np.asarray(model.predict_log_partial_hazard(z), dtype=np.float64)
    survival = np.empty((len(z), 0))
    if horizons:
        survival = model.predict_survival_function(z, times=list(horizons)).to_numpy().T
    return risk, np.asarray(survival, dtype=np.float64)


def _logistic(x: pd.DataFrame, response: FloatArray, z: pd.DataFrame) -> FloatArray:
    from sklearn.linear_model import LogisticRegression

    has_outcome = np.isfinite(response)
    classes = np.unique(response[has_outcome])
    if len(classes) < 2 or x.shape[1] == 0:
        return np.full(len(z), np.nan)
    model = LogisticRegression(C=1.0, max_iter=1000).fit(x[has_outcome], response[has_outcome])
    return np.asarray(model.predict_proba(z)[:, 1], dtype=np.float64)
