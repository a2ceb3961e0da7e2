"""Sum a hospital's per-patient gradients: the only thing private training reads.

One patient's gradient is that of their own loss on their own, unpadded tokens. It is clipped in
the joint norm of all parameters. Layers that draw random numbers (dropout) are switched off, so
that the sum is a function of model and patients alone.

With a clip every patient is computed in a call of their own, on every device: the promise that one
patient more or less moves the sum by at most C is a statement about bits. In a batch, padding, the
height of a matrix product or the scalar end of a vector loop move the last bits of the others, and
whoever chooses the weights can amplify a last bit before clipping. Without a clip (mode none)
nothing is promised, and models of uniform shape, and any model on a GPU, are computed many patients
at once (vmap).
"""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.func import functional_call, grad_and_value, vmap
from torch.utils import _pytree as pytree

from client.data.patient_source import Chunk, PatientSource, sorted_indices, uniform_chunks
from common.cohort.batch import PatientBatch
from common.errors import DataError
from common.models.base.base import FusedModel
from common.models.base.parameters import expected_shapes, trainable
from common.models.losses.multitask import PatientObjective
from common.privacy.clipping import MAX_PATIENTS, ClippedSum, GradientSum
from common.study.study import Study

PADDED_CHUNK = 16

Gradients = tuple[Tensor, Tensor]
"""Of M patients: (M, size) over all parameters in the order of `expected_shapes`, losses (M,)."""


def clipped_gradient_sum(
    model: FusedModel,
    dataset: PatientSource,
    study: Study,
    *,
    device: torch.device,
    clip: float | None,
) -> GradientSum:
    """Return the sum over all patients of clipped gradients of the study's loss.

    Args:
        model: Evaluated in place of device; its parameters are not changed.
        dataset: Training patients; the result does not depend on their order.
        study: Endpoints and task weights.
        device: Where to compute.
        clip: L2 bound C of one patient's joint gradient over all trained parameters; None sums
            them as they are (mode none).

    Raises:
        DataError: More patients than sum exactly.
    """
    if len(dataset) > MAX_PATIENTS:
        raise DataError(
            f"{len(dataset)} patients are too many for one exact sum",
            why=f"at most {MAX_PATIENTS} clipped gradients add up without rounding",
            cure="split the cohort over two sites",
        )
    model.to(device).eval()
    total = ClippedSum(expected_shapes(model), clip, device)
    way = together if clip is None else one_by_one
    for gradients, losses in way(model, dataset, study, device):
        total.add(gradients, losses)
    return total.result()


def one_by_one(
    model: FusedModel, dataset: PatientSource, study: Study, device: torch.device
) -> Iterator[Gradients]:
    """Yield each patient's gradient from a backward pass of their own, in the order of ids.

    Backward passes add into one buffer, as plain training does, instead of giving every patient
    new memory; a gradient is good until the next is requested.
    """
    objective = PatientObjective(model, study)
    parameters = list(trainable(model).values())
    flat = torch.zeros(sum(parameter.numel() for parameter in parameters), device=device)
    parts = torch.split(flat, [parameter.numel() for parameter in parameters])
    for parameter, part in zip(parameters, parts, strict=True):
        parameter.grad = part.view(parameter.shape)
    try:
        for patient in _each_alone(objective, dataset, study, device):
            flat.zero_()
            loss = objective(patient)
            loss.sum().backward()
            yield flat.unsqueeze(0), loss.detach()
    finally:
        model.zero_grad(set_to_none=True)


def together(
    model: FusedModel, dataset: PatientSource, study: Study, device: torch.device
) -> Iterator[Gradients]:
    """Yield the gradients of some patients at a time, the fastest way; for mode none alone."""
    if model.uniform_shape:
        prepare = PatientObjective(model, study).prepare
        chunks = uniform_chunks(prepare, dataset, study, device, _uniform_size(model))
        return _many_at_once(model, study, iter(chunks))
    if device.type == "cuda":
        return in_padded_chunks(model, dataset, study, device, PADDED_CHUNK)
    return one_by_one(model, dataset, study, device)


def in_padded_chunks(
    model: FusedModel, dataset: PatientSource, study: Study, device: torch.device, chunk: int
) -> Iterator[Gradients]:
    """Yield the gradients of `chunk` patients at a time, padded to the longest of them."""
    order = sorted_indices(dataset)
    blocks = (order[start : start + chunk] for start in range(0, len(order), chunk))
    prepared = ((model.prepare(dataset.batch(rows).to(device)), len(rows)) for rows in blocks)
    return _many_at_once(model, study, prepared)


def _each_alone(
    objective: PatientObjective, dataset: PatientSource, study: Study, device: torch.device
) -> Iterator[PatientBatch]:
    """Yield every patient as a prepared batch of one; those of uniform shape are kept."""
    if objective.model.uniform_shape:
        for patient, _ in uniform_chunks(objective.prepare, dataset, study, device, 1):
            yield patient
    else:
        for index in sorted_indices(dataset):
            yield objective.prepare(dataset.batch([index]).to(device))


def _many_at_once(
    model: FusedModel, study: Study, prepared: Iterator[Chunk]
) -> Iterator[Gradients]:
    objective = PatientObjective(model, study)
    tensors = {f"model.{name}": p.detach() for name, p in model.named_parameters()}
    names = [f"model.{name}" for name in trainable(model)]
    frozen = {name: tensor for name, tensor in tensors.items() if name not in names}

    def loss_of(parameters: dict[str, Tensor], patient: PatientBatch) -> Tensor:
        one = pytree.tree_map(lambda tensor: tensor.unsqueeze(0), patient)
        loss: Tensor = functional_call(objective, {**frozen, **parameters}, (one,))
        return loss.sum()

    of_many = vmap(grad_and_value(loss_of), in_dims=(None, 0), randomness="error")
    for batch, count in prepared:
        gradients, losses = of_many({name: tensors[name] for name in names}, batch)
        rows = torch.cat([gradients[name][:count].flatten(1) for name in names], dim=1)
        yield rows.detach(), losses[:count].detach()


def _uniform_size(model: FusedModel) -> int:
    """Return how many patients to compute at once; it follows from the model alone."""
    n_parameters = sum(parameter.numel() for parameter in trainable(model).values())
    return min(max(2**18 // n_parameters, 32), 256)
