"""Server side of SCAFFOLD (Karimireddy et al., 2020): the mean control variate of all sites.

Option II of the paper: after K steps of size lr that moved the model by delta, a site's control
variate moves by -c - delta / (K lr). The server knows c, lr and delta and receives K, so the
site need not send its control variate: half the traffic of the original.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from common.wire import Arrays
from server.aggregate.contribution import Contribution


def moved_control(
    control: Arrays, contributions: Sequence[Contribution], *, lr: float, n_sites: int
) -> Arrays:
    """Return c + (1/N) sum over the answering sites of their control variates' moves, float64.

    Args:
        control: c, by parameter; missing ones are zero (first round).
        contributions: Validated deltas with their number of steps.
        lr: Step size of the site optimiser (plain SGD).
        n_sites: N, all sites of the roster, whether they answered or not.
    """
    control_sum = {name: np.asarray(value, dtype=np.float64) for name, value in control.items()}
    for contribution in sorted(contributions, key=lambda c: c.site_id):
        for name, delta in contribution.arrays.items():
            before = np.asarray(control.get(name, np.zeros(delta.shape)), dtype=np.float64)
            change = -before - delta.astype(np.float64) / (contribution.steps * lr)
            control_sum[name] = control_sum.get(name, np.zeros(delta.shape)) + change / n_sites
    return control_sum
