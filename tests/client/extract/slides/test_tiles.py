"""Tiles have one physical size, lie inside the slide, and bad ones are thrown away."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from painted_slides import GLASS, TISSUE, textured

from client.extract.slides.tiles import (
    QualityParams,
    Reject,
    TileGrid,
    plan_tiles,
    reject_reason,
    thinned,
)
from client.extract.slides.tissue import TissueMask, TissueParams, find_tissue
from client.extract.slides.wsi_reader import SlideReader
from common.errors import ExtractionError

PARAMS = QualityParams()


def flat_slide(width: int, height: int, um: float) -> Any:
    return SimpleNamespace(width_px=width, height_px=height, um_per_px=um, path=Path("s.svs"))


def all_tissue(slide: Any) -> TissueMask:
    return TissueMask(np.ones((20, 30), bool), slide.width_px, slide.height_px, 8.0)


@given(
    width=st.integers(1, 5000),
    height=st.integers(1, 5000),
    um=st.floats(0.1, 0.6),
    tile_px=st.sampled_from([224, 256]),
)
def test_tiles_are_whole_disjoint_and_of_one_size(
    width: int, height: int, um: float, tile_px: int
) -> None:
    slide = flat_slide(width, height, um)
    grid = plan_tiles(slide, all_tissue(slide), tile_px=tile_px, um_per_px=0.5, min_tissue=0.25)
    assert abs(grid.side_px * um - tile_px * 0.5) <= um / 2 + 1e-9
    assert len(grid.corners) == (width // grid.side_px) * (height // grid.side_px)
    assert (grid.corners % grid.side_px == 0).all()
    assert len(np.unique(grid.corners, axis=0)) == len(grid.corners)
    if len(grid.corners):
        assert (grid.corners.max(axis=0) + grid.side_px <= [width, height]).all()


def test_only_tiles_with_enough_tissue_are_kept() -> None:
    slide = flat_slide(448, 224, 0.5)
    mask = np.zeros((224, 448), bool)
    mask[:, 160:] = True  # 64 of the 224 columns of the left tile: 0.286
    tissue = TissueMask(mask, 448, 224, 0.5)
    kept = [
        len(plan_tiles(slide, tissue, tile_px=224, um_per_px=0.5, min_tissue=share).corners)
        for share in (0.25, 0.28, 0.29, 1.0)
    ]
    assert kept == [2, 2, 1, 1]


def test_coarse_slide_is_refused_rather_than_enlarged() -> None:
    slide = flat_slide(1000, 1000, 1.0)
    with pytest.raises(ExtractionError, match="too coarse"):
        plan_tiles(slide, all_tissue(slide), tile_px=224, um_per_px=0.5, min_tissue=0.25)


@given(n=st.integers(0, 300), limit=st.integers(1, 50))
def test_thinning_is_even(n: int, limit: int) -> None:
    corners = np.stack([np.arange(n), np.zeros(n)], axis=1).astype(np.int64)
    left = thinned(TileGrid(corners, 1, 1), limit).corners[:, 0]
    assert len(left) == min(n, limit)
    if 1 < len(left) < n:
        gaps = np.diff(left)
        assert gaps.min() >= 1
        assert gaps.max() - gaps.min() <= 1
        assert (left[0], left[-1]) == (0, n - 1)


def tile(colour: tuple[int, int, int]) -> Any:
    return textured((224, 224), colour, 5)


def test_reasons_to_throw_a_tile_away() -> None:
    good = tile(TISSUE)
    assert reject_reason(good, PARAMS) is None
    assert reject_reason(tile((8, 8, 8)), PARAMS) is Reject.BLACK
    assert reject_reason(tile((40, 160, 70)), PARAMS) is Reject.PEN
    assert reject_reason(tile((30, 60, 190)), PARAMS) is None  # hue 229: could be haematoxylin
    assert reject_reason(tile((20, 110, 190)), PARAMS) is Reject.PEN
    blurred = cv2.GaussianBlur(good, (0, 0), 6)
    assert reject_reason(blurred, PARAMS) is Reject.BLURRED
    assert reject_reason(np.full((224, 224, 3), GLASS, np.uint8), PARAMS) is Reject.BLURRED
    half_black = good.copy()
    half_black[:100] = 0
    assert reject_reason(half_black, PARAMS) is None
    assert reject_reason(half_black, QualityParams(max_black=0.4)) is Reject.BLACK


@pytest.mark.shared_data
def test_real_tissue_passes_and_the_same_out_of_focus_does_not(shared_data: Path) -> None:
    files = [shared_data / "wsi_small" / "CMU-1-Small-Region.svs"]
    files += sorted((shared_data / "he_patches" / "tcga_tiff").glob("*.tif"))[:10]
    for path in files:
        with SlideReader(path) as slide:
            tissue = find_tissue(slide, TissueParams())
            grid = plan_tiles(slide, tissue, tile_px=224, um_per_px=0.5, min_tissue=0.25)
            for x, y in grid.corners:
                side = grid.side_px
                real = slide.read(int(x), int(y), side, side, (224, 224))
                assert reject_reason(real, PARAMS) is None
                assert reject_reason(cv2.GaussianBlur(real, (0, 0), 8), PARAMS) is Reject.BLURRED
