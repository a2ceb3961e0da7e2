"""One patient more or less changes nothing else, byte by byte, on every way out of a hospital."""

import numpy as np
import pytest
import torch
from random_patients import Cohort, make_study, random_model

from client.training.device import choose_device
from client.training.private_gradient import clipped_gradient_sum, in_padded_chunks
from common.models.base.parameters import expected_shapes
from common.privacy.clipping import ClippedSum
from common.study.catalogue import MODELS
from common.wire import joint_norm
from simulations.attackers.neighbours import PATHS, difference, differing_bytes, random_case

CPU, CLIP = torch.device("cpu"), 0.3

DEVICES = [
    "cpu",
    pytest.param(
        "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
    ),
]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", MODELS.names())
def test_integers_of_a_cohort_are_those_of_its_patients(name, path, device):
    for seed in (1, 2):
        case = random_case(name, 4, seed, choose_device(device))
        assert list(differing_bytes(case, PATHS[path])) == [0, 0, 0, 0]


def long_patient_last(study, n, seed):
    """n patients who are all alike, and one with 75 times their tokens."""
    cohort, rng = Cohort(study, n + 1, seed=seed), np.random.default_rng(seed)
    one, long = (rng.normal(size=(k, 48)).astype(np.float32) for k in (12, 900))
    cohort.tokens = [{"tiles": one}] * n + [{"tiles": long}]
    cohort.patient_ids = [f"p{i:02d}" for i in range(n + 1)]
    cohort.seen = {task: np.full(n + 1, task == "response") for task in cohort.seen}
    cohort.response = (np.arange(n + 1) % 2).astype(np.float32)
    return cohort


def amplify(model, patients):
    """Weigh an embedding so that its last bit decides between the answers 0, 1/2 and 1."""
    with torch.no_grad():
        model.heads.response.weight.mul_(1e9)
        model.heads.response.bias.zero_()
        model.heads.response.bias.copy_(-model(patients).response_logit[:1])


def sum_of(model, chunks):
    total = ClippedSum(expected_shapes(model), CLIP)
    for gradients, losses in chunks:
        total.add(gradients, losses)
    return total.result().arrays


def distance(first, second):
    return joint_norm({name: first[name] - second[name] for name in first}) / CLIP


def test_attack_one_patient_moves_a_padded_sum_by_many_clips_and_the_released_one_by_one():
    """Finite weights that a server could send; the padded way was in use on CUDA."""
    features = {"tiles": {"modality": "pathology", "dim": 48, "max_tokens": 900}}
    study = make_study("abmil", features=features, width=24, attention_hidden=8)
    padded, released = [], []
    for seed in range(3):
        model = random_model(study, seed).eval()
        everyone = long_patient_last(study, 15, seed)
        others = everyone.select(range(15))
        amplify(model, others.batch(range(15)))
        sums = [
            sum_of(model, in_padded_chunks(model, c, study, CPU, 16)) for c in (everyone, others)
        ]
        padded.append(distance(*sums))
        sums = [
            clipped_gradient_sum(model, c, study, device=CPU, clip=CLIP).arrays
            for c in (everyone, others)
        ]
        released.append(distance(*sums))
    assert max(padded) > 4
    assert max(released) <= 1 + 1e-12


def test_attack_the_end_of_a_full_chunk_of_uniform_shape():
    """217 linear heads fill a chunk whose last nine no vector of 16 holds; one less shifts all."""
    study = make_study("linear", features={"table": {"modality": "clinical", "dim": 600}})
    model = random_model(study)
    cohort = Cohort(study, 217, missing=0.0)
    for patient in cohort.tokens:
        patient["table"] = 0.05 * patient["table"]
    parts = cohort, cohort.select(range(1, 217)), cohort.select([0])
    whole, rest, alone = (
        clipped_gradient_sum(model, part, study, device=CPU, clip=CLIP).arrays for part in parts
    )
    for name, array in whole.items():
        assert np.array_equal(array - rest[name], alone[name])


def test_with_a_clip_nobody_is_computed_together(monkeypatch):
    def refuse(*arguments):
        raise AssertionError

    for way in ("together", "in_padded_chunks", "_many_at_once"):
        monkeypatch.setattr(f"client.training.private_gradient.{way}", refuse)
    for name in MODELS.names():
        case = random_case(name, 3, 1, CPU)
        clipped_gradient_sum(case.model, case.patients, case.study, device=CPU, clip=CLIP)


def test_a_difference_of_one_bit_is_seen():
    case = random_case("linear", 2, 1, CPU)
    whole = PATHS["predictions"](case, case.patients)
    parts = [PATHS["predictions"](case, case.patients.select([i])) for i in range(2)]
    assert difference(whole, parts) == 0
    bits = whole[case.patients.patient_ids[1]]
    bits[0] ^= 1
    assert difference(whole, parts) == 1
