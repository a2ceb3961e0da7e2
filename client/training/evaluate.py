"""Predict a hospital's own patients, each alone; the predictions stay there.

A noised table promises that one patient more or less moves one cell by one. That is a statement
about bits: in a batch, padding and the choice of a kernel would let one patient move the last bit
of another's score, and whoever chooses the score cuts could turn that into other cells. So every
patient is computed in a pass of their own, on their own unpadded tokens.
"""

from dataclasses import replace

import torch

from client.data.dataset import PatientDataset
from common.metrics.tables.grid import EvaluationGrid
from common.metrics.tables.predictions import Predictions
from common.models.base.base import FusedModel


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
    with torch.inference_mode():
        parts = [
            Predictions.from_outputs(model(patient.to(device)), patient, grid)
            for patient in (dataset.batch([index]) for index in range(len(dataset)))
        ]
    predictions = Predictions.concatenate(parts) if parts else Predictions.from_logits(grid)
    return replace(predictions, subgroups=dataset.subgroups)
