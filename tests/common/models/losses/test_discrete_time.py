"""Discrete-time survival against brute force, the life table and numeric integration."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad

from common.models.losses.discrete_time import (
    interval_index,
    nll,
    risk,
    survival_at,
    survival_curve,
)

EDGES = torch.tensor([0.0, 12.0, 24.0, 36.0, 60.0], dtype=torch.float64)
logits = st.lists(st.floats(-12, 12), min_size=5, max_size=5)
months = st.floats(0, 300)


def brute_force_nll(z: list[float], time: float, event: int) -> float:
    """Likelihood of a life told interval by interval, in plain probabilities."""
    edges = EDGES.tolist()
    hazards = [1 / (1 + math.exp(-value)) for value in z]
    likelihood = 1.0
    for k, hazard in enumerate(hazards):
        right = edges[k + 1] if k + 1 < len(edges) else math.inf
        if edges[k] <= time < right:
            return -math.log(likelihood * (hazard if event else 1 - hazard))
        likelihood *= 1 - hazard
    raise AssertionError("time before the first edge")


@given(logits, months, st.integers(0, 1))
def test_nll_equals_the_life_told_interval_by_interval(z, time, event):
    value = nll(
        torch.tensor([z], dtype=torch.float64),
        torch.tensor([time], dtype=torch.float64),
        torch.tensor([float(event)], dtype=torch.float64),
        EDGES,
    )
    assert value.item() == pytest.approx(brute_force_nll(z, time, event), rel=1e-9, abs=1e-9)


def test_intervals_are_half_open_and_the_last_is_open():
    times = torch.tensor([0.0, 11.999, 12.0, 35.999, 36.0, 59.999, 60.0, 1e6], dtype=torch.float64)
    assert interval_index(times, EDGES).tolist() == [0, 0, 1, 2, 3, 3, 4, 4]


@pytest.mark.parametrize("scale", [50.0, 1e4])
def test_nll_stays_finite_for_extreme_logits(scale):
    z = torch.tensor([[scale, -scale, scale, -scale, scale]], requires_grad=True)
    value = nll(z, torch.tensor([70.0]), torch.tensor([1.0]), EDGES.float())
    value.sum().backward()
    assert torch.isfinite(value).all()
    assert torch.isfinite(z.grad).all()


def test_maximum_likelihood_hazards_are_the_life_table():
    rng = np.random.default_rng(3)
    time = torch.tensor(rng.exponential(40, 400))
    event = torch.tensor(rng.integers(0, 2, 400).astype(float))
    z = torch.zeros(5, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([z], max_iter=30, tolerance_grad=1e-9)

    def closure():
        optimizer.zero_grad()
        loss = nll(z.expand(400, 5), time, event, EDGES).mean()
        loss.backward()
        return loss

    optimizer.step(closure)
    index = np.searchsorted(EDGES.numpy(), time.numpy(), side="right") - 1
    deaths = np.bincount(index, weights=event.numpy(), minlength=5)
    at_risk = [(index >= k).sum() for k in range(5)]
    assert torch.sigmoid(z).detach().numpy() == pytest.approx(deaths / at_risk, abs=1e-4)


@given(logits)
def test_survival_curve_and_risk_are_products_of_survivals(z):
    hazards = 1 / (1 + np.exp(-np.array(z)))
    curve = np.cumprod(1 - hazards)
    tensor = torch.tensor([z], dtype=torch.float64)
    assert survival_curve(tensor)[0].numpy() == pytest.approx(curve, rel=1e-9)
    assert risk(tensor).item() == pytest.approx(-curve.sum(), rel=1e-9)


def test_risk_is_higher_where_hazards_are_higher():
    low, high = torch.full((1, 5), -3.0), torch.full((1, 5), 1.0)
    assert risk(high) > risk(low)


@given(logits, months)
def test_survival_at_is_the_integral_of_a_piecewise_constant_rate(z, time):
    edges = EDGES.tolist()
    widths = [*np.diff(edges), edges[-1] - edges[-2]]
    rates = np.log1p(np.exp(np.array(z))) / widths

    def rate(t: float) -> float:
        return float(rates[np.searchsorted(edges, t, side="right") - 1])

    cumulative = sum(
        quad(rate, a, min(b, time))[0]
        for a, b in zip(edges, [*edges[1:], math.inf], strict=True)
        if a < time
    )
    value = survival_at(
        torch.tensor([z], dtype=torch.float64), EDGES, torch.tensor([time], dtype=torch.float64)
    )
    assert -math.log(max(value.item(), 1e-300)) == pytest.approx(
        min(cumulative, -math.log(1e-300)), rel=1e-6, abs=1e-9
    )


def test_survival_at_meets_the_curve_at_right_ends():
    z = torch.randn(4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    at_edges = survival_at(z, EDGES, EDGES[1:])
    assert torch.allclose(at_edges, survival_curve(z)[:, :-1])
    assert torch.equal(survival_at(z, EDGES, EDGES[:1]), torch.ones(4, 1, dtype=torch.float64))
