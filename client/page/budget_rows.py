"""Compare what a hospital has spent with its ceilings, in epsilon."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from client.page.site_files import SiteFiles
from client.site.ledger_view import Account
from common.ledger.ledger_entry import PARTITIONS, Partition
from common.study.site_policy import SitePolicy
from common.study.study import Study

FOR_LIFE = "this hospital, for life"
PATIENTS: dict[Partition, str] = {
    "train": "training",
    "held_out": "held out",
    "validation": "validation",
}


@dataclass(frozen=True)
class BudgetRow:
    """One ceiling and what was spent under it.

    Attributes:
        scope: The hospital's life, or a study.
        patients: Whose privacy: training or held-out patients.
        spent: Epsilon.
        ceiling: Epsilon; None where there is no own ceiling.
        releases: Noised releases.
        exact: Releases without noise.
    """

    scope: str
    patients: str
    spent: float
    ceiling: float | None
    releases: int
    exact: int


def budget_rows(files: SiteFiles) -> list[BudgetRow]:
    """Return a row for each ceiling; those for life are there before anything is spent."""
    if files.policy is None:
        return []
    policy, view = files.policy, files.ledger.view
    account_of = {(a.study_digest, a.partition): a for a in view.accounts} if view else {}
    ceilings: dict[Partition, float] = {
        "train": policy.lifetime_epsilon,
        "held_out": policy.lifetime_evaluation_epsilon,
    }
    keys: set[tuple[str | None, Partition]] = {*account_of, *((None, p) for p in ceilings)}
    return [
        _budget(account_of[key], policy, files.studies)
        if key in account_of
        else BudgetRow(FOR_LIFE, PATIENTS[key[1]], 0.0, ceilings[key[1]], 0, 0)
        for key in sorted(keys, key=lambda key: (key[0] or "", PARTITIONS.index(key[1])))
    ]


def _budget(account: Account, policy: SitePolicy, studies: Mapping[str, Study]) -> BudgetRow:
    training = account.partition == "train"
    spent, ceiling = account.epsilon, None
    if account.study_digest is None:
        ceiling = policy.lifetime_epsilon if training else policy.lifetime_evaluation_epsilon
        if not training and account.left is not None:  # these patients pay in pure epsilon
            spent = ceiling - account.left
    elif (approval := policy.approval_of(account.study_digest)) is not None:
        ceiling = approval.epsilon_ceiling if training else approval.evaluation_epsilon_ceiling
    return BudgetRow(
        scope=_scope(account.study_digest, studies),
        patients=PATIENTS.get(account.partition, account.partition),
        spent=spent,
        ceiling=ceiling,
        releases=account.releases,
        exact=account.exact,
    )


def _scope(digest: str | None, studies: Mapping[str, Study]) -> str:
    if digest is None:
        return FOR_LIFE
    study = studies.get(digest)
    return f"study {study.study_id}" if study else f"study {digest[:12]}"
