"""Fit on public cohorts: a projection without labels, and a trunk of few frozen scores.

The trunk: a ridge Cox model (stratified by cohort) and a ridge logistic model (one intercept per
cohort) are fitted on public patients with other diseases; what they say about a target patient is
one number per task. Many private directions cost noise, one public score costs almost none. Nothing
of the target cohort is read when the trunk is fitted, so it spends no privacy.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.linalg import eigh

from common.errors import DataError

FloatArray = npt.NDArray[np.float64]
_CLIP = 5.0
MINIMUM_FILLED = 0.8


@dataclass(frozen=True)
class PublicProjection:
    """x -> components @ clip((x - center) / scale), each component with unit public SD.

    Attributes:
        columns: Names of the d input columns.
        center: (d,) public medians.
        scale: (d,) public standard deviations.
        components: (k, d) rows scaled so that the public projections have SD 1.
    """

    columns: tuple[str, ...]
    center: FloatArray
    scale: FloatArray
    components: FloatArray

    def apply(self, table: pd.DataFrame) -> pd.DataFrame:
        """Return (n, k) float32 projections; what is missing counts as the public median."""
        values = table.reindex(columns=list(self.columns)).to_numpy(dtype=np.float64)
        z = np.nan_to_num((values - self.center) / self.scale, nan=0.0)
        scores = np.clip(z, -_CLIP, _CLIP) @ self.components.T
        return pd.DataFrame(scores.astype(np.float32), table.index)


def fit_projection(tables: Sequence[pd.DataFrame], components: int) -> PublicProjection:
    """Fit on public tables; columns are those that all tables share and mostly fill.

    Each table is standardised by itself first, so that components describe variation between
    patients and not the differences between cohorts.

    Args:
        tables: Public cohorts, patients by columns.
        components: Number k of principal components.

    Raises:
        DataError: Fewer shared columns than components.
    """
    shared = sorted(set.intersection(*(_well_filled(table) for table in tables)))
    if len(shared) < components:
        raise DataError(
            f"{components} components asked of {len(shared)} shared columns",
            cure="ask for fewer components",
        )
    centers, scales, rows = [], [], []
    for table in tables:
        values = table[shared].to_numpy(dtype=np.float64)
        center = np.nanmedian(values, axis=0)
        scale = np.nanstd(values, axis=0)
        scale[~(scale > 1e-6)] = 1.0
        centers.append(center)
        scales.append(scale)
        z = np.nan_to_num((values - center) / scale, nan=0.0)
        rows.append(np.clip(z, -_CLIP, _CLIP))
    pooled = np.concatenate(rows)
    pooled = pooled - pooled.mean(axis=0)
    largest = [len(shared) - components, len(shared) - 1]
    variances, vectors = eigh(pooled.T @ pooled / len(pooled), subset_by_index=largest)
    axes, spread = vectors.T[::-1], np.sqrt(variances[::-1, None])
    signs = np.sign(axes.sum(axis=1, keepdims=True))
    return PublicProjection(
        columns=tuple(shared),
        center=np.mean(centers, axis=0),
        scale=np.mean(scales, axis=0),
        components=signs * axes / spread,
    )


def _well_filled(table: pd.DataFrame) -> set[str]:
    share = table.notna().mean()
    return {str(column) for column in table.columns[share >= MINIMUM_FILLED]}


COX_PENALTY = 0.1
LOGISTIC_C = 0.1
MINIMUM_PATIENTS = 100
_SCORE_CLIP = 3.0


@dataclass(frozen=True)
class PublicPatients:
    """Patients of one public cohort.

    Attributes:
        inputs: (n, d) columns shared by all cohorts.
        time_months: (n,) follow-up.
        event: (n,) 1 died, 0 censored.
        response: (n,) 1 responder, 0 not, NaN unknown.
    """

    inputs: FloatArray
    time_months: FloatArray
    event: FloatArray
    response: FloatArray


@dataclass(frozen=True)
class PublicTrunk:
    """x -> one score per task, each of mean 0 and SD 1 inside the public cohorts.

    Attributes:
        tasks: What each score predicts, `survival` (higher is worse) or `response`.
        weights: (len(tasks), d).
        center: (len(tasks),) mean of the raw score over public patients.
    """

    tasks: tuple[str, ...]
    weights: FloatArray
    center: FloatArray

    def apply(self, inputs: FloatArray) -> npt.NDArray[np.float32]:
        """Return (n, len(tasks)) scores of patients with these inputs (n, d), clipped at ±3."""
        scores = inputs @ self.weights.T - self.center
        return np.clip(scores, -_SCORE_CLIP, _SCORE_CLIP).astype(np.float32)


def fit_trunk(cohorts: Mapping[str, PublicPatients]) -> PublicTrunk:
    """Fit on public cohorts; a task with too few labelled patients has no score.

    Args:
        cohorts: Name -> patients, the same columns in each.

    Raises:
        DataError: No task can be fitted.
    """
    columns = {
        "survival": _survival_weights(cohorts),
        "response": _response_weights(cohorts),
    }
    weights_of = {task: weights for task, weights in columns.items() if weights is not None}
    if not weights_of:
        raise DataError(
            "a public trunk needs public patients with outcomes",
            why=f"fewer than {MINIMUM_PATIENTS} are labelled",
            cure="give more cohorts",
        )
    weights = np.stack(list(weights_of.values()))
    scores = [patients.inputs @ weights.T for patients in cohorts.values()]
    spread = np.sqrt(np.mean(np.concatenate([s - s.mean(axis=0) for s in scores]) ** 2, axis=0))
    weights = weights / np.where(spread > 0, spread, 1.0)[:, None]
    center = np.mean([(p.inputs @ weights.T).mean(axis=0) for p in cohorts.values()], axis=0)
    return PublicTrunk(tuple(weights_of), weights, center)


def _survival_weights(cohorts: Mapping[str, PublicPatients]) -> FloatArray | None:
    """Return the coefficients (d,) of a ridge Cox model stratified by cohort (Cox, 1972)."""
    from lifelines import CoxPHFitter

    tables = []
    for name, patients in cohorts.items():
        has_outcome = np.isfinite(patients.time_months) & np.isfinite(patients.event)
        table = pd.DataFrame(patients.inputs[has_outcome]).add_prefix("x")
        table["time"] = patients.time_months[has_outcome]
        table["event"] = patients.event[has_outcome]
        table["cohort"] = name
        tables.append(table)
    table = pd.concat(tables, ignore_index=True)
    if table["event"].sum() < MINIMUM_PATIENTS:
        return None
    fitter = CoxPHFitter(penalizer=COX_PENALTY)
    fitter.fit(table, duration_col="time", event_col="event", strata=["cohort"])
    return np.asarray(fitter.params_, dtype=np.float64)


def _response_weights(cohorts: Mapping[str, PublicPatients]) -> FloatArray | None:
    """Return the coefficients (d,) of a ridge logistic model with an intercept per cohort."""
    from sklearn.linear_model import LogisticRegression

    usable = {n: p for n, p in cohorts.items() if len(np.unique(_known(p.response))) == 2}
    if sum(len(_known(patients.response)) for patients in usable.values()) < MINIMUM_PATIENTS:
        return None
    rows, intercepts, labels = [], [], []
    for place, patients in enumerate(usable.values()):
        has_response = np.isfinite(patients.response)
        rows.append(patients.inputs[has_response])
        own = np.zeros((int(has_response.sum()), len(usable)))
        own[:, place] = 10.0  # ten times the scale: the ridge hardly holds an intercept back
        intercepts.append(own)
        labels.append(patients.response[has_response])
    x = np.hstack([np.concatenate(rows), np.concatenate(intercepts)])
    model = LogisticRegression(C=LOGISTIC_C, max_iter=2000, fit_intercept=False)
    model.fit(x, np.concatenate(labels))
    return np.asarray(model.coef_[0, : rows[0].shape[1]], dtype=np.float64)


def _known(values: FloatArray) -> FloatArray:
    return values[np.isfinite(values)]
