"""Macenko normalisation against mixtures of known stains."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from client.extract.slides.stain import _REFERENCE, fit_macenko, stain_vectors
from client.extract.slides.wsi_reader import SlideReader


def mixture(
    vectors: NDArray[np.float64], strength: float, seed: int, n: int = 200
) -> NDArray[np.uint8]:
    """Return an image (1, n, n, 3) whose optical density mixes two stains at random."""
    amounts = np.random.default_rng(seed).gamma(1.0, strength, (n * n, 2))
    density = amounts @ vectors.T
    return np.clip(np.rint(240 * np.exp(-density)), 0, 255).astype(np.uint8).reshape(1, n, n, 3)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000), tilt=st.floats(-0.06, 0.06))
def test_known_stains_are_found(seed: int, tilt: float) -> None:
    vectors = _REFERENCE + np.array([[tilt, 0], [0, tilt], [0, -tilt]])
    vectors = vectors / np.linalg.norm(vectors, axis=0)
    amounts = np.random.default_rng(seed).gamma(1.0, 0.5, (20_000, 2))
    density = amounts @ vectors.T
    found = stain_vectors(density[(density > 0.15).all(axis=1)])
    assert np.allclose(np.linalg.norm(found, axis=0), 1)
    cosines = (found * vectors).sum(axis=0)
    assert (np.degrees(np.arccos(np.clip(cosines, -1, 1))) < 6).all()


def test_paler_scan_of_the_same_tissue_becomes_the_same_picture() -> None:
    strong = mixture(_REFERENCE, 0.5, 1).astype(int)
    pale_amounts = -np.log((strong + 1) / 240) * 0.6
    pale = np.clip(np.rint(240 * np.exp(-pale_amounts) - 1), 0, 255).astype(np.uint8)
    images = [strong.astype(np.uint8), pale]
    normalised = []
    for image in images:
        normalise = fit_macenko(image)
        assert normalise is not None
        normalised.append(normalise(image).astype(int))
    before = np.abs(strong - pale.astype(int)).mean()
    after = np.abs(normalised[0] - normalised[1]).mean()
    assert after < 0.2 * before


def test_glass_is_left_alone() -> None:
    assert fit_macenko(np.full((1, 64, 64, 3), 242, np.uint8)) is None


@pytest.mark.shared_data
def test_sites_come_closer_in_colour(shared_data: Path) -> None:
    files = sorted((shared_data / "he_patches" / "tcga_tiff").glob("*.tif"))[::4]
    means, normalised = [], []
    for path in files:
        with SlideReader(path) as slide:
            image = slide.overview(1.0)[None]
        normalise = fit_macenko(image)
        assert normalise is not None
        means.append(image.mean(axis=(0, 1, 2)))
        normalised.append(normalise(image).mean(axis=(0, 1, 2)))
    assert np.std(normalised, axis=0).mean() < np.std(means, axis=0).mean()
