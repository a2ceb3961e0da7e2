"""Estimate the standard deviation that privacy noise adds to a metric, by adding fresh noise.

Two-sided geometric noise is a difference of two geometric draws; the sum of m independent ones
is a difference of two negative-binomial draws of shape m. Adding as much again as the tables
already hold and looking at the spread gives the standard deviation, slightly too large.
"""

from __future__ import annotations

import numpy as np

from common.metrics.tables.bootstrap import Statistic
from common.metrics.tables.score_scale import FloatArray
from common.metrics.tables.table_schema import TableNoise

N_DRAWS = 200


def draw_noise(
    shape: tuple[int, ...], noise: TableNoise, n_shares: float, rng: np.random.Generator
) -> FloatArray:
    """Return noise of `n_shares` sites' tables summed; for estimating spread, never for release.

    Args:
        shape: Shape of the array.
        noise: What one site spends on it.
        n_shares: Number of full two-sided geometric noises in the sum.
        rng: Seeded generator.
    """
    stop = 1 - np.exp(-noise.epsilon / noise.sensitivity)
    up = rng.negative_binomial(n_shares, stop, size=shape)
    return np.asarray(up - rng.negative_binomial(n_shares, stop, size=shape), np.float64)


def noise_spread(
    table: FloatArray,
    statistic: Statistic,
    noise: TableNoise,
    n_shares: float,
    seed: int,
) -> dict[str, float]:
    """Return the standard deviation that noise adds to each metric; NaN where it is undefined.

    Robust: the spread of the middle half of the draws, scaled to a normal one, because a
    denominator near zero makes a few draws absurd.
    """
    rng = np.random.default_rng(seed)
    tables = table + draw_noise((N_DRAWS, *table.shape), noise, n_shares, rng)
    spreads = {}
    for name, values in statistic(tables).items():
        finite = values[np.isfinite(values)]
        middle = np.subtract(*np.quantile(finite, [0.75, 0.25])) if len(finite) else np.nan
        spreads[name] = float(middle) / 1.349
    return spreads
