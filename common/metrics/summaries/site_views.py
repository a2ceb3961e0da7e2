"""Compute metrics for each site, for all but one site, and for the worst site."""

from collections.abc import Mapping
from dataclasses import dataclass

from common.metrics.catalogue import estimates, headlines
from common.metrics.tables.estimate import MIN_SHOWN, Estimate
from common.metrics.tables.grid import EvaluationGrid
from common.metrics.tables.tables import SiteTables, merge
from common.privacy.plan import Release
from common.study.study import Task


@dataclass(frozen=True)
class SiteSummary:
    """Metrics of one site, of all together, or of the consortium without one.

    Counts below 5 of exact tables are None, as are those of a task the study has not.
    """

    site_id: str
    metrics: dict[str, Estimate]
    n_survival: int | None = None
    n_events: int | None = None
    n_response: int | None = None
    n_responders: int | None = None

    def n_patients(self, task: Task) -> int | None:
        """Return the patients with an outcome of a task; None where it may not be shown."""
        return self.n_survival if task == "survival" else self.n_response


def site_summary(
    site_id: str, tables: SiteTables, grid: EvaluationGrid, cell_variance: Mapping[str, float]
) -> SiteSummary:
    """Return all metrics of some tables.

    Args:
        site_id: Name of the site, or of the union.
        tables: Its tables.
        grid: The grid.
        cell_variance: Noise variance of a cell by array; empty for exact tables.
    """
    survival, response = tables.survival, tables.response
    return SiteSummary(
        site_id,
        estimates(tables, grid, cell_variance),
        None if survival is None else shown_count(survival.sum(), grid.release),
        None if survival is None else shown_count(survival[1].sum(), grid.release),
        None if response is None else shown_count(response.sum(), grid.release),
        None if response is None else shown_count(response[1].sum(), grid.release),
    )


def shown_count(count: float, release: Release) -> int | None:
    """Return a count that may be shown: None below 5 if exact, never negative if noisy."""
    if release == "dp":
        return max(0, round(count))
    return round(count) if count >= MIN_SHOWN else None


def leave_one_out(
    per_site: Mapping[str, SiteTables], grid: EvaluationGrid, cell_variance: Mapping[str, float]
) -> dict[str, SiteSummary]:
    """Return the metrics of all sites but one, by the site left out; needs two sites."""
    views = {}
    for site_id in per_site:
        rest = [tables for other, tables in per_site.items() if other != site_id]
        if rest:
            views[site_id] = site_summary(f"all but {site_id}", merge(rest), grid, cell_variance)
    return views


def worst_sites(per_site: Mapping[str, SiteSummary]) -> dict[str, tuple[str, Estimate]]:
    """Return the site with the worst value of each headline metric.

    Sites whose value carries a caveat (fewer than 5 events) cannot be the worst: chance rules
    them.
    """
    worst: dict[str, tuple[str, Estimate]] = {}
    for headline in headlines():
        candidates = [
            (headline.scale.merit(metric.value), site_id, metric)
            for site_id, summary in per_site.items()
            if (metric := summary.metrics.get(headline.name)) is not None
            and metric.value is not None
            and metric.reason is None
        ]
        if len(candidates) > 1:
            _, site_id, metric = min(candidates, key=lambda entry: entry[:2])
            worst[headline.name] = (site_id, metric)
    return worst
