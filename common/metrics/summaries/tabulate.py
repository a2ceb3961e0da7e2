"""From one hospital's predictions to its mergeable tables."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from common.metrics.summaries.additive_sums import (
    bin_sums,
    brier_sums,
    d_calibration_sums,
    fixed_point,
    moments,
    response_losses,
)
from common.metrics.summaries.site_pairs import exact_log_rank, response_pairs, survival_pairs
from common.metrics.tables.grid import EvaluationGrid, IntArray
from common.metrics.tables.predictions import Predictions
from common.metrics.tables.score_scale import margin_cuts, response_score, risk_score
from common.metrics.tables.table_schema import SUBGROUP, schema
from common.metrics.tables.tables import SiteTables
from common.privacy.plan import Phase
from common.study.subgroups import UNKNOWN


def tabulate(predictions: Predictions, grid: EvaluationGrid, phase: Phase = "tables") -> SiteTables:
    """Return the tables of one site, exactly the arrays of `schema(grid, phase)`.

    A site without any patient, or without an outcome, returns zeros.
    """
    builders = _margins(predictions, grid) if phase == "margins" else {}
    if phase == "tables":
        builders |= _survival(predictions.select(predictions.has_survival), grid)
        builders |= _response(predictions.select(predictions.has_response), grid)
    return SiteTables({name: builders[name] for name in schema(grid, phase)})


def histogram(shape: tuple[int, ...], *index: npt.ArrayLike) -> IntArray:
    """Return counts of index tuples, int64 of `shape`."""
    flat = np.ravel_multi_index([np.asarray(i, np.int64) for i in index], shape)
    return np.bincount(flat, minlength=int(np.prod(shape))).reshape(shape).astype(np.int64)


def _margins(predictions: Predictions, grid: EvaluationGrid) -> dict[str, IntArray]:
    cuts = margin_cuts(grid.size.margin)
    arrays: dict[str, IntArray] = {}
    if grid.has_survival:
        known = predictions.select(predictions.has_survival)
        score = risk_score(known.risk, grid.n_intervals)
        fine = np.searchsorted(cuts, score, side="right")
        arrays["margin_survival"] = histogram((grid.size.margin,), fine)
        times = grid.time_index(known.time_months)
        arrays["margin_time"] = histogram((2, grid.size.times), known.event, times)
    if grid.has_response:
        answered = predictions.select(predictions.has_response)
        fine = np.searchsorted(cuts, response_score(answered.response_prob), side="right")
        arrays["margin_response"] = histogram((grid.size.margin,), fine)
    return arrays


def _survival(known: Predictions, grid: EvaluationGrid) -> dict[str, IntArray]:
    if not grid.has_survival:
        return {}
    scores = risk_score(known.risk, grid.n_intervals)
    cell = (known.event, grid.time_index(known.time_months), grid.survival_index(scores))
    shape = (2, grid.size.times, grid.size.scores)
    arrays = {"survival": histogram(shape, *cell)}
    arrays |= _by_subgroup("survival", known, grid, shape, cell)
    if grid.release == "dp":
        return arrays
    arrays["survival_site_pairs"] = survival_pairs(known, cell, shape)
    arrays["survival_nll"] = fixed_point(moments(known.survival_nll))
    arrays["survival_bin_sums"] = bin_sums(known.survival, cell[2], grid.size.scores)
    arrays["d_calibration"] = d_calibration_sums(known)
    if grid.censoring is not None:
        arrays["brier"] = brier_sums(known, grid)
    if grid.risk_threshold is not None:
        high = scores >= grid.risk_threshold
        edges = grid.risk_edges
        fine = np.searchsorted(edges[1:-1], known.time_months, side="left")
        arrays["risk_sets"] = histogram((2, 2, len(edges) - 1), high, known.event, fine)
        arrays["site_log_rank"] = exact_log_rank(known, high)
    return arrays


def _response(known: Predictions, grid: EvaluationGrid) -> dict[str, IntArray]:
    if not grid.has_response:
        return {}
    scores = response_score(known.response_prob)
    bins = grid.response_index(scores)
    shape = (2, grid.size.response)
    arrays = {"response": histogram(shape, known.response, bins)}
    arrays |= _by_subgroup("response", known, grid, shape, (known.response, bins))
    if grid.release == "dp":
        return arrays
    arrays["response_site_pairs"] = response_pairs(known.response, scores, arrays["response"])
    arrays["response_sums"] = fixed_point(response_losses(known))
    arrays["response_bin_sums"] = bin_sums(
        known.response_prob[:, None], bins, grid.size.response
    ).reshape(2, grid.size.response)
    return arrays


def _by_subgroup(
    task: str,
    known: Predictions,
    grid: EvaluationGrid,
    shape: tuple[int, ...],
    cell: tuple[npt.NDArray[np.generic], ...],
) -> dict[str, IntArray]:
    """Return the table of a task once a level, (levels, *shape) by subgroup."""
    arrays = {}
    for name, levels in grid.subgroups:
        level = known.subgroups.get(name, np.full(len(known), UNKNOWN))
        keep = level != UNKNOWN
        arrays[f"{SUBGROUP}{task}_{name}"] = histogram(
            (len(levels), *shape), level[keep], *(part[keep] for part in cell)
        )
    return arrays
