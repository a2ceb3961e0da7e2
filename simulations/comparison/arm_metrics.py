"""Score the predictions of an arm by every headline metric, over all pairs and inside hospitals."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from common.metrics.catalogue import headlines
from common.metrics.metric import Headline
from common.metrics.tables.predictions import Predictions

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
    judged = [ArmMetric(metric, within) for within in (False, True) for metric in headlines()]
    return {metric.name: metric for metric in judged}


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
        name: judged.metric.among(patients, hospital if judged.within else None)
        for name, judged in arm_metrics().items()
        if hospital is not None or not judged.within
    }
