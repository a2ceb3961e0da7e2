"""Distillation terms against plain probabilities."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import entropy

from common.models.losses.distillation import (
    divergence,
    event_distribution,
    token_redundancy,
    trust_in_teacher,
)

logits = st.lists(st.floats(-8, 8), min_size=4, max_size=4)


@given(logits)
def test_event_distribution_is_that_of_a_life_told_interval_by_interval(z):
    hazards = 1 / (1 + np.exp(-np.array(z)))
    alive, expected = 1.0, []
    for hazard in hazards:
        expected.append(alive * hazard)
        alive *= 1 - hazard
    found = event_distribution(torch.tensor([z], dtype=torch.float64))[0].numpy()
    assert found == pytest.approx([*expected, alive], abs=1e-12)
    assert found.sum() == pytest.approx(1.0)


@given(st.integers(0, 2**32), st.sampled_from([1.0, 2.0, 5.0]))
def test_divergence_is_that_of_tempered_distributions(seed, temperature):
    p, q = np.random.default_rng(seed).dirichlet(np.ones(5), 2)
    tempered = [x ** (1 / temperature) / (x ** (1 / temperature)).sum() for x in (p, q)]
    found = divergence(torch.from_numpy(p), torch.from_numpy(q), temperature).item()
    assert found == pytest.approx(temperature**2 * entropy(*tempered), rel=1e-6, abs=1e-9)


def test_a_better_teacher_is_trusted_more_and_a_wrong_one_not():
    own, zero = torch.tensor([2.0, 2.0, 2.0], requires_grad=True), torch.zeros(3)
    trust = trust_in_teacher(own, torch.tensor([0.1, 2.0, 5.0]), zero)
    assert trust.tolist() == pytest.approx([1 / (1 + np.exp(-3.8)), 0.5, 1 / (1 + np.exp(6))])
    assert trust_in_teacher(own, own, zero + 1.0).tolist() == [1.0] * 3
    assert not trust.requires_grad


def test_token_redundancy_is_the_mean_squared_cosine_of_pairs():
    tokens = torch.randn(2, 4, 3, dtype=torch.float64)
    for patient, found in enumerate(token_redundancy(tokens)):
        rows = tokens[patient].numpy()
        rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        pairs = [(rows[a] @ rows[b]) ** 2 for a in range(4) for b in range(4) if a != b]
        assert found.item() == pytest.approx(np.mean(pairs))
    assert token_redundancy(torch.eye(3)[None]).item() == pytest.approx(0.0)
