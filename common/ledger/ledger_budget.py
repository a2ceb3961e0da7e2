"""Budgets of a hospital: ceilings over its life and for each study, for each set of patients.

Training patients pay in mu^2 (Gaussian-DP parameters squared add up, also when later releases
depend on earlier answers: Smith and Thakurta, 2022). Held-out patients pay in pure epsilon,
because evaluation tables are purely epsilon-DP and epsilons add up exactly; in mu^2 three such
tables would look like epsilon 30.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from common.errors import BudgetError
from common.ledger.ledger_entry import PARTITIONS, Partition, SpendEntry
from common.privacy.accounting import composed_epsilon, gaussian_mu
from common.study.site_policy import SitePolicy

Currency = Literal["mu_squared", "pure_epsilon"]

_ROUND_OFF = 1e-12
"""Relative room for the rounding of T equal shares that add up to exactly the budget."""


@dataclass(frozen=True)
class Cap:
    """A ceiling in one currency."""

    currency: Currency
    amount: float

    def price(self, entry: SpendEntry) -> float:
        """Return what an entry costs in this currency; inf if it cannot be paid in it."""
        if entry.mechanism == "none":
            return 0.0
        if self.currency == "mu_squared":
            return entry.mu_squared
        return math.inf if entry.pure is None else entry.pure

    def admits(self, spent: float, price: float) -> bool:
        """Return whether `price` may be added to `spent`."""
        return spent + price <= self.amount * (1 + _ROUND_OFF)


def mu_cap(epsilon: float, delta: float) -> Cap:
    """Return the cap in mu^2 that means (epsilon, delta)."""
    return Cap("mu_squared", gaussian_mu(epsilon, delta) ** 2)


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
    def from_policy(cls, policy: SitePolicy) -> LedgerBudgets:
        """Return the budgets a hospital's policy states."""
        evaluation = Cap("pure_epsilon", policy.lifetime_evaluation_epsilon)
        return cls(
            hospital={
                "train": mu_cap(policy.lifetime_epsilon, policy.delta),
                "held_out": evaluation,
                "validation": evaluation,
            },
            study={
                approval.study_digest: {"train": mu_cap(approval.epsilon_ceiling, policy.delta)}
                for approval in policy.approvals
            },
        )

    @classmethod
    def unlimited(cls) -> LedgerBudgets:
        """Return budgets that only count; for simulations."""
        return cls(hospital={p: Cap("mu_squared", math.inf) for p in PARTITIONS})

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


def affected(partition: Partition) -> tuple[Partition, ...]:
    """Return the partitions that a release from `partition` is paid by."""
    return PARTITIONS if partition == "all" else (partition,)


def refuse(level: str, partition: str, cap: Cap, spent: float, price: float) -> BudgetError:
    """Return the error for a spend above a ceiling."""
    unit = "mu^2" if cap.currency == "mu_squared" else "epsilon"
    left = max(cap.amount - spent, 0.0)
    why = f"it costs {price:.4g} {unit}, and {left:.4g} of {cap.amount:.4g} {unit} are left"
    if math.isinf(price):
        why = "these patients pay in pure epsilon, which this mechanism does not have"
    return BudgetError(
        f"the {level} budget of the patients '{partition}' does not allow this release",
        where=level,
        why=why,
        cure="plan fewer rounds or a smaller epsilon; a spent budget does not come back",
    )


def composed_spend(entries: Sequence[SpendEntry], delta: float) -> float:
    """Return epsilon (rounded up) of releases at `delta`; see `Ledger.epsilon`."""
    gaussian = math.fsum(e.mu_squared for e in entries if e.pure is None)
    total = math.fsum(e.mu_squared for e in entries)
    pure = math.fsum(e.pure for e in entries if e.pure is not None)
    return min(composed_epsilon(total, delta), composed_epsilon(gaussian, delta) + pure)


def composed_fallback(entries: Sequence[SpendEntry], delta: float) -> float | None:
    """Return epsilon (rounded up) left if the server and all other hospitals collude.

    Each release then has this hospital's share of the noise alone: mu^2 times n_min - t.

    Returns:
        None if a release does not tell in how many shares its noise was made.
    """
    shares = [entry.parameters.get("shares") for entry in entries]
    if not all(isinstance(number, int) for number in shares):
        return None
    spent = [e.mu_squared * int(str(n)) for e, n in zip(entries, shares, strict=True)]
    return composed_epsilon(math.fsum(spent), delta)
