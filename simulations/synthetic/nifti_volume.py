"""Write the NIfTI files of a synthetic scan."""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from common.optional import require


def origin_mm(shape: tuple[int, ...], spacing_mm: tuple[float, float, float]) -> list[float]:
    """Return x, y, z in mm (DICOM patient axes, LPS) of the first voxel of a centred scan."""
    return [
        -(n - 1) / 2 * step for n, step in zip(reversed(shape), reversed(spacing_mm), strict=True)
    ]


def write_nifti(
    path: Path, voxels: npt.NDArray[np.generic], spacing_mm: tuple[float, float, float]
) -> None:
    """Write (slices, rows, columns) voxels to `.nii.gz`; spacing in the same order, in mm."""
    sitk = require("SimpleITK", extra="radiology")
    image = sitk.GetImageFromArray(np.ascontiguousarray(voxels))
    image.SetSpacing([float(step) for step in reversed(spacing_mm)])
    image.SetOrigin(origin_mm(voxels.shape, spacing_mm))
    sitk.WriteImage(image, str(path), useCompression=True, compressionLevel=1)
