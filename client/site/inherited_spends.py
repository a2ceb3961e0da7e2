"""Compose what a study inherits: private trainings that its weights went through before.

A model that was trained privately may hold a patient of this hospital who was treated elsewhere
too. What that training cost is charged to this hospital's training patients beside the study's own
rounds, once: a training that the hospital took part in stands in its ledger already.
"""

import math
from collections.abc import Iterable, Sequence

from common.errors import ErrorCode, PrivacyError
from common.ledger.cause import TOLERANCE
from common.ledger.ledger_entry import SpendEntry
from common.ledger.ledger_file import read_ledger
from common.ledger.ledger_state import LedgerState
from common.models.base.weights_origin import INHERITED, spend_of
from common.privacy.accounting import gaussian_mu
from common.privacy.skellam_closeness import skellam_epsilon
from common.study.private_round import training_collusion_of
from common.study.site_policy import SitePolicy
from common.study.study import Study
from common.study.weights_card import TrainingRecord


def inherited_spends(study: Study, spent: Iterable[SpendEntry]) -> list[SpendEntry]:
    """Return the cost of earlier private trainings that a ledger does not hold.

    Args:
        study: Its cards name the trainings; none counts in mode none.
        spent: What counts against the training patients of this hospital already.

    Raises:
        PrivacyError: A card says less of a run than this hospital spent in it (WEIGHTS_ORIGIN).
    """
    if not study.privacy.is_private:
        return []
    lines = list(spent)
    charged = {(e.run_id, e.parameters.get("study")) for e in lines if e.purpose == INHERITED}
    inherited = []
    for record in study.weights.trainings:
        run = (record.run_id, record.study_digest)
        own = [e for e in lines if (e.run_id, e.study_digest) == run and e.purpose != INHERITED]
        _check_own(record, own)
        if record.mode != "none" and run not in charged and not own:
            inherited.append(spend_of(record, study.digest()))
    return inherited


def _check_own(record: TrainingRecord, own: Sequence[SpendEntry]) -> None:
    """Refuse a card that contradicts what this hospital's ledger holds of the same run."""
    spent = math.fsum(entry.mu_squared for entry in own)
    is_open = any(entry.mechanism == "none" for entry in own) and record.mode != "none"
    if not is_open and (record.mode == "none" or spent <= record.mu_squared * (1 + TOLERANCE)):
        return
    raise PrivacyError(
        "a card of weights says less of a run than this hospital spent in it",
        where=f"run {record.run_id}",
        why="plain updates left this hospital"
        if is_open
        else f"mu^2 {spent:.4g} in the ledger, {record.mu_squared:.4g} on the card",
        cure="ask the coordinator who signed the card; do not take part before it is explained",
        code=ErrorCode.WEIGHTS_ORIGIN,
    )


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
    shares = training_collusion_of(study).shares if plan.mode == "distributed" else 1
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
