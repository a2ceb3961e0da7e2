"""The private mechanism without its transport: for experiments over many folds and seeds.

Per-patient clipping, integer encoding, noise samplers, server optimiser and averaging are the
product's own. Left out are messages, ledgers and the masks of the secure sum, which cancel to the
last bit in the opened sum. Noise is drawn from the same unseeded cryptographic generator.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from client.data.dataset import PatientDataset
from client.training.private_gradient import clipped_gradient_sum
from common.models.base.base import FusedModel
from common.models.base.build import build_model
from common.models.base.parameters import block_of, load_arrays, to_arrays
from common.privacy.integer_encoding import flatten, unflatten
from common.study.modalities import MODALITIES
from common.study.private_round import encoding_of
from common.study.study import Study
from common.wire import Arrays
from server.aggregate.gradient_mean import descent
from server.run.round_step import advance, final_model
from server.session.checkpoint import Checkpoint, RoundRecord


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
    clip = study.privacy.clip if study.privacy.is_private else None
    for number in range(1, study.training.rounds + 1):
        load_arrays(model, checkpoint.parameters)
        sums = [_clipped(model, patients, study, clip) for patients in sites.values()]
        direction = descent(study, checkpoint.parameters, _release(study, sums))
        record = RoundRecord(round=number, sites=sorted(sites), update_norm=0.0)
        checkpoint = advance(study, checkpoint, direction, record)
    return final_model(checkpoint)


def _clipped(
    model: FusedModel, patients: PatientDataset, study: Study, clip: float | None
) -> Arrays:
    """Return one site's sum; in mode local without the blocks of modalities that it lacks."""
    device = torch.device("cpu")
    total = clipped_gradient_sum(model, patients, study, device=device, clip=clip)
    if study.privacy.mode != "local":
        return dict(total.arrays)
    lacking = set(MODALITIES) - set(patients.modalities)
    return {name: value for name, value in total.arrays.items() if block_of(name) not in lacking}


def _release(study: Study, sums: list[Arrays]) -> Arrays:
    """Return the sum the server sees: plain, or of integers with every site's noise."""
    released: Arrays = {}
    for arrays in sums:
        for name, value in _noised(study, arrays).items():
            released[name] = released.get(name, 0.0) + value
    return released


def _noised(study: Study, arrays: Arrays) -> Arrays:
    if not study.privacy.is_private:
        return arrays
    shapes = {name: value.shape for name, value in arrays.items()}
    encoding = encoding_of(study, shapes)
    return dict(unflatten(encoding.decode(encoding.noised(flatten(arrays))), shapes))
