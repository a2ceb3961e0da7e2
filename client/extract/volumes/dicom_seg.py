"""Read DICOM segmentations as masks on the grid of the volume (DICOM PS3.3 A.51, C.8.20).

BINARY, FRACTIONAL (a voxel counts from half of the maximum) and LABELMAP objects are read, also
old ones that name no series or no dimensions, which highdicom refuses: every frame says where
it lies.
"""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from client.extract.volumes.dicom_header import read_dataset
from client.extract.volumes.roi_choice import choose_rois
from client.extract.volumes.volume import (
    GRID_TOLERANCE,
    Mask,
    Volume,
    check_frame,
    check_outside,
    index_to_point,
    make_mask,
    resample_mask,
    sitk,
    to_index,
)
from common.errors import ExtractionError


def read_seg(
    path: Path, volume: Volume, *, roi: str | None = None, max_outside: float = 0.05
) -> Mask:
    """Return segments of a DICOM SEG as a mask on the grid of `volume`.

    Args:
        path: The SEG file.
        volume: The volume the mask is for.
        roi: Segment label or regular expression; segments that match are joined.
        max_outside: Largest share of the segmented voxels that may lie outside the volume.

    Raises:
        ExtractionError: No segment matches, another frame of reference, frames without a
            place, over `max_outside` outside (code IMAGE_MASK_MISMATCH), or an empty mask.
    """
    dataset = read_dataset(path)
    check_frame(volume, str(dataset.get("FrameOfReferenceUID", "") or ""), path)
    segments = list(dataset.get("SegmentSequence", []))
    labels = [str(segment.get("SegmentLabel", "")) for segment in segments]
    indices = choose_rois(labels, roi, path)
    name = "+".join(labels[i] for i in indices)
    try:
        segments_image = _segments_image(dataset, {int(segments[i].SegmentNumber) for i in indices})
    except (AttributeError, KeyError, IndexError, ValueError, TypeError, RuntimeError) as error:
        raise ExtractionError(
            "the segmentation cannot be read",
            where=str(path),
            why=f"pixels, positions or segment numbers are missing or damaged ({error})",
            cure="export the segmentation again, as DICOM SEG or NIfTI",
        ) from error
    array, outside = _onto_grid(segments_image, volume)
    check_outside(outside, max_outside, f"segment '{name}'", path, volume)
    return make_mask(array, volume, path, roi=name, outside=outside)


def _segments_image(dataset: Any, numbers: set[int]) -> Any:
    """Return the union of some segments as an image (0 or 1) on the segmentation's own grid."""
    stack = dataset.pixel_array.reshape(-1, int(dataset.Rows), int(dataset.Columns))
    labelmap = str(dataset.get("SegmentationType", "")) == "LABELMAP"
    half = float(dataset.get("MaximumFractionalValue", 1)) / 2
    positions, planes = [], []
    for index, pixels in enumerate(stack):
        place = _group(dataset, index, "PlanePositionSequence")
        position = np.array(place.ImagePositionPatient, dtype=np.float64)
        if labelmap:
            plane = np.isin(pixels, list(numbers))
        else:
            item = _group(dataset, index, "SegmentIdentificationSequence")
            is_chosen = int(item.ReferencedSegmentNumber) in numbers
            plane = is_chosen & (pixels >= max(half, 0.5))
        if plane.any():
            positions.append(position)
            planes.append(plane)
    return _image(_steps(dataset, positions), positions, planes)


def _group(dataset: Any, index: int, name: str) -> Any:
    """Return a functional group item of a frame: its own, else the shared one, else None."""
    own = dataset.PerFrameFunctionalGroupsSequence[index]
    shared = dataset.get("SharedFunctionalGroupsSequence", [None])[0]
    for place in (own, shared):
        if place is not None and name in place:
            return place[name].value[0]
    return None


def _steps(dataset: Any, positions: list[npt.NDArray[np.float64]]) -> list[npt.NDArray[np.float64]]:
    """Return the vectors in mm from one column, row and plane to the next.

    Planes are as far apart as the two closest ones with a segment, else as the file declares.
    """
    plane = _group(dataset, 0, "PlaneOrientationSequence").ImageOrientationPatient
    measures = _group(dataset, 0, "PixelMeasuresSequence")
    row_mm, column_mm = (float(value) for value in measures.PixelSpacing)
    thickness = measures.get("SpacingBetweenSlices") or measures.get("SliceThickness") or 1.0
    across, down = np.array(plane, dtype=np.float64).reshape(2, 3)
    normal = np.cross(across, down) / np.linalg.norm(np.cross(across, down))
    depths = np.unique(np.round([position @ normal for position in positions], 3))
    step = float(np.diff(depths).min()) if len(depths) > 1 else float(thickness)
    return [across * column_mm, down * row_mm, normal * step]


def _image(
    steps: list[npt.NDArray[np.float64]],
    positions: list[npt.NDArray[np.float64]],
    planes: list[npt.NDArray[np.bool_]],
) -> Any:
    """Return the planes as one image; a single empty voxel where there is none."""
    if not planes:
        return sitk().Image([1, 1, 1], sitk().sitkUInt8)
    widths = [float(np.linalg.norm(step)) for step in steps]
    depths = np.array([position @ steps[2] / widths[2] for position in positions])
    order = np.round((depths - depths.min()) / widths[2]).astype(int)
    array = np.zeros((order.max() + 1, *planes[0].shape), dtype=np.uint8)
    for k, plane in zip(order, planes, strict=True):
        array[k] |= plane
    image = sitk().GetImageFromArray(array)
    image.SetSpacing(widths)
    directions = [step / width for step, width in zip(steps, widths, strict=True)]
    image.SetDirection(np.stack(directions, axis=1).ravel().tolist())
    image.SetOrigin(positions[int(depths.argmin())].tolist())
    return image


def _onto_grid(segmentation: Any, volume: Volume) -> tuple[npt.NDArray[np.bool_], float]:
    """Return the mask (K, J, I) and the share of voxels that fell outside.

    Voxel by voxel where both grids share their centres; otherwise resampled.
    """
    ijk = np.argwhere(sitk().GetArrayViewFromImage(segmentation))[:, ::-1]
    array = np.zeros(volume.image.GetSize()[::-1], dtype=bool)
    if not len(ijk):
        return array, 0.0
    matrix = index_to_point(segmentation)
    indices = to_index(volume.image, ijk @ matrix[:3, :3].T + matrix[:3, 3])
    voxels = np.round(indices).astype(np.int64)
    inside = ((voxels >= 0) & (voxels < volume.image.GetSize())).all(axis=1)
    i, j, k = voxels[inside].T
    array[k, j, i] = True
    steps = np.abs(np.linalg.solve(index_to_point(volume.image)[:3, :3], matrix[:3, :3]))
    same_steps = np.abs(steps.sum(axis=0) - 1).max() < GRID_TOLERANCE / 10
    if np.abs(indices - voxels).max() > GRID_TOLERANCE or not same_steps:
        array = resample_mask(segmentation, volume.image)
    return array, float(1 - inside.mean())
