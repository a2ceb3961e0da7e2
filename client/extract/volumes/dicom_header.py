"""Read the header of one DICOM file: its kind, and where its slice lies in the patient."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.errors import ExtractionError
from common.optional import require

_NOT_IMAGES = {"RTSTRUCT", "RTPLAN", "RTDOSE", "SEG", "SR", "PR", "KO", "REG", "DOC"}
_UNCOMPRESSED = {"1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"}


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


def read_header(path: Path) -> SliceHeader | None:
    """Return the header of a slice, None for an object that is no image.

    Raises:
        ExtractionError: The file is unreadable or cut short, lacks its geometry, or is a
            multi-frame image.
    """
    dataset, rest = _parse(path, stop_before_pixels=True)
    if str(dataset.get("Modality", "")) in _NOT_IMAGES:
        return None
    if "Image Storage" not in dataset.SOPClassUID.name:
        return None
    if int(dataset.get("NumberOfFrames", 1) or 1) > 1:
        raise ExtractionError(
            "the file is a multi-frame DICOM image",
            where=str(path),
            why="only series of one file per slice are read",
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
    n_bytes = samples * int(dataset.get("BitsAllocated", 16)) // 8
    if rest < n_bytes:
        raise _unreadable(path, f"it is cut short: {rest} of {n_bytes} bytes of pixels are there")
