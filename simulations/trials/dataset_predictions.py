"""Predictions for a whole dataset at once, where a simulation may look at patients."""

from __future__ import annotations

from dataclasses import replace

import torch

from client.data.dataset import PatientDataset
from common.metrics.tables.grid import EvaluationGrid
from common.metrics.tables.predictions import Predictions
from common.models.base.base import FusedModel
from common.study.study import Study

CHUNK = 256


def predict_dataset(model: FusedModel, dataset: PatientDataset, study: Study) -> Predictions:
    """Return predictions beside outcomes for all patients, in the dataset's order."""
    grid = EvaluationGrid.for_study(study)
    model.eval()
    parts = []
    with torch.no_grad():
        for start in range(0, len(dataset), CHUNK):
            batch = dataset.batch(range(start, min(start + CHUNK, len(dataset))))
            parts.append(Predictions.from_outputs(model(batch), batch, grid))
    return replace(Predictions.concatenate(parts), subgroups=dataset.subgroups)
