"""Train by DP-SGD over local epochs: several noised optimiser steps at the site.

Mode local only. Unit: one patient; adjacency: add or remove one; sensitivity: the clip C of every
step; mechanism: integer Skellam noise (`common.privacy.integer_encoding`). An epoch is one step
over all training patients: at these cohort sizes sampling gained nothing over full batches, and
full batches need no sampler that a proof would rest on. A round of S steps costs
mu^2 = S / sigma^2; what the optimiser makes of noised sums is post-processing.

Opacus divides a step's gradients by floor(n q) and so reveals n through its noise (in floating
point of n = 63 and 64 the noise differs). Here the divisor is the public size of the cohort.
"""

import logging
from collections.abc import Mapping

import numpy as np
import torch

from client.data.patient_source import PatientSource
from client.training.private_gradient import clipped_gradient_sum
from client.training.train import make_optimizer
from common.models.base.base import FusedModel
from common.models.base.parameters import to_arrays, trainable
from common.privacy.integer_encoding import IntegerEncoding, flatten, unflatten
from common.study.private_round import releases_per_round
from common.study.study import Study
from common.wire import Arrays

_log = logging.getLogger(__name__)


def train_private_steps(
    model: FusedModel,
    dataset: PatientSource,
    study: Study,
    *,
    encoding: IntegerEncoding,
    shapes: Mapping[str, tuple[int, ...]],
    nominal_patients: float,
    device: torch.device,
) -> Arrays:
    """Train the model in place by noised full-batch steps and return what changed.

    Args:
        model: Begins with its present parameters.
        dataset: All training patients of the site.
        study: Local plan, weight decay, endpoints.
        encoding: Clip and noise of one step, for all parameters in `shapes`.
        shapes: Parameters that this site trains; the others stay as they are.
        nominal_patients: Public count that divides every sum; never the true n.
        device: Where to compute.

    Returns:
        Parameter name -> after minus before, float32, for the names in `shapes`.

    Raises:
        PrivacyError: The noise does not fit the model.
    """
    before = to_arrays(model)
    model.to(device)
    parameters = {name: p for name, p in trainable(model).items() if name in shapes}
    start = {name: parameter.detach().clone() for name, parameter in parameters.items()}
    plan = study.training.local
    optimizer = make_optimizer(plan, study.training.weight_decay, list(parameters.values()))
    for step in range(1, releases_per_round(study) + 1):
        total = clipped_gradient_sum(model, dataset, study, device=device, clip=encoding.clip)
        if total.n_nonfinite:
            _log.warning("step %d: %d gradients not finite", step, total.n_nonfinite)
        noised = encoding.noised(flatten({name: total.arrays[name] for name in shapes}))
        mean = unflatten(encoding.decode(noised) / nominal_patients, shapes)
        for name, parameter in parameters.items():
            gradient = torch.from_numpy(mean[name].astype(np.float32)).to(device)
            pull = plan.proximal_mu * (parameter.detach() - start[name])
            parameter.grad = gradient + pull
        optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    after = to_arrays(model)
    return {name: after[name] - before[name] for name in shapes}
