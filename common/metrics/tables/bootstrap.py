"""Resample patients from summed tables, and sites where there are at least six.

A table of counts holds all that a rank metric knows of its patients, so drawing n patients from
its cells is the patient bootstrap. With six sites or more, sites are drawn first and patients
within them, which adds the variation between hospitals.

What privacy noise adds is estimated by adding as much again as the tables already hold and
looking at the spread: slightly too large. Two-sided geometric noise is a difference of two
geometric draws; the sum of m independent ones is a difference of two negative-binomial draws of
shape m.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from common.metrics.tables.score_scale import FloatArray
from common.metrics.tables.table_schema import TableNoise

MIN_SITES = 6
CHUNK_CELLS = 250_000

Statistic = Callable[[FloatArray], dict[str, FloatArray]]


def resample(
    tables: Sequence[FloatArray], n_replicates: int, rng: np.random.Generator
) -> Iterator[FloatArray]:
    """Yield replicates of the summed table in chunks (b, *shape), `n_replicates` in all.

    Args:
        tables: Count tables of the sites, or the one total; all of one shape, no negative cell.
        n_replicates: Number of bootstrap replicates.
        rng: Seeded generator.
    """
    shape = tables[0].shape
    per_chunk = max(1, CHUNK_CELLS // int(np.prod(shape)))
    sites = tables if len(tables) >= MIN_SITES else [np.sum(tables, axis=0)]
    cells = [np.flatnonzero(table) for table in sites]
    values = [table.ravel()[index] for table, index in zip(sites, cells, strict=True)]
    for start in range(0, n_replicates, per_chunk):
        count = min(per_chunk, n_replicates - start)
        picks = rng.multinomial(len(sites), np.full(len(sites), 1 / len(sites)), size=count)
        chunk = np.zeros((count, int(np.prod(shape))))
        for k, (index, value) in enumerate(zip(cells, values, strict=True)):
            if len(index):
                n = (picks[:, k] * int(value.sum())).astype(np.int64)
                chunk[:, index] += rng.multinomial(n, value / value.sum())
        yield chunk.reshape(count, *shape)


def bootstrap(
    tables: Sequence[FloatArray], statistic: Statistic, n_replicates: int, seed: int
) -> dict[str, FloatArray]:
    """Return the replicates of every metric, (n_replicates,) each.

    Args:
        tables: Count tables of the sites, or the one total.
        statistic: Maps tables (b, *shape) to named metrics (b,).
        n_replicates: Number of replicates; 0 gives empty arrays.
        seed: Same seed, same intervals.
    """
    rng = np.random.default_rng(seed)
    parts = [statistic(chunk) for chunk in resample(tables, n_replicates, rng)]
    names = parts[0].keys() if parts else ()
    return {name: np.concatenate([part[name] for part in parts]) for name in names}


def percentile_interval(replicates: FloatArray) -> tuple[float, float]:
    """Return the 2.5 % and 97.5 % points; NaN where more than a tenth is not estimable."""
    finite = replicates[np.isfinite(replicates)]
    if len(finite) < 0.9 * len(replicates) or not len(finite):
        return float("nan"), float("nan")
    low, high = np.quantile(finite, [0.025, 0.975])
    return float(low), float(high)


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
