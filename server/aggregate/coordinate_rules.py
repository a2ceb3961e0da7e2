"""Aggregate each coordinate alone: median and trimmed mean (Yin et al., 2018).

A hospital that lies about one coordinate moves it at most to a value that an honest one sent.
The price: what only one small hospital says is lost too.
"""

import math

import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[np.float64]
Vector = npt.NDArray[np.float64]


def median(rows: Matrix) -> Vector:
    """Return the coordinate-wise median (d,) of n updates (n, d); the mean of the middle two.

    Example:
        >>> median(np.array([[1.0], [2.0], [900.0]]))
        array([2.])
    """
    return np.asarray(np.median(rows, axis=0), dtype=np.float64)


def trimmed_mean(rows: Matrix, trim: float) -> Vector:
    """Return the mean (d,) of n updates (n, d) without the extremes of each coordinate.

    Args:
        rows: One update per row.
        trim: Share of the rows cut off at each end, rounded down; at least one row unless 0,
            and never all of them.

    Example:
        >>> trimmed_mean(np.array([[-50.0], [1.0], [3.0], [900.0]]), 0.25)
        array([2.])
    """
    n_trimmed = max(math.floor(trim * len(rows)), 1) if trim > 0 else 0
    cut = min(n_trimmed, (len(rows) - 1) // 2)
    sorted_rows = np.sort(rows, axis=0)
    return np.asarray(sorted_rows[cut : len(rows) - cut].mean(axis=0), dtype=np.float64)
