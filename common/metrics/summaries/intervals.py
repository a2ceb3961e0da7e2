"""Intervals of the federation's metrics: bootstrap of exact tables, noise added for noisy ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from common.metrics.response.response_metrics import response_statistic
from common.metrics.summaries.site_views import SiteSummary
from common.metrics.survival.auc_curve import point_estimates
from common.metrics.survival.kaplan_meier import Z95, SurvivalCurve, survival_at_edges
from common.metrics.survival.log_rank import LogRank, log_rank
from common.metrics.survival.risk_sets import first_high_bin, risk_sets
from common.metrics.survival.survival_metrics import log_rank_metrics, rank_statistics
from common.metrics.survival.time_auc import last_followed_edge
from common.metrics.tables.bootstrap import Statistic, bootstrap, percentile_interval
from common.metrics.tables.estimate import Estimate
from common.metrics.tables.grid import EvaluationGrid
from common.metrics.tables.noise_effect import noise_spread
from common.metrics.tables.score_scale import FloatArray
from common.metrics.tables.table_schema import TableNoise
from common.metrics.tables.tables import SiteTables


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
    survival = [t.survival for t in tables if t.survival is not None]
    if survival:
        last = last_followed_edge(np.sum(survival, axis=0), grid)
        statistic = rank_statistics(grid, last, 0.0)
        metrics |= point_estimates(statistic(np.sum(survival, axis=0)))
        metrics = _with_intervals(metrics, bootstrap(survival, statistic, n_replicates, seed))
    response = [t.response for t in tables if t.response is not None]
    if response:
        metrics = _with_intervals(
            metrics, bootstrap(response, response_statistic, n_replicates, seed)
        )
    return replace(overall, metrics=metrics)


def _with_intervals(
    metrics: Mapping[str, Estimate], drawn: Mapping[str, FloatArray]
) -> dict[str, Estimate]:
    found = dict(metrics)
    for name in drawn.keys() & found.keys():
        found[name] = found[name].with_interval(*percentile_interval(drawn[name]))
    return found


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
    table, response = total.survival, total.response
    if table is not None:
        variance = noise["survival"].variance * n_shares
        last = last_followed_edge(table, grid)
        statistic = rank_statistics(grid, last, variance)
        metrics |= point_estimates(statistic(table))
        spread = noise_spread(table, statistic, noise["survival"], n_shares, seed)
        sampling = sampling_sd(table, rank_statistics(grid, last, 0.0), seed)
        metrics = _widened(metrics, spread, sampling)
        metrics |= _noisy_log_rank(total, grid, noise["survival"], n_shares, seed)
    if response is not None:
        spread = noise_spread(response, response_statistic, noise["response"], n_shares, seed)
        metrics = _widened(metrics, spread, sampling_sd(response, response_statistic, seed))
    return replace(overall, metrics=metrics)


def sampling_sd(table: FloatArray, statistic: Statistic, seed: int) -> dict[str, float]:
    """Return the spread that patient resampling gives each metric of a noisy table.

    Only here, where no value is estimated, are cells clipped.
    """
    clipped = np.rint(np.maximum(table, 0.0))
    if clipped.sum() < 1:
        return {}
    drawn = bootstrap([clipped], statistic, 200, seed)
    return {
        name: float(np.std(values[np.isfinite(values)])) if np.isfinite(values).any() else np.nan
        for name, values in drawn.items()
    }


def _widened(
    metrics: Mapping[str, Estimate], spread: Mapping[str, float], sampling: Mapping[str, float]
) -> dict[str, Estimate]:
    found = dict(metrics)
    for name, noise_sd in spread.items():
        estimate = found.get(name)
        if estimate is None or estimate.value is None or not np.isfinite(noise_sd):
            continue
        half = Z95 * float(np.hypot(noise_sd, sampling.get(name, 0.0)))
        low, high = np.clip([estimate.value - half, estimate.value + half], 0.0, 1.0)
        widened = replace(estimate, noise_sd=noise_sd, ci_low=None, ci_high=None)
        found[name] = widened.with_interval(float(low), float(high))
    return found


def _noisy_log_rank(
    total: SiteTables, grid: EvaluationGrid, noise: TableNoise, n_shares: float, seed: int
) -> dict[str, Estimate]:
    """Log-rank whose variance includes what noise adds to O - E."""
    sets, table = risk_sets(total, grid), total.survival
    if sets is None or table is None:
        return {}
    border = first_high_bin(table, grid)

    def difference(tables: FloatArray) -> dict[str, FloatArray]:
        values = [
            _difference(one[..., border:].sum(-1), one[..., :border].sum(-1)) for one in tables
        ]
        return {"difference": np.array(values)}

    test = sets.log_rank()
    spread = noise_spread(table, difference, noise, n_shares, seed)["difference"]
    return log_rank_metrics(LogRank(test.difference, test.variance + spread**2), "log_rank")


def _difference(high: FloatArray, low: FloatArray) -> float:
    return log_rank(high, low, 0.5).difference


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
