import math

import mpmath
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import PrivacyError
from common.privacy.accounting import (
    composed_epsilon,
    fallback_epsilon,
    gaussian_delta,
    gaussian_epsilon,
    gaussian_mu,
    pure_epsilon_of_mu,
    pure_mu,
    training_sigma,
)

mpmath.mp.dps = 60


def exact_delta(mu: float, epsilon: float) -> mpmath.mpf:
    m, e = mpmath.mpf(mu), mpmath.mpf(epsilon)
    return mpmath.ncdf(-e / m + m / 2) - mpmath.exp(e) * mpmath.ncdf(-e / m - m / 2)


mus = st.floats(1e-3, 20.0)
deltas = st.sampled_from([1e-12, 1e-9, 1e-7, 1e-5, 1e-3, 0.1])


@given(mu=mus, delta=deltas)
@settings(max_examples=150, deadline=None)
def test_epsilon_is_never_below_the_truth_and_at_most_a_billionth_above(
    mu: float, delta: float
) -> None:
    epsilon = gaussian_epsilon(mu, delta)
    assert exact_delta(mu, epsilon) <= delta
    if epsilon > 0:
        assert exact_delta(mu, epsilon * (1 - 1e-9)) > delta


@given(epsilon=st.floats(0.01, 60.0), delta=deltas)
@settings(max_examples=150, deadline=None)
def test_mu_is_never_above_the_truth(epsilon: float, delta: float) -> None:
    mu = gaussian_mu(epsilon, delta)
    assert exact_delta(mu, epsilon) <= delta
    assert exact_delta(mu * (1 + 1e-9), epsilon) > delta


@given(mu=mus, epsilon=st.floats(0.0, 30.0))
@settings(max_examples=100, deadline=None)
def test_delta_agrees_with_sixty_digits(mu: float, epsilon: float) -> None:
    exact = exact_delta(mu, epsilon)
    if exact > 1e-250:
        assert gaussian_delta(mu, epsilon) == pytest.approx(float(exact), rel=1e-9, abs=1e-15)


def test_figures_of_the_design() -> None:
    assert round(gaussian_epsilon(math.sqrt(50) / 10, 1e-5), 3) == 2.943
    assert round(fallback_epsilon(1.0, 1e-5, 5), 1) == 2.4
    assert round(fallback_epsilon(3.0, 1e-5, 5), 1) == 7.7
    assert round(fallback_epsilon(8.0, 1e-5, 5)) == 22
    # epsilon 3 per round, never composed
    per_round = gaussian_mu(3.0, 1e-5)
    assert round(composed_epsilon(10 * per_round**2, 1e-5), 1) == 11.7
    assert round(composed_epsilon(50 * per_round**2, 1e-5), 1) == 33.9


@given(epsilon=st.floats(0.1, 20.0), rounds=st.integers(1, 400))
@settings(max_examples=60, deadline=None)
def test_planned_rounds_stay_within_the_budget(epsilon: float, rounds: int) -> None:
    sigma = training_sigma(epsilon, 1e-5, rounds)
    spent = composed_epsilon(math.fsum([1 / sigma**2] * rounds), 1e-5)
    assert epsilon * (1 - 1e-9) < spent <= epsilon * (1 + 1e-12)


@given(epsilon=st.floats(1e-3, 30.0))
@settings(max_examples=60, deadline=None)
def test_pure_release_is_covered_by_its_mu_and_no_smaller_one(epsilon: float) -> None:
    # the trade-off curve of randomised response touches that of mu at its corner
    # (1/(1+e^eps), 1/(1+e^eps)); a smaller mu would lie above it there
    mu, corner = pure_mu(epsilon), 1 / (1 + mpmath.exp(mpmath.mpf(epsilon)))
    power = mpmath.ncdf(-mpmath.sqrt(2) * mpmath.erfinv(2 * corner - 1) - mpmath.mpf(mu))
    assert power <= corner * (1 + mpmath.mpf(10) ** -12)
    assert power >= corner * (1 - mpmath.mpf(10) ** -6)
    assert pure_epsilon_of_mu(mu) == pytest.approx(epsilon, rel=1e-8)


@pytest.mark.parametrize(
    "call",
    [
        lambda: gaussian_epsilon(1.0, 0.0),
        lambda: gaussian_epsilon(1.0, 1.0),
        lambda: gaussian_epsilon(-1.0, 1e-5),
        lambda: gaussian_epsilon(math.nan, 1e-5),
        lambda: gaussian_mu(0.0, 1e-5),
        lambda: gaussian_mu(math.inf, 1e-5),
        lambda: training_sigma(3.0, 1e-5, 0),
        lambda: composed_epsilon(-1.0, 1e-5),
        lambda: pure_mu(-0.1),
        lambda: fallback_epsilon(3.0, 1e-5, 0),
    ],
)
def test_impossible_budgets_are_refused(call) -> None:
    with pytest.raises(PrivacyError):
        call()
