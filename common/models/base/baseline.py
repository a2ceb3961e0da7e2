"""Set the biases with which an untrained model predicts the published baseline.

A start at the public hazard and prevalence costs no privacy and saves rounds.
"""

import math

import torch
from torch import Tensor

from common.study.study import Study

DEFAULT_HAZARD = 0.1
"""Hazard per interval where a study publishes none."""


def _logit(probability: float) -> float:
    return math.log(probability) - math.log1p(-probability)


def response_bias(study: Study) -> Tensor:
    """Return the logit of the published prevalence, (1,); 0 if none is published."""
    endpoint = study.endpoints.response
    prevalence = endpoint.prevalence if endpoint is not None else None
    return torch.tensor([_logit(prevalence) if prevalence is not None else 0.0])


def hazard_biases(study: Study) -> Tensor:
    """Return the logits of the published hazards, (K,); of `DEFAULT_HAZARD` if none are."""
    endpoint = study.endpoints.survival
    if endpoint is None:
        return torch.zeros(0)
    hazards = endpoint.hazards or [DEFAULT_HAZARD] * endpoint.n_intervals
    return torch.tensor([_logit(min(max(h, 1e-4), 1 - 1e-4)) for h in hazards])
