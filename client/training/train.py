"""Train locally without privacy: some epochs or steps of an optimiser, then the change.

Mode none only. The optimiser is fresh in every round; order, dropout and modality dropout follow
from the study's seed and the round, never from the site, so a run can be repeated bit by bit.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from client.data.patient_source import PatientSource, block_weights
from client.data.training_batches import batch_order, batch_preparer
from common.errors import DataError, ErrorCode
from common.models.base.base import FusedModel
from common.models.base.parameters import to_arrays, trainable
from common.models.losses.multitask import PatientObjective
from common.study.study import LocalTraining, Study
from common.wire import Arrays


@dataclass(frozen=True)
class LocalResult:
    """What one site's local training changed.

    Attributes:
        delta: Trained parameters after minus before, float32, by name.
        weights: Training patients behind each block of the model; those who have the modality,
            all of them for fusion and heads.
        loss: Mean loss over the patients seen, at the time each was seen.
        steps: Optimiser steps taken.
    """

    delta: Arrays
    weights: dict[str, float]
    loss: float
    steps: int


@dataclass(frozen=True)
class StepChanges:
    """What is added to the gradient of every step; lists follow the order of the parameters.

    Attributes:
        mu: Strength of the pull.
        anchor: Parameters that are pulled to.
        correction: Added as it is; None adds nothing.
    """

    mu: float
    anchor: list[Tensor]
    correction: list[Tensor] | None


def train_epochs(
    model: FusedModel,
    dataset: PatientSource,
    study: Study,
    *,
    round: int,
    device: torch.device,
    plan: LocalTraining | None = None,
    anchor: Arrays | None = None,
    correction: Arrays | None = None,
) -> LocalResult:
    """Train the model in place for one round and return what changed.

    Args:
        model: Begins with its present parameters.
        dataset: Training patients.
        study: Endpoints, weight decay and seed.
        round: Number of the round; decides the order of the patients.
        device: Where to compute.
        plan: Epochs, optimiser and step size; those of the study by default.
        anchor: Parameters that `proximal_mu` pulls to; those at the start by default.
        correction: Added to the gradient of every step (SCAFFOLD: c - c_i); missing ones are 0.

    Raises:
        DataError: There is no patient, or the loss stopped being finite.
    """
    if len(dataset) == 0:
        raise DataError("there is no training patient", cure="check the funnel of the manifest")
    before = to_arrays(model)
    plan = plan or study.training.local
    model.to(device)
    changes = _changes(model, plan, anchor or before, correction)
    seed = (study.training.seed * 1_000_003 + round) % 2**63
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        model.train()
        generator = torch.Generator().manual_seed(seed)
        loss, steps = _run(model, dataset, study, plan, generator, device, changes)
    model.eval()
    if not math.isfinite(loss):
        raise DataError(
            "the training loss is not finite",
            where=f"round {round}",
            why="the learning rate is too high, or a feature is far outside its public scale",
            cure=f"lower the lr of local steps (now {plan.lr}) or set scaling.clip of features",
            code=ErrorCode.NOT_FINITE,
        )
    after = to_arrays(model)
    delta = {name: after[name] - before[name] for name in after}
    return LocalResult(delta, block_weights(model, dataset), loss, steps)


def make_optimizer(
    plan: LocalTraining, weight_decay: float, parameters: list[torch.nn.Parameter]
) -> torch.optim.Optimizer:
    """Return a fresh optimiser; weight decay is decoupled for `adamw`, L2 for the others."""
    kinds: dict[str, type[torch.optim.Optimizer]] = {
        "sgd": torch.optim.SGD,
        "adam": torch.optim.Adam,
        "adamw": torch.optim.AdamW,
        "radam": torch.optim.RAdam,
    }
    settings = {"lr": plan.lr, "weight_decay": weight_decay}
    return kinds[plan.optimizer](parameters, **settings)  # type: ignore[arg-type]


def _run(
    model: FusedModel,
    dataset: PatientSource,
    study: Study,
    plan: LocalTraining,
    generator: torch.Generator,
    device: torch.device,
    changes: StepChanges,
) -> tuple[float, int]:
    """Return (mean loss over the patients seen, steps taken)."""
    objective = PatientObjective(model, study)
    parameters = list(trainable(model).values())
    optimizer = make_optimizer(plan, study.training.weight_decay, parameters)
    loss_sum, n_patients, steps = 0.0, 0, 0
    prepared = batch_preparer(model, dataset, study, plan, generator, device)
    for indices in batch_order(len(dataset), plan, generator):
        losses = objective(prepared(indices))
        optimizer.zero_grad(set_to_none=True)
        losses.mean().backward()
        _change_gradients(parameters, changes)
        optimizer.step()
        loss_sum, n_patients = loss_sum + float(losses.detach().sum()), n_patients + len(indices)
        steps += 1
    return loss_sum / n_patients, steps


def _changes(
    model: FusedModel, plan: LocalTraining, anchor: Arrays, correction: Arrays | None
) -> StepChanges:
    parameters = trainable(model)
    origin = [torch.from_numpy(anchor[name]).to(p) for name, p in parameters.items()]
    if not correction:
        return StepChanges(plan.proximal_mu, origin, None)
    change = [
        torch.from_numpy(correction[name]).to(p) if name in correction else torch.zeros_like(p)
        for name, p in parameters.items()
    ]
    return StepChanges(plan.proximal_mu, origin, change)


def _change_gradients(parameters: list[torch.nn.Parameter], changes: StepChanges) -> None:
    """Add the gradient of mu/2 |w - anchor|^2 (FedProx; Li et al., 2020) and the correction."""
    with torch.no_grad():
        for i, (parameter, origin) in enumerate(zip(parameters, changes.anchor, strict=True)):
            if changes.mu:
                _add(parameter, changes.mu * (parameter - origin))
            if changes.correction is not None:
                _add(parameter, changes.correction[i])


def _add(parameter: torch.nn.Parameter, change: Tensor) -> None:
    parameter.grad = change.clone() if parameter.grad is None else parameter.grad + change
