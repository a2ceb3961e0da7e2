"""Average what the sites send: gradient sums over public counts, deltas over patients.

The true number of patients is private, so the divisor is the study's nominal count
(`TrainingPlan.nominal_patients`, or `nominal_by_modality` for a modality's own block).
"""

from collections.abc import Sequence

import numpy as np

from common.models.base.parameters import block_of
from common.study.study import Study, TrainingPlan
from common.wire import Arrays
from server.aggregate.contribution import Contribution


def nominal_count(block: str, plan: TrainingPlan) -> float:
    """Return the public count that divides the gradient sum of `block`."""
    own = (count for modality, count in plan.nominal_by_modality.items() if modality == block)
    return float(next(own, plan.nominal_patients))


def gradient_sum(contributions: Sequence[Contribution]) -> Arrays:
    """Return the float64 sum over sites of every parameter anybody contributes to."""
    totals: Arrays = {}
    for contribution in sorted(contributions, key=lambda c: c.site_id):
        for name, gradient in contribution.arrays.items():
            wide = gradient.astype(np.float64)
            totals[name] = totals[name] + wide if name in totals else wide
    return totals


def gradient_mean(totals: Arrays, plan: TrainingPlan) -> Arrays:
    """Return summed gradients divided by the public count of their block."""
    return {name: total / nominal_count(block_of(name), plan) for name, total in totals.items()}


def with_weight_decay(gradient: Arrays, parameters: Arrays, weight_decay: float) -> Arrays:
    """Add the gradient of 0.5 * weight_decay * ||w||^2; vectors (biases, norms) are exempt.

    Biases hold published hazards and prevalence, which must not be pulled to zero.
    """
    if weight_decay == 0:
        return gradient
    return {
        name: value + weight_decay * parameters[name].astype(np.float64)
        if parameters[name].ndim > 1
        else value
        for name, value in gradient.items()
    }


def descent(study: Study, parameters: Arrays, totals: Arrays) -> Arrays:
    """Return the direction of descent: minus (summed gradients / public counts + decay)."""
    mean = gradient_mean(totals, study.training)
    total = with_weight_decay(mean, parameters, study.training.weight_decay)
    return {name: -gradient for name, gradient in total.items()}


def mean_delta(contributions: Sequence[Contribution]) -> Arrays:
    """Return the mean delta of every parameter that any site contributes to.

    FedAvg (McMahan et al., 2017), block by block: the weight of a site in a block is the number
    of its patients who have that block's modality, so a hospital without MRI neither moves nor
    dilutes the radiology block. Sites are added in the order of their ids: the result does not
    depend on who answered first.

    Returns:
        Parameter name -> float64 mean; parameters nobody contributes to are absent.
    """
    totals: Arrays = {}
    weights: dict[str, float] = {}
    for contribution in sorted(contributions, key=lambda c: c.site_id):
        for name, delta in contribution.arrays.items():
            weight = contribution.weights.get(block_of(name), 0.0)
            if weight <= 0:
                continue
            term = weight * delta.astype(np.float64)
            totals[name] = totals[name] + term if name in totals else term
            weights[name] = weights.get(name, 0.0) + weight
    return {name: total / weights[name] for name, total in totals.items()}
