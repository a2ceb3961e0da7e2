"""Per-patient gradient sums: every way agrees, neighbours move them by one clipped gradient."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from random_patients import SMALL_MODELS, Cohort, make_study, random_model

from client.training.private_gradient import clipped_gradient_sum, in_padded_chunks, one_by_one
from common.models.base.parameters import expected_shapes, trainable
from common.models.losses.multitask import PatientObjective
from common.privacy.clipping import ClippedSum
from common.wire import joint_norm

CPU = torch.device("cpu")
CLIP = 0.3
every_model = pytest.mark.parametrize("name", sorted(SMALL_MODELS))


def case(name: str, n: int, seed: int = 0):
    study = make_study(name, **SMALL_MODELS[name])
    return study, random_model(study, seed), Cohort(study, n, seed=seed)


def add_up(model, chunks, clip=CLIP):
    total = ClippedSum(expected_shapes(model), clip)
    for gradients, losses in chunks:
        total.add(gradients, losses)
    return total.result()


@every_model
def test_loop_vmap_and_the_chosen_way_agree(name):
    study, model, cohort = case(name, 11)
    chosen = clipped_gradient_sum(model, cohort, study, device=CPU, clip=CLIP)
    loop = add_up(model, one_by_one(model, cohort, study, CPU))
    many = add_up(model, in_padded_chunks(model, cohort, study, CPU, 4))
    for other in (loop, many):
        assert other.n_clipped == chosen.n_clipped
        assert other.loss == pytest.approx(chosen.loss, rel=1e-5)
        for parameter, array in chosen.arrays.items():
            assert other.arrays[parameter] == pytest.approx(array, abs=2e-6), parameter


@every_model
def test_without_a_clip_it_is_the_gradient_of_the_summed_loss(name):
    study, model, cohort = case(name, 9)
    result = clipped_gradient_sum(model, cohort, study, device=CPU, clip=None)
    losses = PatientObjective(model, study)(model.prepare(cohort.batch(range(9))))
    losses.sum().backward()
    assert result.loss == pytest.approx(losses.mean().item(), rel=1e-5)
    for parameter, tensor in trainable(model).items():
        gradient = torch.zeros_like(tensor) if tensor.grad is None else tensor.grad
        assert result.arrays[parameter] == pytest.approx(gradient.numpy(), abs=1e-4), parameter


@every_model
@settings(max_examples=4, deadline=None)
@given(seed=st.integers(0, 1000), n=st.integers(2, 7))
def test_neighbours_differ_by_exactly_one_clipped_gradient(name, seed, n):
    study, model, cohort = case(name, n, seed)
    everyone = clipped_gradient_sum(model, cohort, study, device=CPU, clip=CLIP)
    order = np.random.default_rng(seed).permutation(n).tolist()
    shuffled = clipped_gradient_sum(model, cohort.select(order), study, device=CPU, clip=CLIP)
    removed = seed % n
    rest = [i for i in range(n) if i != removed]
    without = clipped_gradient_sum(model, cohort.select(rest), study, device=CPU, clip=CLIP)
    alone = clipped_gradient_sum(model, cohort.select([removed]), study, device=CPU, clip=CLIP)
    moved = {p: everyone.arrays[p] - without.arrays[p] for p in everyone.arrays}
    assert joint_norm(moved) <= CLIP * (1 + 1e-12)
    for parameter, array in everyone.arrays.items():
        assert np.array_equal(array, shuffled.arrays[parameter])
        assert np.array_equal(moved[parameter], alone.arrays[parameter])


@pytest.mark.parametrize("clip", [0.05, 0.3, 2.0, 50.0])
def test_changing_a_patient_moves_the_integers_by_at_most_two_clips(clip):
    """Rounded to the grid of the secure sum: 2C/s plus one a coordinate for rounding."""
    study, model, cohort = case("linear", 6)
    other = Cohort(study, 6, seed=99)
    changed = cohort.select(range(6))
    changed.tokens[2] = {name: None if b is None else 30 * b for name, b in other.tokens[2].items()}
    changed.response[2] = 1 - changed.response[2]
    before = clipped_gradient_sum(model, cohort, study, device=CPU, clip=clip)
    after = clipped_gradient_sum(model, changed, study, device=CPU, clip=clip)
    moved = {p: before.arrays[p] - after.arrays[p] for p in before.arrays}
    assert 0 < joint_norm(moved) <= 2 * clip * (1 + 1e-12)
    step = clip / 2**10
    integers = [np.rint(before.arrays[p] / step) - np.rint(after.arrays[p] / step) for p in moved]
    n_coordinates = sum(array.size for array in integers)
    length = math.sqrt(sum(float((array**2).sum()) for array in integers))
    assert length <= 2 * clip / step + math.sqrt(n_coordinates)


@every_model
@pytest.mark.parametrize("poison", [math.nan, math.inf])
def test_a_patient_with_broken_features_is_zeroed_and_counted(name, poison):
    study, model, cohort = case(name, 6)
    cohort.tokens[1] = {
        n: np.full((1, s.dim), poison, np.float32) for n, s in study.features.items()
    }
    result = clipped_gradient_sum(model, cohort, study, device=CPU, clip=CLIP)
    rest = cohort.select([0, 2, 3, 4, 5])
    clean = clipped_gradient_sum(model, rest, study, device=CPU, clip=CLIP)
    assert (result.n_patients, result.n_nonfinite) == (6, 1)
    for parameter, array in clean.arrays.items():
        assert np.array_equal(result.arrays[parameter], array)


def test_frozen_parameters_are_left_out_and_do_not_count_in_the_norm():
    study = make_study("moemil", size="small", trainable=["heads"])
    model, cohort = random_model(study), Cohort(study, 5)
    result = clipped_gradient_sum(model, cohort, study, device=CPU, clip=CLIP)
    size = sum(math.prod(shape) for shape in expected_shapes(model).values())
    for gradients, _ in in_padded_chunks(model, cohort, study, CPU, 3):
        assert gradients.shape[1] == size
    assert set(result.arrays) == set(expected_shapes(model))
    assert all(name.startswith("heads.") for name in result.arrays)


def test_an_empty_cohort_sums_to_zero():
    study, model, cohort = case("linear", 3)
    result = clipped_gradient_sum(model, cohort.select([]), study, device=CPU, clip=CLIP)
    assert (result.n_patients, joint_norm(result.arrays)) == (0, 0.0)
    assert math.isnan(result.loss)


def test_kept_batches_follow_the_dataset_not_its_address():
    study, model, _ = case("linear", 3)
    sums = []
    for seed in range(4):
        cohort = Cohort(study, 5, seed=seed)
        sums.append(clipped_gradient_sum(model, cohort, study, device=CPU, clip=CLIP).loss)
        del cohort
    assert len(set(sums)) == 4
