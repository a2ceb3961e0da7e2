"""Read RT structure sets: contours in millimetres to a mask on the grid of the volume.

DICOM PS3.3 C.8.8.6 (ROI Contour). Contours on the planes of the volume's own slices are filled
there; contours on other planes (volume resampled, cut otherwise or converted) are filled on a
grid of their own and resampled, so that nothing depends on planes coinciding.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from client.extract.volumes.dicom_header import read_dataset
from client.extract.volumes.polygon_fill import Polygon, fill_slice
from client.extract.volumes.roi_choice import choose_rois
from client.extract.volumes.volume import (
    Mask,
    Volume,
    check_frame,
    check_outside,
    make_mask,
    resample_mask,
    sitk,
    to_index,
)
from common.errors import ExtractionError

_CLOSED = {"CLOSED_PLANAR", "CLOSEDPLANAR_XOR"}
_ON_SLICE = 0.26
"""Largest distance, in slices, of a contour from the slice it is filled on."""


@dataclass(frozen=True)
class Contour:
    """One closed planar contour.

    Attributes:
        points_mm: (N, 3) vertices in patient space.
        exclusive: Its type is CLOSEDPLANAR_XOR.
    """

    points_mm: npt.NDArray[np.float64]
    exclusive: bool = False


def referenced_series(path: Path) -> set[str]:
    """Return the UIDs of the image series that a structure set or segmentation refers to."""
    dataset = read_dataset(path)
    uids = {str(item.SeriesInstanceUID) for item in dataset.get("ReferencedSeriesSequence", [])}
    for frame in dataset.get("ReferencedFrameOfReferenceSequence", []):
        for study in frame.get("RTReferencedStudySequence", []):
            series = study.get("RTReferencedSeriesSequence", [])
            uids |= {str(item.SeriesInstanceUID) for item in series}
    return uids


def read_contours(dataset: Any, source: Path, roi: str | None) -> dict[str, list[Contour]]:
    """Return the closed contours of the chosen regions, by name.

    Args:
        dataset: The structure set.
        source: Its file, for messages.
        roi: Name or regular expression; None for the default of `roi_choice`.

    Raises:
        ExtractionError: No or too many regions match, or the chosen hold no closed contour.
    """
    regions = list(dataset.get("StructureSetROISequence", []))
    names = [str(region.get("ROIName", "")) for region in regions]
    names_by_number = {
        int(regions[i].ROINumber): f"{names[i]}" for i in choose_rois(names, roi, source)
    }
    contours: dict[str, list[Contour]] = {}
    for item in dataset.get("ROIContourSequence", []):
        name = names_by_number.get(int(item.ReferencedROINumber))
        for contour in item.get("ContourSequence", []) if name else []:
            kind = str(contour.get("ContourGeometricType", ""))
            points = np.array(contour.get("ContourData", []), dtype=np.float64)
            if kind in _CLOSED and points.size >= 9 and points.size % 3 == 0:
                outline = Contour(points.reshape(-1, 3), kind == "CLOSEDPLANAR_XOR")
                contours.setdefault(str(name), []).append(outline)
    if not contours:
        raise ExtractionError(
            "the chosen region holds no closed contour",
            where=f"{source}, {', '.join(names_by_number.values())}",
            why="points and open lines enclose nothing",
            cure="choose a region that was drawn, or export it again",
        )
    return contours


def read_rtstruct(
    path: Path, volume: Volume, *, roi: str | None = None, max_outside: float = 0.05
) -> Mask:
    """Return regions of a structure set as a mask on the grid of `volume`.

    Args:
        path: The RTSTRUCT file.
        volume: The volume the mask is for.
        roi: Name or regular expression; regions that match are joined. None for the default.
        max_outside: Largest share of the drawn area that may lie outside the volume.

    Raises:
        ExtractionError: No region matches, another frame of reference, or more than
            `max_outside` lies outside (code IMAGE_MASK_MISMATCH), or the mask is empty.
    """
    dataset = read_dataset(path)
    check_frame(volume, _frame_of_reference(dataset), path)
    contours = read_contours(dataset, path, roi)
    everything = [contour for group in contours.values() for contour in group]
    outside = _outside_fraction(everything, volume)
    check_outside(outside, max_outside, f"region '{'+'.join(contours)}'", path, volume)
    fill_group = _fill_on_slices if _on_slices(everything, volume) else _fill_on_own_grid
    array = np.zeros(volume.image.GetSize()[::-1], dtype=bool)
    for group in contours.values():
        array |= fill_group(group, volume)
    return make_mask(array, volume, path, roi="+".join(contours), outside=outside)


def _frame_of_reference(dataset: Any) -> str:
    frames = {
        str(region.get("ReferencedFrameOfReferenceUID", ""))
        for region in dataset.get("StructureSetROISequence", [])
    }
    return frames.pop() if len(frames) == 1 else str(dataset.get("FrameOfReferenceUID", "") or "")


def _area_mm2(points: npt.NDArray[np.float64]) -> float:
    """Return the area of a planar polygon in space (length of its vector area)."""
    offsets = points - points[0]
    return float(np.linalg.norm(np.cross(offsets, np.roll(offsets, -1, axis=0)).sum(axis=0)) / 2)


def _outside_fraction(contours: list[Contour], volume: Volume) -> float:
    """Return the share of drawn area whose contours leave the volume by over a voxel."""
    size = np.array(volume.image.GetSize())
    total = outside = 0.0
    for contour in contours:
        index = to_index(volume.image, contour.points_mm)
        area = _area_mm2(contour.points_mm)
        total += area
        margin = np.array([1.5, 1.5, 0.5])
        leaves = ((index < -margin) | (index > size - 1 + margin)).any()
        outside += area if leaves else 0.0
    return outside / total if total else 0.0


def _on_slices(contours: list[Contour], volume: Volume) -> bool:
    """Return whether contours lie on the slices of the volume and skip none throughout."""
    depths = [to_index(volume.image, contour.points_mm)[:, 2] for contour in contours]
    planes = np.array([depth.mean() for depth in depths])
    flat = max(float(np.ptp(depth)) for depth in depths) <= _ON_SLICE
    near = float(np.abs(planes - np.round(planes)).max()) <= _ON_SLICE
    used = np.unique(np.round(planes))
    gap = 1.0 if len(used) < 2 else float(np.median(np.diff(used)))
    return flat and near and gap <= 1.0


def _fill_on_slices(contours: list[Contour], volume: Volume) -> npt.NDArray[np.bool_]:
    n_i, n_j, n_k = volume.image.GetSize()
    by_slice: dict[int, list[Polygon]] = {}
    for contour in contours:
        index = to_index(volume.image, contour.points_mm)
        k = round(float(index[:, 2].mean()))
        if 0 <= k < n_k:
            by_slice.setdefault(k, []).append(Polygon(index[:, :2], contour.exclusive))
    array = np.zeros((n_k, n_j, n_i), dtype=bool)
    for k, polygons in by_slice.items():
        array[k] = fill_slice(polygons, (n_j, n_i))
    return array


def _fill_on_own_grid(contours: list[Contour], volume: Volume) -> npt.NDArray[np.bool_]:
    """Fill on planes of the contours, then carry the mask to the grid of the volume."""
    grid = _grid_of_contours(contours, volume)
    own = Volume(grid, volume.source)
    array = _fill_on_slices(contours, own)
    image = sitk().GetImageFromArray(array.astype(np.uint8))
    image.CopyInformation(grid)
    return resample_mask(image, volume.image)


def _grid_of_contours(contours: list[Contour], volume: Volume) -> Any:
    """Return an empty image whose slices are the planes of the contours."""
    largest = max(contours, key=lambda c: _area_mm2(c.points_mm)).points_mm
    offsets = largest - largest[0]
    normal = np.cross(offsets, np.roll(offsets, -1, axis=0)).sum(axis=0)
    normal /= np.linalg.norm(normal)
    helper = np.eye(3)[np.abs(normal).argmin()]
    across = np.cross(helper, normal)
    across /= np.linalg.norm(across)
    frame = np.stack([across, np.cross(normal, across), normal], axis=1)
    local = [contour.points_mm @ frame for contour in contours]
    depths = np.array([points[:, 2].mean() for points in local])
    planes = np.unique(np.round(depths, 2))
    gaps = np.diff(planes)
    step = float(np.median(gaps)) if len(gaps) else max(volume.spacing_mm)
    thick = max(float(np.ptp(points[:, 2])) for points in local)
    if thick > 0.25 * step:
        raise ExtractionError(
            "the contours do not lie on parallel planes",
            where=f"contours against {volume.source}",
            why=f"a contour is {thick:.2f} mm thick, planes are {step:.2f} mm apart",
            cure="export the region as a segmentation (SEG or NIfTI) instead",
        )
    everything = np.concatenate(local)
    fine = max(min(volume.spacing_mm) / 4, float(np.ptp(everything[:, :2], axis=0).max()) / 1000)
    edge = np.array([2 * fine, 2 * fine, 0.0])
    low, high = everything.min(axis=0) - edge, everything.max(axis=0) + edge
    low[2] = depths.min()
    size = np.ceil((high - low) / [fine, fine, step]).astype(int) + 1
    image = sitk().Image([int(n) for n in size], sitk().sitkUInt8)
    image.SetSpacing((fine, fine, step))
    image.SetDirection(frame.ravel().tolist())
    image.SetOrigin((frame @ low).tolist())
    return image
