"""Server optimisers against torch.optim and against the closed form of Reddi et al. (2021)."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from common.study.study import ServerOptimizer, TrainingPlan
from server.aggregate.contribution import Contribution
from server.aggregate.gradient_mean import (
    gradient_mean,
    gradient_sum,
    mean_delta,
    with_weight_decay,
)
from server.aggregate.optimizers import OptimizerState, apply_direction


def _ours(spec: ServerOptimizer, gradients: list[np.ndarray], start: np.ndarray) -> np.ndarray:
    state, parameters = OptimizerState(), {"heads.w": start.astype(np.float32)}
    for gradient in gradients:
        parameters = apply_direction(parameters, {"heads.w": -gradient}, spec, state)
        state = OptimizerState.from_arrays(state.to_arrays())
    return parameters["heads.w"]


@pytest.mark.parametrize(
    ("spec", "make"),
    [
        (
            ServerOptimizer(name="sgd", lr=0.1, beta1=0.9),
            lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
        ),
        (
            ServerOptimizer(name="adam", lr=0.02, beta1=0.9, beta2=0.99, tau=1e-8),
            lambda p: torch.optim.Adam(p, lr=0.02, betas=(0.9, 0.99), eps=1e-8),
        ),
        (
            ServerOptimizer(name="adagrad", lr=0.05, beta1=0.0, tau=1e-6),
            lambda p: torch.optim.Adagrad(p, lr=0.05, eps=1e-6),
        ),
    ],
)
def test_equals_torch(spec, make):
    rng = np.random.default_rng(3)
    gradients = [rng.normal(size=(4, 3)) for _ in range(25)]
    start = rng.normal(size=(4, 3))
    weight = torch.nn.Parameter(torch.tensor(start, dtype=torch.float64))
    optimizer = make([weight])
    for gradient in gradients:
        weight.grad = torch.tensor(gradient)
        optimizer.step()
    np.testing.assert_allclose(_ours(spec, gradients, start), weight.detach().numpy(), atol=2e-6)


@pytest.mark.parametrize("name", ["adam", "yogi", "adagrad"])
def test_without_bias_correction_is_reddi_by_hand(name):
    spec = ServerOptimizer(
        name=name, lr=0.1, beta1=0.5, beta2=0.75, tau=0.25, bias_correction=False
    )
    m, v, x = 0.0, 0.25**2, 1.0
    for d in (2.0, -0.5, 0.0, 0.125):
        m = 0.5 * m + 0.5 * d
        v = {
            "adam": 0.75 * v + 0.25 * d * d,
            "yogi": v - 0.25 * d * d * np.sign(v - d * d),
            "adagrad": v + d * d,
        }[name]
        x += 0.1 * m / (np.sqrt(v) + 0.25)
    ours = _ours(spec, [np.array([-d]) for d in (2.0, -0.5, 0.0, 0.125)], np.array([1.0]))
    assert ours[0] == pytest.approx(x, abs=1e-6)


def test_block_without_contributors_keeps_value_and_moments():
    spec, state = ServerOptimizer(name="adam"), OptimizerState()
    start = {"radiology.w": np.ones(2, np.float32), "heads.w": np.ones(2, np.float32)}
    moved = apply_direction(start, {"heads.w": np.ones(2)}, spec, state)
    assert moved["radiology.w"].tobytes() == start["radiology.w"].tobytes()
    assert "radiology.w" not in state.first
    assert moved["heads.w"][0] > 1


def test_mean_delta_weighs_each_block_by_those_who_have_it():
    big = Contribution(
        "a", {"heads.w": np.full(2, 1.0), "radiology.w": np.full(1, 4.0)}, {"heads": 30}
    )
    small = Contribution(
        "b",
        {"heads.w": np.full(2, 5.0), "radiology.w": np.full(1, 2.0)},
        {"heads": 10, "radiology": 7},
    )
    mean = mean_delta([small, big])
    np.testing.assert_allclose(mean["heads.w"], [2.0, 2.0])
    np.testing.assert_allclose(mean["radiology.w"], [2.0])


def test_gradient_sum_is_divided_by_public_counts_only():
    plan = TrainingPlan(nominal_patients=100, nominal_by_modality={"radiology": 40})
    sites = [
        Contribution("a", {"heads.w": np.full((1, 1), 50.0), "radiology.w": np.full((1, 1), 8.0)}),
        Contribution("b", {"heads.w": np.full((1, 1), 30.0)}),
    ]
    mean = gradient_mean(gradient_sum(sites), plan)
    assert mean["heads.w"].item() == pytest.approx(0.8)
    assert mean["radiology.w"].item() == pytest.approx(0.2)


def test_weight_decay_spares_biases():
    parameters = {"heads.w": np.full((1, 1), 2.0), "heads.b": np.full(1, 2.0)}
    decayed = with_weight_decay(
        {n: np.zeros_like(p) for n, p in parameters.items()}, parameters, 0.5
    )
    assert decayed["heads.w"].item() == 1.0
    assert decayed["heads.b"].item() == 0.0


@given(
    st.lists(
        st.tuples(st.integers(1, 500), st.floats(-1e3, 1e3, allow_nan=False)),
        min_size=1,
        max_size=6,
    )
)
def test_mean_delta_is_order_free_and_within_range(sites):
    contributions = [
        Contribution(f"s{i}", {"fusion.w": np.array([d])}, {"fusion": n})
        for i, (n, d) in enumerate(sites)
    ]
    forward, backward = mean_delta(contributions), mean_delta(contributions[::-1])
    assert forward["fusion.w"].tobytes() == backward["fusion.w"].tobytes()
    deltas = [d for _, d in sites]
    assert min(deltas) - 1e-9 <= forward["fusion.w"][0] <= max(deltas) + 1e-9
