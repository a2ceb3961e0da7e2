"""Derive the private sums of a study's round, alike for server and sites."""

import math
from collections.abc import Mapping

from common.errors import ErrorCode, PrivacyError, ProtocolError
from common.privacy.accounting import fallback_epsilon, training_sigma
from common.privacy.collusion import Collusion
from common.privacy.integer_encoding import IntegerEncoding
from common.study.study import Study

CLOSENESS_SHARE = 1e-3
"""Share of epsilon kept for the closeness of Skellam to Gaussian noise."""


def collusion_of(study: Study) -> Collusion:
    """Return t, n_min and the number of noise shares of sums over a study's whole roster.

    Tables of an evaluation are always such sums; gradients are unless there are groups.

    Raises:
        PrivacyError: The numbers do not work.
    """
    return Collusion.of_plan(study.privacy, len(study.sites))


def training_collusion_of(study: Study) -> Collusion:
    """Return t, n_min and the number of noise shares of a sum of training: a group's, or of all.

    Raises:
        PrivacyError: The numbers do not work.
    """
    return Collusion.of_groups(study.privacy, len(study.sites))


def promise_in_words(study: Study) -> str:
    """Return what a study promises a patient: epsilon with t colluders, and if all collude.

    Raises:
        PrivacyError: The numbers do not work.
    """
    plan = study.privacy
    if not plan.is_private:
        return "no guarantee; simulation only"
    words = f"patient-level epsilon {plan.epsilon:g}, delta {plan.delta:g}, clip {plan.clip:g}"
    if plan.mode == "local":
        return f"{words}, against everybody outside the hospital"
    numbers = training_collusion_of(study)
    alone = fallback_epsilon(plan.epsilon, plan.delta, numbers.shares)
    return (
        f"{words}, with up to t = {numbers.colluders} colluding hospitals; epsilon {alone:.3g} if "
        f"the server and all others collude; no sum of fewer than {numbers.n_min} is opened"
        + (f", in {plan.groups} random groups a round" if plan.groups > 1 else "")
    )


def releases_per_round(study: Study) -> int:
    """Return how many noised sums of all its patients per site makes in one round.

    One gradient sum; or with local epochs one step an epoch, or as many as the plan's `steps`.
    """
    local = study.training.local
    if local.kind == "gradient_sum":
        return 1
    return local.steps or local.epochs


def sigma_of(study: Study) -> float:
    """Return the noise multiplier of one release of a private study.

    All releases of all rounds together spend the plan's epsilon, less a thousandth for the
    difference between Skellam and Gaussian noise (`common.privacy.skellam_closeness`):
    sqrt(rounds * releases_per_round) / sigma = mu (Dong, Roth and Su, 2022).

    Raises:
        PrivacyError: The numbers do not work.
    """
    plan = study.privacy
    releases = study.training.rounds * releases_per_round(study)
    epsilon = plan.epsilon * (1 - CLOSENESS_SHARE)
    return training_sigma(epsilon, plan.delta * math.exp(-epsilon * CLOSENESS_SHARE), releases)


def encoding_of(study: Study, shapes: Mapping[str, tuple[int, ...]]) -> IntegerEncoding:
    """Return how sums of clipped gradients are rounded and noised.

    Mode local: the whole noise at each site. Mode distributed: a share of 1/(n_min - t); with
    groups n_min is a group's, so that each group's sum carries the whole noise by itself, and the
    sum of all groups about sqrt(groups) times as much.

    Args:
        study: The study; its mode is local or distributed.
        shapes: Shapes of the parameters in the sum.

    Raises:
        PrivacyError: The numbers do not fit.
    """
    plan = study.privacy
    shared = plan.mode == "distributed"
    encoding = IntegerEncoding(
        clip=plan.clip,
        sigma=sigma_of(study),
        dimension=sum(math.prod(shape) for shape in shapes.values()),
        shares=training_collusion_of(study).shares if shared else 1,
        n_sites=len(study.sites) if shared else 1,
    )
    kappa = encoding.closeness * study.training.rounds * releases_per_round(study)
    if 2 * kappa > plan.epsilon * CLOSENESS_SHARE:
        raise PrivacyError(
            f"{encoding.dimension} parameters over {study.training.rounds} rounds are too many for "
            f"whole-number noise at epsilon {plan.epsilon:g}",
            where="study: training.rounds, privacy.epsilon",
            why=f"its distance from Gaussian noise adds {2 * kappa:.2g} to epsilon",
            cure="train fewer parameters (a frozen trunk), fewer rounds, or a larger epsilon",
        )
    return encoding


def roster_of(study: Study) -> dict[str, str]:
    """Return site -> registered public key, hex.

    Raises:
        ProtocolError: A site of the roster has none (POLICY).
    """
    missing = [entry.site_id for entry in study.sites if entry.public_key is None]
    if missing:
        raise ProtocolError(
            f"the roster lacks the public key of: {', '.join(missing)}",
            where="study.sites",
            why="keys of a secure sum must be signed by registered identities",
            cure="admit every site with its key, then freeze the study",
            code=ErrorCode.POLICY,
        )
    return {entry.site_id: entry.public_key or "" for entry in study.sites}
