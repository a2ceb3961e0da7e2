"""Monitor whether a site pulls with the others or against them, by cosines over all rounds.

One noised update of a site says little; the sum of its updates over the rounds keeps what it
meant while the noise averages away (after Karimireddy et al., 2021, and Gu et al., 2023). A
site whose sum points against the sum of all others deserves a call: it may be poisoned, or its
labels may be coded the other way round. Nothing is done to it by itself.

Updates longer than `WIDTH` are kept as a public random projection (count sketch), which keeps
cosines to about 1/sqrt(WIDTH).
"""

from collections.abc import Mapping
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from pydantic import JsonValue

from common.wire import Arrays

WIDTH = 4096
AGAINST = -0.3
"""Cosine below which a site is named after `PATIENCE` rounds."""
PATIENCE = 5
MINIMUM_SITES = 3
"""With fewer there is no rest to speak of."""
_PUBLIC_SEED = 20_211

Vector = npt.NDArray[np.float64]


def remember_updates(
    sums: Mapping[str, Vector],
    updates: Mapping[str, Arrays],
    shapes: Mapping[str, tuple[int, ...]],
) -> dict[str, Vector]:
    """Return site -> sketch (at most WIDTH) of all its updates so far, this round's included.

    Args:
        sums: What the last call returned.
        updates: Site -> update of this round; missing parameters count as zero.
        shapes: Shape of every parameter of the model.
    """
    new_sums = dict(sums)
    for site, arrays in updates.items():
        update = sketch(arrays, shapes)
        earlier = new_sums.get(site)
        new_sums[site] = update if earlier is None else earlier + update
    return new_sums


def cosines_with_rest(sums: Mapping[str, Vector]) -> dict[str, float]:
    """Return site -> cosine of its sum with the mean direction of all others, -1 to 1.

    Others count by direction alone, so that no loud site hides behind its own length. Fewer
    than three sites have no rest to speak of: the result is empty.
    """
    if len(sums) < MINIMUM_SITES:
        return {}
    units = {site: _unit(total) for site, total in sums.items()}
    everybody = np.sum(list(units.values()), axis=0)
    return {
        site: float(np.clip(unit @ _unit(everybody - unit), -1.0, 1.0))
        for site, unit in sorted(units.items())
    }


def sketch(arrays: Arrays, shapes: Mapping[str, tuple[int, ...]]) -> Vector:
    """Return an update as one vector of at most WIDTH numbers; see the module's first lines."""
    parts = [
        np.asarray(arrays.get(name, np.zeros(shapes[name])), dtype=np.float64).ravel()
        for name in sorted(shapes)
    ]
    flat = np.concatenate(parts)
    if len(flat) <= WIDTH:
        return flat
    bucket, sign = _projection(len(flat))
    return np.bincount(bucket, weights=flat * sign, minlength=WIDTH).astype(np.float64)


@lru_cache(maxsize=2)
def _projection(width: int) -> tuple[npt.NDArray[np.int64], Vector]:
    rng = np.random.default_rng(_PUBLIC_SEED)
    return rng.integers(WIDTH, size=width), (rng.integers(2, size=width) * 2 - 1).astype(np.float64)


def _unit(vector: Vector) -> Vector:
    size = float(np.linalg.norm(vector))
    return vector / size if size > 0 else vector


def divergent_sites(facts: Mapping[str, JsonValue]) -> set[str]:
    """Return the sites whose cosine is below the limit, from the facts of a round's record."""
    cosines = facts.get("cosine_with_rest")
    if not isinstance(cosines, dict):
        return set()
    return {s for s, cosine in cosines.items() if isinstance(cosine, float) and cosine < AGAINST}
