"""Read a folder of DICOM slices as one volume, with the geometry stated in the slices.

Slices are ordered by their position along the normal of the image plane; spacing along it is
the distance of positions, never `SliceThickness` (slices may overlap or have gaps).
"""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from client.extract.volumes.dicom_header import SliceHeader, is_dicom, read_header
from client.extract.volumes.volume import Volume, sitk
from common.errors import ErrorCode, ExtractionError

_SPACING_TOLERANCE = 0.05
_SHEAR_TOLERANCE_PX = 0.5


def _may_be_slice(path: Path) -> bool:
    return path.is_file() and not path.name.startswith(".") and path.name.upper() != "DICOMDIR"


def scan_series(folder: Path) -> dict[str, list[SliceHeader]]:
    """Return the image series in a folder (not below it), by series UID.

    Structure sets, segmentations and other non-image objects beside the slices are passed over,
    as are files that are no DICOM.

    Raises:
        ExtractionError: A DICOM file is unreadable or truncated, lacks its geometry, is a
            multi-frame image, or there is no image at all.
    """
    series: dict[str, list[SliceHeader]] = {}
    for path in sorted(p for p in folder.iterdir() if _may_be_slice(p)):
        header = read_header(path) if is_dicom(path) else None
        if header is not None:
            series.setdefault(header.series_uid, []).append(header)
    if not series:
        raise ExtractionError(
            "the folder holds no DICOM image",
            where=str(folder),
            cure="name the folder that directly holds the slices of the series",
        )
    return series


def read_series(folder: Path, *, series_uids: Collection[str] = ()) -> Volume:
    """Return the series in a folder as one volume.

    Args:
        folder: Holds the slices, perhaps of several series.
        series_uids: Series that a mask refers to; decides where the folder holds several.

    Raises:
        ExtractionError: As `scan_series`; or several series and none chosen, slices missing,
            repeated, of different shapes or orientations, or a tilted gantry.
    """
    headers = _choose(scan_series(folder), series_uids, folder)
    slices, step = _ordered(headers, folder)
    image = _read_pixels([header.path for header in slices], folder)
    first = slices[0]
    across, down, normal = _axes(first.orientation)
    image.SetOrigin(first.position)
    image.SetSpacing((first.spacing_mm[1], first.spacing_mm[0], step))
    image.SetDirection(np.stack([across, down, normal], axis=1).ravel().tolist())
    return Volume(image, folder, first.series_uid, first.frame_of_reference)


def _choose(
    series: Mapping[str, Sequence[SliceHeader]], series_uids: Collection[str], folder: Path
) -> Sequence[SliceHeader]:
    if len(series) == 1:
        return next(iter(series.values()))
    uids = [uid for uid in series if uid in series_uids]
    if len(uids) == 1:
        return series[uids[0]]
    raise ExtractionError(
        f"the folder holds {len(series)} DICOM series",
        where=str(folder),
        why="it is not known which is meant; "
        + (f"the mask refers to {len(uids)} of them" if series_uids else "no mask says so"),
        cure="keep one series per folder. Found: "
        + ", ".join(f"{uid} ({len(headers)} slices)" for uid, headers in sorted(series.items())),
    )


def _axes(orientation: Sequence[float]) -> tuple[npt.NDArray[np.float64], ...]:
    """Return orthonormal directions of increasing column, row and slice."""
    across = np.array(orientation[:3], dtype=np.float64)
    down = np.array(orientation[3:], dtype=np.float64)
    across /= np.linalg.norm(across)
    down -= across * (across @ down)
    down /= np.linalg.norm(down)
    return across, down, np.cross(across, down)


def _ordered(headers: Sequence[SliceHeader], folder: Path) -> tuple[list[SliceHeader], float]:
    """Return slices along the normal, and their distance in mm."""
    first = headers[0]
    same = all(
        header.shape == first.shape
        and header.frame_of_reference == first.frame_of_reference
        and np.allclose(header.spacing_mm, first.spacing_mm, rtol=1e-3)
        and np.allclose(header.orientation, first.orientation, atol=1e-3)
        for header in headers
    )
    if not same:
        raise _not_a_volume(folder, "slices differ in shape, spacing, orientation or frame")
    if len(headers) < 2:
        raise _not_a_volume(folder, "there is only one slice")
    normal = _axes(first.orientation)[2]
    positions = np.array([header.position for header in headers])
    depth = positions @ normal
    order = np.argsort(depth, kind="stable")
    gaps = np.diff(depth[order])
    step = float(np.median(gaps))
    if step <= 0 or gaps.min() < _SPACING_TOLERANCE * step:
        raise _not_a_volume(folder, "two slices lie at the same place: several phases or echoes?")
    if np.abs(gaps - step).max() > _SPACING_TOLERANCE * step:
        at = int(np.abs(gaps - step).argmax())
        name = headers[int(order[at])].path.name
        raise _not_a_volume(
            folder,
            f"slices are {step:.3f} mm apart, but {gaps[at]:.3f} mm after {name}: one missing?",
        )
    shift = positions - positions[order[0]]
    sideways = np.abs(shift - np.outer(shift @ normal, normal)).max()
    if sideways > _SHEAR_TOLERANCE_PX * min(first.spacing_mm):
        raise _not_a_volume(folder, f"the stack leans by {sideways:.1f} mm (tilted gantry)")
    mean_step = float((depth[order[-1]] - depth[order[0]]) / (len(headers) - 1))
    return [headers[int(i)] for i in order], mean_step


def _not_a_volume(folder: Path, why: str) -> ExtractionError:
    return ExtractionError(
        "the DICOM slices do not form one volume",
        where=str(folder),
        why=why,
        cure="export exactly one complete series with evenly spaced slices into the folder",
        code=ErrorCode.EXTRACTION,
    )


def _read_pixels(paths: Sequence[Path], folder: Path) -> Any:
    """Return the slices in this order as one float32 image, rescaled to units of the header."""
    reader = sitk().ImageSeriesReader()
    reader.SetFileNames([str(path) for path in paths])
    reader.SetOutputPixelType(sitk().sitkFloat32)
    try:
        image = reader.Execute()
    except RuntimeError as error:
        why = " ".join(str(error).split())
        raise ExtractionError(
            "the DICOM series cannot be read",
            where=str(folder),
            why=why[-300:],
            cure="export the series from the archive again",
        ) from error
    if image.GetDimension() != 3:
        raise _not_a_volume(folder, f"it has {image.GetDimension()} dimensions")
    return image
