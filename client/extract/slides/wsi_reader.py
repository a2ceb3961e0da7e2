"""Read whole slides through OpenSlide, in level-0 pixels and micrometres per pixel.

Pixels are read region by region, so memory does not grow with the slide.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from common.errors import ErrorCode, ExtractionError
from common.optional import require

PLAUSIBLE_UM_PER_PX = (0.05, 10.0)
"""Resolutions a slide scanner can have; 72 dpi, the default of image programs, is 353."""

MAX_ANISOTROPY = 0.05
"""Largest relative difference between the horizontal and the vertical resolution."""

_STRIPE_PX = 16_000_000  # pixels in memory while an overview is made

_UM_PER_UNIT = {"inch": 25_400.0, "centimeter": 10_000.0, "millimeter": 1_000.0}


class SlideReader:
    """One open slide; a context manager.

    Args:
        path: A file that OpenSlide reads (SVS, NDPI, SCN, MRXS, tiled TIFF, DICOM WSI, ...).

    Attributes:
        path: The file.
        um_per_px: Level-0 resolution, micrometres per pixel.
        width_px: Level-0 width.
        height_px: Level-0 height.

    Raises:
        ExtractionError: The file is missing, damaged or of an unknown format; with code
            SLIDE_WITHOUT_RESOLUTION if it does not say how large a pixel is.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._library = require("openslide", extra="pathology")
        self._slide = _open(self._library, path)
        try:
            self.um_per_px = resolution_um_per_px(self._slide.properties, path)
        except ExtractionError:
            self._slide.close()
            raise
        self.width_px, self.height_px = (int(side) for side in self._slide.dimensions)
        self._downsamples = [float(d) for d in self._slide.level_downsamples]

    def __enter__(self) -> Self:
        """Return the reader."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        self._slide.close()

    def read(
        self, x: int, y: int, width: int, height: int, size: tuple[int, int]
    ) -> NDArray[np.uint8]:
        """Return an area as RGB (rows, columns, 3) uint8, averaged down to `size`.

        The coarsest level that is still at least as fine as requested is read and shrunk by
        area averaging. Outside the slide and where nothing was scanned it is white.

        Args:
            x: Left edge, level-0 pixels.
            y: Upper edge, level-0 pixels.
            width: Width, level-0 pixels.
            height: Height, level-0 pixels.
            size: Columns and rows wanted.

        Raises:
            ExtractionError: The file is damaged there.
        """
        level = self._level(min(width / size[0], height / size[1]))
        scale = self._downsamples[level]
        read = (max(1, round(width / scale)), max(1, round(height / scale)))
        try:
            image = self._slide.read_region((x, y), level, read)
        except self._library.OpenSlideError as error:
            raise _damaged(f"{self.path}, at level-0 pixel ({x}, {y})", error) from error
        return _resized(_on_white(np.asarray(image)), size)

    def overview(self, um_per_px: float) -> NDArray[np.uint8]:
        """Return the whole slide as RGB (rows, columns, 3) uint8 at about this resolution.

        Column c of the result covers level-0 pixels from c * width_px / columns on; rows alike.
        Read in stripes, so that a slide without small levels does not fill the memory.
        """
        factor = max(um_per_px / self.um_per_px, 1.0)
        columns, rows = (max(1, round(side / factor)) for side in (self.width_px, self.height_px))
        scale = self._downsamples[self._level(factor)]
        read_per_row = self.width_px / scale * factor / scale
        step = max(1, int(_STRIPE_PX / read_per_row))
        image = np.empty((rows, columns, 3), np.uint8)
        for top in range(0, rows, step):
            bottom = min(top + step, rows)
            y0, y1 = (round(row * self.height_px / rows) for row in (top, bottom))
            image[top:bottom] = self.read(0, y0, self.width_px, y1 - y0, (columns, bottom - top))
        return image

    def _level(self, downsample: float) -> int:
        """Return the coarsest level that is at least as fine as `downsample`."""
        return max(i for i, d in enumerate(self._downsamples) if i == 0 or d <= downsample * 1.01)


def resolution_um_per_px(properties: Mapping[str, str], path: Path) -> float:
    """Return the level-0 resolution that a slide's own properties state, in um per pixel.

    Read from `openslide.mpp-x` and `-y`, else from the TIFF resolution tags with their unit.
    Nothing is ever guessed, neither from the nominal magnification nor from a default.

    Raises:
        ExtractionError: With code SLIDE_WITHOUT_RESOLUTION if it is missing, implausible or
            differs between the axes.
    """
    x, y = (_axis_resolution(properties, axis) for axis in ("x", "y"))
    if x is None or y is None:
        raise _without_resolution("the slide does not state its pixel size", path)
    low, high = PLAUSIBLE_UM_PER_PX
    if not (low <= x <= high and low <= y <= high):
        what = f"the slide states {x:g} x {y:g} um per pixel, which no slide scanner has"
        raise _without_resolution(what, path)
    if abs(x - y) > MAX_ANISOTROPY * max(x, y):
        raise _without_resolution(f"the slide's pixels are not square: {x:g} x {y:g} um", path)
    return math.sqrt(x * y)


def _axis_resolution(properties: Mapping[str, str], axis: str) -> float | None:
    resolution = _positive(properties.get(f"openslide.mpp-{axis}"))
    if resolution is not None:
        return resolution
    per_unit = _positive(properties.get(f"tiff.{axis.upper()}Resolution"))
    unit = _UM_PER_UNIT.get(properties.get("tiff.ResolutionUnit", ""))
    return None if per_unit is None or unit is None else unit / per_unit


def _positive(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) and value > 0 else None


def _without_resolution(what: str, path: Path) -> ExtractionError:
    return ExtractionError(
        what,
        where=str(path),
        why="tiles of unknown size cannot be compared with those of other slides; set aside",
        cure="export the slide again with its resolution, or write the resolution tags into the "
        "TIFF, or take the slide out of the manifest",
        code=ErrorCode.SLIDE_WITHOUT_RESOLUTION,
    )


def _open(library: Any, path: Path) -> Any:
    if not path.is_file():
        raise ExtractionError(
            "the slide does not exist", where=str(path), cure="correct the path in the manifest"
        )
    try:
        return library.OpenSlide(str(path))
    except library.OpenSlideUnsupportedFormatError as error:
        raise ExtractionError(
            "the file is not a slide that OpenSlide can read",
            where=str(path),
            why="either it is damaged, or it is a plain image without tiles",
            cure="copy it again; convert plain images to tiled TIFF with their resolution",
        ) from error
    except library.OpenSlideError as error:
        raise _damaged(str(path), error) from error


def _damaged(where: str, error: Exception) -> ExtractionError:
    return ExtractionError(
        "the slide is damaged",
        where=where,
        why=" ".join(str(error).split()),
        cure="copy the file again from the scanner or the archive",
    )


def _on_white(rgba: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return RGB of RGBA pixels laid on white."""
    alpha = rgba[..., 3]
    if alpha.min(initial=255) == 255:
        return rgba[..., :3]
    share = alpha[..., None].astype(np.uint16)
    mixed = (rgba[..., :3] * share + 255 * (255 - share) + 127) // 255
    return mixed.astype(np.uint8)


def _resized(rgb: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    if rgb.shape[1::-1] == size:
        return np.ascontiguousarray(rgb)
    cv2 = require("cv2", extra="pathology")
    shrinks = rgb.shape[1] >= size[0] and rgb.shape[0] >= size[1]
    how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    image: NDArray[np.uint8] = cv2.resize(np.ascontiguousarray(rgb), size, interpolation=how)
    return image
