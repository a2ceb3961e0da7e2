from pathlib import Path
from typing import Any

import contourpy
import numpy as np
import pydicom
import pytest
from matplotlib.path import Path as Outline

from client.extract.volumes.volume import Volume
from client.extract.volumes.volume_reader import read_mask, read_volume
from common.errors import ErrorCode, ExtractionError

sitk = pytest.importorskip("SimpleITK")

SERIES, FRAME = "1.2.826.0.1.3680043.8.498.8", "1.2.826.0.1.3680043.8.498.9"


@pytest.fixture
def scan(tmp_path: Path, radiology: Any, phantom: Any) -> Volume:
    radiology.write_series(tmp_path / "scan", phantom.image, series_uid=SERIES, frame_uid=FRAME)
    return read_volume(tmp_path / "scan")


def contours(path: Path, radiology: Any, mask: sitk.Image, **arguments: Any) -> Path:
    given = {"series_uid": SERIES, "frame_uid": FRAME, **arguments}
    radiology.write_rtstruct(path, mask, **given)
    return path


def dice(first: np.ndarray, second: np.ndarray) -> float:
    return float(2 * (first & second).sum() / (first.sum() + second.sum()))


def test_outlines_of_a_mask_give_the_mask_back(
    tmp_path: Path, scan: Volume, radiology: Any, phantom: Any
) -> None:
    """Oblique planes, a cavity inside the tumour, two pieces on some slices."""
    mask = read_mask(contours(tmp_path / "rs.dcm", radiology, phantom.mask), scan)
    assert (mask.array == phantom.region).all()
    assert mask.volume_ml == pytest.approx(phantom.volume_ml, rel=1e-6)
    assert mask.roi == "GTV-1"


def test_label_map_of_the_same_scan_may_be_the_reference(
    tmp_path: Path, radiology: Any, phantom: Any
) -> None:
    """A NIfTI volume knows no frame of reference; contours still land on it."""
    sitk.WriteImage(phantom.image, str(tmp_path / "scan.nii.gz"))
    volume = read_volume(tmp_path / "scan.nii.gz")
    mask = read_mask(contours(tmp_path / "rs.dcm", radiology, phantom.mask), volume)
    assert dice(mask.array, phantom.region) > 0.999


@pytest.mark.parametrize(
    ("spacing", "angles"),
    [((1.0, 1.0, 1.0), (11.0, -17.0, 23.0)), ((1.5, 1.5, 2.0), (0, 0, 0)), ((1, 1, 6), (0, 0, 0))],
)
def test_volume_cut_otherwise_than_the_contours(
    tmp_path: Path, radiology: Any, phantom: Any, spacing: Any, angles: Any
) -> None:
    """Thinner slices, other planes, thicker slices: filled on the contours' own planes."""
    size = [int(np.ceil(90 / s)) for s in spacing]
    grid = radiology.make_phantom(tuple(size[::-1]), spacing, angles).image
    centre = phantom.image.TransformContinuousIndexToPhysicalPoint((24, 20, 8))
    middle = grid.TransformContinuousIndexToPhysicalPoint([(n - 1) / 2 for n in size])
    grid.SetOrigin(
        [o + c - m + 0.2 for o, c, m in zip(grid.GetOrigin(), centre, middle, strict=True)]
    )
    mask = read_mask(contours(tmp_path / "rs.dcm", radiology, phantom.mask), Volume(grid, tmp_path))
    assert dice(mask.array, inside_outlines(grid, phantom)) > 0.985
    assert mask.volume_ml == pytest.approx(phantom.volume_ml, rel=0.03)


def inside_outlines(grid: sitk.Image, phantom: Any) -> np.ndarray:
    """Each voxel centre against the outlines of its nearest slice, by Matplotlib's path test."""
    size = grid.GetSize()
    k, j, i = np.meshgrid(*(np.arange(n) for n in size[::-1]), indexing="ij")
    step = np.array(grid.GetDirection()).reshape(3, 3) * np.array(grid.GetSpacing())
    points = np.stack([i, j, k], axis=-1).reshape(-1, 3) @ step.T + grid.GetOrigin()
    frame = np.array(phantom.mask.GetDirection()).reshape(3, 3)
    index = (points - phantom.mask.GetOrigin()) @ frame / phantom.mask.GetSpacing()
    inside = np.zeros(len(points), bool)
    for number, plane in enumerate(phantom.region):
        here = np.flatnonzero(np.round(index[:, 2]) == number)
        padded = np.pad(plane.astype(float), 1)
        for line in contourpy.contour_generator(z=padded).lines(0.5):
            inside[here] ^= Outline(line - 1).contains_points(index[here, :2])
    return inside.reshape(size[::-1])


def test_regions_are_chosen_by_name_never_guessed(
    tmp_path: Path, scan: Volume, radiology: Any, phantom: Any
) -> None:
    inner = sitk.BinaryErode(phantom.mask, [2, 2, 1])
    path = contours(
        tmp_path / "rs.dcm", radiology, phantom.mask, name="GTV_Edema", more={"GTV_Mass": inner}
    )
    with pytest.raises(ExtractionError, match="2 regions match"):
        read_mask(path, scan)
    with pytest.raises(ExtractionError, match="GTV_Edema, GTV_Mass"):
        read_mask(path, scan, roi="Tumour")
    one = read_mask(path, scan, roi="gtv_mass")
    both = read_mask(path, scan, roi="GTV_.*")
    assert (one.array == (sitk.GetArrayFromImage(inner) > 0)).all()
    assert (both.array == phantom.region).all()
    assert both.roi == "GTV_Edema+GTV_Mass"


def test_other_frame_of_reference(
    tmp_path: Path, scan: Volume, radiology: Any, phantom: Any
) -> None:
    path = contours(tmp_path / "rs.dcm", radiology, phantom.mask, frame_uid=FRAME + ".1")
    with pytest.raises(ExtractionError) as error:
        read_mask(path, scan)
    assert error.value.code == ErrorCode.IMAGE_MASK_MISMATCH


def test_volume_that_was_cut(tmp_path: Path, radiology: Any, phantom: Any) -> None:
    path = contours(tmp_path / "rs.dcm", radiology, phantom.mask)
    half = Volume(sitk.Cast(phantom.image[:, :, :8], sitk.sitkFloat32), tmp_path)
    with pytest.raises(ExtractionError, match="lies outside") as error:
        read_mask(path, half)
    assert error.value.code == ErrorCode.IMAGE_MASK_MISMATCH
    mask = read_mask(path, half, max_outside=1.0)
    assert (mask.array == phantom.region[:8]).all()
    areas = phantom.region.sum(axis=(1, 2))
    assert mask.outside_fraction == pytest.approx(areas[8:].sum() / areas.sum(), abs=0.06)


def test_damaged_structure_sets(tmp_path: Path, scan: Volume, radiology: Any, phantom: Any) -> None:
    path = contours(tmp_path / "rs.dcm", radiology, phantom.mask)
    dataset = pydicom.dcmread(path)
    for contour in dataset.ROIContourSequence[0].ContourSequence:
        contour.ContourGeometricType = "OPEN_PLANAR"
    dataset.save_as(path, enforce_file_format=True)
    with pytest.raises(ExtractionError, match="no closed contour"):
        read_mask(path, scan)
    path.write_bytes(b"no dicom at all")
    with pytest.raises(ExtractionError, match="cannot be read"):
        read_mask(path, scan)
