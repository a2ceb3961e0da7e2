"""Prepare the patients of a dataset for training, and keep prepared batches over rounds."""

import weakref
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from common.cohort.batch import PatientBatch
from common.models.base.base import FusedModel
from common.models.base.parameters import block_of, trainable
from common.study.study import Study


class PatientSource(Protocol):
    """Patients that can be batched; `client.data.dataset.PatientDataset` is one."""

    patient_ids: list[str]

    def __len__(self) -> int:
        """Return the number of patients."""
        ...

    def present(self, feature: str) -> npt.NDArray[np.bool_]:
        """Return (n,) whether each patient has a feature set."""
        ...

    def batch(self, indices: Sequence[int]) -> PatientBatch:
        """Return these patients as one batch."""
        ...


Chunk = tuple[PatientBatch, int]
"""A batch and how many of its first patients count; the others fill it up."""

_Key = tuple[int, int, str, int]
_KEPT: dict[_Key, tuple[weakref.ref[PatientSource], Study, list[Chunk]]] = {}


def sorted_indices(dataset: PatientSource) -> list[int]:
    """Return the indices of the patients in the order of their ids."""
    return sorted(range(len(dataset)), key=lambda index: dataset.patient_ids[index])


def uniform_chunks(
    prepare: Callable[[PatientBatch], PatientBatch],
    dataset: PatientSource,
    study: Study,
    device: torch.device,
    size: int,
) -> list[Chunk]:
    """Return all patients, sorted by id, prepared by a model of uniform shape, in chunks.

    Every chunk holds `size` patients; the last is filled up with its first. The chunks are kept
    for as long as the dataset lives: to pool frozen features again in every round would cost more
    than to train on them.
    """
    key = (id(dataset), id(study), str(device), size)
    entry = _KEPT.get(key)
    if entry is not None and entry[0]() is dataset and entry[1] is study:
        return entry[2]
    with torch.no_grad():
        parts = [prepare(dataset.batch([i]).to(device)) for i in sorted_indices(dataset)]
    chunks = []
    for start in range(0, len(parts), size):
        block = parts[start : start + size]
        filler = block[:1] * (size - len(block))
        chunks.append((concatenate([*block, *filler]), len(block)))
    _KEPT[key] = (weakref.ref(dataset), study, chunks)
    weakref.finalize(dataset, _KEPT.pop, key, None).atexit = False
    return chunks


def concatenate(parts: Sequence[PatientBatch]) -> PatientBatch:
    """Return one batch of several whose tensors have equal trailing shapes."""
    flat = [torch.utils._pytree.tree_flatten(part) for part in parts]
    columns = zip(*(leaves for leaves, _spec in flat), strict=True)
    batch = torch.utils._pytree.tree_unflatten([torch.cat(c) for c in columns], flat[0][1])
    assert isinstance(batch, PatientBatch)
    return batch


def block_weights(model: FusedModel, dataset: PatientSource) -> dict[str, float]:
    """Return the number of patients behind each block the model trains.

    A patient counts for a modality's block if they have any of its feature sets, and always for
    fusion and heads.
    """
    has: dict[str, npt.NDArray[np.bool_]] = {}
    for name, spec in model.features.items():
        present = dataset.present(name)
        has[spec.modality] = has.get(spec.modality, np.zeros_like(present)) | present
    blocks = sorted({block_of(name) for name in trainable(model)})
    return {b: float(has[b].sum() if b in has else len(dataset)) for b in blocks}
