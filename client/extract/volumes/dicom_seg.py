"""DICOM segmentations to a mask on the grid of the volume (DICOM PS3.3 A.51, C.8.20).

BINARY, FRACTIONAL (a voxel counts from half of the maximum) and LABELMAP objects are read, also
old ones that name no series: every frame says where it lies.
"""

from __future__ import annotations

from dataclasses import dataclass
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
    make_mask,
    resample_mask,
    sitk,
    to_index,
)
from common.errors import ErrorCode, ExtractionError


@dataclass(frozen=True)
class Frame:
    """One plane of a segmentation.

    Attributes:
        position: (3,) centre of the first pixel, mm.
        pixels: (R, C), True where the chosen segments are.
    """

    position: npt.NDArray[np.float64]
    pixels: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class FrameGeometry:
    """What all frames share.

    Attributes:
        across: (3,) mm from one column to the next.
        down: (3,) mm from one row to the next.
        thickness_mm: Declared distance or thickness of slices.
    """

    across: npt.NDArray[np.float64]
    down: npt.NDArray[np.float64]
    thickness_mm: float


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
    chosen = choose_rois(labels, roi, path)
    numbers = {int(segments[i].SegmentNumber) for i in chosen}
    geometry, frames = _frames(dataset, numbers, path)
    array, outside = _onto_grid(geometry, frames, volume)
    name = "+".join(labels[i] for i in chosen)
    if outside > max_outside:
        raise ExtractionError(
            f"{outside:.0%} of the segment '{name}' lies outside the volume",
            where=f"{path} against {volume.source}",
            why="the segmentation belongs to another volume, or the volume was cut",
            cure="name the series it was drawn on; if the cut is meant, raise "
            "extractor.params.max_outside_fraction",
            code=ErrorCode.IMAGE_MASK_MISMATCH,
        )
    return make_mask(array, volume, path, roi=name, outside=outside)


def _group(dataset: Any, index: int, name: str) -> Any:
    """Return a functional group item of a frame: its own, else the shared one, else None."""
    own = dataset.PerFrameFunctionalGroupsSequence[index]
    shared = dataset.get("SharedFunctionalGroupsSequence", [None])[0]
    for place in (own, shared):
        if place is not None and name in place:
            return place[name].value[0]
    return None


def _frames(dataset: Any, numbers: set[int], path: Path) -> tuple[FrameGeometry, list[Frame]]:
    try:
        stack = np.atleast_3d(dataset.pixel_array)
        stack = (
            stack if dataset.get("NumberOfFrames", 1) > 1 else stack.reshape(1, *stack.shape[:2])
        )
        geometry = _geometry(dataset)
        labelmap = str(dataset.get("SegmentationType", "")) == "LABELMAP"
        half = float(dataset.get("MaximumFractionalValue", 1)) / 2
        frames = []
        for index, pixels in enumerate(stack):
            place = _group(dataset, index, "PlanePositionSequence")
            position = np.array(place.ImagePositionPatient, dtype=np.float64)
            if labelmap:
                frames.append(Frame(position, np.isin(pixels, list(numbers))))
            else:
                item = _group(dataset, index, "SegmentIdentificationSequence")
                if int(item.ReferencedSegmentNumber) in numbers:
                    frames.append(Frame(position, pixels >= max(half, 0.5)))
    except (AttributeError, KeyError, IndexError, ValueError, TypeError, RuntimeError) as error:
        raise ExtractionError(
            "the segmentation cannot be read",
            where=str(path),
            why=f"pixels, positions or segment numbers are missing or damaged ({error})",
            cure="export the segmentation again, as DICOM SEG or NIfTI",
        ) from error
    return geometry, [frame for frame in frames if frame.pixels.any()]


def _geometry(dataset: Any) -> FrameGeometry:
    orientation = np.array(
        _group(dataset, 0, "PlaneOrientationSequence").ImageOrientationPatient, dtype=np.float64
    )
    measures = _group(dataset, 0, "PixelMeasuresSequence")
    row_mm, column_mm = (float(value) for value in measures.PixelSpacing)
    thickness = measures.get("SpacingBetweenSlices") or measures.get("SliceThickness") or 1.0
    return FrameGeometry(orientation[:3] * column_mm, orientation[3:] * row_mm, float(thickness))


def _onto_grid(
    geometry: FrameGeometry, frames: list[Frame], volume: Volume
) -> tuple[npt.NDArray[np.bool_], float]:
    """Return the mask (K, J, I) and the share of voxels that fell outside.

    Voxel by voxel where both grids share their centres; otherwise resampled.
    """
    array = np.zeros(volume.image.GetSize()[::-1], dtype=bool)
    if not frames:
        return array, 0.0
    indices = np.concatenate([_pixel_indices(geometry, frame, volume) for frame in frames])
    rounded = np.round(indices).astype(np.int64)
    inside = ((rounded >= 0) & (rounded < volume.image.GetSize())).all(axis=1)
    i, j, k = rounded[inside].T
    array[k, j, i] = True
    if np.abs(indices - rounded).max() > GRID_TOLERANCE or not _same_steps(
        geometry, frames, volume
    ):
        array = resample_mask(_stack(geometry, frames), volume.image)
    return array, float(1 - inside.mean())


def _pixel_indices(
    geometry: FrameGeometry, frame: Frame, volume: Volume
) -> npt.NDArray[np.float64]:
    rows, columns = np.nonzero(frame.pixels)
    points = frame.position + columns[:, None] * geometry.across + rows[:, None] * geometry.down
    return to_index(volume.image, points)


def _same_steps(geometry: FrameGeometry, frames: list[Frame], volume: Volume) -> bool:
    """Return whether a step of the segmentation is one voxel of the volume along each axis."""
    origin = np.zeros((1, 3))
    zero = to_index(volume.image, origin)
    steps = [geometry.across, geometry.down, _slice_step(geometry, frames)]
    moved = [to_index(volume.image, origin + step) - zero for step in steps]
    return all(abs(float(np.abs(move).sum()) - 1) < GRID_TOLERANCE / 10 for move in moved)


def _slice_step(geometry: FrameGeometry, frames: list[Frame]) -> npt.NDArray[np.float64]:
    """Return the vector from one plane to the next: least distance of planes, else declared."""
    normal = np.cross(geometry.across, geometry.down)
    normal /= np.linalg.norm(normal)
    depths = np.unique(np.round([frame.position @ normal for frame in frames], 3))
    step = float(np.diff(depths).min()) if len(depths) > 1 else geometry.thickness_mm
    vector: npt.NDArray[np.float64] = normal * step
    return vector


def _stack(geometry: FrameGeometry, frames: list[Frame]) -> Any:
    """Return the frames as an image on the segmentation's own grid."""
    step = _slice_step(geometry, frames)
    length = float(np.linalg.norm(step))
    depths = np.array([frame.position @ step / length for frame in frames])
    order = np.round((depths - depths.min()) / length).astype(int)
    array = np.zeros((order.max() + 1, *frames[0].pixels.shape), dtype=np.uint8)
    for k, frame in zip(order, frames, strict=True):
        array[k] |= frame.pixels.astype(np.uint8)
    image = sitk().GetImageFromArray(array)
    widths = [float(np.linalg.norm(v)) for v in (geometry.across, geometry.down, step)]
    vectors = (geometry.across, geometry.down, step)
    directions = [v / w for v, w in zip(vectors, widths, strict=True)]
    image.SetSpacing(widths)
    image.SetDirection(np.stack(directions, axis=1).ravel().tolist())
    image.SetOrigin(frames[int(depths.argmin())].position.tolist())
    return image
