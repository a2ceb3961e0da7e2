"""Clipped sums: the bound, the count, and exactness."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from common.privacy.clipping import ClippedSum, grid_of
from common.wire import joint_norm

SHAPES = {"a": (3,), "b": (2, 2)}


def gradients_of(rows: np.ndarray) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float32).reshape(-1, 7)


def sum_of(rows: np.ndarray, clip: float | None):
    total = ClippedSum(SHAPES, clip)
    total.add(gradients_of(rows), torch.zeros(len(np.reshape(rows, (-1, 7)))))
    return total.result()


@given(st.integers(0, 2**32), st.floats(1e-3, 1e3), st.floats(1e-6, 1e6))
def test_one_clipped_gradient_is_never_longer_than_the_clip(seed, clip, scale):
    row = scale * np.random.default_rng(seed).standard_normal(7)
    result = sum_of(row, clip)
    assert joint_norm(result.arrays) <= clip * (1 + 1e-12)
    assert result.n_clipped == int(np.linalg.norm(row.astype(np.float32)) > clip)


def test_direction_is_kept_and_short_gradients_are_untouched():
    for scale, clip in ((1.0, 100.0), (50.0, 0.3)):
        row = (scale * np.random.default_rng(0).standard_normal(7)).astype(np.float32)
        clipped = sum_of(row, clip).arrays
        flat = np.concatenate([clipped["a"], clipped["b"].ravel()])
        expected = row.astype(np.float64) * min(1, clip / np.linalg.norm(row.astype(np.float64)))
        assert flat == pytest.approx(expected, abs=8 * grid_of(clip))


@settings(max_examples=30)
@given(st.integers(0, 2**32), st.integers(2, 30), st.integers(0, 29))
def test_the_sum_is_exact_whatever_the_order_and_moves_by_one_patient(seed, n, removed):
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((n, 7)) * np.exp(rng.uniform(-8, 8, (n, 1)))
    removed %= n
    clip = 0.3
    everyone = sum_of(rows, clip).arrays
    shuffled = sum_of(rng.permutation(rows), clip).arrays
    without = sum_of(np.delete(rows, removed, axis=0), clip).arrays
    alone = sum_of(rows[removed], clip).arrays
    for name in SHAPES:
        assert np.array_equal(everyone[name], shuffled[name])
        assert np.array_equal(everyone[name] - without[name], alone[name])


@pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("clip", [None, 0.3])
def test_a_gradient_that_is_not_finite_counts_as_zero(poison, clip):
    rows = np.random.default_rng(0).standard_normal((4, 7))
    poisoned = rows.copy()
    poisoned[2, 5] = poison
    result = sum_of(poisoned, clip)
    clean = sum_of(np.delete(rows, 2, axis=0), clip)
    assert (result.n_patients, result.n_nonfinite) == (4, 1)
    for name in SHAPES:
        assert np.array_equal(result.arrays[name], clean.arrays[name])


def test_a_loss_that_is_not_finite_zeroes_its_gradient():
    rows = np.ones((2, 7))
    total = ClippedSum(SHAPES, 1.0)
    total.add(gradients_of(rows), torch.tensor([1.0, math.nan]))
    result = total.result()
    assert (result.n_nonfinite, result.loss) == (1, 1.0)
    assert joint_norm(result.arrays) == pytest.approx(1.0)


def test_without_a_clip_the_sum_is_plain():
    rows = np.random.default_rng(0).standard_normal((50, 7)).astype(np.float32) * 100
    result = sum_of(rows, None)
    assert result.arrays["a"] == pytest.approx(rows.astype(np.float64).sum(0)[:3], rel=1e-12)
    assert result.n_clipped == 0
