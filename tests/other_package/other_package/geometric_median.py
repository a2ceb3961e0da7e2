"""The geometric median by Weiszfeld's iteration (Pillutla, Kakade and Harchaoui, 2022)."""

import numpy as np
import numpy.typing as npt

Float = npt.NDArray[np.float64]


def geometric_median(rows: Float, steps: int = 8, smoothing: float = 1e-6) -> Float:
    """Return the point (d,) with the smallest sum of distances to n updates (n, d)."""
    centre = rows.mean(axis=0)
    for _ in range(steps):
        weights = 1 / np.maximum(np.linalg.norm(rows - centre, axis=1), smoothing)
        centre = (weights[:, None] * rows).sum(axis=0) / weights.sum()
    return centre
