"""Predict a whole cohort at once, as only a simulation may."""

from __future__ import annotations

from dataclasses import replace

import torch

from client.data.dataset import PatientDataset
from common.metrics.tables.grid import EvaluationGrid
from common.metrics.tables.predictions import Predictions
from common.models.base.base import FusedModel
from common.models.base.build import build_model
from common.models.base.parameters import load_arrays
from common.study.study import Study
from common.wire import Arrays
from simulations.cohorts.cohort import Cohort

CHUNK = 256


def predict_cohort(study: Study, arrays: Arrays, patients: Cohort | PatientDataset) -> Predictions:
    """Return predictions of the study's model with these parameters, in the patients' order."""
    model = build_model(study)
    load_arrays(model, arrays)
    dataset = patients.dataset(study) if isinstance(patients, Cohort) else patients
    return predict_dataset(model, dataset, study)


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
