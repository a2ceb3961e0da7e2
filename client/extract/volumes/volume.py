"""Volumes and masks in patient space, as readers return and extractors take them.

Arrays are (K, J, I): slice, row, column. Points are (x, y, z) in mm in DICOM patient space
(LPS), indices (i, j, k). SimpleITK uses the same space, also for NIfTI and NRRD.
"""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from common.errors import ErrorCode, ExtractionError
from common.optional import require

GRID_TOLERANCE = 0.1
"""Largest distance, in voxels, between two grids that count as the same grid."""


@lru_cache(maxsize=1)
def sitk() -> Any:
    """Return the SimpleITK module, set to one thread: extraction runs many processes instead.

    Raises:
        ConfigError: The extra `radiology` is not installed.
    """
    module = require("SimpleITK", extra="radiology")
    module.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    return module


@dataclass(frozen=True)
class Volume:
    """One CT or MR volume.

    Attributes:
        image: SimpleITK image, 3-D, float32, finite.
        source: File or folder it was read from.
        series_uid: DICOM series, empty for other formats.
        frame_of_reference: DICOM frame of reference, empty where unknown.
    """

    image: Any
    source: Path
    series_uid: str = ""
    frame_of_reference: str = ""

    @property
    def array(self) -> npt.NDArray[np.float32]:
        """Voxels as (K, J, I)."""
        array: npt.NDArray[np.float32] = sitk().GetArrayFromImage(self.image)
        return array

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance of voxel centres along i, j and k."""
        i, j, k = self.image.GetSpacing()
        return float(i), float(j), float(k)


@dataclass(frozen=True)
class Mask:
    """A region of interest on the grid of its volume.

    Attributes:
        image: SimpleITK image, uint8, 0 or 1, same grid as the volume; never empty.
        source: File it was read from.
        roi: What was drawn, by name (`+` joins several), or the label value.
        outside_fraction: Share of the drawn region that lies outside the volume and is lost.
    """

    image: Any
    source: Path
    roi: str = ""
    outside_fraction: float = 0.0

    @property
    def array(self) -> npt.NDArray[np.bool_]:
        """Voxels as (K, J, I)."""
        return np.asarray(sitk().GetArrayViewFromImage(self.image) != 0)

    @property
    def volume_ml(self) -> float:
        """Number of voxels times the volume of one, in millilitres."""
        voxel_mm3 = float(np.prod(self.image.GetSpacing()))
        return int(self.array.sum()) * voxel_mm3 / 1000.0


def make_mask(
    array: npt.NDArray[np.bool_], volume: Volume, source: Path, *, roi: str, outside: float = 0.0
) -> Mask:
    """Return a mask on the grid of `volume`.

    Args:
        array: (K, J, I), the shape of the volume.
        volume: Where the mask lies.
        source: File the mask was read from.
        roi: Its name.
        outside: Share of the region that fell outside the volume.

    Raises:
        ExtractionError: No voxel is set.
    """
    if not array.any():
        raise ExtractionError(
            f"the mask '{roi}' is empty",
            where=str(source),
            why="there is no tumour voxel to compute features from",
            cure="check which region was exported, or leave this volume out of the manifest",
        )
    image = sitk().GetImageFromArray(array.astype(np.uint8))
    image.CopyInformation(volume.image)
    return Mask(image, source, roi, outside)


def index_to_point(image: Any) -> npt.NDArray[np.float64]:
    """Return the (4, 4) matrix from homogeneous (i, j, k) to (x, y, z) in mm of an image."""
    matrix = np.eye(4)
    direction = np.array(image.GetDirection()).reshape(3, 3)
    matrix[:3, :3] = direction * np.array(image.GetSpacing())
    matrix[:3, 3] = image.GetOrigin()
    return matrix


def to_index(image: Any, points_mm: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return continuous indices (N, 3) of points (N, 3) in mm; integers are voxel centres."""
    matrix = index_to_point(image)
    return np.asarray(np.linalg.solve(matrix[:3, :3], (points_mm - matrix[:3, 3]).T).T, np.float64)


def grid_distance(first: Any, second: Any) -> float:
    """Return the largest distance between corners of two grids, in voxels of the first.

    Infinite if the grids have different shapes. Equal grids give 0.
    """
    if first.GetSize() != second.GetSize():
        return float("inf")
    size = np.array(second.GetSize()) - 1
    corners = np.array(list(np.ndindex(2, 2, 2))) * size
    matrix = index_to_point(second)
    points = corners @ matrix[:3, :3].T + matrix[:3, 3]
    return float(np.abs(to_index(first, points) - corners).max())


def check_frame(volume: Volume, frame_of_reference: str, source: Path) -> None:
    """Refuse a DICOM mask drawn in another frame of reference than its volume.

    Raises:
        ExtractionError: Both are known and differ (code IMAGE_MASK_MISMATCH).
    """
    both = volume.frame_of_reference and frame_of_reference
    if both and volume.frame_of_reference != frame_of_reference:
        raise ExtractionError(
            "image and mask have different frames of reference",
            where=f"{source} against {volume.source}",
            why="their coordinates start from different origins, so the mask would land elsewhere",
            cure="name the series the mask was drawn on, or register the two and export again",
            code=ErrorCode.IMAGE_MASK_MISMATCH,
        )


def check_outside(share: float, allowed: float, what: str, source: Path, volume: Volume) -> None:
    """Refuse a DICOM mask of which too much lies outside its volume.

    Raises:
        ExtractionError: `share` is over `allowed` (code IMAGE_MASK_MISMATCH).
    """
    if share > allowed:
        raise ExtractionError(
            f"{share:.0%} of the {what} lies outside the volume",
            where=f"{source} against {volume.source}",
            why="the mask belongs to another volume, or the volume was cut",
            cure="name the series it was drawn on; if the cut is meant, raise "
            "extractor.params.max_outside_fraction",
            code=ErrorCode.IMAGE_MASK_MISMATCH,
        )


def resample_mask(mask_image: Any, reference: Any) -> npt.NDArray[np.bool_]:
    """Return a mask image on another grid as (K, J, I), nearest neighbour, 0 outside."""
    image = sitk().Resample(
        mask_image, reference, sitk().Transform(), sitk().sitkNearestNeighbor, 0
    )
    return np.asarray(sitk().GetArrayViewFromImage(image) != 0)
