"""Epsilon, delta and mu: closed forms for full-batch Gaussian releases.

T full-batch releases with noise multiplier sigma are exactly mu-GDP with mu = sqrt(T) / sigma,
and a mu-GDP mechanism is (epsilon, delta)-DP for exactly

    delta(epsilon) = Phi(-epsilon/mu + mu/2) - e^epsilon Phi(-epsilon/mu - mu/2)

(Dong, Roth and Su, 2022, corollary 2.13). Squares of mu add up over releases. Every figure here
is rounded to the safe side: an epsilon is never below the truth, a mu never above it, a sigma
never below it. The root finder works on the logarithm of delta, so that tiny deltas are exact.

`common.privacy.accountants` holds the numerical accountants used as a second opinion and where
sampling is used.
"""

import math
from collections.abc import Callable
from functools import partial

import scipy

from common.errors import PrivacyError

_ROUND_OFF = 1e-15
"""Bound on the relative error of each of the two normal tails in delta."""

_SAFETY = 1e-11
"""Relative step by which a root is moved to the safe side."""

MAX_EPSILON = 1e6
MAX_MU = 1e3


def gaussian_delta(mu: float, epsilon: float) -> float:
    """Return the smallest delta for which mu-GDP gives (epsilon, delta)-DP.

    Args:
        mu: GDP parameter, > 0.
        epsilon: >= 0.
    """
    upper, lower = _log_tails(mu, epsilon)
    return math.exp(upper) * -math.expm1(min(lower - upper, 0.0))


def gaussian_epsilon(mu: float, delta: float) -> float:
    """Return the smallest epsilon (rounded up) for which mu-GDP gives (epsilon, delta)-DP.

    Args:
        mu: GDP parameter, >= 0; 0 releases nothing.
        delta: In (0, 1).

    Raises:
        PrivacyError: mu or delta is out of range.

    >>> round(gaussian_epsilon(50**0.5 / 10, 1e-5), 3)
    2.943
    """
    _check_delta(delta)
    if not 0 <= mu <= MAX_MU:
        raise PrivacyError(
            f"mu = {mu:g} has no epsilon", why=f"mu must lie between 0 and {MAX_MU:g}"
        )
    if mu == 0 or _safe_delta(mu, 0.0) <= delta:
        return 0.0
    high = _grow(lambda epsilon: _safe_delta(mu, epsilon) <= delta, start=1.0, limit=MAX_EPSILON)
    excess = partial(_log_excess, mu, delta=delta)
    root = float(scipy.optimize.brentq(excess, 0.0, high, xtol=1e-14, rtol=1e-14))
    while _safe_delta(mu, root) > delta:
        root += max(root, 1e-6) * _SAFETY
    return root


def gaussian_mu(epsilon: float, delta: float) -> float:
    """Return the largest mu (rounded down) for which mu-GDP gives (epsilon, delta)-DP.

    Raises:
        PrivacyError: epsilon or delta is out of range.

    >>> round(gaussian_mu(3.0, 1e-5), 3)
    0.719
    """
    _check_delta(delta)
    if not 0 < epsilon <= 500:
        raise PrivacyError(
            f"epsilon = {epsilon:g} is not a budget", why="it must lie above 0 and up to 500"
        )
    high = _grow(lambda mu: _safe_delta(mu, epsilon) > delta, start=1.0, limit=MAX_MU)
    low = 1.0
    while _safe_delta(low, epsilon) > delta:
        low /= 2
    tails = (epsilon, delta)
    root = float(scipy.optimize.brentq(_log_excess, low, high, args=tails, xtol=1e-15))
    while _safe_delta(root, epsilon) > delta:
        root -= root * _SAFETY
    return root


def training_sigma(epsilon: float, delta: float, rounds: int) -> float:
    """Return the smallest noise multiplier (rounded up) for T full-batch releases.

    The multiplier is the standard deviation of the noise over the sensitivity C:
    sqrt(rounds) / sigma <= gaussian_mu(epsilon, delta).

    Raises:
        PrivacyError: An argument is out of range.
    """
    if rounds < 1:
        raise PrivacyError(f"{rounds} rounds cannot be planned", why="at least one is needed")
    return math.sqrt(rounds) / gaussian_mu(epsilon, delta) * (1 + 1e-15)


def composed_epsilon(mu_squared_total: float, delta: float) -> float:
    """Return epsilon (rounded up) of releases whose mu^2 add up to `mu_squared_total`.

    Raises:
        PrivacyError: An argument is out of range.
    """
    if not mu_squared_total >= 0:
        raise PrivacyError("a sum of mu^2 cannot be negative")
    return gaussian_epsilon(math.sqrt(mu_squared_total), delta)


def pure_mu(epsilon: float) -> float:
    """Return the smallest mu (rounded up) such that every pure epsilon-DP release is mu-GDP.

    mu = 2 Phi^-1(e^epsilon / (1 + e^epsilon)): the total-variation point of randomised response,
    the worst pure mechanism (Dong, Roth and Su, 2022, section 2.3).

    Raises:
        PrivacyError: epsilon is negative or above 500.
    """
    if not 0 <= epsilon <= 500:
        raise PrivacyError(
            f"a pure epsilon of {epsilon:g} cannot be spent", why="it must lie within 0 and 500"
        )
    return -2.0 * float(scipy.special.ndtri_exp(-math.log1p(math.exp(epsilon)))) * (1 + _SAFETY)


def pure_epsilon_of_mu(mu: float) -> float:
    """Return the pure epsilon whose `pure_mu` is mu; the inverse of `pure_mu`."""
    tail = float(scipy.special.log_ndtr(-mu / 2))
    return float(scipy.special.log_ndtr(mu / 2)) - tail


def fallback_mu(mu: float, honest_shares: int) -> float:
    """Return mu of one site if the server and all other sites collude.

    Its own share of the noise has 1/(n_min - t) of the designed variance:
    mu_alone = mu sqrt(n_min - t).

    Args:
        mu: GDP parameter of the opened sums.
        honest_shares: n_min - t.

    Raises:
        PrivacyError: n_min - t < 1.
    """
    if honest_shares < 1:
        raise PrivacyError("n_min - t must be at least 1", why="nobody would add noise")
    return mu * math.sqrt(honest_shares)


def fallback_epsilon(epsilon: float, delta: float, honest_shares: int) -> float:
    """Return the epsilon (rounded up) that is left if all other sites collude.

    Args:
        epsilon: Planned epsilon with t colluders.
        delta: The same delta for both figures.
        honest_shares: n_min - t.

    Raises:
        PrivacyError: An argument is out of range.

    >>> round(fallback_epsilon(1.0, 1e-5, 5), 1)
    2.4
    """
    return gaussian_epsilon(fallback_mu(gaussian_mu(epsilon, delta), honest_shares), delta)


def _log_tails(mu: float, epsilon: float) -> tuple[float, float]:
    upper = float(scipy.special.log_ndtr(-epsilon / mu + mu / 2))
    lower = epsilon + float(scipy.special.log_ndtr(-epsilon / mu - mu / 2))
    return upper, lower


def _safe_delta(mu: float, epsilon: float) -> float:
    """Return delta with the round-off of its two tails added."""
    upper, lower = _log_tails(mu, epsilon)
    size = math.exp(upper)
    round_off = size * _ROUND_OFF * (4 + abs(upper) + abs(lower) + 2 * epsilon)
    return size * -math.expm1(min(lower - upper, 0.0)) + round_off


def _log_excess(mu: float, epsilon: float, delta: float) -> float:
    value = gaussian_delta(mu, epsilon)
    return (math.log(value) if value > 0 else -745.0) - math.log(delta)


def _grow(is_enough: Callable[[float], bool], *, start: float, limit: float) -> float:
    value = start
    while not is_enough(value):
        value *= 2
        if value > limit:
            raise PrivacyError(
                "no finite figure exists for this budget",
                why=f"the search passed {limit:g}",
                cure="choose a larger epsilon or delta",
            )
    return value


def _check_delta(delta: float) -> None:
    if not 1e-100 < delta < 1:
        raise PrivacyError(
            f"delta = {delta:g} is not a probability one can promise",
            why="it must lie above 1e-100 and below 1",
            cure="the study default is 1e-5",
        )
