"""Cut 2.5-D pictures of a tumour: its largest section and the slices around it, in 8 bit.

Volumes are first turned to the nearest patient axes (LPS), so that a slice looks alike from
every hospital: patient's right on the left, front (or head) at the top.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from client.extract.volumes.volume import Mask, Volume, sitk
from common.contract import Contract
from common.optional import require

_THICKER = 1.25
"""A spacing this much larger than the next marks the axis along which slices were acquired."""


class SliceChoice(Contract):
    """Which slices are taken and how they are cut out."""

    context: int = Field(default=2, ge=0, description="slices on either side of the largest")
    plane: Literal["acquisition", "axial"] = Field(
        default="acquisition",
        description="acquisition: across the largest voxel spacing, axial where none stands out",
    )
    channels: Literal["adjacent", "replicate"] = Field(
        default="adjacent",
        description="red, green, blue = slice before, slice, slice after; or one slice three times",
    )
    crop: Literal["tumour", "whole"] = "tumour"
    margin_mm: float = Field(default=15.0, ge=0, description="around the tumour, crop: tumour")


@dataclass(frozen=True)
class TumourSlices:
    """Pictures of one sequence.

    Attributes:
        images: (S, P, P, 3) uint8.
        indices: (S,) slice numbers along `axis`, counted from 0 in LPS direction.
        axis: 0 axial, 1 coronal, 2 sagittal.
    """

    images: npt.NDArray[np.uint8]
    indices: npt.NDArray[np.int64]
    axis: int


def cut_slices(
    volume: Volume,
    mask: Mask,
    choice: SliceChoice,
    *,
    limits: tuple[float, float],
    size_px: int,
) -> TumourSlices:
    """Return the slices around the largest section of a tumour.

    The first of equally large sections counts. Slices beyond the volume are left out; their
    place in a neighbour's channels is taken by the outermost slice.

    Args:
        volume: Intensities made comparable by `correct_and_scale`.
        mask: The tumour on its grid.
        choice: Number of slices, plane, channels and crop.
        limits: Intensities that become 0 and 255.
        size_px: Side P of a picture; the cut square is resized to it, in mm, not in voxels.
    """
    oriented_image = sitk().DICOMOrient(volume.image, "LPS")
    array = sitk().GetArrayFromImage(oriented_image)
    region = sitk().GetArrayFromImage(sitk().DICOMOrient(mask.image, "LPS")) != 0
    spacing = np.array(oriented_image.GetSpacing()[::-1])
    axis = _slice_axis(spacing, choice)
    array, region = np.moveaxis(array, axis, 0), np.moveaxis(region, axis, 0)
    spacing = np.delete(spacing, axis)
    if axis != 0:
        array, region = array[:, ::-1], region[:, ::-1]
    largest = int(region.sum(axis=(1, 2)).argmax())
    first = max(0, largest - choice.context)
    indices = np.arange(first, min(len(array), largest + choice.context + 1))
    box = _square(region[largest], spacing, choice)
    low, high = limits
    scaled = (np.clip(array, low, high) - low) * (255 / (high - low))
    pictures = [_picture(scaled, int(k), box, choice, size_px) for k in indices]
    return TumourSlices(np.stack(pictures), indices, axis)


def _slice_axis(spacing: npt.NDArray[np.float64], choice: SliceChoice) -> int:
    order = np.argsort(spacing)
    stands_out = spacing[order[2]] > _THICKER * spacing[order[1]]
    return int(order[2]) if choice.plane == "acquisition" and stands_out else 0


def _square(
    section: npt.NDArray[np.bool_], spacing: npt.NDArray[np.float64], choice: SliceChoice
) -> tuple[slice, slice]:
    """Return rows and columns of a square in mm; may reach beyond the slice."""
    if choice.crop == "whole":
        low, high = np.zeros(2), np.array(section.shape, dtype=np.float64)
        margin = 0.0
    else:
        where = np.argwhere(section)
        low, high = where.min(axis=0).astype(float), where.max(axis=0) + 1.0
        margin = choice.margin_mm
    half_mm = float(((high - low) * spacing).max()) / 2 + margin
    centre = (low + high) / 2
    start = np.round(centre - half_mm / spacing).astype(int)
    stop = np.maximum(np.round(centre + half_mm / spacing).astype(int), start + 1)
    return slice(int(start[0]), int(stop[0])), slice(int(start[1]), int(stop[1]))


def _picture(
    scaled: npt.NDArray[np.float32],
    k: int,
    box: tuple[slice, slice],
    choice: SliceChoice,
    size_px: int,
) -> npt.NDArray[np.uint8]:
    image = require("PIL.Image", extra="radiology")
    around = (k - 1, k, k + 1) if choice.channels == "adjacent" else (k, k, k)
    planes = [_cut(scaled[min(max(n, 0), len(scaled) - 1)], box) for n in around]
    pixels = np.round(np.stack(planes, axis=-1)).astype(np.uint8)
    picture: Any = image.fromarray(pixels).resize((size_px, size_px), image.Resampling.BILINEAR)
    return np.asarray(picture, dtype=np.uint8)


def _cut(plane: npt.NDArray[np.float32], box: tuple[slice, slice]) -> npt.NDArray[np.float32]:
    """Return the box; what lies beyond the plane is 0."""
    cut = np.zeros((box[0].stop - box[0].start, box[1].stop - box[1].start), dtype=np.float32)
    rows = slice(max(box[0].start, 0), min(box[0].stop, plane.shape[0]))
    columns = slice(max(box[1].start, 0), min(box[1].stop, plane.shape[1]))
    target_rows = slice(rows.start - box[0].start, rows.stop - box[0].start)
    target_columns = slice(columns.start - box[1].start, columns.stop - box[1].start)
    cut[target_rows, target_columns] = plane[rows, columns]
    return cut
