"""Slides with known pixels: lossless tiled TIFF pyramids that OpenSlide opens."""

from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray

GLASS = (242, 242, 244)
TISSUE = (178, 96, 168)


def write_slide(
    path: Path, pixels: NDArray[np.uint8], um_per_px: float | None, levels: int = 1
) -> Path:
    """Write (H, W, 3) pixels, each further level half as large; None = no resolution."""
    tags = {} if um_per_px is None else {"resolutionunit": "CENTIMETER"}
    with tifffile.TiffWriter(path) as writer:
        for level in range(levels):
            step = 2**level
            if um_per_px is not None:
                tags["resolution"] = (1e4 / um_per_px / step, 1e4 / um_per_px / step)
            writer.write(
                pixels[::step, ::step],
                tile=(64, 64),
                photometric="rgb",
                subfiletype=int(level > 0),
                metadata=None,
                **tags,
            )
    return path


def textured(shape: tuple[int, int], colour: tuple[int, int, int], seed: int) -> NDArray[np.uint8]:
    """Return (H, W, 3) of one colour with noise, sharp enough to pass as in focus."""
    noise = np.random.default_rng(seed).integers(-25, 26, (*shape, 1))
    return np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)


def slide_with_tissue(
    side: int, box: tuple[int, int, int, int], seed: int = 0
) -> NDArray[np.uint8]:
    """Return (side, side, 3) of glass with textured tissue in `box` = (x, y, width, height)."""
    pixels = np.full((side, side, 3), GLASS, np.uint8)
    x, y, width, height = box
    pixels[y : y + height, x : x + width] = textured((height, width), TISSUE, seed)
    return pixels
