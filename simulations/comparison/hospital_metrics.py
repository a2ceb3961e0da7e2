"""Score every arm at every hospital: the blocks over which arms are ranked, and a tidy table."""

from __future__ import annotations

import math

import pandas as pd

from common.metrics.catalogue import headlines
from common.study.study import Task
from simulations.comparison.arm_metrics import arm_scores
from simulations.comparison.comparison import CELL

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
