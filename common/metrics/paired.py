"""Paired comparison of two models on the same patients, from a joint table.

A site cross-tabulates both models' score bins with the outcome. Resampling the summed joint table
moves both models together, so the spread of the difference is that of a paired test. Scores are
cut into 32 bins a model (every second cut of the grid): 1 MiB for survival. Release `internal`
only: a joint table is far too fine for noise.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.stats import norm

from common.errors import DataError
from common.metrics.bootstrap import Statistic, bootstrap, percentile_interval
from common.metrics.concordance import pair_counts
from common.metrics.estimate import Estimate, not_estimable
from common.metrics.grid import EvaluationGrid, IntArray
from common.metrics.predictions import Predictions
from common.metrics.roc import roc_auc
from common.metrics.score_scale import FloatArray, response_score, risk_score
from common.metrics.tables import SiteTables
from common.metrics.tabulate import histogram

N_REPLICATES = 500


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
        `joint_survival` (2, T, S / 2, S / 2) and `joint_response` (2, R / 2, R / 2), int64.

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
    arrays: dict[str, IntArray] = {}
    if first_grid.has_survival:
        rows = first.has_survival & second.has_survival
        k = first_grid.n_intervals
        a = first_grid.survival_index(risk_score(first.risk[rows], k)) // 2
        b = second_grid.survival_index(risk_score(second.risk[rows], k)) // 2
        bins = (first_grid.size.scores + 1) // 2
        times = first_grid.time_index(first.time_months[rows])
        shape = (2, first_grid.size.times, bins, bins)
        arrays["joint_survival"] = histogram(shape, first.event[rows], times, a, b)
    if first_grid.has_response:
        rows = first.has_response & second.has_response
        a = first_grid.response_index(response_score(first.response_prob[rows])) // 2
        b = second_grid.response_index(response_score(second.response_prob[rows])) // 2
        bins = (first_grid.size.response + 1) // 2
        arrays["joint_response"] = histogram((2, bins, bins), first.response[rows], a, b)
    return SiteTables(arrays)


def compare(
    per_site: Sequence[SiteTables], *, n_replicates: int = N_REPLICATES, seed: int = 0
) -> dict[str, tuple[Estimate, float | None]]:
    """Return second minus first model: metric -> (difference with interval, two-sided p value).

    Metrics: `c_index` and `response_auc`. The p value is normal, from the bootstrap's standard
    deviation; with six sites or more, sites are drawn too.
    """
    found: dict[str, tuple[Estimate, float | None]] = {}
    kinds: dict[str, tuple[str, Statistic]] = {
        "c_index": ("joint_survival", _c_index_difference),
        "response_auc": ("joint_response", _auc_difference),
    }
    for metric, (name, statistic) in kinds.items():
        tables = [t for site in per_site if (t := site.counts(name)) is not None]
        if tables:
            found[metric] = _difference(tables, statistic, n_replicates, seed)
    return found


def _difference(
    tables: Sequence[FloatArray], statistic: Statistic, n_replicates: int, seed: int
) -> tuple[Estimate, float | None]:
    value = float(statistic(np.sum(tables, axis=0))["difference"])
    if not np.isfinite(value):
        return not_estimable("one of the models has no estimable metric"), None
    drawn = bootstrap(tables, statistic, n_replicates, seed)["difference"]
    known = drawn[np.isfinite(drawn)]
    spread = float(np.std(known, ddof=1)) if len(known) > 1 else 0.0
    p_value = float(2 * norm.sf(abs(value) / spread)) if spread > 0 else float(value == 0)
    return Estimate(value).with_interval(*percentile_interval(drawn)), p_value


def _c_index_difference(joint: FloatArray) -> dict[str, FloatArray]:
    first, second = pair_counts(joint.sum(-1)), pair_counts(joint.sum(-2))
    return {"difference": np.asarray(second.c_index() - first.c_index())}


def _auc_difference(joint: FloatArray) -> dict[str, FloatArray]:
    return {"difference": np.asarray(roc_auc(joint.sum(-2)) - roc_auc(joint.sum(-1)))}
