"""Write the signed card of a finished run's model beside it: on whose patients, at what epsilon."""

from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from common.models.base.build import build_model
from common.models.base.parameters import expected_shapes
from common.models.base.weights_origin import origin_doubts
from common.privacy.accounting import fallback_epsilon
from common.privacy.skellam_closeness import skellam_epsilon
from common.study.private_round import encoding_of, releases_per_round
from common.study.study import Study
from common.study.weights_card import TrainingRecord
from common.trust.weights_card import parts_digest, read_card, sign_card, write_card
from server.session.session import RunSession

LONGEST = 1000
"""Characters of a doubt that are kept; a chain of studies repeats those before it."""


def write_model_card(session: RunSession, file: Path, rounds: int) -> None:
    """Write the card of the run's model, unless it is there; signed by the coordinator's audit key.

    A simulation has no coordinator: its card is signed by a key that nobody keeps, which a later
    study may name all the same.

    Args:
        session: The run, after its last answer.
        file: The model.
        rounds: Committed rounds.

    Raises:
        ConfigError: The audit key or an earlier card cannot be read.
    """
    sha256, earlier = parts_digest([file]), read_card(file)
    if earlier is not None and earlier.card.sha256 == sha256:
        return
    study, model = session.study, build_model(session.study)
    doubts = origin_doubts(study, model)
    if doubts and study.weights.accept_origin is not None:
        doubts.append(f"accepted because: {study.weights.accept_origin}")
    record = _training_record(session, expected_shapes(model), rounds)
    sources = (source for signed in study.weights.cards for source in signed.card.public)
    consortium = session.consortium
    key = Ed25519PrivateKey.generate() if consortium is None else consortium.load_audit_key()
    card = sign_card(
        key,
        sha256,
        public=list(dict.fromkeys(sources)),
        trainings=[*study.weights.trainings, record],
        doubts=[_printable(doubt) for doubt in doubts],
    )
    write_card(file, card)


def _training_record(
    session: RunSession, shapes: dict[str, tuple[int, ...]], rounds: int
) -> TrainingRecord:
    took_part = {name: site for name, site in session.state.sites.items() if site.took_part}
    facts = {
        "study_digest": session.state.study_digest,
        "run_id": session.state.run_id,
        "model": session.study.model.name,
        "rounds": rounds,
        "hospitals": {name: site.ledger_head for name, site in took_part.items()},
        "mode": session.study.privacy.mode,
    }
    private = _private_facts(session.study, shapes) if session.study.privacy.is_private else {}
    return TrainingRecord.model_validate(facts | private)


def _private_facts(study: Study, shapes: dict[str, tuple[int, ...]]) -> dict[str, object]:
    """Return what all planned rounds cost a patient, and the noise it follows from."""
    plan, encoding = study.privacy, encoding_of(study, shapes)
    releases = study.training.rounds * releases_per_round(study)
    mu_squared, kappa = releases * encoding.mu_squared, releases * encoding.closeness
    alone = skellam_epsilon(mu_squared * encoding.shares, plan.delta, kappa * encoding.shares)
    return {
        "epsilon": plan.epsilon,
        "delta": plan.delta,
        "fallback_epsilon": max(alone, fallback_epsilon(plan.epsilon, plan.delta, encoding.shares)),
        "mu_squared": mu_squared,
        "noise": {**encoding.parameters(), "releases_per_round": releases},
    }


def _printable(doubt: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in doubt)[:LONGEST]
