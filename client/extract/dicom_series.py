"""A folder of DICOM slices as one volume, with the geometry that stands in the slices.

Slices are ordered by their position along the normal of the image plane; spacing along it is
the distance of positions, never `SliceThickness` (slices may overlap or have gaps).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from client.extract.volume import Volume, sitk
from common.errors import ErrorCode, ExtractionError
from common.optional import require

_NOT_IMAGES = {"RTSTRUCT", "RTPLAN", "RTDOSE", "SEG", "SR", "PR", "KO", "REG", "DOC"}
_UNCOMPRESSED = {"1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"}
_SPACING_TOLERANCE = 0.05
_SHEAR_TOLERANCE_PX = 0.5


@dataclass(frozen=True)
class SliceHeader:
    """Where one slice lies.

    Attributes:
        path: The file.
        series_uid: Series it belongs to.
        frame_of_reference: Coordinate system of its position.
        position: (3,) centre of the first pixel, mm.
        orientation: (6,) direction of increasing column, then of increasing row.
        spacing_mm: Distance of rows, distance of columns.
        shape: Rows, columns.
    """

    path: Path
    series_uid: str
    frame_of_reference: str
    position: tuple[float, ...]
    orientation: tuple[float, ...]
    spacing_mm: tuple[float, float]
    shape: tuple[int, int]


def is_dicom(path: Path) -> bool:
    """Return whether a file carries the DICOM magic word or ends in .dcm."""
    if path.suffix.lower() in (".dcm", ".dicom"):
        return True
    with path.open("rb") as handle:
        return handle.read(132)[128:] == b"DICM"


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
        header = _read_header(path) if is_dicom(path) else None
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
    ordered, step = _ordered(headers, folder)
    image = _read_pixels([header.path for header in ordered], folder)
    first = ordered[0]
    across, down, normal = _axes(first.orientation)
    image.SetOrigin(first.position)
    image.SetSpacing((first.spacing_mm[1], first.spacing_mm[0], step))
    image.SetDirection(np.stack([across, down, normal], axis=1).ravel().tolist())
    return Volume(image, folder, first.series_uid, first.frame_of_reference)


def read_dataset(path: Path) -> Any:
    """Return a DICOM file, pixels included, as a pydicom dataset.

    Raises:
        ExtractionError: The file is missing, empty, damaged or no DICOM.
    """
    return _parse(path, stop_before_pixels=False)[0]


def _parse(path: Path, *, stop_before_pixels: bool) -> tuple[Any, int]:
    """Return the dataset and how many bytes follow what was read."""
    pydicom = require("pydicom", extra="radiology")
    try:
        with path.open("rb") as handle:
            dataset = pydicom.dcmread(handle, stop_before_pixels=stop_before_pixels)
            rest = path.stat().st_size - handle.tell()
    except (pydicom.errors.InvalidDicomError, OSError, EOFError, ValueError, KeyError) as error:
        raise _unreadable(path, " ".join(str(error).split())) from error
    if "SOPClassUID" not in dataset:
        raise _unreadable(path, "it does not say what it is (no SOPClassUID)")
    return dataset, rest


def _unreadable(path: Path, why: str) -> ExtractionError:
    return ExtractionError(
        "the DICOM file cannot be read",
        where=str(path),
        why=why or "it is empty or damaged",
        cure="export the series from the archive again",
    )


def _read_header(path: Path) -> SliceHeader | None:
    """Return the header of a slice, None for an object that is no image."""
    dataset, rest = _parse(path, stop_before_pixels=True)
    if str(dataset.get("Modality", "")) in _NOT_IMAGES:
        return None
    if "Image Storage" not in dataset.SOPClassUID.name:
        return None
    if int(dataset.get("NumberOfFrames", 1) or 1) > 1:
        raise ExtractionError(
            "the file is a multi-frame DICOM image",
            where=str(path),
            why="only series of one file a slice are read",
            cure="convert it to NIfTI, or export it as a classic series",
        )
    try:
        header = SliceHeader(
            path=path,
            series_uid=str(dataset.SeriesInstanceUID),
            frame_of_reference=str(dataset.get("FrameOfReferenceUID", "") or ""),
            position=tuple(float(v) for v in dataset.ImagePositionPatient),
            orientation=tuple(float(v) for v in dataset.ImageOrientationPatient),
            spacing_mm=(float(dataset.PixelSpacing[0]), float(dataset.PixelSpacing[1])),
            shape=(int(dataset.Rows), int(dataset.Columns)),
        )
    except (AttributeError, TypeError, ValueError, IndexError) as error:
        raise ExtractionError(
            "the slice does not say where it lies",
            where=str(path),
            why=f"position, orientation, pixel spacing, size or series is missing ({error})",
            cure="export the series again; scouts and projections have no geometry: remove them",
        ) from error
    _check_complete(path, dataset, rest)
    return header


def _check_complete(path: Path, dataset: Any, rest: int) -> None:
    """Refuse a file cut short inside its pixels."""
    if str(dataset.file_meta.get("TransferSyntaxUID", "")) not in _UNCOMPRESSED:
        return
    samples = int(dataset.Rows) * int(dataset.Columns) * int(dataset.get("SamplesPerPixel", 1))
    expected = samples * int(dataset.get("BitsAllocated", 16)) // 8
    if rest < expected:
        raise _unreadable(path, f"it is cut short: {rest} of {expected} bytes of pixels are there")


def _choose(
    series: Mapping[str, Sequence[SliceHeader]], wanted: Collection[str], folder: Path
) -> Sequence[SliceHeader]:
    if len(series) == 1:
        return next(iter(series.values()))
    chosen = [uid for uid in series if uid in wanted]
    if len(chosen) == 1:
        return series[chosen[0]]
    raise ExtractionError(
        f"the folder holds {len(series)} DICOM series",
        where=str(folder),
        why="it is not known which is meant; "
        + (f"the mask refers to {len(chosen)} of them" if wanted else "no mask says so"),
        cure="keep one series a folder. Found: "
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
