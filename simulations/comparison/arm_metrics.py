"""Score an arm by every headline metric: over all pairs, inside hospitals, and by hospital."""

import math
from dataclasses import dataclass

import pandas as pd

from common.metrics.catalogue import headlines
from common.metrics.metric import Headline
from common.metrics.tables.predictions import Predictions
from common.study.study import Task

CELL = ["arm", "seed", "fold"]
WITHIN = "_within"
"""Suffix of the same metric over pairs of patients of one hospital."""


@dataclass(frozen=True)
class ArmMetric:
    """A headline metric over all test patients, or over pairs of one hospital.

    Attributes:
        metric: The metric.
        within: Whether only pairs of one hospital count.
    """

    metric: Headline
    within: bool = False

    @property
    def name(self) -> str:
        """Column of the tables of a comparison."""
        return self.metric.name + (WITHIN if self.within else "")

    @property
    def title(self) -> str:
        """Name for people."""
        whom = "pairs inside a hospital" if self.within else "all test patients"
        return f"{self.metric.label}, {whom}"


def arm_metrics() -> dict[str, ArmMetric]:
    """Return everything by which arms are compared, by name."""
    metrics = [ArmMetric(metric, within) for within in (False, True) for metric in headlines()]
    return {metric.name: metric for metric in metrics}


def arm_scores(rows: pd.DataFrame) -> dict[str, float]:
    """Return every `ArmMetric` of some test patients; NaN where no pair is comparable.

    Where hospitals are scored by different models (`local_only`, `leave_one_out`), each with a
    scale of its own, ranking patients of different hospitals means little; so the comparison
    inside hospitals is given too, where the rows name the hospital.

    Args:
        rows: One row per patient: risk (higher is worse), response_prob, time_months, event,
            response, hospital; a column that is missing is unknown.
    """
    columns = ("response_prob", "risk", "response", "time_months", "event")
    patients = Predictions.from_scores(**{name: rows.get(name) for name in columns})
    hospital = rows["hospital"].to_numpy() if "hospital" in rows else None
    return {
        name: metric.metric.among(patients, hospital if metric.within else None)
        for name, metric in arm_metrics().items()
        if hospital is not None or not metric.within
    }


MINIMUM_EVENTS = 5
"""Fewer deaths, or responders or non-responders, among a hospital's patients: no figure."""


def hospital_metrics(predictions: pd.DataFrame) -> pd.DataFrame:
    """Return one row per (arm, hospital): its headline metrics, averaged over seeds.

    All folds of a seed together are all patients of the hospital, each predicted once. Models of
    different folds have scales of their own; within a hospital that costs a little, alike for
    every arm.

    Args:
        predictions: One row an arm, seed and test patient, as `run_scenario` returns them.
    """
    rows = []
    for (arm, hospital), part in predictions.groupby(["arm", "hospital"], sort=True):
        rows.append(
            {
                "arm": arm,
                "hospital": hospital,
                **_scores(part),
                "n_patients": part["patient_id"].nunique(),
            }
        )
    return pd.DataFrame(rows)


def _scores(part: pd.DataFrame) -> dict[str, float]:
    seeds = pd.DataFrame(
        [arm_scores(own.drop(columns="hospital")) for _, own in part.groupby("seed")]
    )
    return {
        metric.name: float(seeds[metric.name].mean()) if _enough(part, metric.task) else math.nan
        for metric in headlines()
    }


def tidy(cells: pd.DataFrame, hospitals: pd.DataFrame, scenario: str) -> pd.DataFrame:
    """Return one row a figure: scenario, arm, seed, fold, hospital, metric, value.

    Rows of a cell have no hospital; rows of a hospital no seed and fold: those are empty.
    """
    keys = ["arm", "seed", "fold", "hospital"]
    by_cell = cells.melt(id_vars=CELL, var_name="metric", value_name="value")
    by_hospital = hospitals.melt(id_vars=["arm", "hospital"], var_name="metric", value_name="value")
    table = pd.concat([by_cell, by_hospital], ignore_index=True)
    table = table.assign(scenario=scenario, value=table["value"].astype("float64"))
    typed = table.astype({"seed": "Int64", "fold": "Int64", "hospital": "string", "arm": "string"})
    return typed[["scenario", *keys, "metric", "value"]].reset_index(drop=True)


def _enough(part: pd.DataFrame, task: Task) -> bool:
    column = "event" if task == "survival" else "response"
    known = part.drop_duplicates("patient_id")[column].dropna()
    positive = int(known.sum())
    if task == "survival":
        return positive >= MINIMUM_EVENTS
    return min(positive, len(known) - positive) >= MINIMUM_EVENTS
