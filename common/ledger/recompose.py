"""Recompute a ledger's epsilon with two independent accountants.

The second, privacy loss distributions of dp-accounting, covers every release; the third, privacy
random variables of Opacus, those with Gaussian noise.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from common.errors import PrivacyError
from common.ledger.cause import is_undercharged, mu_squared_from_noise, pure_from_noise
from common.ledger.ledger_budget import composed_fallback, composed_spend
from common.ledger.ledger_entry import LedgerRecord, Partition, SpendEntry
from common.ledger.ledger_state import LedgerState
from common.privacy.accountants import prv_epsilon

AGREEMENT = 5e-3
"""Largest relative difference at which two accountants agree."""

_PRV_LIMIT = 300.0
"""Above this epsilon there is no third opinion: e^epsilon nears the largest number there is."""

_GRID = 1e-4


@dataclass(frozen=True)
class Recomposed:
    """One account of a ledger by three accountants.

    Attributes:
        study_digest: The study; None = the hospital over all studies.
        partition: Whose patients.
        releases: Noised releases that count.
        exact: Releases without noise; any makes a finite epsilon void.
        mu_squared: Sum of mu^2.
        delta: Delta of both epsilons.
        epsilon: By the ledger's closed form.
        fallback_epsilon: Likewise, if the server and all other hospitals collude; None where a
            release does not state the number of shares of its noise.
        second_epsilon: `epsilon` by privacy loss distributions, from the recorded mechanisms.
        third_epsilon: `epsilon` by privacy random variables, too large by 0.02 or 0.2 % at most;
            None where releases are not Gaussian, or epsilon is above 300.
        undercharged: Releases that were charged less than their recorded noise says.
        agree: Whether none is undercharged, no other epsilon is above the first by more than
            0.5 %, and none below it by more where the closed form is exact (all releases Gaussian
            over full batches).
    """

    study_digest: str | None
    partition: Partition
    releases: int
    exact: int
    mu_squared: float
    delta: float
    epsilon: float
    fallback_epsilon: float | None
    second_epsilon: float
    third_epsilon: float | None
    undercharged: int
    agree: bool

    def as_dict(self) -> dict[str, object]:
        """Return the account for JSON."""
        return dict(vars(self))


def recompose(records: Sequence[LedgerRecord], delta: float, *, where: str) -> list[Recomposed]:
    """Return every account of a ledger, the hospital's first.

    Args:
        records: Verified records, oldest first.
        delta: In (0, 1).
        where: Names the ledger in errors.

    Raises:
        LedgerError: The records contradict each other.
    """
    state = LedgerState(records, where)
    accounts = [
        _account(study, partition, state.spends(study, partition), delta)
        for study, partition in state.scopes()
    ]
    return sorted(accounts, key=lambda a: (a.study_digest or "", a.partition))


def _account(
    study: str | None, partition: Partition, entries: Sequence[SpendEntry], delta: float
) -> Recomposed:
    noisy_entries = [entry for entry in entries if entry.mechanism != "none"]
    first = composed_spend(noisy_entries, delta)
    second = pld_of_entries(noisy_entries, delta)
    error = max(0.01, first / 1000)
    third = prv_of_entries(noisy_entries, delta, error) if first < _PRV_LIMIT else None
    exact_form = all(e.pure is None and _sampling_rate(e) == 1 for e in noisy_entries)
    undercharged = sum(map(is_undercharged, noisy_entries))
    agree = not undercharged and second <= first * (1 + AGREEMENT) + 1e-9
    agree = agree and (third is None or third <= first * (1 + AGREEMENT) + 2 * error)
    if exact_form:
        agree = agree and min(second, third or second) >= first * (1 - AGREEMENT) - 1e-9
    return Recomposed(
        study_digest=study,
        partition=partition,
        releases=len(noisy_entries),
        exact=len(entries) - len(noisy_entries),
        mu_squared=math.fsum(e.mu_squared for e in noisy_entries),
        delta=delta,
        epsilon=first,
        fallback_epsilon=composed_fallback(noisy_entries, delta),
        second_epsilon=second,
        third_epsilon=third,
        undercharged=undercharged,
        agree=agree,
    )


def pld_of_entries(entries: Sequence[SpendEntry], delta: float) -> float:
    """Return epsilon of noised releases by privacy loss distributions.

    Gaussian and Skellam releases enter with the sigma of their recorded noise, sampled ones with
    their rate, too, pure ones as the worst mechanism of the epsilon of all their tables. What an
    administrator charged enters as charged.
    """
    whole: Any = None
    for (kind, value, rate), count in sorted(Counter(map(_mechanism, entries)).items()):
        part = _loss(kind, value, rate)
        part = part.self_compose(count) if count > 1 else part
        whole = part if whole is None else whole.compose(part)
    return 0.0 if whole is None else float(whole.get_epsilon_for_delta(delta))


def prv_of_entries(entries: Sequence[SpendEntry], delta: float, error: float) -> float | None:
    """Return epsilon of Gaussian releases by privacy random variables; None if it cannot be had.

    It is above the truth, by at most twice `error`.
    """
    kinds = Counter(map(_mechanism, entries))
    if not kinds or any(kind != "gaussian" for kind, _, _ in kinds):
        return None
    releases = {(sigma, rate): count for (_, sigma, rate), count in kinds.items()}
    try:
        return prv_epsilon(releases, delta, error=error)
    except PrivacyError:
        return None


def _mechanism(entry: SpendEntry) -> tuple[str, float, float]:
    pure = pure_from_noise(entry) or entry.pure
    if pure is not None:
        return ("pure", pure, 1.0)
    mu_squared = mu_squared_from_noise(entry) or entry.mu_squared
    return ("gaussian", 1 / math.sqrt(mu_squared), _sampling_rate(entry))


def _loss(kind: str, value: float, rate: float) -> Any:
    from dp_accounting.pld import common, privacy_loss_distribution

    if kind == "pure":
        return privacy_loss_distribution.from_privacy_parameters(
            common.DifferentialPrivacyParameters(value, 0.0), value_discretization_interval=_GRID
        )
    return privacy_loss_distribution.from_gaussian_mechanism(
        value, value_discretization_interval=_GRID, sampling_prob=rate
    )


def _sampling_rate(entry: SpendEntry) -> float:
    rate = entry.parameters.get("sampling_rate", 1.0)
    return float(rate) if isinstance(rate, int | float) else 1.0
