import numpy as np
import pytest

from server.aggregate.cosine_monitor import WIDTH, cosines_with_rest, remember_updates


def after(rounds, noise, *, flip="c", d=40, seed=0):
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=d)
    sums = {}
    for _ in range(rounds):
        updates = {
            s: {"heads.w": (-truth if s == flip else truth) + rng.normal(0, noise, d)}
            for s in "abcdef"
        }
        sums = remember_updates(sums, updates, {"heads.w": (d,)})
    return cosines_with_rest(sums)


def test_noise_hides_a_flipped_sign_in_one_round_and_not_in_many():
    assert abs(after(1, 30.0)["c"]) < 0.35
    found = after(2000, 30.0)
    assert found["c"] < -0.6
    assert min(v for s, v in found.items() if s != "c") > 0.4


def test_three_sites_by_hand():
    sums = {"a": np.array([2.0, 0.0]), "b": np.array([5.0, 0.0]), "c": np.array([0.0, 1.0])}
    found = cosines_with_rest(sums)
    assert found["c"] == pytest.approx(0.0)
    assert found["a"] == pytest.approx(1 / np.sqrt(2))  # rest = b + c, both of length 1
    assert cosines_with_rest({"a": np.ones(2), "b": np.ones(2)}) == {}


def test_projection_of_a_wide_model_keeps_cosines():
    d = 60_000
    rng = np.random.default_rng(1)
    u = rng.normal(size=d)
    v = 0.6 * u + 0.8 * rng.normal(size=d)
    shapes = {"heads.w": (d,)}
    sums = remember_updates({}, {"a": {"heads.w": u}, "b": {"heads.w": v}}, shapes)
    assert len(sums["a"]) == WIDTH
    cosine = sums["a"] @ sums["b"] / np.linalg.norm(sums["a"]) / np.linalg.norm(sums["b"])
    true = u @ v / np.linalg.norm(u) / np.linalg.norm(v)
    assert cosine == pytest.approx(true, abs=4 / np.sqrt(WIDTH))


def test_site_without_a_block_counts_as_zero_there():
    shapes = {"heads.w": (2,), "radiology.w": (3,)}
    sums = remember_updates({}, {"a": {"heads.w": np.ones(2)}}, shapes)
    assert sums["a"].tolist() == [1, 1, 0, 0, 0]
