"""One held-out patient more or less changes no bit of another patient's prediction."""

from dataclasses import fields

import numpy as np
import pytest
import torch
from random_patients import FEATURES, SMALL_MODELS, Cohort, make_study, random_model

from client.training.evaluate import predict_all
from common.metrics.tables.grid import EvaluationGrid

DEVICES = [
    "cpu",
    pytest.param(
        "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
    ),
]


def bits(predictions) -> list[list[bytes]]:
    """Return the bytes of every patient's predictions, patient by patient."""
    arrays = [getattr(predictions, field.name) for field in fields(predictions)]
    arrays = [array for array in arrays if isinstance(array, np.ndarray)]
    return [[array[i].tobytes() for array in arrays] for i in range(len(arrays[0]))]


BAGS = {
    name: spec if spec.get("pool", "mean") != "mean" else {**spec, "dim": 48, "max_tokens": 300}
    for name, spec in FEATURES.items()
}
"""Wide tokens, so that matrix products take other paths for other numbers of them."""


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", sorted(SMALL_MODELS))
def test_the_others_keep_every_bit(name: str, device: str) -> None:
    seed, n = 3, 17
    study = make_study(name, features=BAGS, **SMALL_MODELS[name])
    model, cohort = random_model(study, seed), Cohort(study, n, seed=seed, missing=0.1)
    for patient in cohort.tokens[1:]:  # the first has far more tokens than all others
        for feature, block in patient.items():
            patient[feature] = block if block is None else block[: 40 + seed % 9]
    grid, without = EvaluationGrid.for_study(study), cohort.select(range(1, n))
    cohort.subgroups = without.subgroups = {}
    everyone = bits(predict_all(model, cohort, grid, device))
    assert bits(predict_all(model, without, grid, device)) == everyone[1:]
