"""Arrange the tables of one task as rank statistics read them, with or without batch dimensions."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from common.metrics.survival.concordance import PairCounts, interval_pairs
from common.metrics.survival.time_auc import auc_at_edges
from common.metrics.tables.grid import EvaluationGrid
from common.metrics.tables.score_scale import FloatArray


@dataclass(frozen=True)
class RankCounts:
    """Counts of outcome by score, and what several statistics share.

    Attributes:
        counts: (..., 2, T, S) of survival, (..., 2, R) of response; may be noisy or negative.
        grid: The grid.
        last_edge: Edge of the last horizon that somebody outlives; 0 if there is none.
        cell_variance: Variance of the noise of one cell; removes its bias from squares.
    """

    counts: FloatArray
    grid: EvaluationGrid
    last_edge: int = 0
    cell_variance: float = 0.0

    @cached_property
    def pairs(self) -> PairCounts:
        """Pairs of patients by the interval of the earlier death."""
        return interval_pairs(self.counts, self.cell_variance)

    @cached_property
    def auc(self) -> FloatArray:
        """AUC at every edge up to the last, (..., last_edge)."""
        return auc_at_edges(self.counts, np.arange(1, self.last_edge + 1))

    def auc_at(self, months: float) -> FloatArray:
        """Return the AUC at a horizon up to the last edge, (...)."""
        return np.asarray(self.auc[..., self.grid.edge_of(months) - 1])

    def c_index(self) -> FloatArray:
        """Return Harrell's C, (...)."""
        return self.pairs.weighted(np.ones(self.counts.shape[-2])).c_index()
