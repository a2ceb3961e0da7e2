"""The private mechanism without its transport: for experiments over many folds and seeds.

Per-patient clipping, integer encoding, noise samplers, server optimiser and averaging are the
product's own. Left out are messages, ledgers and the masks of the secure sum, which cancel to the
last bit in the opened sum. Noise is drawn from the same unseeded cryptographic generator.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch

from client.dataset import PatientDataset
from client.private_gradient import clipped_gradient_sum
from common.models.base import FusedModel
from common.models.parameters import load_arrays, to_arrays
from common.models.registry import build_model
from common.privacy.integer_encoding import flatten, unflatten
from common.private_round import encoding_of
from common.study import Study
from common.wire import Arrays
from server.aggregate.gradient_mean import descent
from server.checkpoint import Checkpoint, RoundRecord
from server.round_step import advance, final_model

Vector = np.ndarray[tuple[int, ...], np.dtype[np.float64]]


def train_mechanism(study: Study, sites: Mapping[str, PatientDataset]) -> Arrays:
    """Return the final model that these hospitals would train under the study's plan.

    Args:
        study: A study with `training.local.kind: gradient_sum`.
        sites: Site -> its training patients.

    Raises:
        PrivacyError: The plan does not work for so many sites.
    """
    model = build_model(study)
    checkpoint = Checkpoint(round=0, parameters=to_arrays(model))
    shapes = {name: array.shape for name, array in checkpoint.parameters.items()}
    clip = study.privacy.clip if study.privacy.is_private else None
    release = _release(study, shapes)
    for number in range(1, study.training.rounds + 1):
        load_arrays(model, checkpoint.parameters)
        sums = [_clipped(model, patients, study, clip) for patients in sites.values()]
        total = unflatten(release(sums), shapes)
        direction = descent(study, checkpoint.parameters, dict(total))
        record = RoundRecord(round=number, sites=sorted(sites), update_norm=0.0)
        checkpoint = advance(study, checkpoint, direction, record)
    return final_model(checkpoint)


def _clipped(
    model: FusedModel, patients: PatientDataset, study: Study, clip: float | None
) -> Vector:
    device = torch.device("cpu")
    return flatten(clipped_gradient_sum(model, patients, study, device=device, clip=clip).arrays)


def _release(
    study: Study, shapes: Mapping[str, tuple[int, ...]]
) -> Callable[[list[Vector]], Vector]:
    """Return how clipped sums of the sites become the sum the server sees."""
    if not study.privacy.is_private:
        return lambda sums: np.sum(sums, axis=0)
    encoding = encoding_of(study, shapes)
    return lambda sums: encoding.decode(np.sum([encoding.noised(s) for s in sums], axis=0))
