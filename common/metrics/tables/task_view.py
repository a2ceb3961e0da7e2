"""Select the tables that the metrics of one task are computed from."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np

from common.metrics.tables.grid import EvaluationGrid
from common.metrics.tables.score_scale import FloatArray
from common.metrics.tables.table_schema import FIXED_POINT
from common.metrics.tables.tables import SiteTables
from common.study.study import Task


@dataclass(frozen=True)
class TaskView:
    """Tables of one site, of all sites, or of all but one; the task's own table is among them.

    Attributes:
        tables: The tables.
        grid: The grid they were counted on.
        cell_variance: Variance of the privacy noise of one cell; 0 for exact tables.
    """

    task: ClassVar[Task]
    tables: SiteTables
    grid: EvaluationGrid
    cell_variance: float = 0.0

    def counts(self, name: str) -> FloatArray:
        """Return a count table as float64."""
        return self.tables.arrays[name].astype(np.float64)

    def sums(self, name: str) -> FloatArray:
        """Return a fixed-point table as real sums."""
        return self.counts(name) / FIXED_POINT

    @cached_property
    def table(self) -> FloatArray:
        """Outcome by score: (2, T, S) of survival, (2, R) of response."""
        return self.counts(self.task)
