"""State what a run spent and what its mode promises, in numbers and in words."""

from dataclasses import dataclass
from math import sqrt

from common.privacy.accounting import fallback_epsilon
from common.privacy.plan import Mode
from common.study.private_round import releases_per_round, sigma_of, training_collusion_of
from server.session.session import RunSession

UNIT = "one patient, with all slides, scans and follow-ups (add or remove one)"

PROMISES: dict[Mode, str] = {
    "none": "No formal guarantee: updates leave the hospitals unprotected. For simulation and "
    "explicit opt-in only.",
    "local": "Each hospital adds the full noise itself: the guarantee holds against the server, "
    "all other hospitals together, and everybody who sees the model.",
    "distributed": "Only the noised sum over hospitals is opened: the guarantee holds against the "
    "server and up to t colluding hospitals, and more weakly if all others collude.",
}


@dataclass(frozen=True)
class PrivacyFacts:
    """Privacy of one run.

    Attributes:
        mode: Privacy mode of training.
        unit: What is protected.
        promise: What the mode does and does not promise, in words.
        epsilon: Epsilon of all training rounds together; None in mode none.
        delta: Delta that goes with it; None in mode none.
        clip: L2 bound of one patient's gradient; None in mode none.
        sigma: Noise multiplier; None in mode none.
        mu: Gaussian-DP parameter sqrt(releases) / sigma; None in mode none.
        colluders: t sites that may collude with the server; None outside mode distributed.
        n_min: Fewest sites whose sum is opened in training; None outside mode distributed.
        fallback_epsilon: Epsilon that is left if the server and all other sites collude; None
            outside mode distributed.
        release: How evaluation tables left the hospitals.
        epsilon_spent: Site -> training epsilon of this study, by its own ledger.
        evaluation_epsilon_spent: Site -> evaluation epsilon of this study.
        ledger_heads: Site -> head of its ledger after its last answer.
    """

    mode: Mode
    unit: str
    promise: str
    epsilon: float | None
    delta: float | None
    clip: float | None
    sigma: float | None
    mu: float | None
    colluders: int | None
    n_min: int | None
    fallback_epsilon: float | None
    release: str
    epsilon_spent: dict[str, float]
    evaluation_epsilon_spent: dict[str, float]
    ledger_heads: dict[str, str | None]


def privacy_facts(session: RunSession) -> PrivacyFacts:
    """Return the facts of a run as its state has them."""
    plan = session.study.privacy
    releases = session.study.training.rounds * releases_per_round(session.study)
    private = plan.is_private
    sigma = sigma_of(session.study) if private else None
    numbers = training_collusion_of(session.study) if plan.mode == "distributed" else None
    sites = {name: site for name, site in session.state.sites.items() if site.took_part}
    return PrivacyFacts(
        mode=plan.mode,
        unit=UNIT,
        promise=PROMISES[plan.mode],
        epsilon=plan.epsilon if private else None,
        delta=plan.delta if private else None,
        clip=plan.clip if private else None,
        sigma=sigma,
        mu=sqrt(releases) / sigma if sigma else None,
        colluders=numbers.colluders if numbers else None,
        n_min=numbers.n_min if numbers else None,
        fallback_epsilon=(
            fallback_epsilon(plan.epsilon, plan.delta, numbers.shares) if numbers else None
        ),
        release=session.release,
        epsilon_spent={name: site.epsilon_spent for name, site in sites.items()},
        evaluation_epsilon_spent={n: site.evaluation_epsilon_spent for n, site in sites.items()},
        ledger_heads={name: site.ledger_head for name, site in sites.items()},
    )
