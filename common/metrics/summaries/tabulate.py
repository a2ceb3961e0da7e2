"""Tabulate one hospital's predictions into its mergeable tables."""

from collections.abc import Callable
from dataclasses import dataclass

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
from common.metrics.survival.concordance import pair_counts
from common.metrics.tables.grid import EvaluationGrid, IntArray
from common.metrics.tables.predictions import Predictions
from common.metrics.tables.score_scale import FloatArray, margin_cuts, response_score, risk_score
from common.metrics.tables.site_pairs import exact_log_rank, response_pairs, survival_pairs
from common.metrics.tables.table_schema import Table, by_score, tables_of
from common.metrics.tables.tables import SiteTables
from common.privacy.plan import Phase
from common.study.study import Task
from common.study.subgroups import UNKNOWN

Shape = tuple[int, ...]
MAX_EXACT_PATIENTS = 20_000
"""Above this, pairs are counted on the grid: comparing every pair would take minutes."""


@dataclass(frozen=True)
class ScoredPatients:
    """n patients whose outcome of one task is known, and the cell of its table each falls into.

    Attributes:
        known: Their predictions.
        grid: The grid.
        score: (n,) log-odds; of survival, higher is worse.
        outcome: Index of each axis of the outcome, (n,) each.
        bins: (n,) score bin.
    """

    known: Predictions
    grid: EvaluationGrid
    score: FloatArray
    outcome: tuple[npt.NDArray[np.generic], ...]
    bins: IntArray

    @property
    def high(self) -> npt.NDArray[np.bool_]:
        """(n,) whether a patient is in the high-risk group."""
        return np.greater_equal(self.score, self.grid.risk_threshold or 0.0)


def tabulate(predictions: Predictions, grid: EvaluationGrid, phase: Phase = "tables") -> SiteTables:
    """Return the tables of one site, exactly those of `tables_of(grid, phase)`.

    A site without any patient, or without an outcome, returns zeros.
    """
    patients = {task: scored(predictions, task, grid) for task in grid.tasks}
    return SiteTables(
        {name: _fill(table, patients[table.task]) for name, table in tables_of(grid, phase).items()}
    )


def scored(predictions: Predictions, task: Task, grid: EvaluationGrid) -> ScoredPatients:
    """Return the patients whose outcome of a task was both predicted and observed."""
    patients = predictions.select(predictions.has(task))
    if task == "survival":
        score = risk_score(patients.risk, grid.n_intervals)
        outcome = (patients.event, grid.time_index(patients.time_months))
        bins = np.searchsorted(grid.survival_cuts, score, side="right")
        return ScoredPatients(patients, grid, score, outcome, bins)
    score = response_score(patients.response_prob)
    bins = np.searchsorted(grid.response_cuts, score, side="right")
    return ScoredPatients(patients, grid, score, (patients.response,), bins)


def histogram(shape: Shape, *index: npt.ArrayLike) -> IntArray:
    """Return counts of index tuples, int64 of `shape`."""
    flat = np.ravel_multi_index([np.asarray(i, np.int64) for i in index], shape)
    return np.bincount(flat, minlength=int(np.prod(shape))).reshape(shape).astype(np.int64)


def _fill(table: Table, patients: ScoredPatients) -> IntArray:
    shape = table.shape(patients.grid)
    if not table.subgroup:
        return FILLS[table.name](patients, shape)
    unknown = np.full(len(patients.known), UNKNOWN)
    level = patients.known.subgroups.get(table.subgroup, unknown)
    keep = level != UNKNOWN
    return histogram(shape, *(part[keep] for part in (level, *patients.outcome, patients.bins)))


def _by_score(patients: ScoredPatients, shape: Shape) -> IntArray:
    return histogram(shape, *patients.outcome, patients.bins)


def _margin(patients: ScoredPatients, shape: Shape) -> IntArray:
    cuts = margin_cuts(patients.grid.size.margin)
    return histogram(shape, np.searchsorted(cuts, patients.score, side="right"))


def _risk_sets(patients: ScoredPatients, shape: Shape) -> IntArray:
    inner = patients.grid.risk_edges[1:-1]
    fine = np.searchsorted(inner, patients.known.time_months, side="left")
    return histogram(shape, patients.high, patients.known.event, fine)


def _survival_pairs(patients: ScoredPatients, _: Shape) -> IntArray:
    if len(patients.known) <= MAX_EXACT_PATIENTS:
        return survival_pairs(patients.known)
    table = _by_score(patients, by_score("survival")(patients.grid))
    counts = pair_counts(table.astype(np.float64))
    return np.rint([2 * counts.agreeing, 2 * counts.comparable]).astype(np.int64)


FILLS: dict[str, Callable[[ScoredPatients, Shape], IntArray]] = {
    "margin_survival": _margin,
    "margin_time": lambda p, shape: histogram(shape, *p.outcome),
    "margin_response": _margin,
    "survival": _by_score,
    "survival_site_pairs": _survival_pairs,
    "survival_nll": lambda p, _: fixed_point(moments(p.known.survival_nll)),
    "survival_bin_sums": lambda p, shape: bin_sums(p.known.survival, p.bins, shape[-1]),
    "d_calibration": lambda p, _: d_calibration_sums(p.known),
    "brier": lambda p, _: brier_sums(p.known, p.grid),
    "risk_sets": _risk_sets,
    "site_log_rank": lambda p, _: fixed_point(exact_log_rank(p.known, p.high)),
    "response": _by_score,
    "response_site_pairs": lambda p, _: response_pairs(p.known),
    "response_sums": lambda p, _: fixed_point(response_losses(p.known)),
    "response_bin_sums": lambda p, shape: bin_sums(
        p.known.response_prob[:, None], p.bins, shape[-1]
    ).reshape(shape),
}
"""How each table is filled from the patients of its task; joint tables: `tabulate_pair`."""
