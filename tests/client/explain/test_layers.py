import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from client.explain.attribution import Attribution
from client.explain.figure import colours_of
from client.explain.layers import Layer, bag_layers, percentile_ranks


def attribution(task: str, error: float = 0.0) -> Attribution:
    values = np.array([[1.0, -0.25], [0.5, 0.5]], np.float32)
    return Attribution(task, 1.0, 0.0, {"tiles": values}, error, 64)


@settings(deadline=None)
@given(arrays.arrays(np.float64, st.integers(1, 30), elements=st.floats(0, 1)))
def test_ranks_are_shares_of_tiles_not_above(weights):
    ranks = percentile_ranks(weights)
    n = len(weights)
    for weight, rank in zip(weights, ranks, strict=True):
        below, equal = (weights < weight).sum(), (weights == weight).sum()
        assert rank == pytest.approx((below + (equal + 1) / 2) / n)


def test_attention_comes_first_and_is_shown_by_rank():
    layers = bag_layers("tiles", np.array([0.9, 0.1]), [attribution("response")])
    assert [layer.name for layer in layers] == ["attention", "attribution to response"]
    assert layers[0].shown().tolist() == [1.0, 0.5]


def test_signed_values_are_shown_around_the_middle():
    layer = bag_layers("tiles", None, [attribution("survival")])[0]
    assert layer.values.tolist() == [0.75, 1.0]
    assert layer.shown().tolist() == [0.875, 1.0]
    negative = Layer("x", np.array([-2.0, 0.0, 1.0]), "low", "high", signed=True)
    assert negative.shown().tolist() == [0.0, 0.5, 0.75]
    nothing = Layer("x", np.zeros(2), "low", "high", signed=True)
    assert nothing.shown().tolist() == [0.5, 0.5]


def test_attributions_that_do_not_add_up_are_not_drawn():
    assert bag_layers("tiles", None, [attribution("response", error=0.2)]) == []
    assert bag_layers("slices", None, [attribution("response")]) == []


def test_colours_tell_against_from_towards():
    layer = Layer("x", np.array([-1.0, 0.0, 1.0]), "low", "high", signed=True)
    against, neutral, towards = colours_of(layer)
    assert against[2] > against[0]
    assert towards[0] > towards[2]
    assert max(neutral) - min(neutral) < 6
