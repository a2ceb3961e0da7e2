"""Order and prepare the batches of local training, with modality dropout."""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import torch
from torch.utils import _pytree as pytree

from client.data.patient_source import PatientSource, sorted_indices, uniform_chunks
from common.cohort.batch import PatientBatch
from common.models.base.base import FusedModel
from common.study.modalities import Modality
from common.study.study import LocalTraining, Study


def batch_order(
    n_patients: int, plan: LocalTraining, generator: torch.Generator
) -> Iterator[list[int]]:
    """Yield the indices of every batch: shuffled epochs, or as many steps as the plan states."""
    per_epoch = math.ceil(n_patients / plan.batch_size)
    n_steps = plan.steps if plan.steps is not None else plan.epochs * per_epoch
    n_given = 0
    while n_given < n_steps:
        order = torch.randperm(n_patients, generator=generator).tolist()
        for start in range(0, n_patients, plan.batch_size):
            if n_given == n_steps:
                return
            yield order[start : start + plan.batch_size]
            n_given += 1


def batch_preparer(
    model: FusedModel,
    dataset: PatientSource,
    study: Study,
    plan: LocalTraining,
    generator: torch.Generator,
    device: torch.device,
) -> Callable[[list[int]], PatientBatch]:
    """Return what turns indices into a prepared batch.

    Patients of uniform shape are prepared once and kept over rounds: to pool frozen features
    again for every batch would cost more than to train on them.
    """
    if model.uniform_shape and plan.modality_dropout == 0:
        everyone, _ = uniform_chunks(model.prepare, dataset, study, device, len(dataset))[0]
        place = np.argsort(sorted_indices(dataset))

        def kept(indices: list[int]) -> PatientBatch:
            rows = torch.as_tensor(place[indices], device=device)
            batch: PatientBatch = pytree.tree_map(lambda tensor: tensor[rows], everyone)
            return batch

        return kept

    def fresh(indices: list[int]) -> PatientBatch:
        batch = dataset.batch(indices).to(device)
        if plan.modality_dropout > 0:
            batch = drop_modalities(batch, model, plan.modality_dropout, generator)
        return model.prepare(batch)

    return fresh


def drop_modalities(
    batch: PatientBatch, model: FusedModel, rate: float, generator: torch.Generator
) -> PatientBatch:
    """Return the batch with each modality of each patient hidden at this rate.

    A patient keeps at least one of the modalities they have: if all would go, one drawn at
    random stays.
    """
    kinds: list[Modality] = sorted({spec.modality for spec in model.features.values()})
    members = {k: [n for n, spec in model.features.items() if spec.modality == k] for k in kinds}
    has = torch.stack([torch.stack([batch.present[n] for n in members[k]]).any(0) for k in kinds])
    keep = has & (torch.rand(has.shape, generator=generator) >= rate).to(has.device)
    draws = torch.rand(has.shape, generator=generator).to(has.device)
    survivor = torch.where(has, draws, -1.0).argmax(0)
    rows = torch.arange(len(kinds), device=has.device).unsqueeze(1)
    keep = keep | (has & ~keep.any(0) & (rows == survivor))
    present = dict(batch.present)
    for row, kind in enumerate(kinds):
        present.update({name: batch.present[name] & keep[row] for name in members[kind]})
    return replace(batch, present=present)
