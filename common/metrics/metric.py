"""Describe a metric: its name, the tables it is computed from, and which direction is better."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from math import inf, nan
from typing import Literal

import numpy as np
import numpy.typing as npt

from common.metrics.response.response_metrics import ResponseView
from common.metrics.survival.survival_metrics import SurvivalView
from common.metrics.tables.estimate import Estimate, not_estimable
from common.metrics.tables.grid import IntArray
from common.metrics.tables.predictions import Predictions
from common.metrics.tables.score_scale import FloatArray
from common.metrics.tables.table_schema import TABLES
from common.privacy.plan import Release
from common.study.study import Task

View = SurvivalView | ResponseView
VIEWS: dict[Task, type[View]] = {"survival": SurvivalView, "response": ResponseView}


@dataclass(frozen=True)
class Scale:
    """What values of a metric mean.

    Attributes:
        direction: Which values are better; `ideal`: those near `ideal`; `none`: no model is judged.
        low: Smallest possible value.
        high: Largest possible value.
        ideal: Value of a perfect model where it is neither end.
        unit: Unit, if there is one.
    """

    direction: Literal["higher", "lower", "ideal", "none"]
    low: float = 0.0
    high: float = inf
    ideal: float | None = None
    unit: str = ""

    @property
    def best(self) -> float | None:
        """Value of a perfect model."""
        return {"higher": self.high, "lower": self.low}.get(self.direction, self.ideal)

    def merit(self, value: float) -> float:
        """Return a number that is larger for a better value.

        >>> Scale("lower").merit(0.2) > Scale("lower").merit(0.3)
        True
        """
        if self.ideal is not None:
            return -abs(value - self.ideal)
        return -value if self.direction == "lower" else value


@dataclass(frozen=True)
class Metric:
    """One metric.

    Attributes:
        name: Key in `report.json`; `name_<months>m` where it has horizons.
        title: Name for people; `{}` stands for the months of a horizon.
        table: Table it is computed from (`table_schema.TABLES`).
        scale: What its values mean.
        estimate: Gives the estimate from a view of the task (and `months` where it has horizons);
            None: the value of the statistic.
        statistic: Gives values of `RankCounts` with leading batch dimensions (and `months`);
            intervals are drawn with it.
        horizons: Whether there is one value per horizon of the study, see `at`.
        horizon: Months of the one horizon it is about.
        absent: Release -> why there is no value if the table did not leave; a metric without a
            reason is left out.
    """

    name: str
    title: str
    table: str
    scale: Scale
    estimate: Callable[..., Estimate] | None = None
    statistic: Callable[..., FloatArray] | None = None
    horizons: bool = False
    horizon: float | None = None
    absent: Mapping[Release, str] = field(default_factory=dict)

    @property
    def task(self) -> Task:
        """Task it judges."""
        return TABLES.get(self.table).task

    @property
    def label(self) -> str:
        """Title with its task, e.g. `Survival, Harrell's C`."""
        return f"{self.task.capitalize()}, {self.title}"

    @property
    def full_title(self) -> str:
        """Title with unit and the value of a perfect model."""
        unit = f", {self.scale.unit}" if self.scale.unit else ""
        ideal = "" if self.scale.ideal is None else f" ({self.scale.ideal:g} is perfect)"
        return self.title + unit + ideal

    def at(self, months: float) -> "Metric":
        """Return the metric at one horizon, e.g. `auc_12m`."""
        return replace(
            self,
            name=f"{self.name}_{months:g}m",
            title=self.title.format(f"{months:g}"),
            estimate=self.estimate and partial(self.estimate, months=months),
            statistic=self.statistic and partial(self.statistic, months=months),
            horizon=months,
        )

    def of(self, view: View) -> Estimate:
        """Return the estimate from a view that holds the metric's table."""
        if self.estimate is not None:
            return self.estimate(view)
        refusal = view.refusal(self.horizon)
        if refusal or self.statistic is None:
            return not_estimable(refusal or "the metric has neither estimate nor statistic")
        value = float(self.statistic(view.ranks))
        if not np.isfinite(value):
            return not_estimable(view.undefined)
        return Estimate(float(np.clip(value, self.scale.low, self.scale.high)))


@dataclass(frozen=True, kw_only=True)
class Headline(Metric):
    """A metric by which models, hospitals, subgroups and arms are compared.

    Attributes:
        statistic: As of any metric, but required.
        short: Its name within a sentence.
        no_skill: Value of a model that knows nothing.
        sd: Sampling standard deviation from one exact table.
        pairs: (2,) doubled counts of [pairs ranked rightly, pairs] among patients whose outcome is
            known; they add up over hospitals.
        within_sites: Name of the same metric over pairs of one hospital.
    """

    statistic: Callable[..., FloatArray]
    short: str
    no_skill: float
    sd: Callable[[FloatArray], float]
    pairs: Callable[[Predictions], IntArray]
    within_sites: str

    def among(
        self, predictions: Predictions, groups: npt.NDArray[np.generic] | None = None
    ) -> float:
        """Return the share of pairs of patients ranked rightly; NaN without a pair.

        Args:
            predictions: n patients.
            groups: (n,) only pairs of one group count, e.g. of one hospital; None: all pairs.
        """
        mask = predictions.has(self.task)
        parts = [mask] if groups is None else [mask & (groups == g) for g in np.unique(groups)]
        right = pairs = 0
        for part in parts:
            counts = self.pairs(predictions.select(part))
            right, pairs = right + int(counts[0]), pairs + int(counts[1])
        return right / pairs if pairs else nan
