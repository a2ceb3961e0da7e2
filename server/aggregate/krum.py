"""Krum: select the one update that lies closest to most others (Blanchard et al., 2017)."""

import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[np.float64]
Vector = npt.NDArray[np.float64]


def krum(rows: Matrix, byzantine: int) -> Vector:
    """Return the row (d,) of (n, d) with the smallest score; all others are thrown away.

    The score of a row is the sum of squared distances to its n - f - 2 nearest others, f the
    number of lying sites to withstand (at least one other is always counted). Ties go to the
    first row.

    Args:
        rows: One update per row.
        byzantine: f.

    Example:
        >>> krum(np.array([[0.0], [0.2], [0.3], [90.0]]), 1)
        array([0.2])
    """
    return np.asarray(rows[int(np.argmin(krum_scores(rows, byzantine)))], dtype=np.float64)


def krum_scores(rows: Matrix, byzantine: int) -> Vector:
    """Return the score (n,) of every row; lower is more central."""
    n = len(rows)
    squared = np.square(rows[:, None, :] - rows[None, :, :]).sum(-1) if n < 64 else _gram(rows)
    neighbours = max(1, n - byzantine - 2)
    nearest = np.sort(squared + np.diag(np.full(n, np.inf)), axis=1)[:, :neighbours]
    return np.asarray(nearest.sum(axis=1), dtype=np.float64)


def _gram(rows: Matrix) -> Matrix:
    """Return squared distances without an (n, n, d) array."""
    norms = np.square(rows).sum(-1)
    squared = norms[:, None] + norms[None, :] - 2 * rows @ rows.T
    return np.asarray(np.maximum(squared, 0.0), dtype=np.float64)
