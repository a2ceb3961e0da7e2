"""Integrated gradients: how much each token and modality moved one prediction.

Sundararajan et al. (2017), through captum. The baseline is the public mean patient: every
feature at its public centre (zero after scaling), modalities present as they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from common.batch import Outputs, PatientBatch
from common.losses.discrete_time import risk
from common.models.base import FusedModel
from common.optional import require
from common.study import Modality, Study, Task

STEPS = 64


@dataclass(frozen=True)
class Attribution:
    """Attribution of one output of one patient.

    Attributes:
        task: `response` attributes the logit (positive: towards response), `survival` the
            risk (positive: towards death).
        tokens: Per feature set, (T,) signed sum over the token's features.
        share: Per modality, share of the absolute attribution; sums to 1.
        completeness_error: |sum of attributions - (output - output at baseline)| relative to
            the latter; above 0.05 the shares should not be read.
    """

    task: Task
    tokens: dict[str, npt.NDArray[np.float64]]
    share: dict[Modality, float]
    completeness_error: float


def attribute(model: FusedModel, batch: PatientBatch, study: Study, task: Task) -> Attribution:
    """Return integrated gradients of one patient.

    Args:
        model: Trained model, in eval mode afterwards.
        batch: One patient (B = 1), scaled.
        study: The study; its features name the modalities.
        task: Output to explain.

    Raises:
        ConfigError: captum is not installed (extra `explain`).
    """
    captum = require("captum.attr", extra="explain")
    names = [name for name in study.features if bool(batch.present[name][0])]
    inputs = tuple(batch.tokens[name].clone() for name in names)

    def output(*tokens: Tensor) -> Tensor:
        steps = tokens[0].shape[0]
        return _scalar(model(_repeat(batch, steps, dict(zip(names, tokens, strict=True)))), task)

    model.eval()
    gradients = captum.IntegratedGradients(output)
    attributions, _ = gradients.attribute(
        inputs,
        baselines=tuple(torch.zeros_like(tensor) for tensor in inputs),
        n_steps=STEPS,
        internal_batch_size=16,
        return_convergence_delta=True,
    )
    with torch.no_grad():
        moved = float(output(*inputs) - output(*(torch.zeros_like(t) for t in inputs)))
    total = float(sum(float(values.sum()) for values in attributions))
    tokens = {
        name: cast("Tensor", values).detach()[0].sum(dim=-1).double().cpu().numpy()
        for name, values in zip(names, attributions, strict=True)
    }
    return Attribution(
        task=task,
        tokens=tokens,
        share=_shares(tokens, study),
        completeness_error=abs(total - moved) / max(abs(moved), 1e-6),
    )


def _scalar(outputs: Outputs, task: Task) -> Tensor:
    if task == "response":
        return outputs.response_logit
    return risk(outputs.hazard_logits)


def _repeat(batch: PatientBatch, n: int, tokens: dict[str, Tensor]) -> PatientBatch:
    def rows(tensor: Tensor) -> Tensor:
        return tensor.expand(n, *tensor.shape[1:])

    return PatientBatch(
        tokens={name: tokens.get(name, rows(value)) for name, value in batch.tokens.items()},
        mask={name: rows(value) for name, value in batch.mask.items()},
        present={name: rows(value) for name, value in batch.present.items()},
        response=rows(batch.response),
        time_months=rows(batch.time_months),
        event=rows(batch.event),
        observed={name: rows(value) for name, value in batch.observed.items()},
    )


def _shares(tokens: dict[str, npt.NDArray[np.float64]], study: Study) -> dict[Modality, float]:
    weight: dict[Modality, float] = dict.fromkeys(study.modalities, 0.0)
    for name, values in tokens.items():
        weight[study.features[name].modality] += float(np.abs(values).sum())
    total = sum(weight.values())
    return {m: (value / total if total > 0 else 0.0) for m, value in weight.items()}
