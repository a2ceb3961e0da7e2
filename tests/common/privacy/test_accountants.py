import math

import pytest
from dp_accounting.pld import privacy_loss_distribution

from common.errors import PrivacyError
from common.privacy.accountants import pld_epsilon, prv_epsilon, rdp_epsilon
from common.privacy.accounting import composed_epsilon, training_sigma

TABLE = [  # sampling rate, sigma, rounds, PLD, RDP: table 3.1 of the privacy design
    (1.0, 10.0, 50, 2.943, 3.189),
    (0.25, 3.0, 100, 3.817, 4.162),
    (0.05, 0.8, 400, 10.733, 12.007),
]


@pytest.mark.parametrize(("rate", "sigma", "rounds", "pld", "rdp"), TABLE)
def test_accountants_give_the_figures_of_the_design(rate, sigma, rounds, pld, rdp) -> None:
    assert pld_epsilon(sigma, rounds, 1e-5, sampling_rate=rate) == pytest.approx(pld, abs=1e-3)
    assert rdp_epsilon(sigma, rounds, 1e-5, sampling_rate=rate) == pytest.approx(rdp, abs=2e-3)


@pytest.mark.parametrize(("rate", "sigma", "rounds", "pld"), [row[:4] for row in TABLE])
def test_accountant_of_opacus_is_above_that_of_dp_accounting_by_its_error(
    rate, sigma, rounds, pld
) -> None:
    exact = pld_epsilon(sigma, rounds, 1e-5, sampling_rate=rate)
    for error in (0.01, 0.05):
        found = prv_epsilon({(sigma, rate): rounds}, 1e-5, error=error)
        assert exact - 1e-3 <= found <= exact + 2 * error
    found = prv_epsilon({(sigma, rate): rounds}, 1e-5)
    assert found == pytest.approx(pld + 0.01, abs=2e-3)  # the design's column PRV


def test_accountant_of_opacus_composes_unlike_releases() -> None:
    mixed = {(5.0, 1.0): 4, (20.0, 1.0): 30, (4.0, 0.1): 50}
    with_pld = _pld_of(mixed).get_epsilon_for_delta(1e-5)
    assert with_pld - 1e-3 <= prv_epsilon(mixed, 1e-5) <= with_pld + 0.02
    with pytest.raises(PrivacyError, match="not a release"):
        prv_epsilon({(1.0, 2.0): 1}, 1e-5)


def _pld_of(releases):
    whole = privacy_loss_distribution.identity()
    for (sigma, rate), rounds in releases.items():
        one = privacy_loss_distribution.from_gaussian_mechanism(sigma, sampling_prob=rate)
        whole = whole.compose(one.self_compose(rounds))
    return whole


@pytest.mark.parametrize("epsilon", [1.0, 3.0, 8.0])
def test_closed_form_and_pld_agree_within_half_a_percent(epsilon: float) -> None:
    sigma = training_sigma(epsilon, 1e-5, 100)
    closed = composed_epsilon(100 / sigma**2, 1e-5)
    assert pld_epsilon(sigma, 100, 1e-5) == pytest.approx(closed, rel=5e-3)


def test_a_central_limit_accountant_would_understate() -> None:
    # mu = q sqrt(T (e^(1/sigma^2) - 1)); the design's third row, 9.641
    mu = 0.05 * math.sqrt(400 * (math.exp(1 / 0.8**2) - 1))
    assert composed_epsilon(mu**2, 1e-5) == pytest.approx(9.641, abs=5e-3)
    assert composed_epsilon(mu**2, 1e-5) < 0.91 * pld_epsilon(0.8, 400, 1e-5, sampling_rate=0.05)
