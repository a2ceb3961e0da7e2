"""Summarise an evaluation: every metric, from the tables of the sites.

`summarise` is the one entry point of the server and of the report.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from common.metrics.catalogue import headlines
from common.metrics.response.roc import shown_roc
from common.metrics.summaries.intervals import noisy_curve, with_bootstrap, with_noise
from common.metrics.summaries.site_views import (
    SiteSummary,
    leave_one_out,
    site_summary,
    worst_sites,
)
from common.metrics.summaries.subgroups import SubgroupSummary, subgroup_summaries
from common.metrics.survival.auc_curve import AucPoint, split_curve
from common.metrics.survival.calibration import (
    Reliability,
    response_reliability,
    survival_reliability,
)
from common.metrics.survival.kaplan_meier import SurvivalCurve, shown
from common.metrics.survival.risk_sets import RiskSets, risk_sets
from common.metrics.survival.time_auc import last_followed_edge
from common.metrics.tables.estimate import Estimate
from common.metrics.tables.grid import EvaluationGrid
from common.metrics.tables.table_schema import TableNoise, noise_plan
from common.metrics.tables.tables import SiteTables, merge
from common.privacy.plan import Release

__all__ = ["EvaluationSummary", "SiteSummary", "summarise"]

N_REPLICATES = 200
SEED = 20240
MAX_SHARE = 0.5


@dataclass(frozen=True)
class EvaluationSummary:
    """What the report prints.

    Attributes:
        release: `internal` or `dp`.
        overall: Metrics of all sites together, by name.
        curves: Kaplan-Meier of all patients and of the risk groups, as far as it may be shown.
        auc_curve: Cumulative/dynamic AUC at every time edge that may be shown.
        roc: (false positive rate, true positive rate) of the response, or None.
        per_site: By site; empty when only the federation total is visible.
        leave_one_out: Metrics without a site, by the site left out.
        worst_site: Headline metric -> (site, its estimate).
        reliability: "response" or a horizon such as "survival_36m" -> calibration.
        subgroups: Subgroup -> headline metrics of its levels, and the gap between them.
        caveats: Sentences that must be printed with the figures.
    """

    release: Release
    overall: SiteSummary
    curves: list[SurvivalCurve] = field(default_factory=list)
    auc_curve: list[AucPoint] = field(default_factory=list)
    roc: tuple[list[float], list[float]] | None = None
    per_site: dict[str, SiteSummary] = field(default_factory=dict)
    leave_one_out: dict[str, SiteSummary] = field(default_factory=dict)
    worst_site: dict[str, tuple[str, Estimate]] = field(default_factory=dict)
    reliability: dict[str, Reliability] = field(default_factory=dict)
    subgroups: dict[str, SubgroupSummary] = field(default_factory=dict)
    caveats: list[str] = field(default_factory=list)

    @property
    def metrics(self) -> dict[str, Estimate]:
        """Metrics of all sites together, by name."""
        return self.overall.metrics

    def as_dict(self) -> dict[str, Any]:
        """Return metrics for JSON; curves are left to the report."""
        return {
            "release": self.release,
            "overall": _metrics_dict(self.overall.metrics),
            "per_site": {k: _metrics_dict(v.metrics) for k, v in self.per_site.items()},
            "leave_one_out": {k: _metrics_dict(v.metrics) for k, v in self.leave_one_out.items()},
            "worst_site": {k: {"site": s, **e.as_dict()} for k, (s, e) in self.worst_site.items()},
            "subgroups": {name: group.as_dict() for name, group in self.subgroups.items()},
            "caveats": self.caveats,
        }


def summarise(
    per_site: Mapping[str, SiteTables],
    grid: EvaluationGrid,
    *,
    noise: Mapping[str, TableNoise] | None = None,
    shares: float | None = None,
    n_replicates: int = N_REPLICATES,
) -> EvaluationSummary:
    """Return metrics, curves and site comparisons.

    Args:
        per_site: Tables by site; one entry (the federation total) under a secure sum.
        grid: The grid the tables were made on.
        noise: Noise of each array at a site; from the grid's plan if not given.
        shares: Full noises in the sum: the number of sites when each adds its own (default),
            surviving sites / (n_min - t) under a secure sum.
        n_replicates: Bootstrap replicates; 0 keeps the closed-form intervals only.

    Raises:
        DataError: There is no table, or sites used different grids.
    """
    total = merge(list(per_site.values()))
    if noise is None:
        noise = noise_plan(grid, "tables", two_phases=grid.two_phases)
    n_shares = float(len(per_site)) if shares is None else shares
    one = {name: spec.variance for name, spec in noise.items()}
    total_variance = {name: variance * n_shares for name, variance in one.items()}
    overall = site_summary("all", total, grid, total_variance)
    if grid.release == "dp":
        overall = with_noise(overall, total, grid, noise, n_shares, seed=SEED)
    elif n_replicates:
        overall = with_bootstrap(overall, list(per_site.values()), grid, n_replicates, seed=SEED)
    metrics, auc_curve = split_curve(overall.metrics, total.survival, grid)
    overall = replace(overall, metrics=metrics)
    several = len(per_site) > 1
    sites = {k: site_summary(k, t, grid, one) for k, t in per_site.items()} if several else {}
    exact = grid.release == "internal"
    return EvaluationSummary(
        release=grid.release,
        overall=overall,
        curves=_curves(total, grid, noise, n_shares),
        auc_curve=auc_curve,
        roc=None if total.response is None else shown_roc(total.response, exact=exact),
        per_site=sites,
        leave_one_out=leave_one_out(per_site, grid, total_variance) if several else {},
        worst_site=worst_sites(sites) if exact else {},
        reliability=_reliability(total, grid) if exact else {},
        subgroups=subgroup_summaries(total, grid, noise, n_shares),
        caveats=[*_caveats(overall, sites, grid), *_crowded_bins(total)],
    )


def _curves(
    total: SiteTables, grid: EvaluationGrid, noise: Mapping[str, TableNoise], n_shares: float
) -> list[SurvivalCurve]:
    if total.survival is None:
        return []
    sets = risk_sets(total, grid)
    exact = grid.release == "internal"
    stride = 1 if len(sets.edges) == len(grid.time_edges) else RISK_STRIDE
    curves = []
    for label, group in _groups(sets).items():
        curve = sets.curve(label, group)
        if not exact:
            n_bins = grid.size.scores * (1.0 if label == "all patients" else 0.5)
            curve = noisy_curve(curve, group, noise["survival"], n_shares * n_bins, grid, SEED)
        curve = shown(curve, exact=exact, stride=stride)
        if len(curve.time_months):
            curves.append(curve)
    return curves


def _groups(sets: RiskSets) -> dict[str, Any]:
    return {"all patients": sets.everybody, "low risk": sets.low, "high risk": sets.high}


RISK_STRIDE = 4
"""Every fourth edge of the fine risk sets is drawn."""


def _reliability(total: SiteTables, grid: EvaluationGrid) -> dict[str, Reliability]:
    result: dict[str, Reliability] = {}
    response, answers = total.response, total.sums("response_bin_sums")
    if response is not None and answers is not None:
        result["response"] = Reliability("Response", response_reliability(response, answers[0]))
    table, sums = total.survival, total.sums("survival_bin_sums")
    if table is None or sums is None:
        return result
    last = last_followed_edge(table, grid)
    for months in grid.horizons:
        edge = grid.edge_of(float(months))
        if edge <= last:
            column = int(abs(grid.brier_times - months).argmin())
            groups = survival_reliability(table, sums[0, column], edge, grid.time_edges)
            result[f"survival_{months:g}m"] = Reliability(f"Death by {months:g} months", groups)
    return result


def _caveats(
    overall: SiteSummary, sites: Mapping[str, SiteSummary], grid: EvaluationGrid
) -> list[str]:
    lines = []
    for metric in headlines():
        if metric.name not in overall.metrics:
            continue
        metrics_of: dict[str, list[str]] = {}
        for site_id, summary in sites.items():
            estimate = summary.metrics[metric.name]
            if estimate.reason is not None:
                state = "not estimable" if estimate.value is None else "hardly informative"
                metrics_of.setdefault(f"{state}: {estimate.reason}", []).append(site_id)
        lines += [
            f"{metric.short[0].upper()}{metric.short[1:]} of {', '.join(s)} {what}."
            for what, s in metrics_of.items()
        ]
    if grid.release == "dp":
        lines.append(
            "Tables carry privacy noise: intervals hold sampling and noise; counts are noisy."
        )
    return lines


def _crowded_bins(total: SiteTables) -> list[str]:
    """Say where score cuts hardly separate patients: a coarse table then understates rank."""
    lines = []
    for title in ("survival", "response"):
        table = total.counts(title)
        if table is None or table.sum() <= 0:
            continue
        share = float(table.reshape(-1, table.shape[-1]).sum(0).max() / table.sum())
        if share > MAX_SHARE:
            lines.append(
                f"{share:.0%} of patients share one {title} score bin: the cuts do not fit this "
                "model, and rank metrics are drawn towards 0.5."
            )
    return lines


def _metrics_dict(metrics: Mapping[str, Estimate]) -> dict[str, dict[str, Any]]:
    return {name: estimate.as_dict() for name, estimate in metrics.items()}
