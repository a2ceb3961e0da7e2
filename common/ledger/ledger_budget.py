"""Check a hospital's budgets: lifetime and per-study ceilings for each set of patients.

Training patients pay in epsilon at the hospital's delta: squares of Gaussian-DP parameters mu add
up, also when later releases depend on earlier answers (Smith and Thakurta, 2022), and so does the
`closeness` of Skellam noise to Gaussian noise. Held-out patients pay in pure epsilon, because
evaluation tables are purely epsilon-DP and epsilons add up exactly; composed as Gaussian releases
three such tables would look like epsilon 30.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from common.errors import BudgetError
from common.ledger.ledger_entry import PARTITIONS, Partition, SpendEntry
from common.privacy.accounting import gaussian_mu
from common.privacy.geometric_fallback import share_epsilon
from common.privacy.skellam_closeness import skellam_epsilon
from common.study.site_policy import Approval, SitePolicy

Currency = Literal["epsilon", "pure_epsilon"]

_ROUND_OFF = 1e-9
"""Relative room for the rounding of T equal shares that add up to exactly the budget."""


@dataclass(frozen=True)
class Cap:
    """A ceiling of privacy loss.

    Attributes:
        amount: Largest epsilon.
        delta: Delta at which releases are composed; None: pure epsilons are added up.
    """

    amount: float
    delta: float | None = None

    def __post_init__(self) -> None:
        if self.delta is not None and not math.isinf(self.amount):
            gaussian_mu(self.amount, self.delta)  # refuses what is no budget

    @property
    def currency(self) -> Currency:
        """What `amount` is measured in."""
        return "pure_epsilon" if self.delta is None else "epsilon"

    def cost(self, entries: Iterable[SpendEntry]) -> float:
        """Return the epsilon of releases together; inf if one has no pure epsilon but needs it."""
        noisy_entries = [entry for entry in entries if entry.mechanism != "none"]
        if self.delta is None:
            return math.fsum(math.inf if e.pure is None else e.pure for e in noisy_entries)
        if math.isinf(self.amount):
            return 0.0
        return skellam_epsilon(*_gaussian_cost(noisy_entries, self.delta))

    def admits(self, entries: Iterable[SpendEntry]) -> bool:
        """Return whether all of `entries` together, old and new, stay below the ceiling."""
        return self.cost(entries) <= self.amount * (1 + _ROUND_OFF)


@dataclass(frozen=True)
class LedgerBudgets:
    """Ceilings that the ledger enforces; the smallest remainder governs.

    Attributes:
        hospital: Over all studies, by partition; a partition without one cannot be spent from.
        study: By study digest, then partition, what one study may spend at most; None: no
            ceiling by study. A digest that is missing was not approved and may spend nothing.
    """

    hospital: Mapping[Partition, Cap]
    study: Mapping[str, Mapping[Partition, Cap]] | None = field(default=None)

    @classmethod
    def from_policy(cls, policy: SitePolicy) -> "LedgerBudgets":
        """Return the budgets a hospital's policy states."""
        evaluation = Cap(policy.lifetime_evaluation_epsilon)
        return cls(
            hospital={
                "train": Cap(policy.lifetime_epsilon, policy.delta),
                "held_out": evaluation,
                "validation": evaluation,
            },
            study={a.study_digest: _approved(a, policy.delta) for a in policy.approvals},
        )

    def caps(self, study_digest: str, partition: Partition) -> list[tuple[str, Cap]]:
        """Return (level, cap) for every ceiling over one partition of one study.

        Raises:
            BudgetError: The study was not approved, or the partition has no budget.
        """
        if partition not in self.hospital:
            raise BudgetError(
                f"the patients '{partition}' have no budget",
                why="the hospital's policy gives none",
                cure="use the partition that the protocol names",
            )
        caps = [("hospital", self.hospital[partition])]
        if self.study is not None:
            if study_digest not in self.study:
                raise BudgetError(
                    f"study {study_digest[:12]} has no budget",
                    why="the hospital has not approved this digest",
                    cure="run `tumorboard site approve` after reading the study",
                )
            if partition in self.study[study_digest]:
                caps.append(("study", self.study[study_digest][partition]))
        return caps


def _approved(approval: Approval, delta: float) -> dict[Partition, Cap]:
    evaluation = Cap(approval.evaluation_epsilon_ceiling or 0.0)
    return {
        "train": Cap(approval.epsilon_ceiling, delta),
        "held_out": evaluation,
        "validation": evaluation,
    }


def affected(partition: Partition) -> tuple[Partition, ...]:
    """Return the partitions that a release from `partition` is paid by."""
    return PARTITIONS if partition == "all" else (partition,)


def refuse(level: str, partition: str, cap: Cap, spent: float, after: float) -> BudgetError:
    """Return the error for a spend that would lift epsilon from `spent` to `after`."""
    left = max(cap.amount - spent, 0.0)
    why = (
        f"epsilon would rise from {spent:.4g} to {after:.4g}; "
        f"{left:.4g} of {cap.amount:.4g} are left"
    )
    if math.isinf(after):
        why = "these patients pay in pure epsilon, which this mechanism does not have"
    return BudgetError(
        f"the {level} budget of the patients '{partition}' does not allow this release",
        where=level,
        why=why,
        cure="plan fewer rounds or a smaller epsilon; a spent budget is not restored",
    )


def composed_spend(entries: Sequence[SpendEntry], delta: float) -> float:
    """Return epsilon (rounded up) of releases at `delta`; see `Ledger.epsilon`."""
    gaussian = [entry for entry in entries if entry.pure is None]
    pure = math.fsum(e.pure for e in entries if e.pure is not None)
    return min(
        skellam_epsilon(*_gaussian_cost(entries, delta)),
        skellam_epsilon(*_gaussian_cost(gaussian, delta)) + pure,
    )


def composed_fallback(entries: Sequence[SpendEntry], delta: float) -> float | None:
    """Return epsilon (rounded up) left if the server and all other hospitals collude.

    Each release then has this hospital's share of the noise alone. Skellam and Gaussian noise has
    1/(n_min - t) of its variance: mu^2 and closeness grow by n_min - t. A share of geometric noise
    stays purely private, with the epsilon of `common.privacy.geometric_fallback`.

    Returns:
        None if a release does not state the number of shares of its noise.
    """
    mu_squared, kappa, pure = 0.0, 0.0, 0.0
    for entry in entries:
        if entry.shares is None:
            return None
        tables = entry.table_epsilons
        if entry.pure is not None and tables is None:
            return None
        if tables is not None:
            pure += math.fsum(share_epsilon(epsilon, entry.shares) for epsilon in tables)
        else:
            mu_squared += entry.mu_squared * entry.shares
            kappa += entry.closeness * entry.shares
    return skellam_epsilon(mu_squared, delta, kappa) + pure


def _gaussian_cost(entries: Iterable[SpendEntry], delta: float) -> tuple[float, float, float]:
    """Return (sum of mu^2, delta, sum of closeness)."""
    spends = list(entries)
    return (math.fsum(e.mu_squared for e in spends), delta, math.fsum(e.closeness for e in spends))
