"""Compose what a study inherits: private trainings that its weights went through before.

A model that was trained privately may hold a patient of this hospital who was treated elsewhere
too. What that training cost is charged to this hospital's training patients beside the study's own
rounds, once: a training that the hospital took part in stands in its ledger already.
"""

import math
from collections.abc import Iterable, Sequence

from common.ledger.ledger_entry import SpendEntry
from common.ledger.ledger_file import read_ledger
from common.ledger.ledger_state import LedgerState
from common.models.base.weights_origin import INHERITED, spend_of
from common.privacy.accounting import gaussian_mu
from common.privacy.skellam_closeness import skellam_epsilon
from common.study.private_round import collusion_of
from common.study.site_policy import SitePolicy
from common.study.study import Study


def inherited_spends(study: Study, spent: Iterable[SpendEntry]) -> list[SpendEntry]:
    """Return the cost of earlier private trainings that a ledger does not hold.

    Args:
        study: Its cards name the trainings; none counts in mode none.
        spent: What counts against the training patients of this hospital already.
    """
    held = {
        (entry.run_id, entry.parameters.get("study"))
        if entry.purpose == INHERITED
        else (entry.run_id, entry.study_digest)
        for entry in spent
    }
    if not study.privacy.is_private:
        return []
    return [
        spend_of(record, study.digest())
        for record in study.weights.trainings
        if record.mode != "none" and (record.run_id, record.study_digest) not in held
    ]


def spent_on_training(policy: SitePolicy) -> Sequence[SpendEntry]:
    """Return what counts against a hospital's training patients; nothing before its first study.

    Raises:
        LedgerError: The ledger is damaged.
    """
    if not policy.ledger.exists():
        return []
    return LedgerState(read_ledger(policy.ledger), str(policy.ledger)).spends(None, "train")


def composed_training(study: Study, inherited: Sequence[SpendEntry]) -> tuple[float, float]:
    """Return epsilon of a private study's training with what it inherits, at the study's delta.

    Returns:
        With up to t colluders; and if the server and all other hospitals collude.

    Raises:
        PrivacyError: The numbers do not work.
    """
    plan = study.privacy
    shares = collusion_of(study).shares if plan.mode == "distributed" else 1
    planned = gaussian_mu(plan.epsilon, plan.delta) ** 2
    mu_squared = planned + math.fsum(entry.mu_squared for entry in inherited)
    alone = planned * shares + math.fsum(e.mu_squared * (e.shares or 1) for e in inherited)
    kappa = math.fsum(entry.closeness for entry in inherited)
    kappa_alone = math.fsum(entry.closeness * (entry.shares or 1) for entry in inherited)
    return (
        skellam_epsilon(mu_squared, plan.delta, kappa),
        skellam_epsilon(alone, plan.delta, kappa_alone),
    )


def composition_in_words(study: Study, inherited: Sequence[SpendEntry]) -> str | None:
    """Return what training costs a patient who was in earlier trainings too; None without any."""
    if not study.privacy.is_private or not any(r.mode != "none" for r in study.weights.trainings):
        return None
    if not inherited:
        return "the private training of the weights is in this hospital's ledger already"
    epsilon, alone = composed_training(study, inherited)
    words = f"epsilon {epsilon:.3g} with the training of the weights, for a patient who was in both"
    if study.privacy.mode == "local":
        return words
    return f"{words}; {alone:.3g} if the server and all others collude"
