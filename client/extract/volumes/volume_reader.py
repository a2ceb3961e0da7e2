"""Read volumes and masks of any format: NIfTI, NRRD, MetaImage, DICOM series, RTSTRUCT, SEG."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from client.extract.volumes.dicom_header import is_dicom, read_dataset
from client.extract.volumes.dicom_seg import read_seg
from client.extract.volumes.dicom_series import read_series
from client.extract.volumes.nifti_check import check_nifti, not_finite
from client.extract.volumes.rtstruct import read_rtstruct, referenced_series
from client.extract.volumes.volume import (
    GRID_TOLERANCE,
    Mask,
    Volume,
    grid_distance,
    make_mask,
    sitk,
)
from common.errors import ErrorCode, ExtractionError

_IMAGE_SUFFIXES = (".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd")


def read_volume(path: Path, *, series_uids: Collection[str] = ()) -> Volume:
    """Return a volume with its geometry in patient space.

    Args:
        path: NIfTI, NRRD or MetaImage file, or a folder of DICOM slices.
        series_uids: Where a folder holds several series: those a mask refers to.

    Raises:
        ExtractionError: Missing, unreadable, not one 3-D scalar volume, NaN or infinite voxels,
            or a folder whose slices do not form one volume.
    """
    _check_exists(path)
    volume = read_series(path, series_uids=series_uids) if path.is_dir() else _read_image(path)
    bad = ~np.isfinite(sitk().GetArrayViewFromImage(volume.image))
    if bad.any():
        raise not_finite(path, int(bad.sum()))
    return volume


def read_mask(
    path: Path,
    reference: Volume,
    *,
    roi: str | None = None,
    label: int | None = None,
    max_outside: float = 0.05,
) -> Mask:
    """Return a mask on the grid of its volume.

    Args:
        path: NIfTI, NRRD or MetaImage label map; a DICOM RTSTRUCT or SEG file, or a folder with
            exactly one of them.
        reference: The volume it belongs to.
        roi: Region or segment by name or regular expression (RTSTRUCT, SEG).
        label: Value in a label map; None for every value from 0.5 on.
        max_outside: Largest share of contours or segments outside the volume.

    Raises:
        ExtractionError: Missing, unreadable, empty, no region matches, or the mask does not lie
            on the volume (code IMAGE_MASK_MISMATCH).
    """
    _check_exists(path)
    file = find_dicom_mask(path) if path.is_dir() else path
    if not is_image_file(file) and is_dicom(file):
        kind = str(read_dataset(file).get("Modality", ""))
        if kind == "RTSTRUCT":
            return read_rtstruct(file, reference, roi=roi, max_outside=max_outside)
        if kind == "SEG":
            return read_seg(file, reference, roi=roi, max_outside=max_outside)
        raise ExtractionError(
            f"a DICOM file of modality '{kind}' is no mask",
            where=str(file),
            cure="name a structure set (RTSTRUCT), a segmentation (SEG) or a label map",
        )
    return _read_label_map(file, reference, label)


def mask_series(path: Path) -> set[str]:
    """Return the UIDs of the DICOM series a mask refers to; empty for label maps."""
    _check_exists(path)
    file = find_dicom_mask(path) if path.is_dir() else path
    return set() if is_image_file(file) or not is_dicom(file) else referenced_series(file)


def is_image_file(path: Path) -> bool:
    """Return whether a file name ends like a NIfTI, NRRD or MetaImage file."""
    return path.name.lower().endswith(_IMAGE_SUFFIXES)


def find_dicom_mask(folder: Path) -> Path:
    """Return the only structure set or segmentation in a folder.

    Raises:
        ExtractionError: There is none, or several.
    """
    files = sorted(p for p in folder.iterdir() if p.is_file() and is_dicom(p))
    masks = [p for p in files if str(read_dataset(p).get("Modality", "")) in ("RTSTRUCT", "SEG")]
    if len(masks) != 1:
        raise ExtractionError(
            f"the folder holds {len(masks)} structure sets or segmentations",
            where=str(folder),
            cure="name the file itself in the manifest",
        )
    return masks[0]


def _check_exists(path: Path) -> None:
    if not path.exists():
        raise ExtractionError(
            "the file or folder does not exist",
            where=str(path),
            cure="correct the path in the manifest; paths are relative to the manifest's folder",
        )


def _read_image(path: Path) -> Volume:
    if not is_image_file(path):
        raise ExtractionError(
            "the file is no volume that can be read",
            where=str(path),
            why=f"known endings: {', '.join(_IMAGE_SUFFIXES)}",
            cure="name a NIfTI, NRRD or MetaImage file, or the folder of the DICOM slices",
        )
    return Volume(_load(path, sitk().sitkFloat32), path)


def _load(path: Path, pixel_type: int) -> Any:
    """Return a 3-D scalar image from a file."""
    if path.name.lower().endswith((".nii", ".nii.gz")):
        check_nifti(path)
    try:
        image = sitk().ReadImage(str(path))
    except RuntimeError as error:
        why = " ".join(str(error).split())
        raise ExtractionError(
            "the volume cannot be read",
            where=str(path),
            why=why[-300:],
            cure="write the file again; axes must be orthogonal",
        ) from error
    if image.GetDimension() == 4 and image.GetSize()[3] == 1:
        image = image[:, :, :, 0]
    if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1:
        shape = "x".join(str(n) for n in image.GetSize())
        raise ExtractionError(
            "the file is not one 3-D volume",
            where=str(path),
            why=f"it is {shape} with {image.GetNumberOfComponentsPerPixel()} value(s) a voxel",
            cure="write one volume per file: choose the time point, echo or channel",
        )
    return sitk().Cast(image, pixel_type)


def _read_label_map(path: Path, reference: Volume, label: int | None) -> Mask:
    if not is_image_file(path):
        raise ExtractionError(
            "the file is no mask that can be read",
            where=str(path),
            why=f"it is no DICOM, and label maps end in {', '.join(_IMAGE_SUFFIXES)}",
            cure="name a label map, a structure set (RTSTRUCT) or a segmentation (SEG)",
        )
    image = _load(path, sitk().sitkFloat64)
    distance = grid_distance(reference.image, image)
    if distance > GRID_TOLERANCE:
        mine, theirs = reference.image.GetSize(), image.GetSize()
        why = (
            f"shapes are {mine} and {theirs}"
            if mine != theirs
            else (f"shapes agree, but corners lie up to {distance:.2f} voxels apart")
        )
        raise ExtractionError(
            "image and mask have different grids",
            where=f"{path} against {reference.source}",
            why=why,
            cure="write the mask on the grid of its own volume; a label map is never resampled",
            code=ErrorCode.IMAGE_MASK_MISMATCH,
        )
    values = sitk().GetArrayViewFromImage(image)
    if not np.isfinite(values).all():
        raise ExtractionError(
            "the mask holds NaN or infinite values", where=str(path), cure="write 0 and 1"
        )
    array = values >= 0.5 if label is None else values == label
    name = "any" if label is None else f"label {label}"
    return make_mask(np.asarray(array), reference, path, roi=name)
