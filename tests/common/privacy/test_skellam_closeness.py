"""Skellam noise against the Gaussian it is charged as, and shares of geometric noise."""

import math

import mpmath
import numpy as np
import pytest
from scipy.special import gammaln, ive

from common.errors import PrivacyError
from common.privacy.accounting import gaussian_delta, gaussian_epsilon
from common.privacy.geometric_fallback import share_epsilon
from common.privacy.noise import geometric_share
from common.privacy.skellam_closeness import CLOSENESS, closeness, skellam_epsilon


@pytest.mark.parametrize("sds", [0, 0.5, 1, 1.7, 2.3, 3, 5, 8, 12])
def test_no_whole_number_is_further_from_the_rounded_gaussian_than_the_bound(sds: float) -> None:
    variance = 2.0**20
    k = math.floor(sds * math.sqrt(variance))
    skellam = math.log(ive(k, variance))
    with mpmath.workdps(40):
        scale = mpmath.sqrt(2 * (mpmath.mpf(variance) - mpmath.mpf(1) / 12))
        half = mpmath.mpf(1) / 2
        cell = float(
            mpmath.log((mpmath.erfc((k - half) / scale) - mpmath.erfc((k + half) / scale)) / 2)
        )
    distance = abs(skellam - cell) * variance
    assert distance <= CLOSENESS
    if sds == 12:
        assert distance > 0.8 * CLOSENESS  # the bound is no larger than it must be


def test_epsilon_of_skellam_noise_is_above_its_exact_privacy_loss() -> None:
    # one coordinate, exact hockey-stick divergence at the smallest variance that is charged
    variance, shift = 2.0**20, 700
    k = np.arange(-14_000, 14_001)
    log_p = np.log(ive(np.abs(k), variance))
    epsilon = 1.5
    moved = np.concatenate([np.full(shift, -np.inf), log_p[:-shift]])
    exact = float(np.maximum(np.exp(moved) - np.exp(epsilon + log_p), 0).sum())
    mu_squared = shift**2 / (variance - 1 / 12)
    charged = skellam_epsilon(mu_squared, exact, closeness(variance, 1))
    assert charged >= epsilon
    assert gaussian_delta(math.sqrt(mu_squared), epsilon) == pytest.approx(exact, rel=1e-3)


def test_closeness_is_charged_on_top_and_adds_up() -> None:
    plain = gaussian_epsilon(0.7, 1e-5)
    assert skellam_epsilon(0.49, 1e-5, 0.0) == plain
    assert skellam_epsilon(0.49, 1e-5, 1e-4) >= plain + 2e-4
    assert closeness(2.0**30, 7) == pytest.approx(7 * closeness(2.0**30, 1))


def test_noise_too_coarse_to_charge_is_refused() -> None:
    with pytest.raises(PrivacyError, match="cannot be charged"):
        closeness(2.0**19, 1)
    with pytest.raises(PrivacyError, match="tails"):
        skellam_epsilon(0.49, 1e-30, 1e-4)


@pytest.mark.parametrize("shares", [1, 2, 3, 7])
@pytest.mark.parametrize("epsilon", [0.2, 1.0, 4.0])
def test_one_share_of_geometric_noise_protects_exactly_so_much(epsilon: float, shares: int) -> None:
    r, a, j = 1 / shares, math.exp(-epsilon), np.arange(20_000)
    log_w = gammaln(j + r) - gammaln(r) - gammaln(j + 1) + j * math.log(a)
    weights = np.exp(log_w + r * math.log1p(-a))
    probability = np.array([weights[: len(j) - k] @ weights[k:] for k in range(40)])
    steps = np.log(probability[:-1] / probability[1:])
    assert share_epsilon(epsilon, shares) == pytest.approx(steps.max(), rel=1e-6)
    assert steps.argmax() == 0 or shares == 1
    draws = geometric_share(400_000, epsilon, shares)
    seen = np.array([(draws == k).mean() for k in range(3)])
    assert seen == pytest.approx(probability[:3], abs=5 * math.sqrt(0.25 / 400_000))


@pytest.mark.parametrize(("epsilon", "alone"), [(4.0, 5.10), (2.0, 3.10), (0.2, 1.19)])
def test_published_single_share_figures(epsilon: float, alone: float) -> None:
    assert share_epsilon(epsilon, 3) == pytest.approx(alone, abs=0.005)
