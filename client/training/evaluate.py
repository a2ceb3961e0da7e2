"""Predictions of a model for a hospital's own patients; they stay there."""

from __future__ import annotations

from dataclasses import replace

import torch

from client.data.dataset import PatientDataset
from common.metrics.tables.grid import EvaluationGrid
from common.metrics.tables.predictions import Predictions
from common.models.base.base import FusedModel

BATCH_PATIENTS = 16


def predict_all(
    model: FusedModel, dataset: PatientDataset, grid: EvaluationGrid, device: torch.device | str
) -> Predictions:
    """Return predictions, known outcomes and subgroups of every patient, in the dataset's order.

    Args:
        model: Trained model.
        dataset: n patients; may be empty.
        grid: Public grid of the study.
        device: Where to compute.
    """
    model.to(device).eval()
    parts = []
    with torch.inference_mode():
        for start in range(0, len(dataset), BATCH_PATIENTS):
            batch = dataset.batch(range(start, min(start + BATCH_PATIENTS, len(dataset))))
            parts.append(Predictions.from_outputs(model(batch.to(device)), batch, grid))
    found = Predictions.concatenate(parts) if parts else Predictions.from_logits(grid)
    return replace(found, subgroups=dataset.subgroups)
