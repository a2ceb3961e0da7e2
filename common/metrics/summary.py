"""Everything an evaluation says, from the tables of the sites.

`summarise` is the one entry point of the server and of the report.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from common.metrics.concordance import c_index_estimate
from common.metrics.estimate import Estimate, not_estimable
from common.metrics.grid import EvaluationGrid, Release
from common.metrics.kaplan_meier import SurvivalCurve, survival_curve
from common.metrics.log_rank import log_rank
from common.metrics.roc import roc_estimate, roc_points
from common.metrics.tables import SiteTables, merge


@dataclass(frozen=True)
class SiteSummary:
    """Metrics of one site, or of the consortium without it."""

    site_id: str
    metrics: dict[str, Estimate]
    n_survival: int | None = None
    n_events: int | None = None
    n_response: int | None = None
    n_responders: int | None = None


@dataclass(frozen=True)
class EvaluationSummary:
    """What the report prints.

    Attributes:
        release: `internal` or `dp`.
        overall: Metrics of all sites together, by name.
        curves: Kaplan-Meier of all patients and of the risk groups.
        roc: (false positive rate, true positive rate) of the response, or None.
        per_site: By site; empty when only the federation total is visible.
    """

    release: Release
    overall: SiteSummary
    curves: list[SurvivalCurve] = field(default_factory=list)
    roc: tuple[list[float], list[float]] | None = None
    per_site: dict[str, SiteSummary] = field(default_factory=dict)

    @property
    def metrics(self) -> dict[str, Estimate]:
        """Metrics of all sites together, by name."""
        return self.overall.metrics


def summarise(per_site: Mapping[str, SiteTables], grid: EvaluationGrid) -> EvaluationSummary:
    """Return metrics, curves and site comparisons.

    Args:
        per_site: Tables by site; one entry (the federation total) under a secure sum.
        grid: The grid the tables were made on.
    """
    total = merge(list(per_site.values()))
    sites = {}
    if len(per_site) > 1:
        sites = {key: _site(key, tables, grid) for key, tables in per_site.items()}
    curves = [] if total.survival is None else _curves(total, grid)
    roc = None
    if total.response is not None and total.response.sum(-1).min() > 0:
        x, y = roc_points(total.response)
        roc = (x.tolist(), y.tolist())
    return EvaluationSummary(grid.release, _site("all", total, grid), curves, roc, sites)


def _site(site_id: str, tables: SiteTables, grid: EvaluationGrid) -> SiteSummary:
    metrics: dict[str, Estimate] = {}
    survival, response = tables.survival, tables.response
    if survival is not None:
        metrics["c_index"] = c_index_estimate(survival)
        low, high = risk_groups(survival, grid)
        test = log_rank(high[1], high[0], low[1], low[0])
        metrics["log_rank_chi2"], metrics["log_rank_p"] = test.chi_square, test.p_value
    if response is not None:
        metrics["response_auc"] = roc_estimate(response)
    return SiteSummary(
        site_id,
        metrics or {"none": not_estimable("the study has no endpoint")},
        None if survival is None else int(survival.sum()),
        None if survival is None else int(survival[1].sum()),
        None if response is None else int(response.sum()),
        None if response is None else int(response[1].sum()),
    )


def risk_groups(
    table: np.ndarray[tuple[int, ...], np.dtype[np.float64]], grid: EvaluationGrid
) -> tuple[
    np.ndarray[tuple[int, ...], np.dtype[np.float64]],
    np.ndarray[tuple[int, ...], np.dtype[np.float64]],
]:
    """Return the (2, T) tables of the low-risk and the high-risk group.

    The border is the study's threshold, or else the score cut nearest to the median.
    """
    if grid.risk_threshold is not None:
        first_high = int(np.searchsorted(grid.survival_cuts, grid.risk_threshold, side="right"))
    else:
        below = np.cumsum(table.sum((0, 1)))
        first_high = int(np.argmin(np.abs(below - below[-1] / 2))) + 1
    return table[..., :first_high].sum(-1), table[..., first_high:].sum(-1)


def _curves(total: SiteTables, grid: EvaluationGrid) -> list[SurvivalCurve]:
    table = total.survival
    if table is None:
        return []
    low, high = risk_groups(table, grid)
    groups = {"all patients": table.sum(-1), "low risk": low, "high risk": high}
    return [survival_curve(name, t[1], t[0], grid.time_edges) for name, t in groups.items()]
