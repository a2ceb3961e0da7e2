"""Tissue masks against painted shapes and against a direct count."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from painted_slides import GLASS, TISSUE, write_slide

from client.extract.slides.tissue import TissueMask, TissueParams, find_tissue, segment
from client.extract.slides.wsi_reader import SlideReader

PARAMS = TissueParams()


def disc(side: int, radius: float, centre: tuple[float, float] | None = None) -> NDArray[np.bool_]:
    y, x = np.mgrid[0:side, 0:side] + 0.5
    cx, cy = centre or (side / 2, side / 2)
    return (x - cx) ** 2 + (y - cy) ** 2 < radius**2


def painted(shape: NDArray[np.bool_]) -> NDArray[np.uint8]:
    return np.where(shape[..., None], TISSUE, GLASS).astype(np.uint8)


def overlap(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    return float((a & b).sum() / (a | b).sum())


@pytest.mark.parametrize("um_per_px", [8.0, 16.0])
@pytest.mark.parametrize("threshold", [8, "otsu"])
def test_disc_is_found(um_per_px: float, threshold: int) -> None:
    side = int(8000 / um_per_px)
    shape = disc(side, 2000 / um_per_px)
    found = segment(painted(shape), um_per_px, TissueParams(threshold=threshold))
    assert overlap(found, shape) > 0.97


def test_small_islands_go_and_only_large_holes_stay() -> None:
    """At 16 um, 0.26 mm2 are 1024 px and 0.066 mm2 are 256 px; the slide is 1000 x 1000 px."""
    large, speck = disc(1000, 200), disc(1000, 14, (60, 60))
    hole, pinhole = disc(1000, 40, (450, 500)), disc(1000, 6, (560, 500))
    found = segment(painted((large | speck) & ~hole & ~pinhole), 16.0, PARAMS)
    assert not found[speck].any()
    assert not found[disc(1000, 30, (450, 500))].any()
    assert found[pinhole].all()


def test_no_more_holes_than_allowed() -> None:
    shape = disc(1000, 400)
    centres = [(250 + 100 * (i % 6), 350 + 150 * (i // 6)) for i in range(12)]
    for i, centre in enumerate(centres):
        shape &= ~disc(1000, 20 + i, centre)
    found = segment(painted(shape), 16.0, PARAMS)
    open_holes = [not found[int(y), int(x)] for x, y in centres]
    assert open_holes == [False] * 4 + [True] * 8  # the largest eight


def test_glass_and_grey_dust_are_no_tissue() -> None:
    dust = np.where(disc(500, 100)[..., None], (120, 120, 121), GLASS).astype(np.uint8)
    assert not segment(dust, 16.0, PARAMS).any()


def test_mask_means_the_same_at_every_slide_resolution(tmp_path: Path) -> None:
    """The same 2 mm of glass, scanned at 1 and 2 um a pixel, has the same tissue."""
    masks = []
    for um in (1.0, 2.0):
        side = int(2048 / um)
        path = write_slide(tmp_path / f"{um}.tif", painted(disc(side, 600 / um)), um, 2)
        with SlideReader(path) as slide:
            masks.append(find_tissue(slide, PARAMS).mask)
    assert masks[0].shape == masks[1].shape
    assert overlap(*masks) > 0.98


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**16),
    side=st.integers(1, 400),
    x=st.integers(0, 900),
    y=st.integers(0, 700),
)
def test_fractions_equal_a_direct_count(seed: int, side: int, x: int, y: int) -> None:
    small = np.random.default_rng(seed).random((7, 9)) < 0.5
    tissue = TissueMask(small, width_px=900, height_px=700, um_per_px=8.0)
    full = np.zeros((700 + side, 900 + side))
    full[:700, :900] = small.repeat(100, axis=0).repeat(100, axis=1)
    expected = full[y : y + side, x : x + side].mean()
    found = tissue.fractions(np.array([[x, y]]), side)
    assert found == pytest.approx([expected], abs=1e-9)


@pytest.mark.shared_data
def test_real_slide_and_frames(shared_data: Path) -> None:
    with SlideReader(shared_data / "wsi_small" / "CMU-1-Small-Region.svs") as slide:
        tissue = find_tissue(slide, PARAMS)
        glass = slide.overview(tissue.um_per_px).min(axis=2) > 225
    assert 0.3 < tissue.mask.mean() < 0.45
    assert glass[tissue.mask].mean() < 0.25  # clefts within the tissue
    dark_outside = ~glass & ~tissue.mask
    assert dark_outside.sum() < 0.08 * tissue.mask.sum()  # a loose thread and crumbs
    for path in sorted((shared_data / "he_patches" / "tcga_tiff").glob("*.tif"))[:6]:
        with SlideReader(path) as slide:
            assert find_tissue(slide, PARAMS).mask.mean() > 0.95
