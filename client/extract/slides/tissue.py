"""Find the tissue: a mask at low resolution, from colour saturation.

Follows CLAM (Lu et al., 2021, Nature Biomedical Engineering 5:555): RGB to HSV, median blur of
the saturation, a threshold, closing, small islands dropped and small holes filled. Sizes are
in micrometres instead of pixels, so that slides of any resolution are treated alike, and areas
are capped at a share of the slide, so that small slides and frames keep their tissue.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from client.extract.slides.wsi_reader import SlideReader
from common.contract import Contract
from common.optional import require

_REFERENCE_UM = 16.0  # 64-fold downsampling of a 40x slide
_PATCH_MM2 = (512 * 0.25e-3) ** 2  # area unit of the presets: 512 px at 0.25 um
_SHARE_OF_SLIDE = 0.005


class TissueParams(Contract):
    """How tissue is distinguished from glass; the defaults are those published for TCGA slides."""

    threshold: int | Literal["otsu"] = Field(
        default=8, description="saturation, 0..255, above which a pixel is tissue"
    )
    blur_um: float = Field(default=7 * _REFERENCE_UM, ge=0, description="side of the median window")
    close_um: float = Field(default=4 * _REFERENCE_UM, ge=0, description="side of the closing")
    min_tissue_mm2: float = Field(default=16 * _PATCH_MM2, ge=0, description="islands kept")
    min_hole_mm2: float = Field(default=4 * _PATCH_MM2, ge=0, description="holes kept open")
    max_holes: int = Field(default=8, ge=0, description="largest holes kept open per island")


@dataclass(frozen=True)
class TissueMask:
    """Tissue of one slide.

    Attributes:
        mask: (rows, columns) bool, true = tissue.
        width_px: Level-0 width of the slide, which the columns cover.
        height_px: Level-0 height of the slide, which the rows cover.
        um_per_px: Resolution of the mask.
    """

    mask: NDArray[np.bool_]
    width_px: int
    height_px: int
    um_per_px: float

    def fractions(self, corners: NDArray[np.int64], side_px: int) -> NDArray[np.float64]:
        """Return the tissue share (N,) of squares.

        Args:
            corners: (N, 2) x and y of the upper left corners, level-0 pixels.
            side_px: Side, level-0 pixels; parts beyond the slide count as glass.
        """
        rows, columns = self.mask.shape
        total = np.zeros((rows + 1, columns + 1))
        total[1:, 1:] = self.mask.cumsum(axis=0, dtype=np.float64).cumsum(axis=1)
        x0, y0 = (corners[:, 0] * columns / self.width_px, corners[:, 1] * rows / self.height_px)
        wide, high = side_px * columns / self.width_px, side_px * rows / self.height_px
        inside = (
            _integral(total, y0 + high, x0 + wide)
            - _integral(total, y0, x0 + wide)
            - _integral(total, y0 + high, x0)
            + _integral(total, y0, x0)
        )
        return np.asarray(np.clip(inside / (wide * high), 0.0, 1.0))


def find_tissue(slide: SlideReader, params: TissueParams) -> TissueMask:
    """Return the tissue mask of a slide, at 4 to 16 um a pixel.

    Raises:
        ExtractionError: The slide is damaged.
    """
    longest_um = max(slide.width_px, slide.height_px) * slide.um_per_px
    um_per_px = float(np.clip(longest_um / 1024, 4.0, _REFERENCE_UM))
    mask = segment(slide.overview(um_per_px), um_per_px, params)
    return TissueMask(mask, slide.width_px, slide.height_px, um_per_px)


def segment(rgb: NDArray[np.uint8], um_per_px: float, params: TissueParams) -> NDArray[np.bool_]:
    """Return the tissue (rows, columns) bool of an overview.

    Args:
        rgb: (rows, columns, 3) uint8.
        um_per_px: Resolution of the overview.
        params: Thresholds and sizes.
    """
    cv2 = require("cv2", extra="pathology")
    saturation = cv2.cvtColor(rgb, cv2.COLOR_RGB2HSV)[..., 1]
    window = int(params.blur_um / um_per_px) // 2 * 2 + 1
    if window > 1:
        saturation = cv2.medianBlur(np.ascontiguousarray(saturation), window)
    if params.threshold == "otsu":
        _, mask = cv2.threshold(saturation, 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    else:
        _, mask = cv2.threshold(saturation, params.threshold, 255, cv2.THRESH_BINARY)
    side = round(params.close_um / um_per_px)
    if side > 1:
        mask = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, np.ones((side, side), np.uint8))
    return _filter_areas(cv2, mask, um_per_px, params)


def _filter_areas(
    cv2: Any, mask: NDArray[np.uint8], um_per_px: float, params: TissueParams
) -> NDArray[np.bool_]:
    """Drop small islands; fill all holes but the largest few that are large enough."""
    px_per_mm2 = (1000.0 / um_per_px) ** 2
    cap = _SHARE_OF_SLIDE * mask.size
    smallest = min(params.min_tissue_mm2 * px_per_mm2, cap)
    smallest_hole = min(params.min_hole_mm2 * px_per_mm2, cap)
    filtered_mask = np.zeros_like(mask)
    contours, tree = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    if not contours:
        return filtered_mask.astype(bool)
    parents = tree[0][:, 3]
    for index in np.flatnonzero(parents < 0):
        holes = [contours[i] for i in np.flatnonzero(parents == index)]
        if cv2.contourArea(contours[index]) - sum(map(cv2.contourArea, holes)) <= smallest:
            continue
        cv2.drawContours(filtered_mask, contours, int(index), 255, cv2.FILLED)
        large = [hole for hole in holes if cv2.contourArea(hole) > smallest_hole]
        for hole in sorted(large, key=cv2.contourArea, reverse=True)[: params.max_holes]:
            inner = np.zeros_like(mask)
            cv2.drawContours(inner, [hole], 0, 255, cv2.FILLED)
            filtered_mask[(inner > 0) & (mask == 0)] = 0
    return filtered_mask.astype(bool)


def _integral(total: NDArray[np.float64], y: Any, x: Any) -> NDArray[np.float64]:
    """Return the bilinear interpolation of the integral image: exact for parts of pixels."""
    rows, columns = total.shape
    y, x = np.clip(y, 0, rows - 1), np.clip(x, 0, columns - 1)
    y0, x0 = np.minimum(y.astype(int), rows - 2), np.minimum(x.astype(int), columns - 2)
    v, u = y - y0, x - x0
    return np.asarray(
        (1 - v) * ((1 - u) * total[y0, x0] + u * total[y0, x0 + 1])
        + v * ((1 - u) * total[y0 + 1, x0] + u * total[y0 + 1, x0 + 1])
    )
