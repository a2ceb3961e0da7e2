"""The privacy plan of a study: mode, budget and mechanism travel together."""

from typing import Literal, Self

from pydantic import Field, model_validator

from common.contract import Contract

Mode = Literal["none", "local", "distributed"]
Release = Literal["dp", "internal"]
Phase = Literal["margins", "tables", "paired"]
"""Parts of an evaluation, one after the other; see `common.metrics.tables.table_schema`."""
EvaluationBudget = Literal["survival", "response", "subgroup"]

FEWEST_GROUPS = 3
"""With fewer opened sums no rule can tell which of them holds a lie."""


class EvaluationRelease(Contract):
    """How evaluation tables leave a hospital.

    `dp`: coarse tables with two-sided geometric noise, paid by held-out patients. `internal`:
    exact tables, no differential privacy; each hospital must opt in.

    `subgroup_epsilon` is shared evenly by the tables of all subgroups and tasks (a patient is in
    one level of each subgroup, so they compose); 0 releases no subgroup table under `dp`.
    """

    release: Release = "dp"
    survival_epsilon: float = Field(default=4.0, gt=0)
    response_epsilon: float = Field(default=2.0, gt=0)
    subgroup_epsilon: float = Field(default=0.0, ge=0)

    def epsilon_of(self, budget: EvaluationBudget) -> float:
        """Return what all tables that one budget pays for cost a held-out patient together."""
        return {
            "survival": self.survival_epsilon,
            "response": self.response_epsilon,
            "subgroup": self.subgroup_epsilon,
        }[budget]


class PrivacyPlan(Contract):
    """Patient-level differential privacy of one study.

    Unit: one patient with all slides, scans and follow-ups. Adjacency: add or remove one
    patient. `epsilon`, `delta` cover all rounds of training together. With `groups`, a round
    releases one noised sum per group. A patient is in exactly one of them (parallel composition),
    and each carries the whole noise, so a round costs what one sum of all does: mu = 1 / sigma.
    """

    mode: Mode = "distributed"
    epsilon: float = Field(default=3.0, gt=0, le=500)
    delta: float = Field(default=1e-5, gt=0, lt=1e-2)
    clip: float = Field(default=0.3, gt=0, description="L2 bound C of one patient's gradient")
    colluders: int | None = Field(
        default=None, ge=0, description="t sites that may share their noise with the server"
    )
    n_min: int | None = Field(default=None, gt=0, description="fewest sites whose sum is opened")
    groups: int = Field(
        default=1,
        ge=1,
        exclude_if=lambda groups: groups == 1,
        description="sums per round of training in mode distributed, each over a public random "
        "group of at least n_min sites, so that a site that lies round after round is named, its "
        "group's sum is left out, and training.aggregation may be any rule; 1 = one sum of all, "
        "else at least 3. t and n_min are then a group's",
    )
    evaluation: EvaluationRelease = EvaluationRelease()
    answer_seconds: float | None = Field(
        default=None,
        gt=0,
        le=3600,
        exclude_if=lambda seconds: seconds is None,  # the digest of a study without it stays
        description="hospitals answer at multiples of this after a question, so that the time "
        "says nothing about the number of patients; longer than any computation takes",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.mode == "distributed" and self.colluders == 0:
            raise ValueError(
                "colluders (t) must be at least 1: every site knows its own share of the noise"
            )
        if self.groups > 1 and (self.mode != "distributed" or self.groups < FEWEST_GROUPS):
            raise ValueError(
                f"groups: the sums of groups need mode 'distributed' and at least {FEWEST_GROUPS} "
                "groups: of two that differ nobody can say which one lies"
            )
        return self

    @property
    def is_private(self) -> bool:
        """Whether training updates carry noise."""
        return self.mode != "none"
