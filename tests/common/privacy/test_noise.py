import inspect
import os

import numpy as np
import pytest
from randomgen import ChaCha
from scipy import stats
from scipy.special import ive

from common.errors import PrivacyError
from common.privacy import noise


@pytest.fixture
def repeatable(monkeypatch: pytest.MonkeyPatch) -> None:
    """A seeded source; it exists in tests only."""
    source = np.random.Generator(ChaCha(key=20240611, rounds=20))
    monkeypatch.setattr(noise, "_generator", lambda: source)


def chi_square(draws: np.ndarray, variance: float, cells: int = 200) -> float:
    """p-value of Skellam draws against the exact law, P(k) = e^-v I_k(v)."""
    reach = int(12 * variance**0.5) + 5
    cdf = np.cumsum(ive(np.abs(np.arange(-reach, reach + 1)), variance))
    assert cdf[-1] == pytest.approx(1, abs=1e-9)
    edges = np.unique(np.searchsorted(cdf, np.linspace(0, 1, cells + 1)[1:-1]))
    expected = np.diff(np.concatenate([[0], cdf[edges], [1]]))
    seen = np.bincount(np.searchsorted(edges - reach, draws), minlength=len(expected))
    return float(stats.chisquare(seen, expected * len(draws)).pvalue)


@pytest.mark.usefixtures("repeatable")
@pytest.mark.parametrize("variance", [3.0, 2.0**16, 2.0**17 + 5.0, 2.0**20])
def test_skellam_follows_its_law(variance: float) -> None:
    draws = noise.skellam(400_000, variance)
    assert draws.var() / variance == pytest.approx(1, abs=0.01)
    assert chi_square(draws, variance) > 1e-3


@pytest.mark.usefixtures("repeatable")
@pytest.mark.parametrize("bits", [22, 30, 40, 50])
def test_large_skellam_is_gaussian_to_kolmogorov_and_uses_every_integer(bits: int) -> None:
    draws = noise.skellam(300_000, 2.0**bits)
    scaled = draws / 2.0 ** (bits / 2)
    assert stats.kstest(scaled, "norm").pvalue > 1e-3
    # a sampler that loses its last digits shows in them
    assert stats.chisquare(np.bincount(draws & 31, minlength=32)).pvalue > 1e-3


@pytest.mark.usefixtures("repeatable")
def test_shares_add_up_to_the_law_of_the_whole() -> None:
    total = sum(noise.skellam(200_000, 900.0 / 3) for _ in range(3))
    assert chi_square(np.asarray(total), 900.0) > 1e-3
    table = sum(noise.geometric_share(300_000, 0.7, 4) for _ in range(4))
    law = stats.dlaplace(0.7)
    values = np.arange(-12, 13)
    seen = [int((table == v).sum()) for v in values]
    expected = law.pmf(values) * 300_000
    rest = 300_000 - sum(seen)
    p = stats.chisquare([*seen, rest], [*expected, 300_000 - expected.sum()]).pvalue
    assert p > 1e-3


@pytest.mark.usefixtures("repeatable")
def test_whole_geometric_noise_and_gaussian_noise_follow_their_laws() -> None:
    table = noise.geometric_share((500, 400), 1.3, 1)
    assert table.shape == (500, 400)
    assert table.var() == pytest.approx(stats.dlaplace(1.3).var(), rel=0.02)
    assert stats.kstest(noise.gaussian(200_000, 2.5) / 2.5, "norm").pvalue > 1e-3


def test_log_probability_agrees_with_sixty_digits() -> None:
    import mpmath

    mpmath.mp.dps = 60
    for mean in (2.0**16, 2.0**30 + 0.25, 2.0**49):
        for spread in (-9.0, -1.0, 0.0, 2.0, 9.0):
            k = int(mean + spread * mean**0.5)
            exact = k * mpmath.log(mean) - mpmath.mpf(mean) - mpmath.loggamma(k + 1)
            excess = np.array([float(mpmath.mpf(k) - mpmath.mpf(mean))])
            assert abs(float(noise._log_probability(excess, mean)[0] - exact)) < 1e-13


def test_two_calls_and_two_processes_share_no_noise() -> None:
    first = noise.skellam(1000, 2.0**30)
    assert not np.array_equal(first, noise.skellam(1000, 2.0**30))
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, noise.skellam(8, 2.0**30).tobytes())
        os._exit(0)
    os.waitpid(child, 0)
    told = np.frombuffer(os.read(reader, 64), dtype=np.int64)
    assert not np.array_equal(told, noise.skellam(8, 2.0**30))
    os.close(reader)
    os.close(writer)


def test_no_sampler_takes_a_seed() -> None:
    for sampler in (
        noise.gaussian,
        noise.skellam,
        noise.geometric_share,
    ):
        names = set(inspect.signature(sampler).parameters)
        assert not names & {"seed", "rng", "generator", "random_state", "source", "key"}


@pytest.mark.parametrize("bad", [-1.0, float("nan"), float("inf"), 2.0**61])
def test_impossible_variances_are_refused(bad: float) -> None:
    with pytest.raises(PrivacyError):
        noise.skellam(3, bad)
    with pytest.raises(PrivacyError):
        noise.geometric_share(3, bad, 1)
