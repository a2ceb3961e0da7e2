import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.privacy.integer_encoding import IntegerEncoding
from common.privacy.noise import skellam
from common.privacy.sum_norm import capped, longest_sum


@pytest.mark.parametrize("dimension", [1, 40, 4000])
@pytest.mark.parametrize("patients", [3.0, 300.0])
def test_honest_sums_of_full_length_pass_and_longer_ones_do_not(dimension, patients):
    encoding = IntegerEncoding(clip=0.3, sigma=4.0, dimension=dimension, shares=2, n_sites=3)
    bound = longest_sum(encoding, patients, 3)
    direction = np.random.default_rng(dimension).normal(size=dimension)
    direction *= encoding.clip * patients / np.linalg.norm(direction)
    noise_variance = 3 * encoding.share_variance
    lengths = [
        np.linalg.norm(encoding.decode(encoding.encode(direction) + skellam(dimension, v)))
        for v in [noise_variance] * 300
    ]
    sd = encoding.noise_sd(3)
    assert max(lengths) < bound
    # the bound is no wider than its proof says: eight deviations, not a factor
    typical = math.hypot(encoding.clip * patients, sd * math.sqrt(dimension))
    assert bound < typical + 17 * sd
    assert np.linalg.norm(direction) * 10 > bound or patients == 3.0


@given(
    st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=20),
    st.lists(st.floats(-1, 1), min_size=20, max_size=20),
    st.floats(1e-3, 1e6),
)
def test_a_cap_brings_no_two_sums_further_apart(values, shift, longest):
    first = np.array(values)
    second = first + np.array(shift[: len(values)])
    apart = np.linalg.norm(capped(first, longest) - capped(second, longest))
    assert apart <= np.linalg.norm(first - second) + 1e-9 * longest
    assert np.linalg.norm(capped(first, longest)) <= longest * (1 + 1e-12)
    inside = first / max(1.0, np.linalg.norm(first) / longest * 1.001)
    np.testing.assert_array_equal(capped(inside, longest), inside)
