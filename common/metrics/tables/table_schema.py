"""Registry of the tables that leave a hospital in an evaluation: shape, phase, share of epsilon.

Two phases. `margins`: fine score margins and the censoring margin, from which the server derives
score cuts and the censoring curve. `tables`: everything else, on the refined grid. A study may
skip the first phase: cuts are then the study's defaults, and what needs the censoring curve
(Brier score) is not estimable. A third, `paired`, holds the joint tables of two models, exact only.

Every table is int64 and adds up over sites, so it passes a secure sum. Real-valued sums are
fixed-point integers (`FIXED_POINT`).

Release `dp` sends only tables with a share of the evaluation epsilon. One patient adds 1 to at
most one cell of each, so the L1 sensitivity under add/remove of one patient is 1 per table;
two-sided geometric noise with parameter exp(-epsilon) per cell then gives epsilon-DP (Ghosh,
Roughgarden and Sundararajan, 2009), and the tables of one study compose by adding their epsilons.
The levels of one subgroup exclude each other, so they share one table and one epsilon; a patient
is in several subgroups, so each further subgroup costs its own. Noisy cells are never clipped.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import exp
from typing import Literal

from common.metrics.tables.grid import EvaluationGrid
from common.privacy.plan import EvaluationBudget, Phase
from common.registry import Registry
from common.study.study import Task

Kind = Literal["count", "sum"]
ShapeRule = Callable[[EvaluationGrid], tuple[int, ...]]

FIXED_POINT = 2.0**32
"""Real sums travel as round(sum * 2^32): error below 2e-10 per site, range above 1e9."""

N_CALIBRATION_BINS = 10
MARGIN_SHARE = 0.1
"""Share of a task's evaluation epsilon that the first phase spends in release `dp`."""


@dataclass(frozen=True)
class Table:
    """One table of an evaluation.

    Attributes:
        name: As in messages, ledgers and reports.
        task: Task whose patients it counts.
        phase: Phase in which it leaves.
        shape: Its shape on a grid.
        kind: Counts, or fixed-point sums of real numbers.
        share: Weight with which the tables of one budget divide its epsilon in release `dp`; 0:
            the table leaves exact or not at all.
        sensitivity: L1 change of the table when one patient comes or goes.
        needs: Field of the grid without which the table is left out.
        subgroup: Subgroup whose levels are the first axis; empty: all patients together.
    """

    name: str
    task: Task
    phase: Phase
    shape: ShapeRule
    kind: Kind = "count"
    share: float = 0.0
    sensitivity: int = 1
    needs: Literal["", "censoring", "risk_threshold"] = ""
    subgroup: str = ""

    @property
    def budget(self) -> EvaluationBudget:
        """Part of the plan that pays for the table."""
        return "subgroup" if self.subgroup else self.task


@dataclass(frozen=True)
class TableNoise:
    """What release `dp` spends on one table.

    Attributes:
        epsilon: Pure epsilon of this table.
        sensitivity: L1 change of the table when one patient comes or goes.
    """

    epsilon: float
    sensitivity: int = 1

    @property
    def variance(self) -> float:
        """Variance of two-sided geometric noise: 2 a / (1 - a)^2, a = exp(-epsilon / s)."""
        a = exp(-self.epsilon / self.sensitivity)
        return 2 * a / (1 - a) ** 2


def by_score(task: Task, n_models: int = 1) -> ShapeRule:
    """Return the shape of outcome by score of one model, or of two.

    The outcome of survival is [censored | died, time], that of response [no | yes].
    """
    if task == "survival":
        return lambda g: (2, g.size.times, *[g.size.scores] * n_models)
    return lambda g: (2, *[g.size.response] * n_models)


_M, _T = MARGIN_SHARE, 1 - MARGIN_SHARE
TABLES = Registry(
    "evaluation table",
    [
        Table("margin_survival", "survival", "margins", lambda g: (g.size.margin,), share=_M),
        Table("margin_time", "survival", "margins", lambda g: (2, g.size.times)),
        Table("margin_response", "response", "margins", lambda g: (g.size.margin,), share=_M),
        Table("survival", "survival", "tables", by_score("survival"), share=_T),
        Table("survival_site_pairs", "survival", "tables", lambda _: (2,)),
        Table("survival_nll", "survival", "tables", lambda _: (2,), "sum"),
        Table("survival_bin_sums", "survival", "tables",
              lambda g: (2, len(g.brier_times), g.size.scores), "sum"),
        Table("d_calibration", "survival", "tables", lambda _: (N_CALIBRATION_BINS,), "sum"),
        Table("brier", "survival", "tables",
              lambda g: (2, len(g.brier_times) + 1), "sum", needs="censoring"),
        Table("risk_sets", "survival", "tables",
              lambda g: (2, 2, len(g.risk_edges) - 1), needs="risk_threshold"),
        Table("site_log_rank", "survival", "tables", lambda _: (2,), "sum", needs="risk_threshold"),
        Table("response", "response", "tables", by_score("response"), share=_T),
        Table("response_site_pairs", "response", "tables", lambda _: (2,)),
        Table("response_sums", "response", "tables", lambda _: (2, 2), "sum"),
        Table("response_bin_sums", "response", "tables", by_score("response"), "sum"),
        Table("joint_survival", "survival", "paired", by_score("survival", 2)),
        Table("joint_response", "response", "paired", by_score("response", 2)),
    ],
)  # fmt: skip
"""Every table; subgroup tables follow from the study's subgroups (`tables_of`)."""


def joint_name(task: Task) -> str:
    """Return the name of a task's joint table of two models."""
    return f"joint_{task}"


def subgroup_table(task: Task, subgroup: str, n_levels: int) -> Table:
    """Return the table of a task by level of a subgroup."""
    whole = TABLES.get(task)
    return Table(
        subgroup_name(task, subgroup),
        task,
        whole.phase,
        lambda g: (n_levels, *whole.shape(g)),
        share=1.0,
        subgroup=subgroup,
    )


def subgroup_name(task: Task, subgroup: str) -> str:
    """Return the name of a task's table by level of a subgroup.

    >>> subgroup_name("survival", "sex")
    'subgroup_survival_sex'
    """
    return f"subgroup_{task}_{subgroup}"


def tables_of(grid: EvaluationGrid, phase: Phase) -> dict[str, Table]:
    """Return the tables that a site sends in a phase, by name, for the grid's tasks and release."""
    tables = [t for t in TABLES if t.task in grid.tasks]
    tables += [subgroup_table(t, name, len(x)) for name, x in grid.subgroups for t in grid.tasks]
    return {
        table.name: table
        for table in tables
        if table.phase == phase
        and (not table.needs or getattr(grid, table.needs) is not None)
        and (grid.release == "internal" or (table.share and grid.plan.epsilon_of(table.budget)))
    }


def noise_plan(grid: EvaluationGrid, phase: Phase, *, two_phases: bool) -> dict[str, TableNoise]:
    """Return the noise of every table of a phase; empty for release `internal`.

    Args:
        grid: Grid of the study.
        phase: Phase that is about to be released.
        two_phases: Whether margins are released too; otherwise tables get the whole epsilon.
    """
    if grid.release != "dp":
        return {}
    phases: set[Phase] = {phase, "margins", "tables"} if two_phases else {phase, "tables"}
    schemas = [table for part in phases for table in tables_of(grid, part).values()]

    def epsilon(table: Table) -> float:
        whole = sum(other.share for other in schemas if other.budget == table.budget)
        return grid.plan.epsilon_of(table.budget) * table.share / whole

    return {
        name: TableNoise(epsilon(table), table.sensitivity)
        for name, table in tables_of(grid, phase).items()
    }
