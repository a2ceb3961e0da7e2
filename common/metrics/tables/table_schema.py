"""Names, shapes and privacy cost of the arrays that leave a hospital in an evaluation.

Two phases. `margins`: fine score margins and the censoring margin, from which the server derives
score cuts and the censoring curve. `tables`: everything else, on the refined grid. A study may
skip the first phase: cuts are then the study's defaults, and what needs the censoring curve
(Brier score) is not estimable. A third, `paired`, holds the joint tables of two models, exact only.

Every array is int64 and adds up over sites, so it passes a secure sum. Real-valued sums are
fixed-point integers (`FIXED_POINT`).

Release `dp` sends only `DP_ARRAYS`, and subgroup tables where the study pays for them. One patient
adds 1 to at most one cell of each array, so the L1 sensitivity under add/remove of one patient is
1 an array; two-sided geometric noise with parameter exp(-epsilon) a cell then gives epsilon-DP
(Ghosh, Roughgarden and Sundararajan, 2009), and the arrays of one study compose by adding their
epsilons. The levels of one subgroup exclude each other, so they share one array and one epsilon;
a patient is in several subgroups, so each further subgroup costs its own. Noisy cells are never
clipped.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp
from typing import Literal

from common.metrics.tables.grid import EvaluationGrid
from common.privacy.plan import EvaluationRelease, Phase

FIXED_POINT = 2.0**32
"""Real sums travel as round(sum * 2^32): error below 2e-10 a site, range above 1e9."""

N_CALIBRATION_BINS = 10
MARGIN_SHARE = 0.1
"""Share of a task's evaluation epsilon that the first phase spends in release `dp`."""

SUBGROUP = "subgroup_"
"""Names of subgroup tables start so: subgroup_survival_sex (levels, 2, T, S)."""

DP_ARRAYS: dict[Phase, tuple[str, ...]] = {
    "margins": ("margin_survival", "margin_response"),
    "tables": ("survival", "response"),
    "paired": (),
}


@dataclass(frozen=True)
class ArraySpec:
    """One array: its shape, and whether cells are counts or fixed-point sums."""

    shape: tuple[int, ...]
    kind: Literal["count", "sum"] = "count"


@dataclass(frozen=True)
class TableNoise:
    """What release `dp` spends on one array.

    Attributes:
        epsilon: Pure epsilon of this array.
        sensitivity: L1 change of the array when one patient comes or goes.
    """

    epsilon: float
    sensitivity: int = 1

    @property
    def variance(self) -> float:
        """Variance of two-sided geometric noise: 2 a / (1 - a)^2, a = exp(-epsilon / s)."""
        a = exp(-self.epsilon / self.sensitivity)
        return 2 * a / (1 - a) ** 2


def schema(grid: EvaluationGrid, phase: Phase) -> dict[str, ArraySpec]:
    """Return every array a site sends in a phase, by name, for the grid's release."""
    arrays = {"margins": _margins, "tables": _tables, "paired": _joint}[phase](grid)
    if grid.release == "dp":
        return {
            name: spec for name, spec in arrays.items() if _leaves_with_noise(name, phase, grid)
        }
    return arrays


def _leaves_with_noise(name: str, phase: Phase, grid: EvaluationGrid) -> bool:
    paid = grid.plan.subgroup_epsilon > 0
    return name in DP_ARRAYS[phase] or (paid and name.startswith(SUBGROUP))


def noise_plan(
    grid: EvaluationGrid, phase: Phase, plan: EvaluationRelease, *, two_phases: bool
) -> dict[str, TableNoise]:
    """Return the noise of every array of a phase; empty for release `internal`.

    Args:
        grid: Grid of the study.
        phase: Phase that is about to be released.
        plan: Evaluation budget of the study.
        two_phases: Whether margins are released too; otherwise tables get the whole epsilon.
    """
    if grid.release != "dp":
        return {}
    share = MARGIN_SHARE if phase == "margins" else 1 - MARGIN_SHARE if two_phases else 1.0
    names = list(schema(grid, phase))
    n_subgroup = sum(name.startswith(SUBGROUP) for name in names)
    noise = {}
    for name in names:
        if name.startswith(SUBGROUP):
            noise[name] = TableNoise(plan.subgroup_epsilon / n_subgroup)
            continue
        budget = plan.survival_epsilon if "survival" in name else plan.response_epsilon
        noise[name] = TableNoise(budget * share)
    return noise


def _margins(grid: EvaluationGrid) -> dict[str, ArraySpec]:
    arrays: dict[str, ArraySpec] = {}
    if grid.has_survival:
        arrays["margin_survival"] = ArraySpec((grid.size.margin,))
        arrays["margin_time"] = ArraySpec((2, grid.size.times))
    if grid.has_response:
        arrays["margin_response"] = ArraySpec((grid.size.margin,))
    return arrays


def _joint(grid: EvaluationGrid) -> dict[str, ArraySpec]:
    """Joint tables of two models: the last two axes are their score bins."""
    arrays: dict[str, ArraySpec] = {}
    if grid.has_survival:
        bins = grid.size.scores
        arrays["joint_survival"] = ArraySpec((2, grid.size.times, bins, bins))
    if grid.has_response:
        arrays["joint_response"] = ArraySpec((2, grid.size.response, grid.size.response))
    return arrays


def _tables(grid: EvaluationGrid) -> dict[str, ArraySpec]:
    arrays: dict[str, ArraySpec] = {}
    if grid.has_survival:
        arrays |= _survival_tables(grid)
    if grid.has_response:
        bins = grid.size.response
        arrays["response"] = ArraySpec((2, bins))
        arrays["response_site_pairs"] = ArraySpec((2,))
        arrays["response_sums"] = ArraySpec((2, 2), "sum")
        arrays["response_bin_sums"] = ArraySpec((2, bins), "sum")
        for name, levels in grid.subgroups:
            arrays[f"{SUBGROUP}response_{name}"] = ArraySpec((len(levels), 2, bins))
    return arrays


def _survival_tables(grid: EvaluationGrid) -> dict[str, ArraySpec]:
    times, scores, moments = grid.size.times, grid.size.scores, len(grid.brier_times)
    arrays = {
        "survival": ArraySpec((2, times, scores)),
        "survival_site_pairs": ArraySpec((2,)),
        "survival_nll": ArraySpec((2,), "sum"),
        "survival_bin_sums": ArraySpec((2, moments, scores), "sum"),
        "d_calibration": ArraySpec((N_CALIBRATION_BINS,), "sum"),
    }
    if grid.censoring is not None:
        arrays["brier"] = ArraySpec((2, moments + 1), "sum")
    if grid.risk_threshold is not None:
        arrays["risk_sets"] = ArraySpec((2, 2, len(grid.risk_edges) - 1))
        arrays["site_log_rank"] = ArraySpec((2,), "sum")
    for name, levels in grid.subgroups:
        arrays[f"{SUBGROUP}survival_{name}"] = ArraySpec((len(levels), 2, times, scores))
    return arrays
