"""Compare two models on the same patients, from a joint table.

A site cross-tabulates both models' score bins with the outcome. Resampling the summed joint table
moves both models together, so the spread of the difference is that of a paired test; intervals of
two models that were drawn apart can never give it. The margins of a joint table are the tables of
each model, so differences agree exactly with the figures of both. Release `internal` only: a
joint table is far too fine for noise.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.sparse import csr_array
from scipy.stats import norm

from common.errors import DataError
from common.metrics.catalogue import headlines
from common.metrics.metric import Headline
from common.metrics.summaries.tabulate import histogram, scored
from common.metrics.survival.rank_counts import RankCounts
from common.metrics.tables.bootstrap import Statistic, bootstrap, percentile_interval
from common.metrics.tables.estimate import Estimate, not_estimable
from common.metrics.tables.grid import EvaluationGrid, IntArray
from common.metrics.tables.predictions import Predictions
from common.metrics.tables.score_scale import FloatArray
from common.metrics.tables.table_schema import joint_name, tables_of
from common.metrics.tables.tables import SiteTables

N_REPLICATES = 500
SEED = 977
_CHUNK = 16


@dataclass(frozen=True)
class Comparison:
    """Second model minus first, on the same patients.

    Attributes:
        difference: With its 95 % percentile interval.
        p_value: Two-sided, normal, from the bootstrap's standard deviation; None without one.
    """

    difference: Estimate
    p_value: float | None = None

    def reverse(self) -> "Comparison":
        """Return first model minus second."""
        gap = self.difference
        value, low, high = (None if x is None else -x for x in (gap.value, gap.ci_high, gap.ci_low))
        return replace(self, difference=replace(gap, value=value, ci_low=low, ci_high=high))

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {**self.difference.as_dict(), "p_value": self.p_value}


def tabulate_pair(
    first: Predictions, second: Predictions, first_grid: EvaluationGrid, second_grid: EvaluationGrid
) -> SiteTables:
    """Return the joint tables of one site.

    Args:
        first: Predictions of one model.
        second: Predictions of another for the same patients in the same order.
        first_grid: Grid refined for the first model.
        second_grid: Grid refined for the second model; equal but for the score cuts.

    Returns:
        `joint_survival` (2, T, S, S) and `joint_response` (2, R, R), int64; the last two axes are
        the score bins of the first and of the second model.

    Raises:
        DataError: The predictions are of different patients, or the release is `dp`.
    """
    if first_grid.release != "internal":
        raise DataError(
            "a paired comparison needs exact tables",
            why="noise on a joint table of this size would drown the difference",
            cure="compare the intervals of both models, or release `internal`",
        )
    for name in ("response", "time_months", "event"):
        if not np.array_equal(getattr(first, name), getattr(second, name), equal_nan=True):
            raise DataError(f"the two predictions differ in {name}: not the same patients in order")
    arrays = {}
    for name, table in tables_of(first_grid, "paired").items():
        rows = first.has(table.task) & second.has(table.task)
        one = scored(first.select(rows), table.task, first_grid)
        two = scored(second.select(rows), table.task, second_grid)
        arrays[name] = histogram(table.shape(first_grid), *one.outcome, one.bins, two.bins)
    return SiteTables(arrays)


def compare(
    per_site: Sequence[SiteTables],
    grid: EvaluationGrid,
    *,
    n_replicates: int = N_REPLICATES,
    seed: int = SEED,
) -> dict[str, Comparison]:
    """Return second minus first model over all patients together, by metric.

    Metrics: the headlines. With six sites or more, sites are drawn too.
    """
    comparisons = {}
    for metric in headlines():
        name = joint_name(metric.task)
        tables = [table for site in per_site if (table := site.counts(name)) is not None]
        if tables:
            value, replicates = _resampled(tables, _rank(metric, grid), n_replicates, seed)
            comparisons[metric.name] = _comparison(value, replicates)
    return comparisons


def compare_within_sites(
    per_site: Mapping[str, SiteTables],
    grid: EvaluationGrid,
    *,
    n_replicates: int = N_REPLICATES,
    seed: int = SEED,
) -> dict[str, Comparison]:
    """Return second minus first model inside each site, weighted by patients, by metric.

    For models that differ from site to site, whose scores share no scale. Patients are drawn
    inside their site; sites where either model has no figure are left out and named.
    """
    result = {}
    for metric in headlines():
        name, rank = joint_name(metric.task), _rank(metric, grid)
        tables = {s: table for s, t in per_site.items() if (table := t.counts(name)) is not None}
        if not tables:
            continue
        parts = {
            site: (float(table.sum()), *_resampled([table], rank, n_replicates, seed + number))
            for number, (site, table) in enumerate(sorted(tables.items()))
            if table.sum()
        }
        usable = {site: part for site, part in parts.items() if np.isfinite(part[1])}
        if not usable:
            result[metric.name] = Comparison(not_estimable("no hospital alone can estimate both"))
            continue
        sizes, values, draws = (np.array(column) for column in zip(*usable.values(), strict=True))
        weight = sizes / sizes.sum()
        left_out = sorted(tables.keys() - usable.keys())
        caveat = f"without {', '.join(left_out)}: not estimable there" if left_out else None
        result[metric.name] = _comparison(float(weight @ values), weight @ draws, caveat)
    return result


def _rank(metric: Headline, grid: EvaluationGrid) -> Callable[[FloatArray], FloatArray]:
    return lambda tables: metric.statistic(RankCounts(tables, grid))


def _comparison(value: float, replicates: FloatArray, caveat: str | None = None) -> Comparison:
    if not np.isfinite(value):
        return Comparison(not_estimable("one of the models has no estimable figure"))
    finite = replicates[np.isfinite(replicates)]
    spread = float(np.std(finite, ddof=1)) if len(finite) > 1 else 0.0
    p_value = float(2 * norm.sf(abs(value) / spread)) if spread > 0 else float(value == 0)
    low, high = percentile_interval(replicates)
    if not np.isfinite(low):
        caveats = [caveat] if caveat else []
        caveat = "; ".join([*caveats, "too few patients to draw an interval"])
        return Comparison(Estimate(value, caveat))
    return Comparison(Estimate(value, caveat).with_interval(low, high), p_value)


def _resampled(
    tables: Sequence[FloatArray],
    rank: Callable[[FloatArray], FloatArray],
    n_replicates: int,
    seed: int,
) -> tuple[float, FloatArray]:
    """Return the difference of summed joint tables (..., S, S) and its replicates (b,).

    Only cells that hold a patient are drawn; both models' tables are their margins.
    """
    total = np.sum(tables, axis=0)
    used = np.flatnonzero(total)
    if not len(used):
        return float("nan"), np.full(n_replicates, np.nan)
    statistic = _difference_of(used, total.shape, rank)
    cells = [table.ravel()[used] for table in tables]
    value = statistic(total.ravel()[used][None])["difference"][0]
    return float(value), bootstrap(cells, statistic, n_replicates, seed)["difference"]


def _difference_of(
    used: IntArray, shape: tuple[int, ...], rank: Callable[[FloatArray], FloatArray]
) -> Statistic:
    """Return the function from counts (b, m) of the `m` used cells to second minus first (b,)."""
    *outcome, a, b = np.unravel_index(used, shape)
    margins = []
    for score, bins in ((a, shape[-2]), (b, shape[-1])):
        own = (*shape[:-2], bins)
        flat = np.ravel_multi_index([*outcome, score], own)
        size = (len(used), int(np.prod(own)))
        one = np.ones(len(used))
        margins.append((own, csr_array((one, (np.arange(len(used)), flat)), shape=size)))

    def statistic(counts: FloatArray) -> dict[str, FloatArray]:
        parts = []
        for start in range(0, len(counts), _CHUNK):
            chunk = counts[start : start + _CHUNK]
            first, second = (rank((chunk @ m).reshape(-1, *own)) for own, m in margins)
            parts.append(second - first)
        return {"difference": np.concatenate(parts)}

    return statistic
