"""Compute the intervals of the federation's metrics: bootstrap, and noise where tables carry it."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from common.metrics.catalogue import metrics_at
from common.metrics.metric import Metric
from common.metrics.summaries.site_views import SiteSummary
from common.metrics.survival.auc_curve import curve_values, point_estimates
from common.metrics.survival.kaplan_meier import Z95, SurvivalCurve, survival_at_edges
from common.metrics.survival.log_rank import log_rank
from common.metrics.survival.rank_counts import RankCounts
from common.metrics.survival.risk_sets import first_high_bin, risk_sets
from common.metrics.survival.time_auc import last_followed_edge
from common.metrics.tables.bootstrap import Statistic, bootstrap, noise_spread, percentile_interval
from common.metrics.tables.estimate import Estimate
from common.metrics.tables.grid import EvaluationGrid
from common.metrics.tables.score_scale import FloatArray
from common.metrics.tables.table_schema import TableNoise
from common.metrics.tables.tables import SiteTables
from common.study.study import Task


def with_bootstrap(
    overall: SiteSummary,
    tables: Sequence[SiteTables],
    grid: EvaluationGrid,
    n_replicates: int,
    *,
    seed: int,
) -> SiteSummary:
    """Return the summary with bootstrap intervals of the rank metrics, and the AUC over time.

    With six sites or more, sites are drawn too.
    """
    metrics = dict(overall.metrics)
    for task in grid.tasks:
        counts = [table for t in tables if (table := t.counts(task)) is not None]
        if not counts:
            continue
        total = np.sum(counts, axis=0)
        statistic = rank_statistic(task, total, grid)
        metrics |= point_estimates(statistic(total))
        replicates = bootstrap(counts, statistic, n_replicates, seed)
        for name in replicates.keys() & metrics.keys():
            metrics[name] = metrics[name].with_interval(*percentile_interval(replicates[name]))
    return replace(overall, metrics=metrics)


def with_noise(
    overall: SiteSummary,
    total: SiteTables,
    grid: EvaluationGrid,
    noise: Mapping[str, TableNoise],
    n_shares: float,
    *,
    seed: int,
) -> SiteSummary:
    """Return the summary with noise SD, intervals that include it, and the AUC over time."""
    metrics = dict(overall.metrics)
    for task in grid.tasks:
        table = total.counts(task)
        if table is None:
            continue
        variance = noise[task].variance * n_shares
        statistic = rank_statistic(task, table, grid, variance)
        metrics |= point_estimates(statistic(table))
        spread = noise_spread(table, statistic, noise[task], n_shares, seed)
        sampling = sampling_sd(table, rank_statistic(task, table, grid), seed)
        metrics = _widened(metrics, spread, sampling)
        if task == "survival":
            metrics |= _noisy_log_rank(total, table, grid, noise[task], n_shares, seed)
    return replace(overall, metrics=metrics)


def rank_statistic(
    task: Task,
    total: FloatArray,
    grid: EvaluationGrid,
    cell_variance: float = 0.0,
    *,
    only: Metric | None = None,
) -> Statistic:
    """Return the function from counts (b, ...) of a task to its rank metrics (b,), for resampling.

    Args:
        task: Task of the table.
        total: Table of all sites; its follow-up decides how far horizons are reached.
        grid: The grid.
        cell_variance: Noise variance of one cell.
        only: The one metric wanted; by default all, and the AUC over time.
    """
    last_edge = last_followed_edge(total, grid) if task == "survival" else 0
    metrics = [
        metric
        for metric in ((only,) if only else metrics_at(grid.horizons.tolist()))
        if metric.task == task
        and (metric.horizon is None or grid.edge_of(metric.horizon) <= last_edge)
    ]

    def statistic(counts: FloatArray) -> dict[str, FloatArray]:
        ranks = RankCounts(counts, grid, last_edge, cell_variance)
        values = {m.name: m.statistic(ranks) for m in metrics if m.statistic}
        return values if only else values | curve_values(ranks)

    return statistic


def sampling_sd(table: FloatArray, statistic: Statistic, seed: int) -> dict[str, float]:
    """Return the spread that patient resampling gives each metric of a noisy table.

    Only here, where no value is estimated, are cells clipped.
    """
    counts = np.rint(np.maximum(table, 0.0))
    if counts.sum() < 1:
        return {}
    replicates = bootstrap([counts], statistic, 200, seed)
    return {
        name: float(np.std(values[np.isfinite(values)])) if np.isfinite(values).any() else np.nan
        for name, values in replicates.items()
    }


def _widened(
    metrics: Mapping[str, Estimate], spread: Mapping[str, float], sampling: Mapping[str, float]
) -> dict[str, Estimate]:
    results = dict(metrics)
    for name, noise_sd in spread.items():
        estimate = results.get(name)
        if estimate is None or estimate.value is None or not np.isfinite(noise_sd):
            continue
        half = Z95 * float(np.hypot(noise_sd, sampling.get(name, 0.0)))
        low, high = np.clip([estimate.value - half, estimate.value + half], 0.0, 1.0)
        wider = replace(estimate, noise_sd=noise_sd, ci_low=None, ci_high=None)
        results[name] = wider.with_interval(float(low), float(high))
    return results


def _noisy_log_rank(
    total: SiteTables,
    table: FloatArray,
    grid: EvaluationGrid,
    noise: TableNoise,
    n_shares: float,
    seed: int,
) -> dict[str, Estimate]:
    """Return the log-rank test with a variance that includes what noise adds to O - E."""
    border = first_high_bin(table, grid)

    def difference(tables: FloatArray) -> dict[str, FloatArray]:
        groups = ((one[..., border:].sum(-1), one[..., :border].sum(-1)) for one in tables)
        return {"difference": np.array([log_rank(*pair, 0.5).difference for pair in groups])}

    test = risk_sets(total, grid).log_rank()
    spread = noise_spread(table, difference, noise, n_shares, seed)["difference"]
    test = replace(test, variance=test.variance + spread**2)
    return {"log_rank_chi2": test.chi_square, "log_rank_p": test.p_value}


def noisy_curve(
    curve: SurvivalCurve,
    group: FloatArray,
    noise: TableNoise,
    n_shares: float,
    grid: EvaluationGrid,
    seed: int,
) -> SurvivalCurve:
    """Return the curve with a band that includes noise.

    Args:
        curve: Curve from noisy counts.
        group: (2, T) noisy counts of the group.
        noise: Noise of one cell of one site's table.
        n_shares: Noises in one cell of `group`: sites times score bins summed.
        grid: The grid.
        seed: Seed of the simulation.
    """
    names = [str(index) for index in range(len(grid.time_edges) - 2)]

    def at_edges(tables: FloatArray) -> dict[str, FloatArray]:
        survival = survival_at_edges(tables[..., 1, :], tables[..., 0, :], 0.5)
        return {name: survival[..., int(name)] for name in names}

    spread = noise_spread(group, at_edges, noise, n_shares, seed)
    sd = np.array([spread[name] for name in names])
    sampling = (curve.ci_high - curve.ci_low) / (2 * Z95)
    half = Z95 * np.hypot(sampling, np.nan_to_num(sd))
    return replace(
        curve,
        ci_low=np.clip(curve.survival - half, 0, 1),
        ci_high=np.clip(curve.survival + half, 0, 1),
    )
