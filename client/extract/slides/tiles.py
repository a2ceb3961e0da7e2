"""Lay out tiles of one physical size, and select those worth encoding."""

import math
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from client.extract.slides.tissue import TissueMask
from client.extract.slides.wsi_reader import SlideReader
from common.contract import Contract
from common.errors import ExtractionError
from common.optional import require

MAX_UPSAMPLING = 1.3
"""A slide may be at most this much coarser than the tiles; beyond, detail would be invented."""


class QualityParams(Contract):
    """When a tile is thrown away. All shares are of the tile's pixels."""

    min_tissue: float = Field(default=0.25, ge=0, le=1, description="tissue share of the mask")
    max_black: float = Field(default=0.5, ge=0, le=1, description="pixels darker than 40 of 255")
    max_pen: float = Field(default=0.25, ge=0, le=1, description="green or blue pen")
    min_sharpness: float = Field(
        default=4.0, ge=0, description="variance of the Laplacian of grey values 0..255"
    )


class Reject(StrEnum):
    """Why a tile is thrown away."""

    BLACK = "black"
    PEN = "pen"
    BLURRED = "blurred"


@dataclass(frozen=True)
class TileGrid:
    """Tiles of one slide.

    Attributes:
        corners: (T, 2) int64, x and y of the upper left corners, level-0 pixels; row by row.
        side_px: Side of a tile, level-0 pixels.
        tile_px: Side of a tile as read, pixels.
    """

    corners: NDArray[np.int64]
    side_px: int
    tile_px: int


def plan_tiles(
    slide: SlideReader, tissue: TissueMask, *, tile_px: int, um_per_px: float, min_tissue: float
) -> TileGrid:
    """Return the tiles, side by side from the upper left corner, that hold enough tissue.

    A tile covers `tile_px * um_per_px` micrometres on every slide, whatever its resolution.
    Only whole tiles are taken; a slide smaller than one tile gives none.

    Raises:
        ExtractionError: The slide is coarser than the tiles.
    """
    if slide.um_per_px > um_per_px * MAX_UPSAMPLING:
        raise ExtractionError(
            f"the slide is too coarse: {slide.um_per_px:g} um per pixel for {um_per_px:g}",
            where=str(slide.path),
            why="enlarged tiles look out of focus to the encoder",
            cure="scan at a higher magnification, or take the slide out of the manifest",
        )
    side = max(1, round(tile_px * um_per_px / slide.um_per_px))
    columns, rows = slide.width_px // side, slide.height_px // side
    y, x = np.mgrid[0:rows, 0:columns]
    corners = (np.stack([x.ravel(), y.ravel()], axis=1) * side).astype(np.int64)
    keep = tissue.fractions(corners, side) >= min_tissue
    return TileGrid(corners[keep], side, tile_px)


def thinned(grid: TileGrid, max_tiles: int | None) -> TileGrid:
    """Return at most `max_tiles` tiles, evenly spread in reading order."""
    if max_tiles is None or len(grid.corners) <= max_tiles:
        return grid
    indices = np.linspace(0, len(grid.corners) - 1, max_tiles).round().astype(int)
    return TileGrid(grid.corners[indices], grid.side_px, grid.tile_px)


def reject_reason(tile: NDArray[np.uint8], params: QualityParams) -> Reject | None:
    """Return why a tile should not be encoded, or None.

    Args:
        tile: (H, W, 3) RGB uint8, at about 0.5 um per pixel.
        params: Thresholds.
    """
    if float((tile.max(axis=2) < 40).mean()) > params.max_black:
        return Reject.BLACK
    if pen_share(tile) > params.max_pen:
        return Reject.PEN
    if sharpness(tile) < params.min_sharpness:
        return Reject.BLURRED
    return None


def pen_share(tile: NDArray[np.uint8]) -> float:
    """Return the share of pixels in the colours of green and blue pens.

    Haematoxylin is violet and eosin pink: hues of 240 to 350 degrees. Strongly coloured pixels
    of 75 to 225 degrees (green to azure) are ink.
    """
    cv2 = require("cv2", extra="pathology")
    hue, saturation, value = np.moveaxis(cv2.cvtColor(tile, cv2.COLOR_RGB2HSV), 2, 0)
    ink = (hue >= 37) & (hue <= 112) & (saturation >= 60) & (value >= 40)
    return float(ink.mean())


def sharpness(tile: NDArray[np.uint8]) -> float:
    """Return the variance of the Laplacian of the grey values: low out of focus."""
    cv2 = require("cv2", extra="pathology")
    grey = cv2.cvtColor(tile, cv2.COLOR_RGB2GRAY)
    value = float(cv2.Laplacian(grey, cv2.CV_32F).var())
    return value if math.isfinite(value) else 0.0
