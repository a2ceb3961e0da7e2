"""Fill polygons on a voxel grid: a voxel belongs to a region when its centre lies inside.

Even-odd rule on half-open edges, so that polygons that share an edge share no voxel and cover
every voxel between them. Coordinates are continuous indices (i, j); integers are centres.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

_DECIMALS = 4
"""Vertices are rounded to 1e-4 voxel, so that noise in the last digits decides nothing."""

_NESTED = 0.95


@dataclass(frozen=True)
class Polygon:
    """One closed contour on a slice.

    Attributes:
        points: (N, 2) continuous indices (i, j), N >= 3, not repeated at the end.
        exclusive: Combine by exclusive or, whatever the overlap (CLOSEDPLANAR_XOR).
    """

    points: npt.NDArray[np.float64]
    exclusive: bool = False

    @property
    def area(self) -> float:
        """Area in pixels (shoelace formula)."""
        x, y = (self.points - self.points[0]).T
        return float(abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2)


def fill(points: npt.NDArray[np.float64], shape: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Return which pixel centres lie inside a polygon.

    Args:
        points: (N, 2) continuous indices (i, j) of the vertices.
        shape: (J, I), rows and columns.

    Returns:
        (J, I) mask. What lies outside the grid is cut off.
    """
    n_rows, n_columns = shape
    x0, y0 = np.round(points, _DECIMALS).T
    x1, y1 = np.roll(x0, -1), np.roll(y0, -1)
    low = np.clip(np.ceil(np.minimum(y0, y1)), 0, n_rows).astype(np.int64)
    high = np.clip(np.ceil(np.maximum(y0, y1)), 0, n_rows).astype(np.int64)
    counts = high - low
    edge = np.repeat(np.arange(len(x0)), counts)
    first = np.repeat(np.cumsum(counts) - counts, counts)
    row = low[edge] + np.arange(counts.sum()) - first
    slope = (x1[edge] - x0[edge]) / (y1[edge] - y0[edge])
    crossing = x0[edge] + slope * (row - y0[edge])
    column = np.clip(np.ceil(np.round(crossing, _DECIMALS)), 0, n_columns).astype(np.int64)
    toggles = np.zeros((n_rows, n_columns + 1), dtype=np.int64)
    np.add.at(toggles, (row, column), 1)
    inside: npt.NDArray[np.bool_] = np.cumsum(toggles, axis=1)[:, :n_columns] % 2 == 1
    return inside


def fill_slice(polygons: Sequence[Polygon], shape: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Return the region that several contours of one structure draw on one slice.

    A contour inside what is drawn so far cuts a hole; an island in a hole is drawn again;
    contours side by side or partly overlapping are joined. A contour stored twice counts once.

    Args:
        polygons: In any order.
        shape: (J, I), rows and columns.

    Returns:
        (J, I) mask.
    """
    region = np.zeros(shape, dtype=bool)
    digests: set[bytes] = set()
    for polygon in sorted(polygons, key=lambda p: -p.area):
        key = np.unique(np.round(polygon.points, 2), axis=0).tobytes()
        if key in digests:
            continue
        digests.add(key)
        area = fill(polygon.points, shape)
        is_nested = area.any() and (region & area).sum() >= _NESTED * area.sum()
        if polygon.exclusive:
            region ^= area
        elif is_nested:
            region &= ~area
        else:
            region |= area
    return region
