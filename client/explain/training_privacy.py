"""Describe how a model was trained: the privacy promise, and what this hospital spent."""

from __future__ import annotations

from common.errors import LedgerError
from common.study.site_policy import SitePolicy
from common.study.study import Study


def training_privacy(study: Study, policy: SitePolicy) -> list[str]:
    """Return what stands in a patient's report about the privacy of training.

    The promise is the study's; what was spent is read from this hospital's ledger.

    Args:
        study: The study the model was trained in.
        policy: The hospital's rules and paths.
    """
    plan = study.privacy
    if not plan.is_private:
        return ["Trained without differential privacy (mode none)."]
    return [
        f"Trained with patient-level differential privacy, mode {plan.mode}: epsilon at most "
        f"{plan.epsilon:g} at delta {plan.delta:g} over all rounds.",
        _spent(study, policy),
    ]


def _spent(study: Study, policy: SitePolicy) -> str:
    from client.site.ledger_view import ledger_view

    if not policy.ledger.is_file():
        return "This hospital has no ledger: none of its patients took part in any training."
    try:
        view = ledger_view(policy)
    except LedgerError as error:
        return f"What this hospital spent is not known: its ledger cannot be read ({error.code})."
    digest = study.digest()
    accounts = [a for a in view.accounts if a.study_digest == digest and a.partition == "train"]
    if not accounts:
        return "This hospital's ledger holds no training of this study."
    return (
        f"This hospital's ledger: epsilon {accounts[0].epsilon:.3g} at delta {view.delta:g} spent "
        f"in {accounts[0].releases} releases."
    )
