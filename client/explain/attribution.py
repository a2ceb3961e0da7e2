"""Integrated gradients: how much each input contributed to one prediction.

Sundararajan, Taly and Yan (ICML 2017), through captum. The baseline is the public mean patient:
every feature at its public centre (zero after scaling), with the same modalities present. The
attributions of all inputs add up to output minus output at the baseline (completeness); how far
they miss is measured, and more steps are taken where 64 are not enough.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from common.cohort.batch import Outputs, PatientBatch
from common.models.base.base import FusedModel
from common.models.losses.discrete_time import risk
from common.optional import require
from common.study.modalities import MODALITIES, Modality
from common.study.study import FeatureSpec, Task

STEPS = 64
MOST_STEPS = 512
READABLE_ERROR = 0.05
"""Completeness error above which attributions should not be read."""

_CANCELLED = 0.01
_NUMBERS_AT_ONCE = 1 << 24


@dataclass(frozen=True)
class Attribution:
    """Attribution of one output of one patient.

    Attributes:
        task: `response` attributes the logit (positive: towards response), `survival` the risk
            (positive: towards death).
        output: The patient's logit or risk.
        baseline: The same of the public mean patient.
        inputs: Feature set -> (T, D) float32 attribution of every number of every token.
        completeness_error: |sum of attributions - (output - baseline)| relative to
            |output - baseline|, or to 1 % of the sum of absolute attributions where that is
            more, since contributions may cancel; 0 if nothing moved at all.
        steps: Steps of the integral.
    """

    task: Task
    output: float
    baseline: float
    inputs: dict[str, npt.NDArray[np.float32]]
    completeness_error: float
    steps: int

    @property
    def readable(self) -> bool:
        """Whether the attributions add up well enough to be read."""
        return self.completeness_error <= READABLE_ERROR

    def tokens(self, feature: str) -> npt.NDArray[np.float64]:
        """Return (T,) signed attribution of each token of a feature set."""
        return np.asarray(self.inputs[feature].sum(axis=1, dtype=np.float64))


def attribute(
    model: FusedModel,
    batch: PatientBatch,
    task: Task,
    *,
    steps: int = STEPS,
    most_steps: int = MOST_STEPS,
) -> Attribution:
    """Return integrated gradients of one patient.

    Args:
        model: Trained model, in evaluation mode afterwards.
        batch: One patient (B = 1), scaled, on the model's device.
        task: Output to explain.
        steps: Points of the Gauss-Legendre quadrature; doubled while the completeness error is
            above `READABLE_ERROR`, up to `most_steps`.
        most_steps: See `steps`.

    Raises:
        ConfigError: captum is not installed (extra `explain`).
    """
    model.eval()
    names = [name for name in model.features if bool(batch.present[name][0])]
    inputs = tuple(batch.tokens[name] for name in names)
    zeros = tuple(torch.zeros_like(tensor) for tensor in inputs)

    def output(*tokens: Tensor) -> Tensor:
        given = dict(zip(names, tokens, strict=True))
        rows = len(tokens[0]) if tokens else 1
        return _scalar(model(_repeat(batch, rows, given)), task)

    with torch.no_grad():
        ends = float(output(*inputs)), float(output(*zeros))
    if not names:
        return Attribution(task, *ends, inputs={}, completeness_error=0.0, steps=0)
    captum = require("captum.attr", extra="explain")
    method = captum.IntegratedGradients(output)
    rows = max(1, _NUMBERS_AT_ONCE // sum(tensor.numel() for tensor in inputs))
    while True:
        values = method.attribute(
            inputs, baselines=zeros, n_steps=steps, internal_batch_size=min(steps, rows)
        )
        maps = {n: v[0].detach().float().cpu().numpy() for n, v in zip(names, values, strict=True)}
        attribution = _with_error(Attribution(task, *ends, maps, 0.0, steps))
        if attribution.readable or 2 * steps > most_steps:
            return attribution
        steps *= 2


def contributions(
    attribution: Attribution, features: Mapping[str, FeatureSpec]
) -> dict[Modality, float]:
    """Return modality -> signed sum of its attributions.

    The sums add up to output minus baseline, up to the completeness error.
    """
    total: dict[Modality, float] = {}
    for name, values in attribution.inputs.items():
        modality = features[name].modality
        total[modality] = total.get(modality, 0.0) + float(values.sum(dtype=np.float64))
    return {modality: total[modality] for modality in MODALITIES if modality in total}


def shares(attribution: Attribution, features: Mapping[str, FeatureSpec]) -> dict[Modality, float]:
    """Return modality -> its share of the sum of absolute attributions; they add up to 1.

    As in SurvPGC's published shares: |IG| summed over all inputs of a modality. Unlike
    `contributions`, inputs that pull in opposite directions do not cancel.
    """
    absolute = replace(
        attribution, inputs={name: np.abs(values) for name, values in attribution.inputs.items()}
    )
    sums = contributions(absolute, features)
    total = sum(sums.values())
    return {modality: value / total if total > 0 else 0.0 for modality, value in sums.items()}


def _with_error(attribution: Attribution) -> Attribution:
    difference = attribution.output - attribution.baseline
    total = sum(float(v.sum(dtype=np.float64)) for v in attribution.inputs.values())
    gross = sum(float(np.abs(v).sum(dtype=np.float64)) for v in attribution.inputs.values())
    scale = max(abs(difference), _CANCELLED * gross)
    error = abs(total - difference) / scale if scale > 0 else 0.0
    return replace(attribution, completeness_error=error)


def _scalar(outputs: Outputs, task: Task) -> Tensor:
    return outputs.response_logit if task == "response" else risk(outputs.hazard_logits)


def _repeat(batch: PatientBatch, n: int, tokens: Mapping[str, Tensor]) -> PatientBatch:
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
