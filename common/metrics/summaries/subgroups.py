"""Compute discrimination by subgroup, and the gap between levels, from summed tables.

Levels exclude each other, so their patients are independent and the variance of a gap is the sum
of two variances. A level below the minimum is not estimable, exact or noisy: a figure from a
handful of patients is chance, and with exact tables it would point at them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.stats import chi2, norm

from common.metrics.catalogue import headlines
from common.metrics.metric import VIEWS, Headline
from common.metrics.summaries.intervals import rank_statistic, sampling_sd
from common.metrics.survival.kaplan_meier import Z95
from common.metrics.tables.bootstrap import noise_spread
from common.metrics.tables.estimate import MIN_SHOWN, Estimate, not_estimable
from common.metrics.tables.grid import EvaluationGrid
from common.metrics.tables.score_scale import FloatArray
from common.metrics.tables.table_schema import TableNoise, subgroup_name
from common.metrics.tables.tables import SiteTables

MIN_SUBGROUP = 20
MAX_NOISE_SD = 0.15
"""More noise than this leaves nothing to read between no and perfect discrimination."""
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
    summaries = {}
    for name, levels in grid.subgroups:
        summary = SubgroupSummary({x: {} for x in levels}, {x: {} for x in levels}, {})
        for metric in headlines():
            whole, array = tables.counts(metric.task), subgroup_name(metric.task, name)
            if whole is None:
                continue
            table, own = tables.counts(array), noise.get(array)
            if table is None:
                spreads = [(not_estimable(NO_BUDGET), float("nan"))] * len(levels)
            else:
                spreads = [_level(metric, counts, grid, own, n_shares) for counts in table]
            n_shown = _shown_counts(whole, table, noisy=own is not None) or [None] * len(levels)
            for level, (estimate, _), count in zip(levels, spreads, n_shown, strict=True):
                summary.levels[level][metric.name] = estimate
                summary.n_patients[level][metric.name] = count
            by_level = dict(zip(levels, spreads, strict=True))
            summary.gaps[metric.name] = gap_of(by_level, metric.scale.merit)
        summaries[name] = summary
    return summaries


def gap_of(
    levels: Mapping[str, tuple[Estimate, float]], merit: Callable[[float], float] = float
) -> Gap:
    """Return the gap between independent levels.

    Args:
        levels: Level -> its estimate and the standard deviation of it, noise included.
        merit: Larger for a better value.
    """
    usable = {
        name: (estimate, estimate.value, sd)
        for name, (estimate, sd) in levels.items()
        if estimate.value is not None and np.isfinite(sd)
    }
    if len(usable) < 2:
        return Gap("", "", not_estimable("fewer than two levels can be estimated"))
    best, worst = (pick(usable, key=lambda name: merit(usable[name][1])) for pick in (max, min))
    value = usable[best][1] - usable[worst][1]
    n_pairs = len(usable) * (len(usable) - 1) // 2
    half = float(norm.ppf(1 - 0.025 / n_pairs)) * float(np.hypot(usable[best][2], usable[worst][2]))
    caveat = f"largest of {n_pairs} differences; the interval allows for all of them"
    noise = [sd for name in (best, worst) if (sd := usable[name][0].noise_sd) is not None]
    difference = Estimate(
        value,
        caveat if n_pairs > 1 else None,
        noise_sd=float(np.linalg.norm(noise)) if noise else None,
    ).with_interval(value - half, value + half)
    return Gap(best, worst, difference, _p_equal([(v, sd) for _, v, sd in usable.values()]))


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


def _level(
    metric: Headline,
    table: FloatArray,
    grid: EvaluationGrid,
    noise: TableNoise | None,
    n_shares: float,
) -> tuple[Estimate, float]:
    """Return the estimate of one level's table and its standard deviation, noise included."""
    variance = noise.variance * n_shares if noise else 0.0
    reason = _too_small(table)
    if reason:
        return not_estimable(f"{reason} (noisy count)" if noise else reason), float("nan")
    tables = SiteTables({metric.task: table.astype(np.int64)})
    estimate = metric.of(VIEWS[metric.task](tables, grid, variance))
    if noise is None:
        return estimate, metric.sd(table)
    statistic = rank_statistic(metric.task, table, grid, variance, only=metric)
    noise_sd = noise_spread(table, statistic, noise, n_shares, SEED)[metric.name]
    statistic = rank_statistic(metric.task, table, grid, only=metric)
    sampling = sampling_sd(table, statistic, SEED).get(metric.name, float("nan"))
    sd = float(np.hypot(noise_sd, sampling))
    if estimate.value is None or not np.isfinite(sd):
        return estimate, float("nan")
    if noise_sd > MAX_NOISE_SD:
        return not_estimable(f"privacy noise alone has SD {noise_sd:.2f}"), float("nan")
    scale = metric.scale
    limits = np.clip([estimate.value - Z95 * sd, estimate.value + Z95 * sd], scale.low, scale.high)
    return replace(estimate, noise_sd=noise_sd).with_interval(*limits.tolist()), sd


def _shown_counts(
    whole: FloatArray, table: FloatArray | None, *, noisy: bool
) -> list[int | None] | None:
    """Return patients per level, or None where a small one could be found by subtraction."""
    if table is None:
        return None
    counts = table.reshape(len(table), -1).sum(1)
    if noisy:
        return [max(0, round(count)) for count in counts]
    rest = float(whole.sum() - counts.sum())
    small = any(0 < count < MIN_SHOWN for count in (*counts, rest))
    return None if small else [round(count) for count in counts]
