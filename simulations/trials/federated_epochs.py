"""Run FedAvg and its variants without transport: local epochs, aggregation and server step.

Local training, aggregation and server optimiser are the product's own; messages, checks, ledgers
and checkpoints are left out. For experiments over many folds and seeds; mode none.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from client.data.dataset import PatientDataset
from client.training.train import train_epochs
from common.models.base.build import build_model
from common.models.base.parameters import block_of, load_arrays, to_arrays
from common.study.study import Study
from common.wire import Arrays
from server.aggregate.contribution import Contribution
from server.aggregate.method import aggregate
from server.session.checkpoint import Checkpoint, RoundRecord, advance, final_model


def train_federated_epochs(study: Study, sites: Mapping[str, PatientDataset]) -> Arrays:
    """Return the final model that these hospitals would train by local epochs.

    Args:
        study: A study of mode none with `training.local.kind: epochs`, without control variates
            and without anything that stays at a site.
        sites: Site -> its training patients.
    """
    model = build_model(study)
    checkpoint = Checkpoint(round=0, parameters=to_arrays(model))
    for number in range(1, study.training.rounds + 1):
        updates = []
        for site_id, patients in sites.items():
            load_arrays(model, checkpoint.parameters)
            result = train_epochs(model, patients, study, round=number, device=torch.device("cpu"))
            here = {block for block, weight in result.weights.items() if weight > 0}
            delta = {n: d for n, d in result.delta.items() if block_of(n) in here}
            updates.append(Contribution(site_id, delta, result.weights))
        aggregation = aggregate(study, checkpoint.parameters, updates, checkpoint.memory)
        record = RoundRecord(round=number, sites=sorted(sites), update_norm=0.0)
        checkpoint = advance(study, checkpoint, aggregation.direction, record, aggregation.memory)
    return final_model(checkpoint)
