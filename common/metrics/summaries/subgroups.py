"""Discrimination by subgroup, and the gap between its levels, from the federation's tables.

Levels exclude each other, so their patients are independent and the variance of a gap is the sum
of two variances. A level below the minimum is not estimable, exact or noisy: a figure from a
handful of patients is chance, and with exact tables it would point at them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.stats import chi2, norm

from common.metrics.response.response_metrics import auc_with_interval
from common.metrics.response.roc import roc_auc, roc_estimate, roc_sd
from common.metrics.summaries.intervals import sampling_sd
from common.metrics.survival.concordance import c_index_estimate, c_index_sd, pair_counts
from common.metrics.survival.kaplan_meier import Z95
from common.metrics.tables.bootstrap import Statistic
from common.metrics.tables.estimate import MIN_SHOWN, Estimate, not_estimable
from common.metrics.tables.grid import EvaluationGrid
from common.metrics.tables.noise_effect import noise_spread
from common.metrics.tables.score_scale import FloatArray
from common.metrics.tables.table_schema import TableNoise, subgroup_name
from common.metrics.tables.tables import SiteTables
from common.study.study import Task

MIN_SUBGROUP = 20
MAX_NOISE_SD = 0.15
"""More noise than this leaves nothing to read between no and perfect discrimination."""
METRICS: dict[str, Task] = {"c_index": "survival", "response_auc": "response"}
"""Metric of a level -> the table it is read from."""
NO_BUDGET = "the study spends no evaluation budget on subgroups (subgroup_epsilon 0)"
SEED = 411


@dataclass(frozen=True)
class Gap:
    """Best minus worst level of a subgroup.

    Attributes:
        best: Level with the highest value; empty where fewer than two can be estimated.
        worst: Level with the lowest value.
        difference: Best minus worst. Of more than two levels the interval is Bonferroni-corrected
            for all pairs, because the largest difference was picked.
        p_equal: P value of all levels being equal (Cochran, Biometrics 1954), or None.
    """

    best: str
    worst: str
    difference: Estimate
    p_equal: float | None = None


@dataclass(frozen=True)
class SubgroupSummary:
    """One subgroup of patients.

    Attributes:
        levels: Level -> metric -> estimate.
        n_patients: Level -> metric -> patients with that outcome; None where it may not be shown.
        gaps: Metric -> gap between its levels.
    """

    levels: dict[str, dict[str, Estimate]]
    n_patients: dict[str, dict[str, int | None]]
    gaps: dict[str, Gap]

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "levels": {
                level: {
                    name: {"n": self.n_patients[level][name], **estimate.as_dict()}
                    for name, estimate in metrics.items()
                }
                for level, metrics in self.levels.items()
            },
            "gaps": {
                name: {
                    "best": gap.best or None,
                    "worst": gap.worst or None,
                    "p_equal": gap.p_equal,
                    **gap.difference.as_dict(),
                }
                for name, gap in self.gaps.items()
            },
        }


def subgroup_summaries(
    tables: SiteTables, grid: EvaluationGrid, noise: Mapping[str, TableNoise], n_shares: float
) -> dict[str, SubgroupSummary]:
    """Return every subgroup of the grid by name.

    Args:
        tables: Sum over sites.
        grid: The grid.
        noise: Noise of each array at a site; empty for exact tables.
        n_shares: Full noises in the sum.
    """
    found = {}
    for name, levels in grid.subgroups:
        summary = SubgroupSummary({x: {} for x in levels}, {x: {} for x in levels}, {})
        for metric, task in METRICS.items():
            whole = tables.counts(task)
            if whole is None:
                continue
            array = subgroup_name(task, name)
            table = tables.counts(array)
            _add_metric(summary, metric, whole, table, noise.get(array), n_shares)
        found[name] = summary
    return found


def _add_metric(
    summary: SubgroupSummary,
    metric: str,
    whole: FloatArray,
    table: FloatArray | None,
    noise: TableNoise | None,
    n_shares: float,
) -> None:
    spreads: dict[str, tuple[Estimate, float]] = {}
    counts = _shown_counts(whole, table, noisy=noise is not None)
    for index, level in enumerate(summary.levels):
        if table is None:
            spreads[level] = (not_estimable(NO_BUDGET), float("nan"))
        elif noise is None:
            spreads[level] = _exact(metric, table[index])
        else:
            spreads[level] = _noisy(metric, table[index], noise, n_shares)
        summary.levels[level][metric] = spreads[level][0]
        summary.n_patients[level][metric] = counts[index] if counts else None
    summary.gaps[metric] = gap_of(spreads)


def gap_of(levels: Mapping[str, tuple[Estimate, float]]) -> Gap:
    """Return the gap between independent levels.

    Args:
        levels: Level -> its estimate and the standard deviation of it, noise included.
    """
    known = {
        name: (estimate, estimate.value, sd)
        for name, (estimate, sd) in levels.items()
        if estimate.value is not None and np.isfinite(sd)
    }
    if len(known) < 2:
        return Gap("", "", not_estimable("fewer than two levels can be estimated"))
    best, worst = (pick(known, key=lambda name: known[name][1]) for pick in (max, min))
    value = known[best][1] - known[worst][1]
    n_pairs = len(known) * (len(known) - 1) // 2
    half = float(norm.ppf(1 - 0.025 / n_pairs)) * float(np.hypot(known[best][2], known[worst][2]))
    picked = f"largest of {n_pairs} differences; the interval allows for all of them"
    noise = [sd for name in (best, worst) if (sd := known[name][0].noise_sd) is not None]
    difference = Estimate(
        value,
        picked if n_pairs > 1 else None,
        noise_sd=float(np.linalg.norm(noise)) if noise else None,
    ).with_interval(value - half, value + half)
    return Gap(best, worst, difference, _p_equal([(v, sd) for _, v, sd in known.values()]))


def _p_equal(levels: list[tuple[float, float]]) -> float | None:
    values, spreads = (np.array(column) for column in zip(*levels, strict=True))
    if spreads.min() <= 0:
        return None
    weight = 1 / np.square(spreads)
    centre = float((weight * values).sum() / weight.sum())
    return float(chi2.sf((weight * np.square(values - centre)).sum(), len(values) - 1))


def _too_small(table: FloatArray) -> str | None:
    """Return why a level of (2, ...) counts, exact or noisy, is too small, or None."""
    if table.sum() < MIN_SUBGROUP:
        return f"fewer than {MIN_SUBGROUP} patients"
    if table[1].sum() < MIN_SHOWN:
        return f"fewer than {MIN_SHOWN} events or responders"
    if table.ndim == 2 and table[0].sum() < MIN_SHOWN:
        return f"fewer than {MIN_SHOWN} non-responders"
    return None


def _exact(metric: str, table: FloatArray) -> tuple[Estimate, float]:
    reason = _too_small(table)
    if reason:
        return not_estimable(reason), float("nan")
    if metric == "response_auc":
        return auc_with_interval(table), roc_sd(table)
    sd = c_index_sd(table)
    return _bounded(c_index_estimate(table), sd), sd


def _noisy(
    metric: str, table: FloatArray, noise: TableNoise, n_shares: float
) -> tuple[Estimate, float]:
    reason = _too_small(table)
    if reason:
        return not_estimable(f"{reason} (noisy count)"), float("nan")
    variance = noise.variance * n_shares
    if metric == "response_auc":
        estimate = roc_estimate(table, noisy=True)
    else:
        estimate = replace(c_index_estimate(table, variance), error_bound=None)
    statistic = _statistic(metric, variance)
    noise_sd = noise_spread(table, statistic, noise, n_shares, SEED)["value"]
    sampling = sampling_sd(table, _statistic(metric, 0.0), SEED).get("value", float("nan"))
    sd = float(np.hypot(noise_sd, sampling))
    if estimate.value is None or not np.isfinite(sd):
        return estimate, float("nan")
    if noise_sd > MAX_NOISE_SD:
        return not_estimable(f"privacy noise alone has SD {noise_sd:.2f}"), float("nan")
    return _bounded(replace(estimate, noise_sd=noise_sd), sd), sd


def _statistic(metric: str, variance: float) -> Statistic:
    def value(tables: FloatArray) -> dict[str, FloatArray]:
        if metric == "response_auc":
            return {"value": roc_auc(tables)}
        return {"value": pair_counts(tables, variance).c_index()}

    return value


def _bounded(estimate: Estimate, sd: float) -> Estimate:
    if estimate.value is None:
        return estimate
    low, high = np.clip([estimate.value - Z95 * sd, estimate.value + Z95 * sd], 0.0, 1.0)
    return estimate.with_interval(float(low), float(high))


def _shown_counts(
    whole: FloatArray, table: FloatArray | None, *, noisy: bool
) -> list[int | None] | None:
    """Return patients a level, or None where a small one could be found by subtraction."""
    if table is None:
        return None
    counts = table.reshape(len(table), -1).sum(1)
    if noisy:
        return [max(0, round(count)) for count in counts]
    rest = float(whole.sum() - counts.sum())
    small = any(0 < count < MIN_SHOWN for count in (*counts, rest))
    return None if small else [round(count) for count in counts]
