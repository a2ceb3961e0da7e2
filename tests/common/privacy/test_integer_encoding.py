import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from common.errors import PrivacyError
from common.privacy.integer_encoding import IntegerEncoding, flatten, unflatten


def encoding(dimension: int = 1000, sigma: float = 13.9, **kwargs: int) -> IntegerEncoding:
    return IntegerEncoding(
        clip=0.3, sigma=sigma, dimension=dimension, **{"shares": 4, "n_sites": 6, **kwargs}
    )


@given(
    dimension=st.integers(1, 300),
    others=st.integers(0, 40),
    seed=st.integers(0, 2**32 - 1),
    length=st.floats(0, 1),
)
@settings(max_examples=150, deadline=None)
def test_one_patient_moves_the_integers_by_at_most_the_sensitivity(
    dimension: int, others: int, seed: int, length: float
) -> None:
    coder, dice = encoding(dimension), np.random.default_rng(seed)
    patient = dice.standard_normal(dimension) * (dice.random(dimension) < 0.5)
    patient *= length * 0.3 / max(float(np.linalg.norm(patient)), 1e-30)
    rest = np.zeros(dimension)
    for _ in range(others):
        rest += dice.uniform(-1, 1, dimension) * 0.3 / math.sqrt(dimension)
    moved = coder.encode(rest + patient) - coder.encode(rest)
    assert math.sqrt(int((moved.astype(object) ** 2).sum())) <= coder.sensitivity
    # changing one patient is removing one and adding one
    swapped = coder.encode(rest + patient) - coder.encode(rest - patient)
    assert math.sqrt(int((swapped.astype(object) ** 2).sum())) <= 2 * coder.sensitivity


def test_rounding_at_its_worst_needs_the_inflated_sensitivity() -> None:
    # every coordinate of the others ends just below a half step, so each one rounds up
    coder = encoding(10_000)
    patient = np.full(10_000, 0.3 / 100)
    fraction = (patient[0] / coder.step) % 1
    rest = np.full(10_000, (0.5 - fraction + 1e-6 if fraction < 0.5 else 0.499999) * coder.step)
    moved = coder.encode(rest + patient) - coder.encode(rest)
    norm = float(np.linalg.norm(moved))
    assert 0.3 / coder.step < norm <= coder.sensitivity


def test_noise_of_the_surviving_shares_has_the_designed_variance_and_shape() -> None:
    coder = encoding(dimension=250_000)
    total = sum(coder.noised(np.zeros(250_000)) for _ in range(coder.shares))
    sd = coder.sigma * coder.sensitivity
    assert float(np.var(total)) == pytest.approx(sd**2, rel=0.02)
    assert stats.kstest(np.asarray(total) / sd, "norm").pvalue > 1e-4
    assert coder.noise_sd(coder.shares) == pytest.approx(coder.step * sd, rel=1e-6)
    assert coder.noise_sd(1) >= coder.sigma * coder.clip / math.sqrt(coder.shares)


def test_noise_scale_says_nothing_of_the_number_of_patients() -> None:
    # 64 and 63 patients: same sum up to one patient; the noise must be of one scale
    coder = encoding(dimension=200_000)
    dice = np.random.default_rng(3)
    sums = [np.zeros(200_000), dice.uniform(-1, 1, 200_000) * 0.3 / math.sqrt(200_000)]
    scales = [np.std(coder.noised(s) - coder.encode(s)) for s in sums]
    assert stats.f.cdf((scales[0] / scales[1]) ** 2, 199_999, 199_999) == pytest.approx(
        0.5, abs=0.4999
    )


def test_decoding_undoes_encoding_to_half_a_step() -> None:
    coder = encoding()
    values = np.random.default_rng(1).uniform(-40, 40, 1000)
    assert np.abs(coder.decode(coder.encode(values)) - values).max() <= coder.step / 2 * 1.0001


@pytest.mark.parametrize("dimension", [1, 39, 10_000, 1_000_000])
@pytest.mark.parametrize("sigma", [0.5, 1.0, 13.9, 100.0])
def test_step_is_fine_enough_and_cheap(dimension: int, sigma: float) -> None:
    coder = encoding(dimension, sigma)
    assert sigma * coder.clip / coder.step >= 2**10
    assert coder.sensitivity * coder.step <= coder.clip * 1.004
    assert 200 * coder.closeness < 1e-3 * max(1, dimension / 10_000)
    assert coder.mu_squared == 1 / sigma**2


def test_numbers_that_do_not_fit_are_refused() -> None:
    with pytest.raises(PrivacyError, match="too coarse"):
        encoding(n_sites=2**40)
    with pytest.raises(PrivacyError, match="positive"):
        encoding(shares=0)


@pytest.mark.parametrize("bad", [math.nan, math.inf, 1e9])
def test_sums_that_cannot_be_are_refused(bad: float) -> None:
    values = np.zeros(1000)
    values[3] = bad
    with pytest.raises(PrivacyError):
        encoding().encode(values)
    with pytest.raises(PrivacyError, match="1000 are encoded"):
        encoding().encode(np.zeros(999))


def test_flatten_and_unflatten_are_inverse() -> None:
    arrays = {"b.x": np.arange(6.0).reshape(2, 3), "a.y": np.array([7.0])}
    vector = flatten(arrays)
    assert vector.tolist() == [7, 0, 1, 2, 3, 4, 5]
    back = unflatten(vector, {name: a.shape for name, a in arrays.items()})
    assert all(np.array_equal(back[name], arrays[name]) for name in arrays)
    with pytest.raises(PrivacyError):
        unflatten(vector, {"a.y": (3,)})
