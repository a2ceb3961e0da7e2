"""Compute epsilon numerically, to check the closed forms of `common.privacy.accounting`.

`pld` (privacy loss distributions) is authoritative; `rdp` (Renyi) is the safe cross-check; `prv`
(privacy random variables) is another team's code for what `pld` does. There is no central-limit
accountant: it reports an epsilon up to 10 % below the truth.
"""

import warnings
from collections.abc import Mapping
from typing import Any

from common.errors import PrivacyError

_ORDERS = [1 + tenth / 10 for tenth in range(5, 100)] + [*range(11, 64), 128, 256, 512, 1024]
"""Renyi orders of sampled releases; at lower ones the series may not converge."""


def pld_epsilon(
    sigma: float, rounds: int, delta: float, *, sampling_rate: float = 1.0, grid: float = 1e-4
) -> float:
    """Return epsilon by privacy loss distributions (dp-accounting, pessimistic rounding).

    Args:
        sigma: Noise multiplier of one release.
        rounds: Number of releases.
        delta: In (0, 1).
        sampling_rate: Probability with which a patient enters a release (Poisson).
        grid: Width of a cell of the discretised privacy loss; the answer is above the truth by
            at most about `rounds * grid` and usually far less.

    Raises:
        PrivacyError: An argument is out of range.
    """
    return float(_gaussian_pld(sigma, rounds, sampling_rate, grid).get_epsilon_for_delta(delta))


def rdp_epsilon(sigma: float, rounds: int, delta: float, *, sampling_rate: float = 1.0) -> float:
    """Return epsilon by Renyi accounting (dp-accounting); always above the truth.

    Raises:
        PrivacyError: An argument is out of range.
    """
    from dp_accounting import dp_event
    from dp_accounting.rdp import RdpAccountant

    _check(sigma, rounds, sampling_rate)
    one: Any = dp_event.GaussianDpEvent(sigma)
    accountant = RdpAccountant()
    if sampling_rate < 1:
        one = dp_event.PoissonSampledDpEvent(sampling_rate, one)
        accountant = RdpAccountant(orders=_ORDERS)
    return float(accountant.compose(one, rounds).get_epsilon(delta))


def prv_epsilon(
    releases: Mapping[tuple[float, float], int], delta: float, *, error: float = 0.01
) -> float:
    """Return epsilon by privacy random variables (Gopi, Lee and Wutschitz, 2021), from Opacus.

    Args:
        releases: (sigma, sampling rate) -> number of such Gaussian releases; sampling is Poisson.
        delta: In (0, 1).
        error: The answer is above the truth, by at most twice this.

    Raises:
        PrivacyError: An argument is out of range, or Opacus has no answer: epsilon is in the
            hundreds, or delta too small for its grid.
    """
    from opacus.accountants import PRVAccountant

    for (sigma, rate), rounds in releases.items():
        _check(sigma, rounds, rate)
    accountant = PRVAccountant()
    accountant.history = [(*release, rounds) for release, rounds in sorted(releases.items())]
    with warnings.catch_warnings():
        # Opacus takes the logarithm of 1 - rate, which is -inf where every patient enters, and
        # says when its Renyi bound, by which it chooses a grid, could be tighter.
        warnings.filterwarnings("ignore", "divide by zero encountered in log", RuntimeWarning)
        warnings.filterwarnings("ignore", "Optimal order is the (larg|small)est alpha", UserWarning)
        try:
            return float(accountant.get_epsilon(delta, eps_error=error))
        except (RuntimeError, ValueError) as problem:
            raise PrivacyError("Opacus gives no epsilon here", why=str(problem)) from problem


def _gaussian_pld(sigma: float, rounds: int, sampling_rate: float, grid: float) -> Any:
    from dp_accounting.pld import privacy_loss_distribution as pld

    _check(sigma, rounds, sampling_rate)
    one = pld.from_gaussian_mechanism(
        sigma, value_discretization_interval=grid, sampling_prob=sampling_rate
    )
    return one.self_compose(rounds) if rounds > 1 else one


def _check(sigma: float, rounds: int, sampling_rate: float) -> None:
    if not (sigma > 0 and rounds >= 1 and 0 < sampling_rate <= 1):
        raise PrivacyError(
            f"sigma {sigma:g}, {rounds} rounds, rate {sampling_rate:g} are not a release",
            why="sigma must be positive, rounds at least 1, the rate above 0 and up to 1",
        )
