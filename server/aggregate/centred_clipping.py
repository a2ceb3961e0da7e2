"""Centred clipping (Karimireddy, He and Jaggi, 2021): no site moves the centre by more than tau.

    v <- v + mean over sites of (g_k - v) min(1, tau / |g_k - v|)

starting from the aggregate of the round before, which the honest hospitals agreed on. A liar,
however loud, shifts one step by tau / n; an honest update near the centre is not touched.
"""

import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[np.float64]
Vector = npt.NDArray[np.float64]


def centred_clipping(
    rows: Matrix, centre: Vector, *, radius: float | None, iterations: int
) -> Vector:
    """Return the clipped mean (d,) of n updates (n, d).

    Args:
        rows: One update per row.
        centre: (d,) where to start: the aggregate of the last round, zero in the first.
        radius: tau; None takes, in every iteration, the median distance to the centre, which a
            minority of liars cannot move beyond what honest sites sent.
        iterations: How often the centre is improved.

    Example:
        >>> rows, start = np.array([[1.0], [1.0], [91.0]]), np.zeros(1)
        >>> centred_clipping(rows, start, radius=1.0, iterations=1)
        array([1.])
    """
    for _ in range(iterations):
        moves = rows - centre
        lengths = np.linalg.norm(moves, axis=1)
        tau = float(np.median(lengths)) if radius is None else radius
        shrink = np.minimum(1.0, tau / np.maximum(lengths, np.finfo(np.float64).tiny))
        centre = centre + (moves * shrink[:, None]).mean(axis=0)
    return np.asarray(centre, dtype=np.float64)
