"""What training needs of a dataset, and prepared batches that are kept over rounds."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from common.batch import PatientBatch
from common.models.base import FusedModel
from common.study import Study


class PatientSource(Protocol):
    """Patients that can be batched; `client.dataset.PatientDataset` is one."""

    patient_ids: list[str]

    def __len__(self) -> int:
        """Return the number of patients."""
        ...

    def present(self, feature: str) -> npt.NDArray[np.bool_]:
        """Return (n,) whether each patient has a feature set."""
        ...

    def batch(self, indices: Sequence[int], *, pad: bool = True) -> PatientBatch:
        """Return these patients as one batch."""
        ...


_Key = tuple[int, str, str]
_KEPT: dict[_Key, tuple[weakref.ref[PatientSource], PatientBatch]] = {}


def sorted_indices(dataset: PatientSource) -> list[int]:
    """Return the indices of the patients in the order of their ids."""
    return sorted(range(len(dataset)), key=lambda index: dataset.patient_ids[index])


def uniform_batch(
    model: FusedModel, dataset: PatientSource, study: Study, device: torch.device
) -> PatientBatch:
    """Return all patients, sorted by id, prepared by a model of uniform shape.

    The batch is kept for as long as the dataset lives: pooling frozen features again in every
    round would cost more than training on them.
    """
    key = (id(dataset), study.digest(), str(device))
    kept = _KEPT.get(key)
    if kept is not None and kept[0]() is dataset:
        return kept[1]
    with torch.no_grad():
        parts = [model.prepare(dataset.batch([i])) for i in sorted_indices(dataset)]
    whole = concatenate(parts).to(device)
    _KEPT[key] = (weakref.ref(dataset, lambda _gone: _KEPT.pop(key, None)), whole)
    return whole


def concatenate(parts: Sequence[PatientBatch]) -> PatientBatch:
    """Return one batch of several whose tensors have equal trailing shapes."""
    flat = [torch.utils._pytree.tree_flatten(part) for part in parts]
    columns = zip(*(leaves for leaves, _spec in flat), strict=True)
    merged = torch.utils._pytree.tree_unflatten([torch.cat(c) for c in columns], flat[0][1])
    assert isinstance(merged, PatientBatch)
    return merged


def slice_batch(batch: PatientBatch, start: int, stop: int) -> PatientBatch:
    """Return patients [start, stop) of a batch."""
    part = torch.utils._pytree.tree_map(lambda tensor: tensor[start:stop], batch)
    assert isinstance(part, PatientBatch)
    return part
