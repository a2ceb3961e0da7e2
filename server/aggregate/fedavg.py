"""Federated averaging of deltas, weighted block by block (McMahan et al., 2017)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from common.models.base.parameters import block_of
from common.wire import Arrays
from server.aggregate.contribution import Contribution


def mean_delta(contributions: Sequence[Contribution]) -> Arrays:
    """Return the weighted mean delta of every parameter that any site contributes to.

    The weight of a site in a block is the number of its patients who have that block's
    modality, so a hospital without MRI neither moves nor dilutes the radiology block. Sites are
    added in the order of their ids: the result does not depend on who answered first.

    Args:
        contributions: Validated deltas with block weights.

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
