"""Count deaths and censorings per interval in the low-risk and the high-risk group.

Release `internal` counts them on fine public intervals, deaths before censorings within one, as
Kaplan and Meier do for equal times. Release `dp`, or a grid without a risk threshold, takes them
from the survival table; its intervals are wide, so a censored patient is at risk for half of one
(actuarial).
"""

from dataclasses import dataclass

import numpy as np

from common.metrics.survival.kaplan_meier import SurvivalCurve, survival_curve
from common.metrics.survival.log_rank import LogRank, log_rank
from common.metrics.tables.grid import EvaluationGrid
from common.metrics.tables.score_scale import FloatArray
from common.metrics.tables.tables import SiteTables


@dataclass(frozen=True)
class RiskSets:
    """Counts of both groups.

    Attributes:
        edges: (T + 1,) months; the last is inf.
        low: (2, T) [censored | died] of the low-risk group.
        high: (2, T) of the high-risk group.
        censored_share: Share of the interval's censored patients that leave before its deaths:
            0 on fine intervals, 0.5 on wide ones.
    """

    edges: FloatArray
    low: FloatArray
    high: FloatArray
    censored_share: float

    @property
    def everybody(self) -> FloatArray:
        """(2, T) of both groups."""
        return self.low + self.high

    def curve(self, label: str, group: FloatArray) -> SurvivalCurve:
        """Return the Kaplan-Meier curve of `low`, `high` or `everybody`."""
        return survival_curve(label, group[1], group[0], self.edges, self.censored_share)

    def log_rank(self) -> LogRank:
        """Return the log-rank test of high against low risk."""
        return log_rank(self.high, self.low, self.censored_share)


def risk_sets(tables: SiteTables, grid: EvaluationGrid) -> RiskSets:
    """Return the risk sets of some tables, a survival table among them."""
    fine = tables.counts("risk_sets")
    if fine is not None:
        return RiskSets(grid.risk_edges, fine[0], fine[1], 0.0)
    table = tables.arrays["survival"].astype(np.float64)
    first_high = first_high_bin(table, grid)
    low, high = table[..., :first_high].sum(-1), table[..., first_high:].sum(-1)
    return RiskSets(grid.time_edges, low, high, 0.5)


def first_high_bin(table: FloatArray, grid: EvaluationGrid) -> int:
    """Return the first score bin of the high-risk group.

    The border is the study's threshold, or else the cut nearest to the median of the table.
    """
    if grid.risk_threshold is not None:
        return int(np.searchsorted(grid.survival_cuts, grid.risk_threshold, side="right"))
    below = np.cumsum(table.sum((0, 1)))[:-1]
    return int(np.argmin(np.abs(below - table.sum() / 2))) + 1
