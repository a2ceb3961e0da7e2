"""Validate that a model keeps patients apart, so that per-patient gradients can be clipped.

Two checks: layers known to mix patients or to have no per-patient gradient are named with their
path, the reason and the replacement; then the model is run on random patients to see that one
patient's outputs depend on nobody else, in training and in evaluation, and that no buffer
changes.
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from common.cohort.batch import Outputs, PatientBatch
from common.errors import ErrorCode, PrivacyError
from common.models.base.base import FusedModel


@dataclass(frozen=True)
class Rule:
    """Why a kind of layer is refused and what to use instead."""

    kinds: tuple[type, ...]
    why: str
    replacement: str


_RULES = (
    Rule(
        (nn.modules.batchnorm._BatchNorm,),
        "it normalises by the mean and variance of all patients in a batch, and its running "
        "statistics are released without noise",
        "nn.GroupNorm or nn.LayerNorm",
    ),
    Rule(
        (
            nn.MultiheadAttention,
            nn.TransformerEncoderLayer,
            nn.TransformerDecoderLayer,
        ),
        "its fused kernel has no gradient of a single patient",
        "common.models.parts.token_attention.TokenAttention, attention built from nn.Linear",
    ),
    Rule(
        (nn.RNNBase,),
        "its fused kernel has no gradient of a single patient",
        "common.models.parts.attention_pooling.GatedAttention over the tokens, "
        "or opacus.layers.DPLSTM",
    ),
    Rule(
        (nn.modules.lazy.LazyModuleMixin,),
        "its shape follows from the first patient it sees",
        "the same layer with its sizes given",
    ),
)


def check_private(model: nn.Module) -> None:
    """Pass if every patient's gradient is their own.

    Raises:
        PrivacyError: Some layer mixes patients, keeps statistics of them, or has no per-patient
            gradient; all offending layers are named by path with reason and replacement.
    """
    problems = list(_layer_problems(model))
    if problems:
        raise PrivacyError(
            f"{len(problems)} layer(s) break per-patient privacy:\n"
            + "\n".join(f"    - {problem}" for problem in problems),
            where=type(model).__name__,
            why="clipping bounds what one patient contributes only if gradients are per patient",
            cure="replace the layers as named above, or train in mode none",
            code=ErrorCode.LAYER_NOT_PRIVATE,
        )
    if isinstance(model, FusedModel):
        _check_by_running(model)


def mixes_patients(model: FusedModel, batch: PatientBatch) -> bool:
    """Return whether any patient's outputs or further loss depend on another patient.

    A copy of the model gets random weights, since fresh heads start at zero and would hide a
    dependence. In training and in evaluation: the gradient of patient 0's outputs with respect
    to all others' tokens must be exactly zero; in evaluation, everybody's outputs must also stay
    the same when the others are replaced (this sees dependences without gradient: ranks).

    Args:
        model: Left as it is.
        batch: At least two patients, unprepared.
    """
    trial = _with_random_weights(model)
    for training in (False, True):
        trial.train(training)
        if _gradient_reaches_others(trial, batch):
            return True
    trial.eval()
    with torch.no_grad():
        return any(_changes_with_others(trial, batch, shift) for shift in range(len(batch)))


def random_patients(model: FusedModel, n_patients: int, seed: int = 0) -> PatientBatch:
    """Return random patients with the model's feature sets, all present and labelled.

    Bags have between 1 and 40 tokens where a feature set allows it.
    """
    generator = torch.Generator().manual_seed(seed)
    tokens, mask, present = {}, {}, {}
    for name, spec in model.features.items():
        length = min(spec.max_tokens, 40)
        tokens[name] = torch.randn((n_patients, length, spec.dim), generator=generator)
        ends = torch.randint(max(1, length // 2), length + 1, (n_patients, 1), generator=generator)
        mask[name] = torch.arange(length) < ends
        tokens[name] = torch.where(mask[name].unsqueeze(-1), tokens[name], 0.0)
        present[name] = torch.ones(n_patients, dtype=torch.bool)
    observed = torch.ones(n_patients, dtype=torch.bool)
    return PatientBatch(
        tokens=tokens,
        mask=mask,
        present=present,
        response=torch.randint(0, 2, (n_patients,), generator=generator).float(),
        time_months=torch.rand(n_patients, generator=generator) * 60,
        event=torch.randint(0, 2, (n_patients,), generator=generator).float(),
        observed={"response": observed, "survival": observed},
    )


def _layer_problems(model: nn.Module) -> Iterator[str]:
    inside_named: tuple[str, ...] = ()
    for path, layer in model.named_modules():
        if inside_named and path.startswith(inside_named):
            continue
        problem = _problem_of(layer)
        if problem is not None:
            why, replacement = problem
            yield f"{path or '(model)'} ({type(layer).__name__}): {why}; use {replacement}"
            inside_named = (*inside_named, f"{path}.")


def _problem_of(layer: nn.Module) -> tuple[str, str] | None:
    for rule in _RULES:
        if isinstance(layer, rule.kinds):
            return rule.why, rule.replacement
    if getattr(layer, "track_running_stats", False):
        return (
            "its running statistics are statistics of patients, released without noise",
            f"{type(layer).__name__}(..., track_running_stats=False)",
        )
    if getattr(layer, "inplace", False):
        return (
            "it overwrites its input, which per-patient gradients still need",
            f"{type(layer).__name__}(..., inplace=False)",
        )
    return None


def _check_by_running(model: FusedModel) -> None:
    batch = random_patients(model, 5).to(next(model.parameters()).device)
    if mixes_patients(model, batch):
        raise PrivacyError(
            "what the model says of one patient depends on the others in the batch",
            where=type(model).__name__,
            why="removing one patient would change the clipped gradients of all",
            cure="remove every operation over the batch axis from forward and from further losses",
            code=ErrorCode.LAYER_NOT_PRIVATE,
        )
    buffers = _changing_buffers(model, batch)
    if buffers:
        raise PrivacyError(
            f"buffers change while training: {', '.join(buffers)}",
            where=type(model).__name__,
            why="they are statistics of patients, kept without noise",
            cure="remove the buffers, or compute them from public data",
            code=ErrorCode.LAYER_NOT_PRIVATE,
        )


def _changing_buffers(model: FusedModel, batch: PatientBatch) -> list[str]:
    trial = copy.deepcopy(model).train()
    before = {name: buffer.clone() for name, buffer in trial.named_buffers()}
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        _speech(trial, batch)
    return [n for n, buffer in trial.named_buffers() if not torch.equal(before[n], buffer)]


def _with_random_weights(model: FusedModel) -> FusedModel:
    trial = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in trial.parameters():
            noise = torch.randn(parameter.shape, generator=generator).to(parameter)
            parameter.add_(0.1 * noise)
    return trial


def _speech(model: FusedModel, batch: PatientBatch) -> Tensor:
    """Return all that the model says, (B, anything)."""
    outputs: Outputs
    outputs, extra = model.training_outputs(model.prepare(batch))
    columns = [outputs.response_logit.unsqueeze(1), outputs.hazard_logits, outputs.embedding]
    columns += [weights.flatten(1) for weights in outputs.attention.values()]
    return torch.cat([*columns, extra.unsqueeze(1)] if extra is not None else columns, dim=1)


def _gradient_reaches_others(model: FusedModel, batch: PatientBatch) -> bool:
    tokens = {name: value.clone().requires_grad_() for name, value in batch.tokens.items()}
    probe: PatientBatch = copy.copy(batch)
    probe.tokens = tokens
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        output = _speech(model, probe)[0]
    weights = torch.linspace(0.5, 1.5, len(output), device=output.device)
    gradients = torch.autograd.grad(
        (output * weights).sum(), list(tokens.values()), allow_unused=True
    )
    return any(gradient is not None and bool((gradient[1:] != 0).any()) for gradient in gradients)


def _changes_with_others(model: FusedModel, batch: PatientBatch, shift: int) -> bool:
    """Return whether one patient is judged otherwise when the rest are replaced."""
    other_order = pytree.tree_map(lambda values: values.roll(shift, 0), batch)
    own = _speech(model, other_order)[0]
    others = [_speech(model, _replace_others(other_order, factor))[0] for factor in (3.0, -3.0)]
    return not all(torch.allclose(own, other, rtol=1e-4, atol=1e-4) for other in others)


def _replace_others(batch: PatientBatch, factor: float) -> PatientBatch:
    """Return the batch with patient 0 kept, the others reversed and multiplied."""

    def replace(values: Tensor) -> Tensor:
        others = values[1:].flip(0)
        return torch.cat([values[:1], others * factor if values.is_floating_point() else others])

    mixed = pytree.tree_map(replace, batch)
    assert isinstance(mixed, PatientBatch)
    return mixed
