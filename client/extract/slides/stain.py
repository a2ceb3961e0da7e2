"""Normalise stains to a fixed public reference (optional; off by default).

Macenko et al., ISBI 2009: optical density is a mixture of two stain vectors, found as the
extreme angles in the plane of the two largest principal components. The reference vectors and
concentrations are those of the authors' released code; nothing is estimated across patients.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

StainNormaliser = Callable[[NDArray[np.uint8]], NDArray[np.uint8]]

_LIGHT = 240.0
_REFERENCE = np.array([[0.5626, 0.2159], [0.7201, 0.8012], [0.4062, 0.5581]])
_REFERENCE_MAX = np.array([1.9705, 1.0308])
_OD_FLOOR = 0.15
_PERCENTILE = 1.0
_MIN_PIXELS = 1000


def fit_macenko(tiles: NDArray[np.uint8]) -> StainNormaliser | None:
    """Return the normaliser of one slide, or None where too little is stained to decide.

    Args:
        tiles: (N, H, W, 3) RGB uint8 of the slide; about a million pixels suffice.
    """
    density = _optical_density(tiles)
    tissue = density[(density > _OD_FLOOR).all(axis=1)]
    if len(tissue) < _MIN_PIXELS:
        return None
    tissue = tissue[:: max(1, len(tissue) // 200_000)]
    vectors = stain_vectors(tissue)
    concentrations = np.linalg.lstsq(vectors, tissue.T, rcond=None)[0]
    strongest = np.percentile(concentrations, 99, axis=1)
    if not np.isfinite(strongest).all() or (strongest <= 0.05).any():
        return None
    unmix = np.linalg.pinv(vectors) * (_REFERENCE_MAX / strongest)[:, None]
    colour = _REFERENCE @ unmix

    def normalise(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        mixed = _optical_density(images) @ colour.T
        pixels = _LIGHT * np.exp(-mixed)
        levels = np.clip(np.rint(pixels), 0, 255).astype(np.uint8)
        return np.asarray(levels.reshape(images.shape))

    return normalise


def stain_vectors(density: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the stain vectors (3, 2), unit columns, haematoxylin first.

    Args:
        density: (N, 3) optical densities (R, G, B) of stained pixels.
    """
    _, basis = np.linalg.eigh(np.cov(density.T))
    plane = basis[:, [2, 1]]
    plane = plane * np.where(plane[0] < 0, -1.0, 1.0)
    plane_density = density @ plane
    angles = np.arctan2(plane_density[:, 1], plane_density[:, 0])
    low, high = np.percentile(angles, [_PERCENTILE, 100 - _PERCENTILE])
    pair = [plane @ np.array([np.cos(angle), np.sin(angle)]) for angle in (low, high)]
    first, second = pair if pair[0][0] > pair[1][0] else pair[::-1]
    return np.stack([first, second], axis=1)


def _optical_density(images: NDArray[np.uint8]) -> NDArray[np.float64]:
    flat = images.reshape(-1, 3).astype(np.float64)
    return np.asarray(-np.log((flat + 1.0) / _LIGHT))
